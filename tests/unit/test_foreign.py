"""Bundles that somebody else wrote: whoever judges one comes to an end, and reads no more of it than a run writes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from gatebook.commands.compare import recorded
from gatebook.commands.verify import verify
from gatebook.entering import judge_intact
from gatebook.errors import BrokenRecord
from gatebook.record.journal import MAX_VALUES
from gatebook.record.run import Run
from gatebook.report.archive import archive
from gatebook.verdict import judging

from tests.unit.replies import case
from tests.unit.runs import bundle


def _endless(run: Run, notebook: str) -> list[object]:
    """As a pattern does that somebody else wrote."""
    time.sleep(30)
    return []


def test_every_command_that_judges_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = [bundle(tmp_path / "outputs" / name).path for name in ("one", "two")]
    monkeypatch.setattr(judging, "JUDGE_S", 0.2)
    monkeypatch.setattr(judging, "CASE_S", 0.0)
    monkeypatch.setattr(judging, "judge_notebook", _endless)
    began = time.monotonic()
    with pytest.raises(BrokenRecord, match="took longer than 0.2 s"):  # history enter, accept
        judge_intact(runs[0], "only an intact run")
    with pytest.raises(BrokenRecord, match="took longer than 0.2 s"):  # compare
        recorded(str(runs[0]), str(runs[1]))
    said = archive(tmp_path / "outputs", tmp_path / "site")
    assert [line for line in said if line.startswith("DAMAGED: one: ") and "took longer than 0.2 s" in line]
    assert time.monotonic() - began < 20


def test_so_does_reading_the_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = bundle(tmp_path / "one").path
    monkeypatch.setattr(judging, "JUDGE_S", 0.2)
    monkeypatch.setattr(judging, "CASE_S", 0.0)
    monkeypatch.setattr(Run, "record_files", _endless)
    records = verify(path, replay=False).steps[1]
    assert records.wrong == "reading its records took longer than 0.2 s"


SMALL = """
import sys
from pathlib import Path
from gatebook.commands.verify import verify
from gatebook.entering import judge_intact
from gatebook.errors import BrokenRecord
from gatebook.report.archive import archive
from gatebook.verdict import judging
judging.JUDGE_MIB = 8
run = Path(sys.argv[1]) / "outputs" / "one"
try:
    judge_intact(run, "only an intact run")
except BrokenRecord as error:
    print(error)
print(verify(run, replay=False).steps[3].wrong)
print(*archive(run.parent, run.parent.parent / "site"), sep=";")
"""
"""Every command that judges, in a process of its own: one that has judged before has memory to spare."""


def test_every_command_that_judges_has_a_limit_of_memory(tmp_path: Path) -> None:
    """A pattern that takes 28 MiB over half a million characters."""
    cases = [case("m", group="g.must", finish="any", expect=[{"regex": "(?:ab|c)*d"}])]
    bundle(tmp_path / "outputs" / "one", {"m": "ab" * 250_000 + "d"}, cases=cases)
    done = subprocess.run([sys.executable, "-c", SMALL, tmp_path], capture_output=True, text=True)
    wrong = "judging it, by patterns of its own cases, took more than 8 MiB of memory, or than there is"
    assert [wrong in line for line in done.stdout.splitlines()] == [True] * 3, done.stderr


@pytest.mark.parametrize("name", ["cases.json", "manifest.json", "verdict.json", "01_x.ipynb", "x.json"])
def test_a_file_of_more_values_than_a_run_writes_is_not_parsed(tmp_path: Path, name: str) -> None:
    run = bundle(tmp_path / "outputs" / "one").path
    (run / name).write_text(f"[{'{},' * (MAX_VALUES // 2)}{{}}]", encoding="utf-8")
    with pytest.raises(BrokenRecord, match="has more than 8,000,000 values"):
        Run(run)


def test_so_is_a_line_of_a_record(tmp_path: Path) -> None:
    run = bundle(tmp_path / "outputs" / "one")
    with run.record_file("01_x").open("a", encoding="utf-8") as file:
        file.write(f'{{"exchange": [{"{}," * (MAX_VALUES // 2)}{{}}]}}\n')
    with pytest.raises(BrokenRecord, match="the record was edited or damaged"):
        run.exchanges("01_x")
