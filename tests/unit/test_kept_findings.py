"""A notebook judges once and writes what it found; whoever folds the run believes it only of the files that stand there."""

from __future__ import annotations

import json
from pathlib import Path

from gatebook.commands.verify import verify
from gatebook.record.run import Run
from gatebook.runner import report
from gatebook.verdict.findings import judge_notebook
from gatebook.verdict.judging import judge
from gatebook.verdict.kept import keep_findings, kept_findings

from tests.unit.replies import record
from tests.unit.runs import answered, bundle


def forge(run: Run) -> None:
    """Turn every finding of the file into a pass."""
    file = run.findings_file("01_x")
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert any(found["outcome"] == "fail" for found in kept["findings"])
    for found in kept["findings"]:
        found["outcome"] = "pass"
    file.write_text(json.dumps(kept), encoding="utf-8")


def test_what_is_kept_is_what_was_found_and_gives_the_same_bytes(tmp_path: Path) -> None:
    run = answered(tmp_path / "r", {"m": "nothing", "c1": None})
    keep_findings(run, "01_x")
    assert kept_findings(run, "01_x") == judge_notebook(run, "01_x")
    for notebook in (None, "01_x"):
        assert judge(run, notebook, kept=True).model_dump_json() == judge(run, notebook).model_dump_json()


def test_files_that_changed_since_are_judged_again(tmp_path: Path) -> None:
    run = answered(tmp_path / "r", {"m": "nothing"})
    keep_findings(run, "01_x")
    forge(run)
    assert judge(run, kept=True).verdict != judge(run).verdict, "it is believed as long as nothing changed"
    record(run, "01_x")  # nothing more was said
    manifest = run.path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert judge(run, kept=True) == judge(run)


def test_what_cannot_be_read_is_judged_again(tmp_path: Path) -> None:
    run = answered(tmp_path / "r", {"m": "nothing"})
    for text in ("", "[]", "{}", '{"evidence": "", "findings": []}', "\0"):
        run.findings_file("01_x").write_text(text, encoding="utf-8")
        assert judge(run, kept=True).verdict == "FAIL"


def test_verify_believes_no_findings(tmp_path: Path) -> None:
    run = bundle(tmp_path / "r", {"m": "nothing"})
    keep_findings(run, "01_x")
    report(run, judge(run))
    [step] = [one for one in verify(run.path, replay=False).steps if one.what.startswith("verdicts")]
    assert step.wrong is None
    forge(run)
    report(run, judge(run))
    [step] = [one for one in verify(run.path, replay=False).steps if one.what.startswith("verdicts")]
    assert step.wrong and "is not what" in step.wrong
