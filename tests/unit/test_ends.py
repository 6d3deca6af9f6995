"""Whatever lies in a run folder, and whatever the disk does, a command ends in a verdict or in one line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gatebook import cli
from gatebook.errors import CannotMeasure, GatebookError, first_line, os_reason
from gatebook.record.journal import _digest
from gatebook.record.run import Run
from gatebook.record.shelf import run_folders
from gatebook.verdict.judging import judge

from tests.conftest import ROOT
from tests.unit.runs import answered, bundle

DEEP = "[" * 100_000 + "]" * 100_000


def _gatebook(*arguments: str | Path, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    def full() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "gatebook", *map(str, arguments)], capture_output=True, text=True, timeout=120, preexec_fn=full
    )  # fmt: skip


def _rewritten(run: Path, change: Callable[[dict], None]) -> None:
    """Every exchange of the record changed, and the chain made again as a forger would."""
    file = run / "01_x.exchanges.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    prev = lines[0]["prev"]
    for line in lines:
        change(line["exchange"])
        line["prev"], line["hash"] = prev, _digest(prev, line["exchange"])
        prev = line["hash"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _time(exchange: dict) -> None:
    for attempt in exchange.get("attempts", []):
        attempt["at"] = "tomorrow"
    exchange["at"] = "tomorrow"


HARM: dict[str, Callable[[Path], object]] = {
    "a time that is none": lambda run: _rewritten(run, _time),
    "a case that is not asked": lambda run: _rewritten(run, lambda e: e.update(case="nobody")),
    "a metric without a name": lambda run: (run / "01_x.gauges.jsonl").write_text('{"ms": 1, "source": "nvml"}\n'),
    "a line of JSON without end": lambda run: (run / "01_x.exchanges.jsonl").write_text(DEEP + "\n"),
    "cases without end": lambda run: (run / "cases.json").write_text(DEEP),
    "a byte order mark": lambda run: (run / "manifest.json").write_bytes(b"\xef\xbb\xbf" + (run / "manifest.json").read_bytes()),
    "a verdict with a byte order mark": lambda run: (run / "verdict.json").write_bytes(b"\xef\xbb\xbf{}"),
    "a notebook without end": lambda run: (run / "01_x.ipynb").write_text(DEEP),
    "a folder for a record": lambda run: ((run / "01_x.exchanges.jsonl").unlink(), (run / "01_x.exchanges.jsonl").mkdir()),
    "a folder for a baseline": lambda run: ((run / "baseline.json").unlink(), (run / "baseline.json").mkdir()),
    "a folder for a verdict": lambda run: ((run / "verdict.json").unlink(), (run / "verdict.json").mkdir()),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("command", [("passed", "--suite", "smoke"), ("report",)], ids=lambda c: c[0])
def test_a_forged_folder_is_one_line_and_no_yes(
    tmp_path: Path,
    harm: str,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command without its signal handlers, which belong to a process."""
    run = bundle(tmp_path / "run-1").path
    HARM[harm](run)
    with contextlib.suppress(GatebookError):
        Run(run).seal()
    monkeypatch.setattr(sys, "argv", ["gatebook", command[0], str(run), *command[1:]])
    code, said = cli.command(), capsys.readouterr().err.strip().splitlines()
    assert code in (2, 75) and len(said) == 1 and said[0].startswith("gatebook: "), said


@pytest.mark.parametrize("harm", HARM)
def test_judging_raises_nothing_of_its_own(tmp_path: Path, harm: str) -> None:
    run = bundle(tmp_path / "run-1").path
    HARM[harm](run)
    with contextlib.suppress(GatebookError):  # some of it is nothing that judging reads
        assert judge(Run(run)).verdict != "PASS"


