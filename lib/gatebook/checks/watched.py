"""What GPU and engine showed under load: peaks, headroom, and whether enough was read to say so."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gatebook.checks.intervals import Interval, epoch_ms, union, worked
from gatebook.engines.sglang import RETRACTED_NOW
from gatebook.record.exchange import Exchange
from gatebook.record.gauges import (
    KV_CACHE,
    PREEMPTED,
    RUNNING,
    UNAVAILABLE,
    WAITING,
    Gauge,
    Gpu,
    gpus,
    series,
    sessions,
    unavailable,
)

HOLE_S = 30.0
"""The longest time with requests in flight and no reading. llama.cpp answers /metrics only between two batches, and a
batch takes two cores 20 s."""
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Watched:
    """The gauges of one notebook beside what it asked."""

    gauges: list[Gauge]
    exchanges: list[Exchange]

    @cached_property
    def gpus(self) -> list[Gpu]:
        return gpus(self.gauges)

    @cached_property
    def kv_cache(self) -> Points:
        """Share in use, 0 to 1."""
        return series(self.gauges, KV_CACHE, total=False)

    @cached_property
    def waiting(self) -> Points:
        """Requests in the server's queue."""
        return series(self.gauges, WAITING, total=True)

    @cached_property
    def running(self) -> Points:
        return series(self.gauges, RUNNING, total=True)

    @cached_property
    def preempted(self) -> Points:
        """Counter since the server started, or the number of the moment where the engine has no counter."""
        return series(self.gauges, PREEMPTED, total=True) or series(self.gauges, (RETRACTED_NOW,), total=True)

    @cached_property
    def busy(self) -> list[Interval]:
        """When requests were in flight."""
        return union(span for e in self.exchanges if e.kind != "probe" for span in worked(e))

    def preemptions(self) -> tuple[int, bool]:
        """(how many during the load, whether the counter fell, as it does when the server starts anew)."""
        total, fell = 0, False
        for stretch in sessions(self.gauges):
            points = series(stretch, PREEMPTED, total=True)
            steps = [b - a for (_, a), (_, b) in zip(points, points[1:], strict=False)]
            total += int(sum(step for step in steps if step > 0))
            fell = fell or any(step < 0 for step in steps)
            if not points:
                total += int(max((value for _, value in series(stretch, (RETRACTED_NOW,), total=True)), default=0))
        return total, fell

    def hole_s(self, points: Points) -> float:
        """The longest time without a reading while requests were in flight; infinite without any reading."""
        if not points:
            return float("inf")
        times = sorted(ms for ms, _ in points)
        longest = 0.0
        for start, end in self.busy:
            inside = [start, *(ms for ms in times if start < ms < end), end]
            longest = max(longest, *(b - a for a, b in zip(inside, inside[1:], strict=False)))
        return longest / 1000

    def missing(self, of: str) -> str:
        """Why there is no reading of this kind (`gpu`, `metrics`)."""
        told = unavailable(self.gauges, of)
        if told:
            return "; ".join(told[:3])
        return "nothing was sampled" if not self.gauges else "it tells none"

    def unread_gpus(self) -> list[str]:
        """GPUs that should have been read and never were, with the reason."""
        seen = {gpu.id for gpu in self.gpus if gpu.used}
        rows = [r.labels for r in self.gauges if r.name == UNAVAILABLE and r.labels.get("of") == "gpu"]
        return [
            f"GPU {row['gpu']}: {row.get('why')}" for row in rows
            if row.get("gpu", "all") not in {*seen, "all"} and not row.get("why", "").startswith("processes")
        ]  # fmt: skip

    def start_ms(self) -> float | None:
        """The first request, where the pictures begin."""
        asked = [epoch_ms(e.at) for e in self.exchanges if e.kind != "probe"]
        return min([*asked, *(g.ms for g in self.gauges)], default=None)
