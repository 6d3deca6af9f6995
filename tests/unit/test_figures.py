"""A run without its texts: nothing that was asked or answered is left, and nobody takes it for evidence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from gatebook.commands.again import figures_again
from gatebook.commands.passed import passed
from gatebook.errors import BadInput
from gatebook.record.run import Run
from gatebook.report.archive import archive
from gatebook.report.figures import bare, publish
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Verdict

from tests.leaks import leaks
from tests.unit.runs import bundle, hellos

ANSWER = "The moon is made of a green and very old cheese, whatever people say"
PROMPT = "Would you kindly tell me in one sentence what the moon is made of?"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A red run whose reasons quote the answers."""
    cases = hellos(messages=[{"role": "user", "content": PROMPT}], expect=[{"json_schema": {"type": "object"}}])
    return bundle(tmp_path / "outputs" / "run-1", {c.id: ANSWER for c in cases}, cases=cases)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_report_holds_no_text_and_the_bundle_stays(run: Run, tmp_path: Path) -> None:
    before, out = tree(run.path), tmp_path / "figures"
    assert leaks(run, run.path), "the bundle itself has them, so the search finds what is there"
    told, page_at = bare(judge(run)), publish(run, judge(run), out)
    assert tree(run.path) == before
    assert sorted(tree(out)) == ["NO_TEXTS", "index.html", "junit.xml", "metrics.txt", "summary.md", "verdict.json"]
    assert leaks(run, out, told.model_dump_json()) == {}
    assert (told.exit_code, told.reason) == (1, "g.must: 0 of 1 pass, 1 fail") and page_at == out / "index.html"
    Verdict.model_validate_json((out / "verdict.json").read_bytes())
    page = (out / "index.html").read_text()
    assert "What blocks" in page and "g.must" in page and "exchanges.jsonl" not in page
    assert {*re.findall(r'href="(.*?)"', page)} == {"summary.md", "verdict.json", "junit.xml", "metrics.txt"}
    publish(run, judge(run), out)  # once more, into the same folder


def test_figures_of_a_verdict_are_names_and_numbers(run: Run) -> None:
    full = judge(run)
    told = bare(full)
    assert [(f.id, f.outcome) for f in told.findings] == [(f.id, f.outcome) for f in full.findings]
    assert {f.reason for f in told.findings if f.check == "json_schema"} == {"json_schema: fail"}
    assert (told.verdict, told.exit_code, told.groups[0].comparison) == (
        full.verdict,
        full.exit_code,
        full.groups[0].comparison,
    )
    assert (
        told.fingerprint == {}
        and told.notes == []
        and all(isinstance(f.limit, int | float | None) for f in told.findings)
    )


def test_figures_are_no_evidence(run: Run, tmp_path: Path) -> None:
    publish(run, judge(run), tmp_path / "figures")
    with pytest.raises(BadInput, match="not a run folder"):
        passed(tmp_path / "figures", "full", None, None)


@pytest.mark.parametrize("place", ["run", "in the run", "a file", "other files"])
def test_no_folder_that_may_hold_texts_is_written_into(place: str, run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    out = {"run": run.path, "in the run": run.path / "new", "a file": other / "notes.txt", "other files": other}[place]
    before = tree(tmp_path)
    with pytest.raises(BadInput, match="name a"):
        figures_again(run.path, True, out)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("no_texts", "out"), [(True, None), (False, Path("x"))])
def test_one_option_without_the_other_is_refused(no_texts: bool, out: Path | None, run: Run) -> None:
    with pytest.raises(BadInput, match="go together"):
        figures_again(run.path, no_texts, out)


def rows(site: Path) -> dict[str, dict[str, Any]]:
    call = (site / "runs.js").read_text()
    return {row["key"]: row for row in json.loads(json.loads(call[call.index(", ") + 2 : call.rindex(")")]))}


def test_the_archive_without_texts(run: Run, tmp_path: Path) -> None:
    site, outputs = tmp_path / "public", run.path.parent
    assert archive(outputs, site, texts=False) == ["added run-1", f"{site / 'index.html'}: 1 runs"]
    assert leaks(run, site) == {}
    assert (
        rows(site)["run-1"]["state"] == "FAIL"
        and not list(site.rglob("*.jsonl"))
        and not list(site.rglob("manifest.json"))
    )
    assert (site / "runs" / "run-1" / "index.html").exists()
    before = (site / "data" / "run-1.js").stat().st_mtime_ns
    bundle(outputs / "run-2", created="2027-03-02T10:00:00+00:00")
    assert archive(outputs, site, texts=False)[0] == "added run-2"
    shutil.rmtree(outputs / "run-1")
    archive(outputs, site, texts=False)
    assert list(rows(site)) == ["run-2", "run-1"] and (site / "data" / "run-1.js").stat().st_mtime_ns == before, (
        "it stays"
    )


def test_a_damaged_bundle_is_never_shown_green_and_says_no_text(run: Run, tmp_path: Path) -> None:
    text = (run.path / "verdict.json").read_text()
    (run.path / "verdict.json").write_text(text.replace('"verdict": "FAIL"', '"verdict": "PASS"', 1))
    site = tmp_path / "public"
    archive(run.path, site, texts=False)
    assert rows(site)["run-1"]["state"] == "DAMAGED" and leaks(run, site) == {}
    run.seal()
    archive(run.path, site, texts=False)
    assert rows(site)["run-1"]["state"] == "DAMAGED", "its record says another verdict"
    assert leaks(run, site) == {} and not (site / "runs" / "run-1").exists()


def test_sites_with_and_without_texts_are_not_mixed(run: Run, tmp_path: Path) -> None:
    archive(run.path, tmp_path / "full")
    with pytest.raises(BadInput, match="holds runs with their texts; leave out --no-texts"):
        archive(run.path, tmp_path / "full", texts=False)
    archive(run.path, tmp_path / "bare", texts=False)
    with pytest.raises(BadInput, match="holds figures only; add --no-texts"):
        archive(run.path, tmp_path / "bare")
