"""Golden answers against the baseline's, text by text: does the deployment find good answers less likely than it did?

A text's difference is that of its mean log probability, in nats a token; below 0 is a loss. Two one-sided sign-flip tests
(Fisher 1935; (1 + #) / (draws + 1), never 0): a mean below 0 is always reported and never blocks; a mean below the profile's
margin blocks where the policy says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from gatebook.checks.stats import mean_interval, seed_of
from gatebook.config.cases import Case
from gatebook.config.profile import Profile
from gatebook.errors import BadInput
from gatebook.record.logprobs import Scored

Cases = Mapping[str, Case]
Values = Mapping[str, Any]
"""A fingerprint: value by name."""
PREFIX = "golden."
"""Begins the name of a text's value in a fingerprint."""
DRAWS = 9_999
SHOWN_LEVEL = 0.05
"""Of the statement that never blocks."""
BLOCKING_LEVEL = 0.01
"""Family-wise, over the groups of golden answers that a run may be blocked by."""
POWER_Z = 2.4865
"""ndtri(1 - SHOWN_LEVEL) + ndtri(0.8)."""
FEWEST = 8
"""Texts below which nothing is tested: 2^8 flips can just show 0.01."""
SCATTER_NATS, BOTH_WAYS = 0.25, 0.25
"""Another model has texts of its own that it knows better, and others that it knows worse: differences spread by more than
this, with at least this share of them on either side. A damaged copy loses nearly everywhere (docs/power.md)."""


def groups_of(cases: list[Case]) -> set[str]:
    """Return the groups of golden answers. Raises BadInput where one holds other cases, which nothing would compare."""
    found = {case.group for case in cases if case.scored}
    if other := next((case for case in cases if case.group in found and not case.scored), None):
        raise BadInput(
            f"{other.source}, case {other.id!r}, key 'group' has value {other.group!r}: it holds golden answers, beside which no other case is compared; name another"
        )
    return found


def check_policy(policy: str, texts: int, where: str) -> None:
    """Refuse a policy that cannot judge this number of golden answers. Raises BadInput."""
    if policy == "proven_no_worse":
        raise BadInput(
            f"{where} has value {policy!r}: golden answers have a margin of their own (golden.margin_nats); use no_worse or watch"
        )
    if policy != "watch" and texts < FEWEST:
        raise BadInput(
            f"{where}: {policy!r} with {texts} golden answers could never be shown to lose anything; {FEWEST} are needed"
        )


def value_of(scored: Scored) -> str:
    """Return a scored text as it stands in a fingerprint: one short line in a baseline's diff."""
    return f"{scored.mean_nats:.5f} {scored.tokens} {scored.ids}"


