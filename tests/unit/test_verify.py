"""What a verification tells: the facts, the steps with what was counted, and the seal; as text and as a page."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from gatebook.commands.verify import verify
from gatebook.record.run import Run
from gatebook.report.pages import verification_page
from gatebook.report.terminal import show_verification
from gatebook.verdict.verdict import Step, Verification

from tests.unit.runs import bundle


@pytest.fixture
def found(tmp_path: Path) -> Verification:
    """Of a bundle whose notebooks never ran: everything else fits."""
    return verify(bundle(tmp_path / "run-1", asked_by="Li Wei <li@example.org>", job_url="https://ci/1").path)


def test_each_step_says_how_much_it_looked_at(found: Verification) -> None:
    checksums, records, notebooks, verdicts, nbval = found.steps
    assert checksums.wrong is None and " files, " in checksums.done
    assert records.wrong is None and records.done.startswith("11 exchanges in 1 records, from cases.json ")
    assert notebooks.wrong and "there is no executed notebook" in notebooks.wrong
    assert verdicts.wrong is None and verdicts.done == "2 verdicts from 21 findings on 10 cases in 4 groups"
    assert nbval.wrong == "01_x.ipynb is missing"
    assert not found.reproduced and found.line.startswith("NOT REPRODUCED: run-1")


def test_the_seal_stands_for_the_bundle(found: Verification, tmp_path: Path) -> None:
    assert found.seal == hashlib.sha256((tmp_path / "run-1" / "SHA256SUMS").read_bytes()).hexdigest()
    (tmp_path / "run-1" / "more.txt").write_text("x")
    Run(tmp_path / "run-1").seal()
    assert verify(tmp_path / "run-1").seal != found.seal


def test_who_asked_what_of_whom_stands_in_both(found: Verification, capsys: Any) -> None:
    show_verification(found)
    told, page = capsys.readouterr().out, verification_page(found)
    for text in ("http://gpu-box:8000/v1", "m1, revision none named", "https://ci/1", str(found.seal)):
        assert text in told and text in page
    assert "asked by   Li Wei <li@example.org>" in told and "Li Wei &lt;li@example.org&gt;" in page
    assert told.splitlines()[-1] == found.line
    assert "ok    checksums" in told and "WRONG notebooks" in told
    assert "NOT REPRODUCED" in page and 'class="verdict ERROR"' in page and "<script" not in page


def test_a_reproduced_red_run_is_told_as_red(found: Verification) -> None:
    found.steps = [Step("all", "everything", None)]
    assert found.reproduced and found.line.startswith("reproduced, INCONCLUSIVE")
    page = verification_page(found)
    assert 'class="verdict INCONCLUSIVE"' in page and "Reproduced, INCONCLUSIVE" in page


def test_a_plan_that_cannot_be_read_is_one_step(tmp_path: Path) -> None:
    path = bundle(tmp_path / "run-1").path
    (path / "manifest.json").write_text("{")
    found = verify(path)
    assert [step.what for step in found.steps] == ["plan"] and not found.reproduced
    assert "NOT REPRODUCED" in verification_page(found)


def test_folders_in_which_nothing_is_sealed_are_named(tmp_path: Path, capsys: Any) -> None:
    run = bundle(tmp_path / "run-1").path
    for name in (".ipynb_checkpoints", "texts/__pycache__"):
        (run / name).mkdir(parents=True)
        (run / name / "x.py").write_text("x", encoding="utf-8")
    found = verify(run)
    assert found.steps[0].wrong is None
    assert found.steps[0].done.endswith("; not sealed, no evidence: .ipynb_checkpoints, texts/__pycache__")
    show_verification(found)
    assert "not sealed, no evidence: .ipynb_checkpoints" in capsys.readouterr().out
