"""Effort: which cases wait for the look, what the look decides, and that the simulation decides as a verdict does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gatebook.checks import stats
from gatebook.checks.finding import Outcome
from gatebook.config.cases import Case
from gatebook.config.profile import Profile
from gatebook.config.selection import DEEPER, FEWEST, MARGIN, SPENT, Look, later, of_effort
from gatebook.errors import BadInput
from gatebook.record.manifest import Manifest
from gatebook.report.estimate import estimate
from gatebook.verdict.looking import (
    GO_ON,
    Stratum,
    asks_on,
    fates,
    margin_of,
    most_lost,
    simulate,
    strata_of,
)
from gatebook.verdict.pooled import LEVEL
from gatebook.verdict.verdict import Verdict
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import baseline, case, finding, manifest, profile, verdict_of

GROUPS = {f"g.{n}": "no_worse" for n in range(4)}
CASES = [case(f"c{n}", group=f"g.{n % 4}") for n in range(144)]
BY = Profile.model_validate({**profile(GROUPS).model_dump(), "pooled": "no_worse"})
ALL_PASS: dict[str, Outcome] = {one.id: "pass" for one in CASES}
WAITING = later(BY, CASES)
LOOK = Look(later=WAITING)
FIRST = [one for one in CASES if one.id not in WAITING]


def judged(failing: set[str], first: bool, before: dict[str, Outcome] | None = None, look: Look = LOOK) -> Verdict:
    cases = FIRST if first else CASES
    found = [finding(one.id, "fail" if one.id in failing else "pass", one.group) for one in cases]
    look = look if first else look.model_copy(update={"went_on": True})
    return verdict_of(found, cases, BY, baseline(before or ALL_PASS, CASES), effort="quick", look=look)


def test_a_third_of_each_group_comes_first_and_it_is_the_same_in_every_run() -> None:
    assert [sum(one.group == group for one in FIRST) for group in GROUPS] == [12] * 4
    assert later(BY, CASES[::-1]) == WAITING[::-1]
    few = later(BY, CASES[:48])
    assert len(few) == 48 - 4 * FEWEST, "never fewer than can show that a group is dead"
    with pytest.raises(BadInput, match="so everything would be asked"):
        later(BY, CASES[: 4 * FEWEST])


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        ("must", {}),
        ("watch", {}),
        ({"policy": "proven_no_worse", "margin": 0.1}, {}),
        ("no_worse", {"samples": 5}),
        ("no_worse", {"expect": [{"golden_logprobs": True}], "golden": ["x"]}),
        ("no_worse", {"expect": [{"first_token_logprobs": True}]}),
    ],
)
def test_what_is_not_compared_case_by_case_never_waits(policy: Any, fields: dict[str, Any]) -> None:
    others = [case(f"x{n}", group="g.x", **fields) for n in range(30)]
    by = profile({**GROUPS, "g.x": policy})
    assert later(by, [*CASES, *others]) == WAITING


def test_a_group_that_another_case_looks_at_is_asked_whole() -> None:
    over = case("all", group="g.y", over="g.0", messages=[], expect=[{"load_order": True}])
    assert not {i for i in later(BY, [*CASES, over]) if int(i[1:]) % 4 == 0}


def test_the_rows_of_one_document_wait_together() -> None:
    tagged = [case(f"p{n}", group="g.0", tags={"task": f"t{n // 4}", "phrasing": n}) for n in range(48)]
    waiting = {*later(BY, tagged)}
    assert all(len({one.id in waiting for one in tagged if one.cluster == name}) == 1 for name in ("g.0/t0", "g.0/t5"))
    assert 48 - len(waiting) == 16


def test_a_healthy_first_stage_is_the_end_and_says_what_it_could_see() -> None:
    said = judged(set(), first=True)
    assert (said.verdict, said.called, said.measures) == ("PASS", "PASS QUICK", False)
    assert said.reason == "48 cases asked, recorded and judged, 96 not asked after an early look"
    assert said.pooled and said.pooled.visible_drop == 10 and not asks_on(said)
    assert stats.mcnemar_worse(10, 0) <= LEVEL * SPENT < stats.mcnemar_worse(9, 0)
    whole = judged(set(), first=False)
    assert whole.pooled and whole.pooled.visible_drop == 7, "0.015 of the 0.016 are left, a run that asks all sees 6"
    assert whole.called == "PASS QUICK" and "possible_drop" not in whole.pooled.model_dump()


def test_a_normal_run_says_nothing_of_effort() -> None:
    said = verdict_of([finding("c0", group="g.0")], CASES[:1], BY)
    assert "effort" not in said.model_dump() and said.called == said.verdict


def test_what_leans_or_excludes_too_little_goes_on_and_is_not_green() -> None:
    group = [one.id for one in FIRST if one.group == "g.0"]
    said = judged({*group[:3]}, first=True)
    assert (said.verdict, said.exit_code, said.causes[0].todo) == ("INCONCLUSIVE", 3, GO_ON) and asks_on(said)
    assert "96 cases were not asked: all together (p = 0.12), g.0 (p = 0.12) lean to the worse" in said.reason
    wide = judged({group[0]}, first=True, look=Look(later=WAITING, margin=0.05))
    assert "a drop of up to 9.5% is possible, the margin is 5.0%" in wide.reason and asks_on(wide)
    assert judged({*group[:3]}, first=False).verdict == "PASS", "three of 144 could be chance"


def test_a_first_stage_that_is_red_is_the_end() -> None:
    said = judged({one.id for one in FIRST[:10]}, first=True)
    assert said.verdict == "FAIL" and said.reason.startswith("all compared cases together") and not asks_on(said)
    found = [finding(one.id, "pass", one.group) for one in FIRST] + [finding("m", "fail", "g.must")]
    by = Profile.model_validate({**profile({**GROUPS, "g.must": "must"}).model_dump(), "pooled": "no_worse"})
    cases = [*FIRST, case("m", group="g.must")]
    must = verdict_of(found, cases, by, baseline(ALL_PASS, CASES), effort="quick", look=LOOK)
    assert must.verdict == "FAIL" and not asks_on(must), "what must pass is red at once"
    dead = judged({one.id for one in FIRST if one.group == "g.1"}, first=True)
    assert dead.verdict == "FAIL" and not asks_on(dead)


def test_without_pairs_a_look_settles_nothing() -> None:
    found = [finding(one.id, "pass", one.group) for one in FIRST]
    said = verdict_of(found, FIRST, BY, baseline({}, []), effort="quick", look=LOOK)
    assert said.verdict == "INCONCLUSIVE" and any("nothing was compared" in line for line in said.reasons)


def test_the_simulation_decides_as_a_verdict_does() -> None:
    """60 runs of every fate, by the arrays and by the policy."""
    rng = np.random.default_rng(18)
    before: dict[str, Outcome] = {one.id: "fail" if n % 6 == 5 else "pass" for n, one in enumerate(CASES)}
    old = baseline(before, CASES)
    strata = strata_of(BY, CASES, WAITING, old)
    at_risk = sum(s.passed[0] for s in strata.values())
    look = Look(later=WAITING, margin=margin_of(strata.values(), 0.0))
    seen = set()
    for drop in np.repeat([0.0, 0.02, 0.05, 0.1, 0.3], 12):
        turned = {one.id for one in CASES if rng.random() < (drop if before[one.id] == "pass" else 0.03)}
        failing = {i for i, had in before.items() if (had == "fail") != (i in turned)}
        worse, better = np.zeros((1, 4, 2), int), np.zeros((1, 4, 2), int)
        for one in (one for one in CASES if one.id in turned):
            counts = worse if before[one.id] == "pass" else better
            counts[0, int(one.group[2:]), int(one.id in WAITING)] += 1
        early, red, whole = (bool(fate[0]) for fate in fates(worse, better, at_risk, look.spent, look.margin))
        first = judged(failing, True, before, look)
        assert early is not asks_on(first), (drop, first.reason)
        end = first if early else judged(failing, False, before, look)
        assert red is (end.verdict == "FAIL"), (drop, end.reason)
        found = [finding(one.id, "fail" if one.id in failing else "pass", one.group) for one in CASES]
        assert whole is (verdict_of(found, CASES, BY, old).verdict == "FAIL")
        seen.add((early, red))
    assert seen == {(True, True), (True, False), (False, True), (False, False)}


@given(st.integers(1, 400), st.floats(0.02, 0.3))
def test_the_most_that_may_be_lost_excludes_the_margin(at_risk: int, margin: float) -> None:
    most = most_lost(at_risk, margin)
    assert most < 0 or stats.largest_possible_drop(most, at_risk) < margin
    assert stats.largest_possible_drop(most + 1, at_risk) >= margin


@pytest.mark.parametrize("flip_rate", [0.0, 0.01, 0.03])
def test_a_look_adds_no_false_alarm_and_misses_little(flip_rate: float) -> None:
    strata = [Stratum((n, 2 * n), (n // 4, n // 2)) for n in (8, 8, 12, 40, 100)]
    healthy = simulate(strata, 0.0, flip_rate, runs=20_000)
    assert healthy.red <= healthy.whole_red + 0.002 and healthy.red < 0.02 and healthy.early > 0.5
    beyond = simulate(strata, 0.15, flip_rate)
    assert beyond.red > 0.99, "beyond the margin"
    small = simulate(strata, 0.05, flip_rate)
    assert small.whole_red - small.red < 0.1


def test_few_pairs_exclude_less_and_say_so() -> None:
    assert margin_of([Stratum((300, 600), (0, 0))], 0.01) == MARGIN
    assert margin_of([Stratum((20, 40), (0, 0))], 0.0) == 0.22
    assert margin_of([], 0.0) == 1.01


def test_deep_draws_more_of_the_same_question() -> None:
    sampled = case("s", draws=5)
    (deep, plain) = of_effort([sampled, CASES[0]], "deep")
    assert len(deep.requests()) == DEEPER * 5 and deep.prompt_hash == sampled.prompt_hash
    assert [ask.options["seed"] for ask in deep.requests()][-1] == 20 and plain is CASES[0]
    assert of_effort([case("s", draws=60)], "deep")[0].drawn == 100
    with pytest.raises(BadInput, match="no case of the selection is sampled"):
        of_effort(CASES, "deep")
    assert any("key 'drawn'" in said for said in case("s").model_copy(update={"drawn": 5}).mistakes())


def test_the_plan_says_stages_share_and_errors() -> None:
    told = estimate(BY, "full", CASES, baseline(ALL_PASS, CASES), None, LOOK)
    assert "effort quick: 48 cases first, a look at the 48 compared clusters among them, then 96 more" in told
    assert "could see a drop of 10 of 48 cases that passed (20.8%); a PASS there excludes one of more than 10%" in told
    assert "healthy runs, simulated: 100% end at the look, so 33% of the requests are expected" in told
    assert "loss spread over all, simulated: 3%: " in told and "where all is asked" in told
    deep: list[Case] = of_effort([case("s", draws=5)], "deep")
    assert "effort deep: 1 sampled cases are drawn 20 times in place of 5" in estimate(BY, "full", deep, None)


def test_an_older_manifest_has_no_effort() -> None:
    said: Manifest = manifest(CASES, BY)
    old = Manifest.model_validate(said.model_dump(exclude={"effort", "look"}))
    assert (old.effort, old.look, old.early, old.level_share) == ("normal", None, False, 1.0)
