"""The verdict as data: what `verdict.json`, the pages, JUnit, the metrics and the exit code are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pydantic import Field

from gatebook.checks.finding import Finding, StageName
from gatebook.checks.stats import rate_difference
from gatebook.config.policies import Waiver
from gatebook.config.profile import PolicyName
from gatebook.config.selection import Effort
from gatebook.record.exchange import Recorded
from gatebook.record.manifest import Manifest
from gatebook.verdict.fingerprint import Change, Fingerprint
from gatebook.verdict.pooled import Pooled

Word = Literal["PASS", "FAIL", "ERROR", "INCONCLUSIVE"]
PRECEDENCE: tuple[Word, ...] = ("FAIL", "ERROR", "INCONCLUSIVE", "PASS")
EXIT_CODES: dict[Word, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "ERROR": 75}


class Comparison(Recorded):
    """A group against the baseline, case by case."""

    paired: int
    """Cases judged in both with the same prompt."""
    baseline_passed: int
    worse: list[str]
    better: list[str]
    changed: list[str]
    """Cases whose prompt is another one now, or which the baseline does not know; not paired."""
    p_value: float
    """One-sided exact McNemar."""
    family: int
    """Groups that Holm's correction is taken over."""
    visible_drop: int | None
    """The fewest newly failing cases that would have blocked; None when no number could."""
    possible_drop: float | None = None
    """proven_no_worse: upper 95 % bound of the drop."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Two-sided 95 % of the pass rate now less the baseline's, over the pairs; None without pairs."""
        lost, won, before = len(self.worse), len(self.better), self.baseline_passed
        return rate_difference(before - lost, lost, won, self.paired - before - won) if self.paired else None

    @cached_property
    def sets(self) -> tuple[frozenset[str], frozenset[str]]:
        """`changed` and `worse`, to look cases up in."""
        return frozenset(self.changed), frozenset(self.worse)

    def __str__(self) -> str:
        told = f"{len(self.worse)} worse, {len(self.better)} better of {self.paired} paired (p = {self.p_value:.3g})"
        if not self.visible_drop:
            return f"{told}; could not have seen any drop"
        share = f"{self.visible_drop / self.paired:.0%}"
        return f"{told}; could have seen a drop of {self.visible_drop} of {self.paired} cases ({share})"


class GroupVerdict(Recorded):
    group: str
    policy: PolicyName
    passed: int
    failed: int
    error: int
    not_measured: int
    word: Word
    reason: str
    comparison: Comparison | None = None
    blind: bool = False
    """Of a compared group: too few of its cases passed in the baseline ever to show a drop, so nothing of it is compared."""

    @property
    def cases(self) -> int:
        return self.passed + self.failed + self.error + self.not_measured


class Served(Recorded):
    """What was judged; it stands first in every verdict."""

    base_url: str
    model: str
    revision: str | None
    engine: str
    version: str | None
    context_tokens: int | None


class Excuse(Recorded):
    id: str
    reason: str


class WaiverUse(Waiver):
    """A waiver of the profile, and what it did in this run."""

    state: Literal["in use", "unused", "stale", "expired"]
    """An expired one blocks. A stale one has no use any more, and is told; `unused` cannot be told from this run's cases."""
    cases: list[str] = Field(default_factory=list)
    """Failing cases that it excuses."""
    note: str
    """Why it is in this state."""

    @property
    def blocks(self) -> bool:
        return self.state == "expired"

    def __str__(self) -> str:
        return f"{self.case}: {self.note} (until {self.expires}, {self.owner}: {self.reason})"


class Reason(Recorded):
    """Why a verdict is not green."""

    word: Word
    stage: StageName | None = None
    """None where it says nothing of the deployment: our own trouble, a waiver, a missing baseline."""
    about: str
    """The group, the part of the deployment, or what else it is about."""
    text: str
    todo: str
    accepts: bool = False
    """Accepting the run is what to do."""
    moved: list[str] = Field(default_factory=list)
    """Names of the fingerprint's values that it is about."""


