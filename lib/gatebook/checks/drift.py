"""Is what is served still the same, and is it one server? Exact where the engine is deterministic, by permutation where not.

First-token logprobs are compared as in Chauvin et al. (arXiv 2512.03816): mean difference a token, an absent token counts as the
row's minimum. Samples drawn with the server's defaults are compared by the maximum mean discrepancy with a Hamming kernel
(Gao et al., arXiv 2410.20247). Permutation p-values are (1 + #) / (b + 1). A run makes two tests, one of all first tokens and one
of all samples, each with a level of its own.

Replies to equal requests come from two servers where exact values differ, or where the rows of a prompt, cut once at the widest
gap of single linkage, lie further apart than the profile's tolerance and the spread within each side (docs/decisions/replicas.md).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

from gatebook.checks.stats import seed_of

PERMUTATIONS, FIRST, ENOUGH = 19_999, 1_999, 40
SAMPLE_PERMUTATIONS = 99_999
"""Of the default samples. After the FIRST ones it is enough that ENOUGH of them are as far apart (Besag & Clifford 1991)."""
ALPHA = 0.001
"""Of the first tokens; what it rejects must be beyond the tolerance too."""
SAMPLES_ALPHA = 0.0001
"""Of the default samples, which have no tolerance: with 60 runs a day, one false alarm in half a year."""
NOISE_FLOOR_NATS = 0.01
"""Added to the spread by which a difference is divided, so that rows that agree by luck do not make it infinite."""
PREFIX_CHARS = 40
"""Of a default sample; later characters follow from the earlier ones."""

Row = dict[str, float]
"""Token -> logprob, of one request's first token."""
Samples = list[list[Any]]
"""[text, mean shortfall in nats or None] of each request."""


@dataclass(frozen=True)
class Moved:
    """A value that moved by more than noise, in words."""

    was: str
    now: str


@dataclass(frozen=True)
class ByChance:
    """Values that were compared by chance in one test, by name."""

    p_value: float
    rejected: bool
    moved: dict[str, Moved]


def _at(row: Row, token: str) -> float:
    """An absent token counts as the smallest of its row."""
    return row.get(token, min(row.values()))


def _apart(token: str, a: Row, b: Row) -> float:
    return abs(_at(a, token) - _at(b, token))


def _mean(rows: list[Row]) -> Row:
    return {t: sum(_at(row, t) for row in rows) / len(rows) for t in sorted({t for row in rows for t in row})}


def distance_nats(old: list[Row], new: list[Row]) -> float:
    """The largest difference of a token's mean logprob."""
    a, b = _mean(old), _mean(new)
    return max((_apart(t, a, b) for t in a.keys() | b.keys()), default=0.0)


def noise_nats(rows: list[Row]) -> float:
    """The largest difference between any two rows of equal requests."""
    return max((distance_nats([a], [b]) for a, b in combinations(rows, 2)), default=0.0)


def noisy(old: list[Row], new: list[Row]) -> bool:
    """Whether equal requests got unequal rows on either side, so that a permutation test decides."""
    return noise_nats(old) > 0 or noise_nats(new) > 0


def logprobs_moved(old: list[Row], new: list[Row], tolerance: float) -> Moved | None:
    """First-token logprobs of repeated requests, then and now, whatever the noise.

    Nothing within `tolerance` nats is a change: another CPU or batch rounds differently.
    """
    effect = distance_nats(old, new)
    if effect <= tolerance:
        return None
    was, now = _mean(old), _mean(new)
    token = max(was.keys() | now.keys(), key=lambda t: (_apart(t, was, now), t))
    said = [f"{token!r} {'' if token in row else 'below '}{_at(row, token):.2f}" for row in (was, now)]
    return Moved(said[0], f"{said[1]} ({effect:.2f} nats apart, tolerance {tolerance:g})")


def greedy_moved(old: list[list[Any]], new: list[list[Any]], tolerance: float) -> Moved | None:
    """A greedy answer as [token, logprob, gap to the second-best token] rows, then and now.

    Where tokens part at a near tie (gap within twice the tolerance), rounding may have flipped it, and only what
    stands before is compared.
    """
    before, after = (repr("".join(str(row[0]) for row in rows)[:60]) for rows in (old, new))
    for place, (was, now) in enumerate(zip(old, new, strict=False), 1):
        if was[0] != now[0]:
            return None if was[2] <= 2 * tolerance else Moved(before, f"{after} (parts at token {place})")
        if abs(was[1] - now[1]) > max(tolerance, tolerance * abs(was[1])):
            return Moved(f"{was[0]!r} {was[1]:.2f}", f"{now[0]!r} {now[1]:.2f} (token {place})")
    return None if len(old) == len(new) else Moved(before, f"{after} (ends elsewhere)")


