"""What is told of a run: pages that hold against hostile answers, JUnit that is red whenever the verdict is not PASS, metrics."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from gatebook.record.run import Run
from gatebook.report.figures import metrics
from gatebook.report.junit import junit
from gatebook.report.pages import LARGEST_BYTES, index_page, notebook_page
from gatebook.report.summary import verdict_text
from gatebook.report.terminal import show
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Verdict
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.unit.replies import (
    baseline,
    case,
    chat_body,
    finding,
    plain,
    profile,
    ready,
    record,
    run_folder,
    verdict_of,
)

HOSTILE = (
    "</pre><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\x1b[31m\u202egpj.exe {{ 7*7 }} ]]>"
)
WANTS = [{"contains_any": ["Hello"]}]


def made(tmp_path: Path, answers: list[str], policy: str = "must", **fields: Any) -> tuple[Run, Verdict]:
    """A run of one notebook with these answers to as many cases; `Hello` passes."""
    cases = [case(f"c{n}", expect=WANTS, finish="any", **fields) for n in range(len(answers))]
    run = run_folder(tmp_path / "run", cases, profile({"g.h": policy}))
    record(run, "01_x", ready(), *(plain(chat_body(a, id=f"id-{n}"), key=f"c{n}/ask") for n, a in enumerate(answers)))
    return run, judge(run)


def test_a_hostile_answer_is_shown_as_text(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, [HOSTILE, "Hello"])
    for page in (notebook_page(run, "01_x", verdict), index_page(run, verdict, {"01_x": verdict})):
        assert "<script" not in page and "<img" not in page and "49" not in re.findall(r"\{\{.*?\}\}", page)
        assert "\x1b" not in page and "\u202e" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in notebook_page(run, "01_x", verdict)


def test_pages_are_self_contained_and_allow_nothing_from_outside(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, ["No.", "Hello"])
    for page in (notebook_page(run, "01_x", verdict), index_page(run, verdict, {"01_x": verdict})):
        assert "default-src 'none'" in page
        assert re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page) == []
        assert "@import" not in page and "url(" not in page


def test_the_verdict_stands_before_the_failing_case_and_that_before_the_rest(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, ["No.", "Hello"])
    page = notebook_page(run, "01_x", verdict)
    marks = ('class="verdict FAIL"', '<article class="case fails" id="c0"', "Groups</h2>", "Passed (")
    order = [page.index(mark) for mark in marks]
    assert order == sorted(order)
    assert "a test" in page and "No." in page, "why, and what was answered"
    assert 'href="01_x.html#c0"' in index_page(run, verdict, {"01_x": verdict})


def test_a_page_of_many_long_failures_stays_small(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, [f"{n} " + "长" * 6000 for n in range(150)])
    page = notebook_page(run, "01_x", verdict)
    assert len(page.encode()) <= LARGEST_BYTES
    assert 'more characters in <a href="texts/' in page
    assert "more stand in the table below" in page


def test_a_notebook_that_was_not_executed_is_said_to_be_missing(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, ["Hello"])
    assert "01_x.ipynb was not written" in notebook_page(run, "01_x", verdict)


@pytest.mark.parametrize(
    ("answers", "policy", "troubles", "word", "red"),
    [
        (["Hello", "Hello"], "must", [], "PASS", 0),
        (["No.", "Hello"], "watch", [], "PASS", 0),
        (["No.", "Hello"], "must", [], "FAIL", 1),
        (["No.", "No."], "must", [], "FAIL", 2),
        (["Hello"], "must", ["01_x: its kernel died"], "ERROR", 1),
        (["Hello"] * 12, "no_worse", [], "INCONCLUSIVE", 1),
    ],
)
def test_junit_is_red_exactly_when_the_verdict_is_not_pass(
    tmp_path: Path, answers: list[str], policy: str, troubles: list[str], word: str, red: int
) -> None:
    run, _ = made(tmp_path, answers, policy)
    verdict = judge(run, troubles=troubles)
    assert verdict.verdict == word
    root = ET.fromstring(junit(run, verdict, "outputs/latest"))
    assert len(root.findall(".//failure") + root.findall(".//error")) == red
    names = [(c.get("classname"), c.get("name")) for c in root.iter("testcase")]
    assert len(names) == len(set(names)), "GitLab counts only the first of two equal names"
    assert ("01_x", "c0") in names


def test_junit_says_why_in_the_text_and_attaches_the_page(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, [HOSTILE])
    red = next(
        c for c in ET.fromstring(junit(run, verdict, "outputs/latest")).iter("testcase") if c.get("name") == "c0"
    )
    text = red.findtext("failure") or ""
    assert "has none of Hello" in text and "<script>" in text and "\x1b" not in text
    assert "[[ATTACHMENT|outputs/latest/01_x.html]]" in (red.findtext("system-out") or "")


def test_metrics_are_openmetrics_and_leave_out_what_was_not_measured(tmp_path: Path) -> None:
    run, verdict = made(tmp_path, ["Hello", "No."])
    text = metrics(run, verdict)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert text.endswith("# EOF\n")
    assert families["gatebook_exit_code"].samples[0].value == 1
    assert {s.labels["outcome"]: s.value for s in families["gatebook_cases"].samples} == {
        "pass": 1,
        "fail": 1,
        "error": 0,
        "not_measured": 0,
    }
    assert "nan" not in text.lower()
    assert all(" " not in label for label in re.findall(r"\{.*?\}", text)), "GitLab splits at spaces"
    assert "gatebook_ttft_ms" not in families, "nothing was streamed"


def changed(tmp_path: Path, values: int) -> tuple[Run, Verdict]:
    """A run under the same revision whose first tokens all moved, with a case that fails because of it."""
    cases = [case("m", group="g.h")]
    prints = {f"logprobs.l{n:02}": {"times": 1, "rows": [{"x": -1.0, "y": -2.0}]} for n in range(values)}
    now = {name: {"times": 1, "rows": [{"x": -1.0, "y": -4.0}]} for name in prints}
    by = profile({"g.h": "must"})
    failed = finding("m", "fail", reason="no Hello")
    run = run_folder(tmp_path / "run", cases, by)
    return run, verdict_of([failed], cases, by, baseline({}, [], fingerprint=prints), fingerprint=now)


def test_the_reason_stands_before_three_of_the_values_that_moved(tmp_path: Path, capsys: Any) -> None:
    run, verdict = changed(tmp_path, 22)
    show(verdict, run)
    lines = capsys.readouterr().out.splitlines()
    first = next(
        n for n, line in enumerate(lines) if line.startswith("because: weights or precision changed: logprobs.l00")
    )
    assert "was 'y' -2.00, is 'y' -4.00" in lines[first], "the token that moved, and not the leading one"
    labels = [line.split(":")[0].strip() for line in lines[first + 1 : first + 6]]
    assert labels == [*["also moved"] * 4, "explained by it"]
    assert "also moved: 18 more" in lines[first + 4] and "g.h: 1 of 1" in lines[first + 5]
    assert not any("logprobs.l" in line for line in lines[:first])
    assert lines[-1].startswith("FAIL  weights or precision changed: logprobs.l00")
    marks = ("weights or precision changed: logprobs.l00", "also moved: ", "explained by it: g.h", "Groups</h2>")
    for page in (index_page(run, verdict, {}), notebook_page(run, "01_x", verdict)):
        order = [page.index(mark) for mark in marks]
        assert order == sorted(order) and "also moved: 18 more" in page
    assert "             changed: 19 more" in verdict_text(verdict)


def test_notes_and_what_accept_refuses_are_told_everywhere(tmp_path: Path, capsys: Any) -> None:
    cases = [case("m", group="g.h"), case("n", group="new.h")]
    by, found = profile({"g.h": "must"}), [finding("m", "fail"), finding("n", "fail", "new.h")]
    run, verdict = run_folder(tmp_path / "run", cases, by), verdict_of(found, cases, by)
    show(verdict, run)
    out, page = capsys.readouterr().out, index_page(run, verdict, {})
    note = "the profile is older than new.h: watched, they never block"
    assert f"note: {note}" in out and note in page and note in verdict_text(verdict)
    assert note in (ET.fromstring(junit(run, verdict, "x")).findtext(".//testcase[@name='notes']/system-out") or "")
    assert "gatebook accept refuses this run; what to do:\n  mend the deployment" in out
    assert "refuses this run" in page and "mend the deployment" in page and "Next:" not in page
    first = verdict_of([finding("m"), finding("n", "pass", "new.h")], cases, by, None)
    show(first, run)
    out, page = capsys.readouterr().out, index_page(run, first, {})
    assert "next: gatebook accept" in out and "refuses" not in out and "Next:" in page and "refuses" not in page
