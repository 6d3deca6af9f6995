"""The look of `--effort quick`: whether the first part of the compared cases settles the run, and how often that errs.

It settles a run that is red already, by what it may spend or by a case that must pass; and one in which nothing leans to the
worse and a loss of more than the margin is excluded. Everything else is asked to the end and judged on all of it. So an early
PASS misses a loss beyond the margin in at most 5 % of runs, and no group adds to the false alarms: one that leans goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, NamedTuple

from gatebook.checks import stats
from gatebook.config.cases import Case
from gatebook.config.profile import Profile
from gatebook.config.selection import MARGIN, SPENT
from gatebook.config.sending import asked_hash
from gatebook.verdict.baseline import Baseline
from gatebook.verdict.policy import COMPARED
from gatebook.verdict.pooled import LEVEL, Pooled
from gatebook.verdict.verdict import GroupVerdict, Verdict

LEANS = 0.2
"""A comparison with a smaller p-value leans to the worse: three cases lost and none won, not two."""
RUNS = 4_000
DROPS = (0.03, 0.05, 0.1)
"""What `--plan` simulates."""
GO_ON = "ask the rest with `gatebook run --resume`"


def unsettled(margin: float, pooled: Pooled | None, groups: Iterable[GroupVerdict]) -> str | None:
    """Return why a look at these cases does not settle the run; None where it does."""
    if pooled is None:
        return "nothing was compared"
    told = {"all together": pooled.p_value, "their scores": pooled.score_p_value}
    told |= {g.group: g.comparison.p_value for g in groups if g.comparison and g.comparison.paired}
    if leaning := [f"{name} (p = {p:.2g})" for name, p in told.items() if p is not None and p < LEANS]:
        return f"{', '.join(leaning[:3])} {'leans' if len(leaning) == 1 else 'lean'} to the worse"
    possible = 1.0 if pooled.possible_drop is None else pooled.possible_drop
    return f"a drop of up to {possible:.1%} is possible, the margin is {margin:.1%}" if possible >= margin else None


def asks_on(verdict: Verdict) -> bool:
    """Return whether a look leads to the second stage: nothing is wrong that more answers could not settle."""
    return any(cause.todo == GO_ON for cause in verdict.causes) and verdict.verdict == "INCONCLUSIVE"


class Stratum(NamedTuple):
    """The compared clusters of one group: (first stage, second stage)."""

    passed: tuple[int, int]
    failed: tuple[int, int]


@dataclass(frozen=True)
class Simulated:
    """Shares of simulated runs."""

    early: float
    """That end at the look."""
    red: float
    whole_red: float
    """Of the same runs, where everything is asked and judged at once."""


def strata_of(profile: Profile, cases: list[Case], later: Iterable[str], baseline: Baseline) -> dict[str, Stratum]:
    """Return, by compared group, how the baseline judged its clusters."""
    found: dict[str, list[list[int]]] = defaultdict(lambda: [[0, 0], [0, 0]])
    waits, seen, target = {*later}, set(), profile.target
    for case in cases:
        old = baseline.cases.get(case.id)
        compared = profile.policy(case.group).policy in COMPARED and not case.scored and case.cluster not in seen
        if not compared or old is None or old.outcome not in ("pass", "fail") or old.prompt != asked_hash(target, case):
            continue
        seen.add(case.cluster)
        found[case.group][old.outcome == "fail"][case.id in waits] += 1
    return {group: Stratum((p[0], p[1]), (f[0], f[1])) for group, (p, f) in found.items()}


def simulate(
    strata: list[Stratum], drop: float, flip_rate: float, runs: int = RUNS, spent: float = SPENT, margin: float = MARGIN
) -> Simulated:
    """Runs in which every cluster that passed fails with chance `drop`, beside `flip_rate` of all that turn, as many each way
    as can. Groups, all together and the look by the tests of a verdict; scores and golden answers are left out."""
    import numpy as np

    rng = np.random.default_rng(stats.seed_of(f"effort {drop} {flip_rate}"))
    passed, failed = (np.array([getattr(s, name) for s in strata], dtype=int) for name in ("passed", "failed"))
    turning = flip_rate * (passed.sum() + failed.sum()) / 2
    lose = min(turning / max(passed.sum(), 1), 1.0)
    worse = rng.binomial(passed, lose + drop * (1 - lose), (runs, *passed.shape))
    better = rng.binomial(failed, min(turning / max(failed.sum(), 1), 1.0), (runs, *failed.shape))
    early, red, whole = fates(worse, better, int(passed[:, 0].sum()), spent, margin)
    return Simulated(float(early.mean()), float(red.mean()), float(whole.mean()))


def fates(worse: Any, better: Any, at_risk: int, spent: float, margin: float) -> tuple[Any, Any, Any]:
    """Of runs with these newly failing and mended clusters, by (run, group, stage): whether each ends at the look, is red, and
    would be red where everything is asked and judged at once. `at_risk`: clusters of the first stage that passed in the baseline."""
    at_look, at_end = _p_values(worse[..., 0], better[..., 0]), _p_values(worse.sum(2), better.sum(2))
    red_early = _red(*at_look, spent)
    leans = (at_look[0].min(1) < LEANS) | (at_look[1] < LEANS)
    clear = ~leans & (worse[..., 0].sum(1) <= most_lost(at_risk, margin)) & ~red_early
    return clear | red_early, red_early | (~clear & _red(*at_end, 1 - spent)), _red(*at_end, 1.0)


def margin_of(strata: Iterable[Stratum], flip_rate: float) -> float:
    """What an early PASS can exclude: MARGIN, or where few cases passed more, in hundredths."""
    first = [(s.passed[0], s.failed[0]) for s in strata]
    passed, failed = (sum(column) for column in zip(*first, strict=True)) if first else (0, 0)
    possible = stats.largest_possible_drop(1 + ceil(flip_rate * (passed + failed) / 2), passed)
    return max(MARGIN, floor(100 * possible + 1) / 100)


def most_lost(at_risk: int, margin: float) -> int:
    """The most lost clusters that still exclude a loss beyond the margin; -1 when none does."""
    return sum(stats.largest_possible_drop(lost, at_risk) < margin for lost in range(at_risk)) - 1


def _p_values(worse: Any, better: Any) -> tuple[Any, Any]:
    """(of each group, of all together), by run."""
    return stats.mcnemar_worse(worse, better), stats.mcnemar_worse(worse.sum(1), better.sum(1))


def _red(groups: Any, pooled: Any, share: float) -> Any:
    """Holm rejects some group exactly where its first step does."""
    return (groups.min(1) <= stats.ALPHA * share / groups.shape[1]) | (pooled <= LEVEL * share)
