"""The simulated runs of `python -m benchmarks power --simulate` are judged as a verdict judges them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gatebook.checks.finding import Outcome
from gatebook.config.cases import Case
from gatebook.config.profile import Profile
from gatebook.verdict.looking import asks_on
from gatebook.verdict.pooled import STEPS
from gatebook.verdict.verdict import Verdict

from benchmarks.power_simulated import Plan, drawn, fates, golden_red, planned
from tests.unit.replies import baseline, case, finding, profile, verdict_of

GROUPS = {f"g.{n}": "no_worse" for n in range(4)}
BY = Profile.model_validate({**profile(GROUPS).model_dump(), "pooled": "no_worse", "flip_rate": 0.01})
SCORED = {"expect": [{"contains_all": ["a", "b"]}]}
CASES = [
    *(case(f"c{n:03d}", group=f"g.{n % 3}") for n in range(120)),
    *(case(f"p{n}", group="g.3", tags={"task": f"t{n // 3}", "phrasing": n}, **SCORED) for n in range(48)),
]
BEFORE: dict[str, Outcome] = {one.id: "fail" if n % 7 == 0 else "pass" for n, one in enumerate(CASES)}
OLD = baseline(BEFORE, CASES)
OLD = OLD.model_copy(update={"cases": {i: c.model_copy(update={"score": 0.5}) for i, c in OLD.cases.items()}})


def judged(
    plan: Plan, cases: list[Case], change: dict[str, int], moved: dict[str, int], first: bool, quick: bool
) -> Verdict:
    asked = [one for one in cases if not first or one.id not in plan.look.later]
    found = []
    for one in asked:
        passes = (BEFORE[one.id] == "pass") + change[one.id] > 0
        parts = {"measured": 0.5 + moved[one.id] / STEPS, "limit": 1.0, "unit": "words"} if one.expect else {}
        found.append(finding(one.id, "pass" if passes else "fail", one.group, **parts))
    how: dict[str, Any] = (
        {"effort": "quick", "look": plan.look.model_copy(update={"went_on": not first})} if quick else {}
    )
    return verdict_of(found, asked, BY, OLD, **how)


def test_simulated_runs_are_judged_as_a_verdict_judges_them() -> None:
    plan = planned("test", BY, CASES, OLD)
    order = sorted(CASES, key=lambda one: one.cluster)
    seen = set()
    for drop in (0.0, 0.03, 0.1, 0.4):
        change, moved = drawn(plan, drop, 0.05, 12)
        moved = np.clip(moved, -49, 49)
        whole, early, quick = fates(plan, change, moved)
        for n in range(12):
            changes, moves = ({one.id: int(v) for one, v in zip(order, row[n], strict=True)} for row in (change, moved))
            normal = judged(plan, CASES, changes, moves, first=False, quick=False)
            assert bool(whole.red()[n]) is (normal.verdict == "FAIL"), normal.reason
            look = judged(plan, CASES, changes, moves, first=True, quick=True)
            assert bool(early[n]) is not asks_on(look), look.reason
            end = look if early[n] else judged(plan, CASES, changes, moves, first=False, quick=True)
            assert bool(quick[n]) is (end.verdict == "FAIL"), end.reason
            seen.add((bool(early[n]), bool(quick[n])))
    assert {(True, True), (True, False), (False, True), (False, False)} == seen


def test_golden_answers_of_a_healthy_twin_block_nothing() -> None:
    assert golden_red(40, 300) == 0.0
