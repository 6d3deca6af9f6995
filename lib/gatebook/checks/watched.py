"""What GPU and engine showed under load: peaks, headroom, and whether enough was read to say so."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from gatebook.checks.intervals import Interval, union, worked
from gatebook.record.exchange import Exchange
from gatebook.record.gauges import UNAVAILABLE, Gauge, Gpu, gpus, unavailable

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
        """Those that were read."""
        return [gpu for gpu in gpus(self.gauges) if gpu.used]

    @cached_property
    def busy(self) -> list[Interval]:
        """When requests were in flight."""
        return union(span for e in self.exchanges if e.kind != "probe" for span in worked(e))

    def hole_s(self, points: Points) -> float:
        """The longest time without a reading while requests were in flight; infinite without any reading."""
        if not points:
            return float("inf")
        times = [sorted({start, end, *(ms for ms, _ in points if start < ms < end)}) for start, end in self.busy]
        return max((b - a for inside in times for a, b in pairwise(inside)), default=0.0) / 1000

    def unseen(self, points: Points) -> str | None:
        """Whether too much of the load went by unread."""
        if not self.busy:
            return "nothing was asked while the gauges were read, so they show no load"
        if (hole := self.hole_s(points)) > HOLE_S:
            return f"no reading for {hole:.0f} s while requests were in flight; a peak there would not have been seen"
        return None

    def missing(self, of: str) -> str:
        """Why there is no reading of this kind (`gpu`, `metrics`)."""
        told = unavailable(self.gauges, of)
        return "; ".join(told[:3]) or ("it tells none" if self.gauges else "nothing was sampled")

    def unread_gpus(self) -> list[str]:
        """GPUs that should have been read and never were, with the reason."""
        seen = {"all", *(gpu.id for gpu in self.gpus)}
        rows = [(r.labels.get("gpu", "all"), r.labels.get("why", "")) for r in self.gauges
                if r.name == UNAVAILABLE and r.labels.get("of") == "gpu"]  # fmt: skip
        return [f"GPU {gpu}: {why}" for gpu, why in rows if gpu not in seen and not why.startswith("processes")]