@dataclass(frozen=True)
class Golden:
    """The golden answers of one group, then and now."""

    differences: dict[str, float]
    """Case -> nats a token, now less then; only texts that are split into the same tokens."""
    tokens: int
    split: list[str]
    """Cases whose text the tokenizer splits otherwise than it did."""
    new: list[str]
    """Cases that the baseline does not have, or has with another prompt."""
    kinds: dict[str, float]
    """Task and language -> mean difference, the largest loss first."""
    margin_nats: float
    level: float
    """Of the test against the margin."""
    interval: tuple[float, float] | None
    """Two-sided 95 % of the mean; None where all texts moved alike."""
    p_worse: float
    p_margin: float

    @property
    def texts(self) -> int:
        return len(self.differences)

    @property
    def mean_nats(self) -> float:
        return fmean(self.differences.values()) if self.differences else 0.0

    @property
    def tested(self) -> bool:
        return self.texts >= FEWEST

    @property
    def worse(self) -> bool:
        """Shown worse: reported, never blocks."""
        return self.tested and self.p_worse <= SHOWN_LEVEL

    @property
    def lost(self) -> bool:
        """Shown to have lost more than the margin."""
        return self.tested and self.p_margin <= self.level

    @property
    def visible_nats(self) -> float:
        """The smallest mean loss that four runs of five would have shown as worse."""
        spread = stdev(self.differences.values()) if self.texts > 1 else 0.0
        return POWER_Z * spread / sqrt(self.texts) if self.texts else 0.0

    @property
    def other_model(self) -> bool:
        """Whether the differences scatter as those of another model do."""
        found = list(self.differences.values())
        sides = min(sum(d > 0 for d in found), sum(d < 0 for d in found))
        return self.tested and stdev(found) > SCATTER_NATS and sides >= BOTH_WAYS * len(found)

    @property
    def split_names(self) -> str:
        more = f" and {len(self.split) - 3} more" if len(self.split) > 3 else ""
        return f"{', '.join(self.split[:3])}{more}"

    @property
    def names(self) -> str:
        """What moved, in a word; empty where nothing is shown."""
        if self.other_model:
            return "is another model: "
        return "knows less: " if self.worse or self.lost else ""

    def __str__(self) -> str:
        """Return both statements with their evidence."""
        if not self.tested:
            return f"{self.texts} texts can be compared, and fewer than {FEWEST} show nothing"
        low, high = self.interval or (self.mean_nats, self.mean_nats)
        shown = "shown worse" if self.worse else "not shown worse"
        past = "lost" if self.lost else "not shown to have lost"
        kind, loss = next(iter(self.kinds.items()))
        most = f"; most in {kind} ({loss:+.4f})" if loss < 0 and len(self.kinds) > 1 else ""
        return (
            f"{self.names}golden answers {self.mean_nats:+.4f} nats a token (95 % {low:+.4f} to {high:+.4f}) over {self.texts} texts, "
            f"{self.tokens:,} tokens: {shown} (p = {self.p_worse:.2g}), {past} more than {self.margin_nats:g} "
            f"(p = {self.p_margin:.2g}, level {self.level:g}){most}; could have seen a loss of {self.visible_nats:.4f}"
        )


def compared(profile: Profile, cases: Cases, before: Values, now: Values, run: str) -> dict[str, Golden]:
    """Group -> its golden answers in two fingerprints; a run's name is the seed."""
    groups: dict[str, dict[str, Case]] = defaultdict(dict)
    for name, case in cases.items():
        if case.scored:
            groups[case.group][name] = case
    family, margin_nats = sum(profile.policy(group).policy != "watch" for group in groups), profile.golden.margin_nats
    return {g: compare(found, before, now, margin_nats, family, f"{run}/{g}") for g, found in groups.items()}


def compare(cases: Cases, before: Values, now: Values, margin_nats: float, family: int, seed: str) -> Golden:
    """Compare these cases in two fingerprints. `before`: of those asked alike; `family`: groups that may block."""
    differences, split, new, tokens = {}, [], [], 0
    kinds: dict[str, list[float]] = defaultdict(list)
    for name in sorted(cases):
        key = PREFIX + name
        if key not in now:
            continue
        if key not in before:
            new.append(name)
            continue
        (was, *ids_then), (is_, *ids_now) = str(before[key]).split(), str(now[key]).split()
        if ids_then != ids_now:
            split.append(name)
            continue
        differences[name] = round(float(is_) - float(was), 5)
        tokens += int(ids_now[0])
        tags = cases[name].tags
        kinds[f"{tags.get('task', 'text')} {tags.get('language', '')}".strip()].append(differences[name])
    means = {kind: fmean(found) for kind, found in kinds.items()}
    found = list(differences.values())
    return Golden(
        differences, tokens, split, new, dict(sorted(means.items(), key=lambda item: item[1])), margin_nats,
        BLOCKING_LEVEL / max(family, 1), mean_interval(found, f"{seed}/golden"),
        p_below(found, 0.0, f"{seed}/golden/worse"), p_below(found, -margin_nats, f"{seed}/golden/margin"),
    )  # fmt: skip


def p_below(differences: list[float], bound: float, seed: str) -> float:
    """P(a mean as low as this | the differences are symmetric about `bound`), by random sign flips; 1 for none."""
    import numpy as np

    if not differences:
        return 1.0
    above = np.asarray(differences, dtype=float) - bound
    signs = np.random.default_rng(seed_of(seed)).integers(0, 2, (DRAWS, len(above)), dtype=np.int8) * 2 - 1
    drawn, seen = signs @ above, above.sum()
    return (1 + int((drawn <= seen + 1e-9).sum())) / (DRAWS + 1)
