"""The PromptSensiScore against values computed by hand, and its change against the baseline."""

from __future__ import annotations

import pytest
from gatebook.checks.finding import Outcome
from gatebook.config.cases import Case
from gatebook.verdict.sensitivity import change, pss, tasks
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import baseline, case, finding


def phrasings(name: str, count: int = 8) -> list[Case]:
    return [
        case(
            f"phrasing-{name}-{n}",
            messages=[{"role": "user", "content": f"{name} {n}"}],
            tags={"task": name, "phrasing": n},
        )
        for n in range(1, count + 1)
    ]


def outcomes(name: str, marks: str) -> dict[str, Outcome]:
    """`+` passes, `-` fails, `?` was not measured."""
    words: dict[str, Outcome] = {"+": "pass", "-": "fail", "?": "not_measured"}
    return {f"phrasing-{name}-{n}": words[mark] for n, mark in enumerate(marks, 1)}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1, 1, 1, 1], 0.0),
        ([0, 0], 0.0),
        ([1, 0], 1.0),
        ([1, 0, 0], 2 / 3),  # pairs 1-0, 1-0, 0-0
        ([1, 1, 1, 1, 0, 0, 0, 0], 16 / 28),
        ([1, 1, 1, 1, 1, 1, 0, 0], 12 / 28),
        ([1, 1, 1, 1, 1, 1, 1, 0], 7 / 28),
    ],
)
def test_pss_by_hand(scores: list[int], expected: float) -> None:
    assert pss(scores) == pytest.approx(expected)


@pytest.mark.parametrize("scores", [[], [1]])
def test_one_phrasing_shows_no_sensitivity(scores: list[int]) -> None:
    assert pss(scores) is None


@given(st.lists(st.integers(0, 1), min_size=2, max_size=12))
def test_pss_is_a_share_of_pairs_and_does_not_know_pass_from_fail(scores: list[int]) -> None:
    passed, size = sum(scores), len(scores)
    assert pss(scores) == pytest.approx(2 * passed * (size - passed) / (size * (size - 1)))
    assert pss([1 - score for score in scores]) == pytest.approx(pss(scores) or 0.0)


def test_a_task_has_its_phrasings_in_order_and_other_cases_are_none() -> None:
    cases = [*reversed(phrasings("table", 11)), case("phrasing-of-nothing"), case("other")]
    findings = [finding(c, o) for c, o in outcomes("table", "+-+-+-+-+++").items()]
    (found,) = tasks(cases, findings, None)
    assert list(found.outcomes) == [f"phrasing-table-{n}" for n in range(1, 12)]
    assert (found.name, found.passed, found.spread) == ("table", 7, 1)
    assert found.worst == "phrasing-table-2"
    assert (found.before, found.pss_before, found.change) == ({}, None, None)


def test_what_was_not_measured_has_no_score() -> None:
    (found,) = tasks(phrasings("a", 4), [finding(c, o) for c, o in outcomes("a", "+?-+").items()], None)
    assert (found.passed, len(found.judged), found.pss) == (2, 3, pytest.approx(2 / 3))
    (none,) = tasks(phrasings("a", 2), [finding(c, o) for c, o in outcomes("a", "??").items()], None)
    assert (none.spread, none.pss, none.worst) == (None, None, None)


def test_the_worst_of_a_case_s_findings_counts() -> None:
    findings = [finding("phrasing-a-1", "pass"), finding("phrasing-a-1", "fail"), finding("phrasing-a-2", "pass")]
    elsewhere = finding("phrasing-a-2", "fail", group="g.contract")
    (found,) = tasks(phrasings("a", 2), [*findings, elsewhere], None)
    assert found.outcomes == {"phrasing-a-1": "fail", "phrasing-a-2": "pass"}


def test_the_change_is_paired_by_task() -> None:
    cases = [*phrasings("a"), *phrasings("b"), *phrasings("c")]
    now = {**outcomes("a", "++++++--"), **outcomes("b", "++++++++"), **outcomes("c", "++++----")}
    before = {**outcomes("a", "+++++++-"), **outcomes("b", "++++++++"), **outcomes("c", "++++----")}
    found = tasks(cases, [finding(c, o) for c, o in now.items()], baseline(before, cases))
    assert [task.change for task in found] == [pytest.approx(5 / 28), 0, 0]
    assert found[0].worst == "phrasing-a-7", "the one that is new among the failing"
    moved = change(found, "run")
    assert moved is not None and moved.tasks == 3
    assert moved.before == pytest.approx((7 + 0 + 16) / 28 / 3)
    assert moved.difference == pytest.approx(5 / 28 / 3)
    assert moved.upper is not None and moved.difference < moved.upper <= 5 / 28
    assert str(moved) == f"+0.060 (upper 95 % bound {moved.upper:+.3f}, 3 tasks)"


def test_a_phrasing_that_changed_or_was_not_judged_before_is_not_paired() -> None:
    cases = phrasings("a", 4)
    old = baseline(
        outcomes("a", "++?-"),
        [
            *phrasings("a", 3),
            case("phrasing-a-4", messages=[{"role": "user", "content": "new"}], tags={"task": "a", "phrasing": 4}),
        ],
    )
    (found,) = tasks(cases, [finding(c, o) for c, o in outcomes("a", "+---").items()], old)
    assert found.before == outcomes("a", "++")
    assert (found.pss_before, found.change) == (0.0, 1.0)


def test_without_a_baseline_there_is_no_change() -> None:
    found = tasks(phrasings("a"), [finding(c, o) for c, o in outcomes("a", "++++++--").items()], None)
    assert change(found, "run") is None


def test_no_change_has_no_bound() -> None:
    cases = [*phrasings("a"), *phrasings("b")]
    same = {**outcomes("a", "++++++--"), **outcomes("b", "++++++++")}
    moved = change(tasks(cases, [finding(c, o) for c, o in same.items()], baseline(same, cases)), "run")
    assert moved is not None and str(moved) == "+0.000 (no task of 2 changed)"
