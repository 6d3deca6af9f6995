"""The lock of a run folder: one holder, whom a second one is told, and who leaves nothing behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from gatebook.errors import BadInput, CannotMeasure
from gatebook.record.shelf import held

HOLD = """
import sys
from pathlib import Path
from gatebook.record.shelf import held
with held(Path(sys.argv[1]), "gatebook run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "2026-run"
    folder.mkdir()
    return folder


def _holder(run: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_a_second_one_is_told_who_holds_it_and_since_when(run: Path) -> None:
    with _holder(run) as process:
        said = rf"2026-run: is in use by gatebook run of .* \(process {process.pid} on .*, since 20\d\d-.*T.*\); wait for it"
        with pytest.raises(BadInput, match=said), held(run, "gatebook run --resume"):
            pytest.fail("two at a time")
        process.communicate("")
    with held(run, "gatebook run --resume"):
        pass
    assert [p.name for p in run.parent.iterdir()] == [run.name] and not list(run.iterdir())


def test_a_killed_holder_blocks_nobody(run: Path) -> None:
    with _holder(run) as process:
        process.kill()
        process.communicate()
    assert (run.parent / ".2026-run.lock").exists(), "nobody took it away"
    with held(run, "gatebook run --resume"):
        pass
    assert not (run.parent / ".2026-run.lock").exists()


def test_of_many_there_is_one_at_a_time(run: Path) -> None:
    inside, most, refused = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, refused
        for _ in range(20):
            try:
                with held(run, "a test"):
                    inside += 1
                    most = max(most, inside)
                    inside -= 1
            except BadInput:
                refused += 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside) == (1, 0)


def test_two_names_of_a_folder_are_one_folder(run: Path) -> None:
    (run.parent / "link").symlink_to(run)
    with held(run.parent / "link", "a test"), pytest.raises(BadInput), held(run, "a test"):
        pytest.fail("two at a time")


def test_a_link_in_its_place_is_not_written_through(run: Path) -> None:
    other = run.parent / "thesis"
    other.write_text("years of work")
    (run.parent / ".2026-run.lock").symlink_to(other)
    with pytest.raises(BadInput, match=r"cannot be written \(Too many levels"), held(run, "a test"):
        pytest.fail("followed")
    assert other.read_text() == "years of work"


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, CannotMeasure), (errno.EACCES, BadInput)])
def test_a_full_disk_is_worth_another_try_and_a_locked_folder_is_not(
    run: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind, match="cannot be written"), held(run, "gatebook run"):
        pass
