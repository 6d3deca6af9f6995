"""When requests were open, as intervals in ms since the Unix epoch."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from gatebook.record.exchange import BUSY, Attempt, Exchange

Interval = tuple[float, float]


def epoch_ms(at: str) -> float:
    """Of an ISO 8601 time."""
    return datetime.fromisoformat(at).timestamp() * 1000


def _span(attempt: Attempt) -> Interval:
    start = epoch_ms(attempt.at)
    return start, start + attempt.elapsed_ms


def worked(exchange: Exchange) -> list[Interval]:
    """When the server had the request: attempts that reached it and were not turned away as busy."""
    return [_span(a) for a in exchange.attempts if a.fault not in ("connect", "no_byte") and a.status not in BUSY]


def opened(exchange: Exchange) -> list[Interval]:
    """From the first attempt to the end of the last one, pauses between them included."""
    spans = [_span(a) for a in exchange.attempts]
    return [(spans[0][0], max(end for _, end in spans))] if spans else []


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time without overlaps, in order."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def length_s(intervals: Iterable[Interval]) -> float:
    """Of intervals that do not overlap."""
    return sum(end - start for start, end in intervals) / 1000


def clipped(intervals: Iterable[Interval], window: Interval) -> list[Interval]:
    """What lies inside a window."""
    low, high = window
    return [(max(start, low), min(end, high)) for start, end in intervals if start < high and end > low]
