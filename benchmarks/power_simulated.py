"""How small a loss a verdict sees and how often it is red by chance: whole runs, simulated by the shipped profiles' own plans.

A run is one outcome for each compared case. Of a healthy one a share turns, as many for the worse as for the better; a worse one
loses, beside that, each case that passed with the same chance. Judged by the product's own tests and levels: groups with Holm,
all cases together by clusters, their graded scores, golden answers, and the look of `--effort quick`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from gatebook.checks import stats
from gatebook.config.cases import Case, load_cases
from gatebook.config.policies import Golden
from gatebook.config.profile import Profile, Suite, load_profile
from gatebook.config.selection import Look, in_steps, select
from gatebook.config.sending import asked_hash
from gatebook.opening import planned_look
from gatebook.verdict.baseline import AcceptedCase, Baseline, read_baseline
from gatebook.verdict.golden import BLOCKING_LEVEL, p_below
from gatebook.verdict.looking import LEANS, most_lost
from gatebook.verdict.policy import COMPARED
from gatebook.verdict.pooled import LEVEL, SCORE_LEVEL, STEPS

from benchmarks.processes import ROOT
from benchmarks.report import Row

PLANS: tuple[tuple[str, Suite], ...] = (("smollm2", "demo"), ("qwen3-4b", "full"))
PASSED = 0.85
"""Share of its cases that pass, where a profile has no baseline of them."""
FLIPS, DROPS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05), [n / 100 for n in range(1, 11)]
POWER_FLIPS = 0.01
HEALTHY_RUNS, WORSE_RUNS = 10_000, 2_000
GRADED = {"facts", "contains_all", "contains_any", "key_points", "rows_kept"}
"""Checks that count parts."""
GOLDEN_SPREAD_NATS = 0.0064
"""Standard deviation over texts of a healthy twin's differences: of float32 beside bfloat16 (issue of 29 November 2026, 80 texts)."""


@dataclass(frozen=True)
class Plan:
    """The compared cases of a run, sorted by cluster, as arrays."""

    name: str
    passed: Any
    group: Any
    """By (case, group): 1 where it is the case's."""
    starts: Any
    """Where each cluster begins."""
    graded: Any
    waits: Any
    """Whether it is asked after the look only."""
    look: Look
    at_risk: int
    """Clusters before the look in which a case passed."""
    texts: int
    """Golden answers."""
    spared: float
    """Share of the cases that an end at the look does not ask."""


class Said(NamedTuple):
    """By run: what the tests say of some of the cases."""

    groups: Any
    """Smallest p-value of a group, times the groups."""
    pooled: Any
    scores: Any
    leans: Any
    lost: Any
    """Clusters with a net loss."""

    def red(self, share: float = 1.0) -> Any:
        return (
            (self.groups <= stats.ALPHA * share) | (self.pooled <= LEVEL * share) | (self.scores <= SCORE_LEVEL * share)
        )


def plan_of(name: str, suite: Suite) -> Plan:
    """What a shipped profile compares in a suite, beside its baseline where the package has one."""
    profile = load_profile(ROOT / "params" / f"{name}.yaml").model_copy(update={"flip_rate": POWER_FLIPS})
    file = ROOT / "params" / "baselines" / f"{name}.json"
    cases = in_steps(select(load_cases(ROOT / "params" / "cases"), suite, None, profile.languages), profile.load)
    accepted = read_baseline(file.read_bytes() if file.exists() else None, str(file)) or _assumed(profile, cases)
    return planned(f"{name}, {suite}", profile, cases, accepted)


def _assumed(profile: Profile, cases: list[Case]) -> Baseline:
    """A baseline in which PASSED of the cases pass."""
    rng, beyond = np.random.default_rng(17), {c.id for c in cases if c.document and (c.document.tokens or 0) > 32_768}
    known: dict[str, Any] = {
        c.id: {
            "group": c.group,
            "prompt": asked_hash(profile.target, c),
            "outcome": "pass" if rng.random() < PASSED else "fail",
        }
        for c in cases
        if c.id not in beyond
    }
    said = {
        "profile": "p",
        "run": "assumed",
        "accepted": "2026-11-29",
        "reason": "assumed",
        "model": "m",
        "revision": None,
    }
    return Baseline.model_validate({**said, "suite": "full", "fingerprint": {}, "latency_ms": {}, "cases": known})


def planned(name: str, profile: Profile, cases: list[Case], accepted: Baseline) -> Plan:
    """As arrays, with the look that `--effort quick` would plan."""
    old, look = accepted.cases, planned_look(profile, cases, accepted)
    compared = [c for c in cases if profile.policy(c.group).policy in COMPARED and not c.scored]
    pairs = sorted((c for c in compared if c.id in old and _paired(profile, c, old[c.id])), key=lambda c: c.cluster)
    groups, clusters, waiting = sorted({c.group for c in compared}), [c.cluster for c in pairs], {*look.later}
    passed = [old[c.id].outcome == "pass" for c in pairs]
    at_risk = {c.cluster for c, had in zip(pairs, passed, strict=True) if had and c.id not in waiting}
    return Plan(
        name, np.array(passed), np.array([[c.group == group for group in groups] for c in pairs], int),
        np.array([n for n, one in enumerate(clusters) if n == 0 or clusters[n - 1] != one]),
        np.array([bool(c.draws) or any(check in GRADED for item in c.expect for check in item) for c in pairs]),
        np.array([c.id in waiting for c in pairs]), look, len(at_risk), sum(c.scored for c in cases),
        len(waiting) / sum(len(c.requests()) > 0 for c in cases),
    )  # fmt: skip


