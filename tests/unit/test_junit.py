"""JUnit over every mixture of outcomes, and where the red stands when no single case carries it."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from gatebook.checks.finding import Outcome
from gatebook.config.cases import Case
from gatebook.record.run import Run
from gatebook.report.junit import LONGEST_BYTES, junit
from gatebook.verdict.verdict import Verdict

from tests.unit.replies import baseline, case, finding, profile, run_folder, verdict_of

OUTCOMES: tuple[Outcome, ...] = ("pass", "fail", "error", "not_measured")


def suites(run: Run, verdict: Verdict) -> dict[str, dict[str, list[str]]]:
    """suite -> testcase -> what stands in it."""
    root = ET.fromstring(junit(run, verdict, "outputs/latest"))
    return {str(s.get("name")): {str(c.get("name")): [e.tag for e in c] for c in s} for s in root}


def red(found: dict[str, dict[str, list[str]]]) -> list[str]:
    return [name for suite in found.values() for name, tags in suite.items() if "failure" in tags or "error" in tags]


def compared(path: Path, now: str, before: str, **more: Any) -> tuple[Run, Verdict]:
    """A no_worse group; P and F by case, in the baseline and now."""
    cases = [case(f"c{n}") for n in range(len(now))]
    by, outcome = profile({"g.h": "no_worse"}), {"P": "pass", "F": "fail"}
    accepted = baseline({f"c{n}": outcome[b] for n, b in enumerate(before)}, cases, **more.pop("accepted", {}))  # type: ignore[misc]
    found = [finding(f"c{n}", outcome[o]) for n, o in enumerate(now)]  # type: ignore[arg-type]
    return run_folder(path, cases, by), verdict_of(found, cases, by, accepted, **more)


def test_red_exactly_when_the_verdict_is_not_pass(tmp_path: Path) -> None:
    cases: list[Case] = [
        case("must-a", group="g.must"),
        case("must-b", group="g.must"),
        case("watch-a", group="g.watch"),
    ]
    for number, excused in enumerate(({}, {"g.must": "no GPU here"}, {"must-a": "no GPU here"})):
        by = profile({"g.must": "must", "g.watch": "watch"}, excused)
        run = run_folder(tmp_path / str(number), cases, by)
        for outcomes in itertools.product((*OUTCOMES, None), repeat=3):
            found = [finding(c.id, o, c.group) for c, o in zip(cases, outcomes, strict=True) if o]
            for troubles in ([], ["01_x: its kernel died"]):
                verdict = verdict_of(found, cases, by, troubles=troubles)
                told = suites(run, verdict)
                assert bool(red(told)) == (verdict.verdict != "PASS"), (outcomes, excused, troubles)
                assert set(told["01_x"]) == {c.id for c in cases}, "one testcase a case, whatever happened"


def test_what_is_excused_is_skipped_and_what_is_watched_passes(tmp_path: Path) -> None:
    cases = [case("m"), case("n"), case("w", group="g.watch")]
    by = profile({"g.h": "must", "g.watch": "watch"}, {"m": "no GPU here"})
    found = [finding("m", "not_measured"), finding("n"), finding("w", "fail", "g.watch")]
    told = suites(run_folder(tmp_path / "run", cases, by), verdict_of(found, cases, by))
    assert told["01_x"] == {"m": ["skipped"], "n": [], "w": ["system-out"]}


def test_a_group_shown_worse_names_itself_and_the_worse_cases_only(tmp_path: Path) -> None:
    told = suites(*compared(tmp_path / "run", now="FFFFFFFPPF", before="PPPPPPPPPF"))
    assert red(told) == [*(f"c{n}" for n in range(7)), "g.h"]
    assert told["01_x"]["c9"] == ["system-out"], "it failed before, too"


def test_a_few_worse_cases_that_show_nothing_are_not_red(tmp_path: Path) -> None:
    run, verdict = compared(tmp_path / "run", now="FPPPPPPPPP", before="PPPPPPPPPP")
    assert verdict.verdict == "PASS" and red(suites(run, verdict)) == []


def test_another_fingerprint_under_the_same_revision_is_red_by_its_own_name(tmp_path: Path) -> None:
    known = {"accepted": {"fingerprint": {"engine": "vllm"}}, "fingerprint": {"engine": "sglang"}}
    run, verdict = compared(tmp_path / "run", now="PPPPPPPPPP", before="PPPPPPPPPP", **known)
    assert verdict.verdict == "FAIL" and red(suites(run, verdict)) == ["fingerprint"]


def test_a_long_reason_is_cut_and_what_xml_cannot_hold_is_spelt_out(tmp_path: Path) -> None:
    cases, by = [case("c")], profile({"g.h": "must"})
    found = [finding("c", "fail", reason="\x00\x0b\x1b\ufffe\u202e" + "长" * 9000)]
    text = junit(run_folder(tmp_path / "run", cases, by), verdict_of(found, cases, by), "outputs/latest")
    failure = ET.fromstring(text).findtext(".//failure") or ""
    assert "\\x00\\x0b\\x1b\\ufffe\\u202e长" in failure and len(failure.encode()) <= LONGEST_BYTES
