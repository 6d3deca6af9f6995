"""All compared cases in one test: what no group shows, they show together; healthy runs stay green."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from gatebook.checks import stats
from gatebook.checks.finding import Outcome
from gatebook.config.cases import Case
from gatebook.config.profile import Profile, profile_from
from gatebook.report.estimate import estimate
from gatebook.verdict.pooled import LEVEL, pool, score_of, visible_drop
from gatebook.verdict.verdict import Verdict
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tests.unit.replies import baseline, case, finding, profile, verdict_of

GROUPS = {f"g.{n}": "no_worse" for n in range(6)}
CASES = [case(f"c{n}", group=f"g.{n % 6}") for n in range(144)]
BY = Profile.model_validate({**profile(GROUPS).model_dump(), "pooled": "no_worse"})
ALL_PASS: dict[str, Outcome] = {one.id: "pass" for one in CASES}


def judged(failing: set[str], before: dict[str, Outcome] | None = None, by: Profile = BY, **old: Any) -> Verdict:
    found = [finding(one.id, "fail" if one.id in failing else "pass", one.group) for one in CASES]
    return verdict_of(found, CASES, by, baseline(before or ALL_PASS, CASES, **old))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_the_sign_flip_is_the_count_of_all_flips(changes: list[int]) -> None:
    sums = [sum(s * c for s, c in zip(signs, changes, strict=True)) for signs in product((-1, 1), repeat=len(changes))]
    exact = sum(total <= sum(changes) for total in sums) / len(sums)
    wanted = exact if any(c < 0 for c in changes) else 1.0
    assert stats.sign_flip_worse(changes) == pytest.approx(wanted)


@given(st.integers(0, 30), st.integers(0, 30))
def test_of_single_cases_it_is_mcnemar(worse: int, better: int) -> None:
    said = stats.sign_flip_worse([-1] * worse + [1] * better + [0] * 5)
    assert said == pytest.approx(stats.mcnemar_worse(worse, better))
    if worse:
        assert said == pytest.approx(binomtest(worse, worse + better, alternative="greater").pvalue)


def test_a_loss_that_no_group_shows_is_shown_together() -> None:
    spread = {f"c{n}" for n in range(6)}  # one in each group
    said = judged(spread)
    assert (said.verdict, said.exit_code) == ("FAIL", 1)
    assert said.reason.startswith(
        "all compared cases together: shown worse than the baseline: 6 worse, 0 better of 144"
    )
    assert all(group.word == "PASS" for group in said.groups) and len(said.causes) == 1
    watched = BY.model_copy(update={"pooled": "watch"})
    told = judged(spread, by=watched)
    assert told.verdict == "PASS" and any(note.startswith("pooled: 6 worse") for note in told.notes)
    assert judged({"c0", "c1", "c2", "c3", "c4"}).verdict == "PASS", "five could be chance"


def test_what_turns_both_ways_is_no_loss_and_a_run_from_before_is_judged_as_before() -> None:
    before: dict[str, Outcome] = {**ALL_PASS, **{f"c{n}": "fail" for n in range(100, 105)}}
    assert judged({f"c{n}" for n in range(6)}, before).verdict == "PASS"
    said = judged({f"c{n}" for n in range(6)}, by=profile(GROUPS))
    assert (said.verdict, said.pooled, said.notes) == ("PASS", None, [])


def test_phrasings_of_a_task_and_questions_of_a_document_are_one_observation() -> None:
    tagged = [case(f"p{n}", group="g.0", tags={"task": f"t{n % 2}", "phrasing": n}) for n in range(12)]
    asked = {"messages": [{"role": "user", "content": "{document}"}]}
    document = {"kind": "needles", "family": "single", "depth": 0, "tokens": 1000, "language": "en"}
    long = [case(f"d{n}", group="g.1", document=document, **asked) for n in range(3)]
    assert {one.cluster for one in tagged} == {"g.0/t0", "g.0/t1"} and len({one.cluster for one in long}) == 1
    assert case("m").cluster == "m"
    found: dict[tuple[str, str], Outcome] = {(one.group, one.id): "fail" for one in tagged}
    said = pool(found, {}, {one.id: one for one in tagged}, baseline({one.id: "pass" for one in tagged}, tagged), 0.0)
    assert said and (said.worse, said.clusters, said.p_value, said.shown_worse) == (12, 2, 0.25, False)


def test_scores_show_what_passes_do_not() -> None:
    """Every answer still passes; each states a fact less than before."""
    facts = [case(f"f{n}", group="g.0") for n in range(24)]
    cases = {one.id: one for one in facts}
    old = baseline({one.id: "pass" for one in facts}, facts)
    kept = {i: accepted.model_copy(update={"score": 1.0}) for i, accepted in old.cases.items()}
    old = old.model_copy(update={"cases": kept})
    passed: dict[tuple[str, str], Outcome] = {("g.0", i): "pass" for i in cases}
    said = pool(passed, {key: 0.8 for key in passed}, cases, old, 0.0)
    assert said and said.shown_worse and said.p_value == 1.0 and said.score_p_value == pytest.approx(2**-24)
    assert said.score_change == pytest.approx(-0.2) and "24 scores changed by -0.200" in str(said)
    older = old.model_copy(
        update={"cases": {i: c.model_copy(update={"score": None, "measured": 1.0}) for i, c in kept.items()}}
    )
    before = pool(passed, dict.fromkeys(passed, 0.8), cases, older, 0.0)
    assert before and before.scored == 0 and not before.shown_worse, "coverage alone is another measure"
    same = pool(passed, {key: 1.0 for key in passed}, cases, old, 0.0)
    assert same and not same.shown_worse and same.score_p_value == 1.0


def test_the_score_of_a_case_is_the_share_of_what_its_checks_count() -> None:
    assert (
        score_of([finding(measured=3, limit=4, unit="words"), finding(measured=1.0, limit=0.9, unit="coverage")])
        == 0.875
    )
    assert score_of([finding(outcome="fail", measured=1.0, limit=1.0, unit="coverage")]) == 0.0, (
        "and something wrong beside"
    )
    assert score_of([finding(measured=812.0, limit=900.0, unit="ms"), finding()]) is None


def test_the_smallest_visible_drop_reckons_with_what_turns() -> None:
    assert visible_drop(144, 144, 0.0) == 6 and stats.mcnemar_worse(6, 0) <= LEVEL < stats.mcnemar_worse(5, 0)
    assert visible_drop(500, 500, 0.02) == 11 and visible_drop(5, 500, 0.0) is None
    flips = {"run": "r1", "paired": 200, "turned": 4}
    said = judged(set(), flips=flips).pooled
    assert said and (said.flip_rate, said.flips_from) == (0.02, "measured by r1") and "2.0% of the cases" in str(said)
    stated = BY.model_copy(update={"flip_rate": 0.01})
    assert (told := judged(set(), by=stated).pooled) and told.flips_from == "stated by the profile"


def test_healthy_runs_that_flip_are_rarely_red() -> None:
    """Two runs of one deployment, 2 % of the cases near a tie: at most LEVEL of them, within what 2,000 draws can tell."""
    rng = np.random.default_rng(17)
    red = 0
    for _ in range(2_000):
        chance = np.where(rng.random(300) < 0.04, 0.5, 1.0)
        one, two = (rng.random(300) < chance for _ in range(2))
        red += stats.mcnemar_worse(int((one & ~two).sum()), int((~one & two).sum())) <= LEVEL
    assert red / 2_000 <= LEVEL + 3 * (LEVEL / 2_000) ** 0.5


def test_the_plan_says_how_small_a_drop_would_show() -> None:
    data = {"target": {"model": "m", "base_url": "http://x/v1"}, "groups": GROUPS}
    by = profile_from(data, "p.yaml", "p")
    assert by.pooled == "no_worse"
    told = estimate(by, "full", CASES, None)
    line = next(line for line in told.splitlines() if line.startswith("pooled:"))
    assert "144 compared cases in 144 independent clusters" in line and "6 of 144 cases that passed (4.2%)" in line
    few: list[Case] = CASES[:4]
    assert "no size" in estimate(by, "full", few, None)
    half: dict[str, Outcome] = {one.id: "pass" if n % 2 else "fail" for n, one in enumerate(CASES)}
    assert "6 of 72 cases that passed" in estimate(by, "full", CASES, baseline(half, CASES))
