"""All compared cases of a run in one test: a loss that is spread over the groups shows in none of them.

Cases of one cluster (phrasings of a task, questions on one document) are one observation. The test flips the signs of the
clusters' net changes, exactly: of single cases it is McNemar's one-sided test (McNemar 1947), of graded scores a permutation
test within strata (Good 2005, 3.2; Kübler et al., arXiv 2602.10144).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field

from gatebook.checks import stats
from gatebook.checks.facts import COVERAGE
from gatebook.checks.finding import Finding, Outcome
from gatebook.config.cases import Case
from gatebook.record.exchange import Recorded
from gatebook.verdict.baseline import Baseline

LEVEL, SCORE_LEVEL = 0.016, 0.002
"""Of the test over passes and of the one over scores: with the groups' and the golden texts' under 1 % of healthy runs are red
(`python -m benchmarks power`, docs/power.md)."""
STEPS = 100
"""Scores are compared in hundredths, so that their test is exact too."""
PARTS = ("words", "identifiers", "literals", "rate")
"""Units of which a check says how many of a limit are there."""
Key = tuple[str, str]
"""Group, case."""


class Pooled(Recorded):
    """All compared cases against the baseline."""

    paired: int
    """Cases judged in both with the same prompt."""
    clusters: int
    """Independent ones among them."""
    baseline_passed: int
    worse: int
    better: int
    p_value: float
    """One-sided, exact, over clusters."""
    scored: int = 0
    """Paired cases of which both runs have a graded score."""
    score_change: float | None = None
    """Mean change of their scores, in [-1, 1]."""
    interval: tuple[float, float] | None = None
    """Its two-sided 95 % interval, over clusters."""
    score_p_value: float | None = None
    flip_rate: float = 0.0
    """Share of the cases that turn between two healthy runs."""
    flips_from: str = "none stated"
    possible_drop: float | None = Field(default=None, exclude_if=lambda value: value is None)
    """At a look: the upper 95 % bound of the share of clusters that lost, of those in which a case passed in the baseline."""
    visible_drop: int | None
    """The fewest newly failing cases, each a cluster, that would have been shown beside the turning ones; None when no number could."""
    shown_worse: bool

    @property
    def pass_interval(self) -> tuple[float, float]:
        """Two-sided 95 % of the pass rate now less the baseline's, over the pairs."""
        before = self.baseline_passed
        return stats.rate_difference(before - self.worse, self.worse, self.better, self.paired - before - self.better)

    def __str__(self) -> str:
        told = f"{self.worse} worse, {self.better} better of {self.paired} paired cases in {self.clusters} clusters (p = {self.p_value:.3g})"
        if self.score_change is not None and self.score_p_value is not None:
            told += f"; {self.scored} scores changed by {self.score_change:+.3f} (p = {self.score_p_value:.3g})"
        return f"{told}; could have seen a drop of {drop_of(self.visible_drop, self.baseline_passed, self.flip_rate, self.flips_from)}"


def drop_of(drop: int | None, passed: int, flip_rate: float, flips_from: str) -> str:
    """`6 of 107 cases that passed (5.6%)`, and what noise it reckons with."""
    noise = f", with {flip_rate:.1%} of the cases turning by chance ({flips_from})" if flip_rate else ""
    return f"{drop} of {passed} cases that passed ({drop / passed:.1%}){noise}" if drop and passed else "no size"


def flips_of(baseline: Baseline | None, stated: float) -> tuple[float, str]:
    """Return the share of cases that turn between two healthy runs, and its source."""
    if baseline and baseline.flips:
        return baseline.flips.rate, f"measured by {baseline.flips.run}"
    return stated, "stated by the profile" if stated else "none stated"


def visible_drop(passed: int, paired: int, flip_rate: float, level: float = LEVEL) -> int | None:
    """Return the smallest drop that the pooled test shows while `flip_rate` of the pairs turn, half for the better."""
    turning = round(flip_rate * paired / 2)
    drops = range(1, passed + 1)
    return next((n for n in drops if stats.mcnemar_worse(n + turning, turning) <= level), None)


def score_of(findings: Iterable[Finding]) -> float | None:
    """The graded score of a case, in [0, 1]: the mean share of what its checks count; None where none counts.

    A check that failed with everything there said something wrong beside it, and counts as nothing.
    """
    shares = [share for f in findings if (share := _share(f)) is not None]
    return round(sum(shares) / len(shares), 4) if shares else None


def _share(finding: Finding) -> float | None:
    limit = 1.0 if finding.unit in (COVERAGE, "rate") else finding.limit if finding.unit in PARTS else None
    if not isinstance(limit, int | float) or not isinstance(finding.measured, int | float) or limit <= 0:
        return None
    share = min(max(finding.measured / limit, 0.0), 1.0)
    return 0.0 if finding.outcome == "fail" and share == 1.0 else share


def pool(
    outcomes: Mapping[Key, Outcome],
    scores: dict[Key, float],
    cases: dict[str, Case],
    baseline: Baseline,
    stated: float,
    share: float = 1.0,
    early: bool = False,
) -> Pooled | None:
    """Every case of `outcomes` (of compared groups, asked as in the baseline, neither waived nor excused) beside it.

    `stated`: the profile's flip rate, where the baseline has measured none. `share`: of the levels, what this stage may spend;
    `early`: it is the look of effort quick. None without pairs.
    """
    changes: dict[str, list[int]] = defaultdict(list)
    graded: dict[str, list[float]] = defaultdict(list)
    passed, at_risk = 0, set()
    for (_, name), outcome in outcomes.items():
        old, case = baseline.cases.get(name), cases.get(name)
        if old is None or case is None or {old.outcome, outcome} - {"pass", "fail"}:
            continue
        passed += old.outcome == "pass"
        at_risk |= {case.cluster} if old.outcome == "pass" else set()
        changes[case.cluster].append((outcome == "pass") - (old.outcome == "pass"))
        if (score := scores.get((case.group, name))) is not None and old.score is not None:
            graded[case.cluster].append(score - old.score)
    if not changes:
        return None
    singles = [change for found in changes.values() for change in found]
    p_value = stats.sign_flip_worse([sum(found) for found in changes.values()])
    rate, said = flips_of(baseline, stated)
    told = _scores(graded)
    score_p = told.get("score_p_value")
    lost = sum(sum(found) < 0 for found in changes.values())
    return Pooled(
        paired=len(singles), clusters=len(changes), baseline_passed=passed,
        worse=singles.count(-1), better=singles.count(1), p_value=p_value, **told,
        flip_rate=rate, flips_from=said,
        possible_drop=stats.largest_possible_drop(lost, len(at_risk)) if early else None,
        visible_drop=visible_drop(passed, len(singles), rate, LEVEL * share),
        shown_worse=p_value <= LEVEL * share or (score_p is not None and score_p <= SCORE_LEVEL * share),
    )  # fmt: skip


def _scores(graded: dict[str, list[float]]) -> dict[str, Any]:
    single = [change for found in graded.values() for change in found]
    if not single:
        return {}
    sums = [sum(found) for found in graded.values()]
    whole = stats.mean_interval(sums, "pooled scores")
    per_case = len(sums) / len(single)
    return {
        "scored": len(single),
        "score_change": round(sum(single) / len(single), 4),
        "interval": tuple(round(bound * per_case, 4) for bound in whole) if whole else None,
        "score_p_value": stats.sign_flip_worse([round(STEPS * value) for value in sums]),
    }
