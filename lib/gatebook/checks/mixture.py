"""Do the replies to equal requests come from one server or from two? Values that differ, and rows that fall into two clusters.

What one server always says alike (its fingerprint, the tokens of a prompt) is compared exactly. First-token logprobs have noise,
so the rows of a prompt are cut once, where single linkage has its widest gap, and count as two only where that gap is beyond
the profile's tolerance and beyond the spread within each side (docs/decisions/replicas.md has power and false alarms).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from gatebook.checks.drift import Row

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
    """Mean difference of a token, in nats (arXiv 2512.03816); an absent token counts as the row's minimum.

    Not the largest one: logits in bf16 are steps of 0.125 and more apart, so that rounding moves single tokens by a step, and two
    batch sizes give two such rows; other weights, or another prompt, move all tokens.
    """
    least, other_least = min(one.values()), min(other.values())
    tokens = one.keys() | other.keys()
    return sum(abs(one.get(t, least) - other.get(t, other_least)) for t in tokens) / len(tokens)


def cut(rows: Sequence[Row], tolerance_nats: float) -> list[int] | None:
    """The side (0: that of the first row, 1) of each row, where equal requests got the rows of two servers; None where they did not."""
    if len(rows) < 2:
        return None
    apart = [[mean_apart(a, b) for b in rows] for a in rows]
    reached, edges = {0}, []
    while len(reached) < len(rows):  # Prim's spanning tree: its longest edge is the widest gap of single linkage
        nats, a, b = min((apart[a][b], a, b) for a in reached for b in range(len(rows)) if b not in reached)
        edges.append((nats, a, b))
        reached.add(b)
    gap = max(nats for nats, _, _ in edges)
    near = {0}
    for _ in rows:
        near |= {n for nats, a, b in edges if nats < gap for n in (a, b) if {a, b} & near}
    sides = [0 if n in near else 1 for n in range(len(rows))]
    spread = max(apart[a][b] for a in range(len(rows)) for b in range(len(rows)) if sides[a] == sides[b])
    return sides if gap > max(tolerance_nats, SEPARATION * spread) else None


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