def noisy_logprobs_moved(pairs: dict[str, tuple[list[Row], list[Row]]], tolerance: float, seed: str) -> ByChance | None:
    """First tokens of a server with noise, prompt -> rows (then, now), in one test that permutes within each prompt.

    The statistic is the sum over prompts of (mean difference a token / spread within a side)^2, so that one prompt that
    moved is enough and many that moved add up. One test a prompt would not do: eight rows a side have 12,870 splits, too
    few for Holm's first step over eight prompts. Named are the prompts that moved by more than `tolerance` nats.
    """
    import numpy as np

    if not pairs:
        return None
    prompts, tables = [pairs[name] for name in sorted(pairs)], []
    for rows in ((*old, *new) for old, new in prompts):
        tokens = sorted({token for row in rows for token in row})
        tables.append(np.array([[_at(row, token) for token in tokens] for row in rows]))

    def apart(drawn: list[Any]) -> Any:
        total = 0
        for values, then in zip(tables, drawn, strict=True):
            weights = [side / side.sum(axis=1, keepdims=True) for side in (then, ~then)]
            means = [weight @ values for weight in weights]
            squares = [weight @ values**2 - mean**2 for weight, mean in zip(weights, means, strict=True)]
            spread = sum(np.sqrt(np.clip(square, 0, None).mean(axis=1)) for square in squares) / 2
            total += (np.abs(means[0] - means[1]).mean(axis=1) / (spread + NOISE_FLOOR_NATS)) ** 2
        return total

    p_value = _p_value(apart, prompts, seed, PERMUTATIONS)
    moved = {name: found for name, (old, new) in pairs.items() if (found := logprobs_moved(old, new, tolerance))}
    return ByChance(p_value, p_value <= ALPHA, moved)


def samples_moved(old: dict[str, Samples], new: dict[str, Samples], seed: str) -> ByChance | None:
    """Samples of the server's default sampling by prompt, then and now, in one test that permutes within each prompt.

    How far the sampled tokens are behind the likeliest is the sharpest sign of another temperature; where the server
    tells no logprobs, the texts are compared.
    """
    prompts = sorted(name for name in old.keys() & new.keys() if old[name] and new[name])
    return _samples_moved(json.dumps([(old[name], new[name]) for name in prompts]), seed) if prompts else None


@lru_cache(maxsize=8)
def _samples_moved(compared: str, seed: str) -> ByChance:
    """The same of JSON, so that it is computed once where every notebook of a run is judged."""
    import numpy as np

    prompts: list[tuple[Samples, Samples]] = json.loads(compared)
    sides = [[row for then_now in prompts for row in then_now[side]] for side in (0, 1)]
    rows = [row for then, now in prompts for row in (*then, *now)]
    if all(row[1] is not None for row in rows):
        mean = [sum(row[1] for row in side) / len(side) for side in sides]
        told = Moved(
            f"{mean[0]:.2f} nats a token behind the likeliest", f"{mean[1]:.2f} over {len(rows)} samples of both"
        )
        behind = np.array([float(row[1]) for row in rows])
        kernel = np.outer(behind, behind)
    else:
        count = [len({str(row[0]) for row in side}) for side in sides]
        told = Moved(f"{count[0]} different texts", f"{count[1]} different texts, other words")
        texts = np.array([list(str(row[0])[:PREFIX_CHARS].ljust(PREFIX_CHARS, "\0")) for row in rows])
        kernel = (texts[:, None] == texts).sum(axis=2, dtype=float)  # Hamming: letters that stand in the same place

    def apart(drawn: list[Any]) -> Any:
        weights = np.where(np.hstack(drawn), 1 / len(sides[0]), -1 / len(sides[1]))
        return ((weights @ kernel) * weights).sum(axis=1)

    p_value = _p_value(apart, prompts, seed, FIRST, SAMPLE_PERMUTATIONS - FIRST)
    return ByChance(p_value, p_value <= SAMPLES_ALPHA, {"defaults": told})


def _p_value(apart: Callable[[list[Any]], Any], prompts: list[tuple[Any, Any]], seed: str, *stages: int) -> float:
    """P(the rows then and now are as far apart | the rows of a prompt are exchangeable), Monte Carlo, never 0.

    `apart` of a table a prompt: a line a draw, the first as it was, of which rows count as those of then. `prompts`: rows
    then and now. A further stage of draws is made when few of the former were as far apart.
    """
    import numpy as np

    rng, found, done = np.random.default_rng(seed_of(seed)), 0, 0
    for number in stages:
        drawn = [np.tile(np.arange(len(then) + len(now)) < len(then), (number + 1, 1)) for then, now in prompts]
        for table in drawn:
            table[1:] = rng.permuted(table[1:], axis=1)
        far = apart(drawn)
        found, done = found + int((far[1:] >= far[0] * (1 - 1e-9) - 1e-12).sum()), done + number
        if found >= ENOUGH:
            break
    return (1 + found) / (done + 1)