def _paired(profile: Profile, case: Case, old: AcceptedCase) -> bool:
    return old.outcome in ("pass", "fail") and old.prompt == asked_hash(profile.target, case)


def drawn(plan: Plan, drop: float, flips: float, runs: int) -> tuple[Any, Any]:
    """(change of each case's outcome, of its score in hundredths), by (run, case)."""
    rng = np.random.default_rng(stats.seed_of(f"{plan.name} {drop} {flips}"))
    count, passed = len(plan.passed), plan.passed
    turning = flips * count / 2
    lose, win = (min(turning / max(int(some.sum()), 1), 1.0) for some in (passed, ~passed))
    dice = rng.random((runs, count))
    change = np.where(passed, -(dice < lose + drop * (1 - lose)).astype(np.int8), (dice < win).astype(np.int8))
    nudged = (rng.random((runs, count)) < flips) * rng.choice(
        [-1, 1], (runs, count)
    )  # a part more or less, and it still passes
    moved = np.where(change, change, nudged) * rng.integers(10, STEPS + 1, (runs, count))
    return change, moved * plan.graded


def said_of(plan: Plan, change: Any, moved: Any) -> Said:
    """The tests of a verdict on these changes."""
    worse, better = ((change == way).astype(int) @ plan.group for way in (-1, 1))
    by_group = stats.mcnemar_worse(worse, better)
    sums, scores = (np.add.reduceat(found.astype(int), plan.starts, axis=1) for found in (change, moved))
    pooled, score = (
        np.array([_sign_flip(tuple(np.sort(row[row != 0]).tolist())) for row in found]) for found in (sums, scores)
    )
    leans = (by_group.min(1) < LEANS) | (pooled < LEANS) | (score < LEANS)
    return Said(by_group.min(1) * plan.group.shape[1], pooled, score, leans, (sums < 0).sum(1))


@cache
def _sign_flip(changes: tuple[int, ...]) -> float:
    return stats.sign_flip_worse([*changes])


def fates(plan: Plan, change: Any, moved: Any) -> tuple[Said, Any, Any]:
    """(what the tests say of everything, whether quick ends at its look, whether quick is red)."""
    first, whole = said_of(plan, change * ~plan.waits, moved * ~plan.waits), said_of(plan, change, moved)
    red_early = first.red(plan.look.spent)
    clear = ~first.leans & (first.lost <= most_lost(plan.at_risk, plan.look.margin)) & ~red_early
    return whole, clear | red_early, red_early | (~clear & whole.red(1 - plan.look.spent))


def golden_red(texts: int, runs: int) -> float:
    """Share of healthy runs whose golden answers are said to have lost more than the margin. A mean above it cannot be."""
    rng, margin = np.random.default_rng(stats.seed_of(f"golden {texts}")), Golden().margin_nats
    found = rng.normal(0.0, GOLDEN_SPREAD_NATS, (runs, texts))
    below = [row for row in found if row.mean() < -margin]
    return sum(p_below(row.tolist(), -margin, f"power {n}") <= BLOCKING_LEVEL for n, row in enumerate(below)) / runs


def simulated() -> list[Row]:
    """Both tables of each plan, printed; the rows are what the issue demands."""
    rows: list[Row] = []
    for plan in (plan_of(*one) for one in PLANS):
        count, clusters = len(plan.passed), len(plan.starts)
        print(
            f"\n### {plan.name}: {count} compared cases in {clusters} clusters and {plan.group.shape[1]} groups, {plan.passed.mean():.0%} pass in the baseline\n"
        )
        print(f"Healthy runs that are red, of {HEALTHY_RUNS:,} (quick: margin {plan.look.margin:.0%}):\n")
        print(
            "| turning | a group | all together | their scores | golden answers | any of them | quick | quick asks |\n|---|---|---|---|---|---|---|---|"
        )
        for flips in FLIPS:
            rows.append(_healthy(plan, flips))
        print(f"\nRuns that lost so much of what passed, seen, of {WORSE_RUNS:,}, with {POWER_FLIPS:.0%} turning:\n")
        print("| lost | by a group | by all together | by any | quick | quick asks |\n|---|---|---|---|---|---|")
        for drop in DROPS:
            rows.append(_worse(plan, drop))
    return rows


def _healthy(plan: Plan, flips: float) -> Row:
    whole, early, quick = fates(plan, *drawn(plan, 0.0, flips, HEALTHY_RUNS))
    golden = golden_red(plan.texts, HEALTHY_RUNS)
    one_by_one = (whole.groups <= stats.ALPHA, whole.pooled <= LEVEL, whole.scores <= SCORE_LEVEL)
    any_of = float(whole.red().mean()) + golden
    shares = [*(float(found.mean()) for found in one_by_one), golden, any_of, float(quick.mean()) + golden]
    print(
        f"| {flips:.1%} | {' | '.join(f'{share:.2%}' for share in shares)} | {1 - early.mean() * plan.spared:.0%} |",
        flush=True,
    )
    return Row(f"{plan.name}: red by chance, {flips:.1%} turning", round(100 * any_of, 2), "%", goal=1.0)


def _worse(plan: Plan, drop: float) -> Row:
    whole, early, quick = fates(plan, *drawn(plan, drop, POWER_FLIPS, WORSE_RUNS))
    together = (whole.pooled <= LEVEL) | (whole.scores <= SCORE_LEVEL)
    shares = [float(found.mean()) for found in (whole.groups <= stats.ALPHA, together, whole.red(), quick)]
    print(
        f"| {drop:.0%} | {' | '.join(f'{share:.0%}' for share in shares)} | {1 - early.mean() * plan.spared:.0%} |",
        flush=True,
    )
    return Row(f"{plan.name}: {drop:.0%} lost, seen", round(100 * shares[2], 1), "%")