class Cause(Reason):
    """A reason that no other one explains."""

    explains: list[Reason] = Field(default_factory=list)


class Verdict(Recorded):
    """The judgement of one run. Schema: docs/schema/verdict.schema.json."""

    schema_version: int = 1
    run: str
    profile: str
    suite: str
    partial: bool
    """A run narrowed by --only or --shard: it enters neither baseline nor history."""
    effort: Effort = Field(default="normal", exclude_if=lambda value: value == "normal")
    """How much was asked. `quick` enters neither baseline nor history."""
    served: Served
    verdict: Word
    exit_code: int
    reason: str
    """One line: the first reason."""
    reasons: list[str]
    """Everything that is not green: the worst first, causes before what follows from them, which stands under them."""
    causes: list[Cause] = Field(default_factory=list)
    """The same with what explains what, and what to do."""
    notes: list[str] = Field(default_factory=list)
    """What a person should know beside the verdict, a line each; none of it blocks."""
    groups: list[GroupVerdict]
    pooled: Pooled | None = None
    """All compared cases together; None where nothing is compared, and in a notebook's own verdict."""
    findings: list[Finding]
    excused: list[Excuse] = Field(default_factory=list)
    waivers: list[WaiverUse] = Field(default_factory=list)
    baseline: str | None = None
    """The run that was accepted."""
    needs_baseline: bool = False
    """INCONCLUSIVE for want of a baseline and for nothing else."""
    fingerprint: Fingerprint
    changes: list[Change] = Field(default_factory=list)
    troubles: list[str] = Field(default_factory=list)
    """What went wrong on our side: a notebook that did not run to its end, a record that is broken."""

    @property
    def called(self) -> str:
        """The verdict with what a reader must know of its run: `PASS`, `PASS PARTIAL`, `PASS QUICK`."""
        return f"{self.verdict}{' PARTIAL' if self.partial else ''}{'' if self.effort == 'normal' else f' {self.effort.upper()}'}"

    @property
    def measures(self) -> bool:
        """Whether it asked everything, so that it may be the measure of later runs."""
        return not self.partial and self.effort != "quick"

    @cached_property
    def excuses(self) -> dict[str, Excuse]:
        """By case."""
        return {excuse.id: excuse for excuse in reversed(self.excused)}

    def waiver_of(self, case: str, group: str) -> WaiverUse | None:
        """The waiver that excuses a case's failure in a group."""
        return next((w for w in self.waivers if case in w.cases and w.names(case, group)), None)


@dataclass(frozen=True)
class Step:
    """One thing that was checked."""

    what: str
    done: str
    """How much of it there was, in numbers."""
    wrong: str | None
    """What does not fit; None when all does."""
    more: str = ""
    """Lines that show it, as they were found."""


@dataclass
class Verification:
    """Everything that was re-computed of a bundle, in order."""

    run: str
    manifest: Manifest | None = None
    seal: str | None = None
    """SHA-256 of SHA256SUMS: it stands for the whole bundle, and is what a signature signs."""
    verdict: Verdict | None = None
    """Computed from the record now."""
    steps: list[Step] = field(default_factory=list)
    not_replayed: str | None = None
    """Which code of the bundle is not ours, so that no cell was executed."""

    @property
    def reproduced(self) -> bool:
        return self.verdict is not None and all(step.wrong is None for step in self.steps)

    @property
    def line(self) -> str:
        """What it comes to."""
        run, verdict, wrong = self.run, self.verdict, sum(step.wrong is not None for step in self.steps)
        if self.not_replayed and verdict is not None and wrong == 1:
            return f"NOT REPRODUCED: {run}: {self.not_replayed}; the rest was computed again: {verdict.verdict}"
        if verdict is None or wrong:
            return f"NOT REPRODUCED: {run}: this bundle is not the evidence of the verdict that it states"
        return f"reproduced, {verdict.called}: {run}: {verdict.reason}"