def test_half_a_plan_is_taken_away(tmp_path: Path) -> None:  # fmt: skip
    run = answered(tmp_path / "run-1", {})
    script = """
import json, resource, sys
from pathlib import Path
from gatebook.errors import CannotMeasure
from gatebook.record.manifest import Manifest
from gatebook.record.run import Run
manifest = Manifest.model_validate_json(Path(sys.argv[1], "manifest.json").read_bytes())
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    Run.create(Path(sys.argv[1]).with_name("run-2"), manifest, [], b"{}")
except CannotMeasure as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(run.path)], capture_output=True, text=True)
    assert "run-2: cannot be written (File too large), so nothing was asked; free space" in done.stdout, done
    assert [p.name for p in tmp_path.iterdir()] == ["run-1"]


def test_a_command_killed_while_it_writes_the_plan_leaves_no_run(tmp_path: Path) -> None:
    """Nothing can tidy up after SIGKILL, here just before the last file of the plan is put in its place."""
    run = answered(tmp_path / "run-1", {})
    script = """
import os, signal, sys
from pathlib import Path
from gatebook.record.manifest import Manifest
from gatebook.record.run import Run
manifest = Manifest.model_validate_json(Path(sys.argv[1], "manifest.json").read_bytes())
def kill(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("manifest.json"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
Run.create(Path(sys.argv[1]).with_name("run-2"), manifest, [], b"{}")
"""
    done = subprocess.run([sys.executable, "-c", script, str(run.path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["run-1"]
    assert any(tmp_path.glob(".*/cases.json")) and run_folders(tmp_path) == [run.path]


def test_reports_that_the_disk_does_not_take_leave_a_run_that_is_reported_later(tmp_path: Path) -> None:
    run = answered(tmp_path / "run-1", {})
    done = _gatebook("report", run.path, limit=5000)
    assert done.returncode == 75 and "cannot write the reports (File too large); free space and resume" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not run.sealed
    assert not [p for p in run.path.iterdir() if p.name.startswith(".")], "nothing half-written"
    assert _gatebook("report", run.path).returncode in (1, 3, 75) and run.sealed and run.damage() == []


def test_troubles_that_cannot_be_written_leave_none_and_torn_ones_are_no_list(tmp_path: Path) -> None:
    run = answered(tmp_path / "run-1", {})
    (run.path / "troubles.json").write_text('["its kernel di')
    with pytest.raises(GatebookError, match="is no list of texts"):
        _ = run.troubles
    run.note_troubles(["a", "b"])
    assert run.troubles == ["a", "b"]
    run.note_troubles([])
    assert run.troubles == [] and not (run.path / "troubles.json").exists()
    (run.path / "troubles.json").mkdir()
    with pytest.raises(CannotMeasure, match=r"troubles.json: cannot write \(Is a directory\)"):
        run.note_troubles(["a"])


def test_the_system_always_says_something(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "link").symlink_to("nowhere")
    with pytest.raises(
        shutil.Error
    ) as copied:  # what a copy says when there are no inodes left: many reasons, no strerror
        shutil.copytree(tmp_path / "from", tmp_path / "to")
    assert copied.value.strerror is None and "No such file or directory" in os_reason(copied.value)
    assert os_reason(OSError(28, "No space left on device")) == "No space left on device"
    assert (os_reason(OSError()), first_line(ValueError())) == ("OSError", "ValueError")


@pytest.mark.parametrize(
    ("error", "todo"),
    [
        (IsADirectoryError(errno.EISDIR, "Is a directory", "run/server.log"), "move it away"),
        (OSError(errno.ENOSPC, "No space left on device", "run/server.log"), "free space, or name a place"),
    ],
)
def test_what_the_system_refuses_is_told_with_what_helps(error: OSError, todo: str) -> None:
    code, said = cli._describe(error)
    assert code == 75 and said.startswith(f"gatebook: run/server.log: {error.strerror}; {todo}"), said


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--plan", "--profile", "params/smollm2.yaml")])
def test_output_that_nobody_reads_is_no_success(arguments: tuple[str, ...]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "gatebook", *arguments], stdout=gone, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    assert (done.returncode, done.stderr) == (75, "gatebook: nobody reads what is printed\n")
