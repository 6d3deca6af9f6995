"""Commands that are forked from one process: as those of a Python of their own, and never green where anything of it breaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from gatebook.errors import ExitCode
from gatebook.fleet import work
from gatebook.forks import Forker, forker

from tests.conftest import ROOT, Project
from tests.faults.scripted import ScriptedServer

SERVE = ["serve"]
"""Runs until it is stopped."""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forker]:
    with forker("commands") as found:
        yield found


class Stopped(Exception):
    pass


def run(forks: Forker, folder: Path, *words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    out, err = folder / "out", folder / "err"
    status = forks.command(words, ROOT, {**os.environ, **(env or {})}, out, err, lambda: None)
    return status, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words", [["--help"], ["nonsense"], ["run", "--profile", "params/nothing.yaml"], ["verify", "outputs/nothing"]]
)
def test_a_command_says_and_ends_as_in_a_python_of_its_own(forks: Forker, tmp_path: Path, words: list[str]) -> None:
    alone = subprocess.run([sys.executable, "-m", "gatebook", *words], cwd=ROOT, capture_output=True, encoding="utf-8")
    said = tuple(text.replace("python -m gatebook", "gatebook") for text in (alone.stdout, alone.stderr))
    assert run(forks, tmp_path, *words) == (alone.returncode, *said)


def test_each_has_its_own_folder_environment_and_modules(forks: Forker, tmp_path: Path) -> None:
    (tmp_path / "params" / "cases").mkdir(parents=True)
    _, out, err = run(forks, tmp_path, "doctor", env={"GATEBOOK_ROOT": str(tmp_path)})
    assert str(tmp_path) in out, out + err
    _, out, err = run(forks, tmp_path, "doctor")
    assert str(tmp_path) not in out and str(ROOT) in out, out + err


def test_the_kernels_of_a_forked_run_are_forked_too(forks: Forker, project: Project, tmp_path: Path) -> None:
    """Else each run imports everything for its kernels, which is what forking is for."""
    seen: set[tuple[str, str]] = set()

    def look() -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                seen.add((process.name(), " ".join(process.cmdline()[-1:])))

    project.choose("model-served")
    words, out, err = (
        ["run", "--profile", str(project.profile), "--only", "01_health"],
        tmp_path / "out",
        tmp_path / "err",
    )
    with ScriptedServer("smollm2-135m-instruct", answer_s=0.2) as server:
        words += ["--base-url", f"{server.url}/v1"]
        forks.command(words, project.root, project.environment, out, err, look, tick_s=0.01)
    assert {name for name, _ in seen} >= {"gatebook run", "gatebook kernel"}, err.read_text(encoding="utf-8")
    assert ("python", "kernels") not in seen, "a process that imports everything once more"


def _served(forks: Forker, folder: Path, then: int | None) -> tuple[int, list[int]]:
    """(status, the processes that were there) of a command that goes on until `then` happens to it; None: nobody waits any more."""
    seen: list[int] = []
    deadline = time.monotonic() + 60

    def tick() -> None:
        assert time.monotonic() < deadline
        own = [p for p in psutil.Process().children(recursive=True) if p.name() == "gatebook serve"]
        if own and "http" in (folder / "out").read_text(encoding="utf-8") and not seen:
            seen.extend(p.pid for p in own)
            if then is None:
                raise Stopped
            own[0].send_signal(then)

    status = forks.command(SERVE, ROOT, os.environ, folder / "out", folder / "err", tick)
    return status, seen


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_ends_a_command_as_ever(forks: Forker, tmp_path: Path, number: int, status: int) -> None:
    assert _served(forks, tmp_path, number)[0] == status


def test_what_a_tick_raises_ends_the_command(forks: Forker, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        _served(forks, tmp_path, None)
    assert not [p for p in psutil.Process().children(recursive=True) if p.name() == "gatebook serve"]
    assert run(forks, tmp_path, "--help")[0] == 0, "and the next one can be asked for"


def _killed(own: list[psutil.Process]) -> None:
    for process in own:
        process.kill()
        process.wait(10)


def test_a_process_that_forks_and_is_killed_is_no_green(tmp_path: Path) -> None:
    """Its command ends with it; a fleet's worker says ERROR, and starts another one for the next deployment."""
    before = {p.pid for p in psutil.Process().children()}
    with ExitStack() as stack:
        found = stack.enter_context(forker("commands"))
        own = [p for p in psutil.Process().children() if p.pid not in before]
        seen: list[psutil.Process] = []

        def kill() -> None:
            if not seen and "http" in (tmp_path / "out").read_text(encoding="utf-8"):
                seen.extend(p for p in own[0].children(recursive=True) if p.name() == "gatebook serve")
                _killed(own)

        with pytest.raises(RuntimeError, match="the process that forks is gone"):
            found.command(SERVE, ROOT, os.environ, tmp_path / "out", tmp_path / "err", kill)
        assert seen and found.gone
        psutil.wait_procs(seen, 10)
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in seen)


def test_a_worker_replaces_what_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_kept", [])
    before = {p.pid for p in psutil.Process().children()}
    assert work._child(["--help"], tmp_path, lambda: None)[0] == 0
    own = [p for p in psutil.Process().children() if p.pid not in before]
    assert work._child(["run", "--profile", "nothing.yaml"], tmp_path, lambda: _killed(own))[0] in (2, ExitCode.ERROR)
    _killed([p for p in own if p.is_running()])
    code, said = work._child(["nonsense"], tmp_path, lambda: None)
    assert code == 2 and "No such command" in said
    work._kept.pop()[1].close()