SEPARATION = 2.0
"""How many times wider than the spread within a side the gap between two clusters of rows is."""
EACH_SIDE = 2
"""Rows that each server has at one prompt at least, and readings on each side of a change in mid-run."""
PROMPTS = 2
"""Prompts whose rows fall apart, where so many were asked: a near tie of one prompt alone is noise."""


@dataclass(frozen=True)
class Seen:
    """One reading of what a server always says alike."""

    at: str
    """When it was asked, UTC."""
    place: Hashable
    """Only readings of one place are compared: one prompt, plain replies, streams."""
    value: str


@dataclass(frozen=True)
class Mixed:
    """Readings that no single server gives."""

    values: list[tuple[str, int]]
    """With how often each was seen, the most frequent first."""
    places: int
    changed_at: str | None
    """When all places switched once, at one time; None where the values come in turns."""
    firm: bool
    """Whether there are EACH_SIDE readings before such a switch and after it."""

    @property
    def total(self) -> int:
        return sum(count for _, count in self.values)


def mixed(seen: Sequence[Seen], first_may_differ: bool = False) -> Mixed | None:
    """None where every place has one value. `first_may_differ`: what only the first reply to a prompt shows is a cache's."""
    by_place: dict[Hashable, list[Seen]] = {}
    for one in sorted(seen, key=lambda s: s.at):
        by_place.setdefault(one.place, []).append(one)
    places = [p for p in by_place.values() if len({s.value for s in p[1 if first_may_differ else 0 :]}) > 1]
    if not places:
        return None
    widest = max(places, key=lambda place: min(Counter(s.value for s in place).values()))
    return _found(Counter(s.value for s in widest).most_common(), places)


def _found(values: list[tuple[str, int]], places: list[list[Seen]]) -> Mixed:
    before, after, last, first = 0, 0, "", "~"
    for place in places:
        switch = next(n for n, s in enumerate(place) if s.value != place[0].value)
        if len({s.value for s in place[switch:]}) > 1:
            return Mixed(values, len(places), None, False)
        before, after = before + switch, after + len(place) - switch
        last, first = max(last, place[switch - 1].at), min(first, place[switch].at)
    return Mixed(values, len(places), first if last <= first else None, min(before, after) >= EACH_SIDE)


def mean_apart(one: Row, other: Row) -> float:
    """Mean difference of a token, in nats (arXiv 2512.03816).

    Not the largest one: bf16 rounding moves single logits by 0.125 and more between two batch sizes; other weights move all tokens.
    """
    tokens = one.keys() | other.keys()
    return sum(_apart(token, one, other) for token in tokens) / len(tokens)


def cut(rows: Sequence[Row], tolerance_nats: float) -> list[int] | None:
    """The side (0: that of the first row, 1) of each row, where equal requests got the rows of two servers; None where they did not."""
    if len(rows) < 2:
        return None
    import numpy as np
    from scipy.cluster.hierarchy import fcluster, linkage

    apart = np.array([[mean_apart(a, b) for b in rows] for a in rows])
    tree = linkage(apart[np.triu_indices(len(rows), 1)], "single")
    gap = tree[-1, 2]
    clusters = fcluster(tree, np.nextafter(gap, 0), "distance")
    sides = (clusters != clusters[0]).astype(int)
    spread = apart[sides[:, None] == sides].max()
    return sides.tolist() if gap > max(tolerance_nats, SEPARATION * spread) else None


def mixed_rows(prompts: dict[str, list[tuple[str, Row]]], tolerance_nats: float) -> Mixed | None:
    """First-token rows (when it was asked, row) of each prompt. Two servers where the rows of PROMPTS prompts fall apart, and of one
    with EACH_SIDE rows on each side. The share is that of the smaller side over all rows."""
    asked = {name: sorted(rows, key=lambda row: row[0]) for name, rows in prompts.items() if len(rows) > 1}
    places = []
    for name, rows in asked.items():
        sides = cut([row for _, row in rows], tolerance_nats)
        if sides is not None and len({*sides[1:]}) > 1:  # what only the first reply shows is a cache's
            places.append([Seen(at, name, str(side)) for (at, _), side in zip(rows, sides, strict=True)])
    fewer = [min(Counter(s.value for s in place).values()) for place in places]
    if len(places) < min(PROMPTS, len(asked)) or max(fewer, default=0) < EACH_SIDE:
        return None
    total = sum(map(len, asked.values()))
    return _found([("first", total - sum(fewer)), ("second", sum(fewer))], places)
