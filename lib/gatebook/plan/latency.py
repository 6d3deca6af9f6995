"""How latency is judged: which rule blocks for which metric, and the limits that no history can raise."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gatebook.plan.strict import Strict

Metric = Literal["ttft", "itl", "total"]
METRICS: tuple[Metric, ...] = ("ttft", "itl", "total")
"""Time to first token, mean time between tokens of an answer, time to last token."""
Rule = Literal["absolute", "p90", "day", "against"]
RULES: tuple[Rule, ...] = ("absolute", "p90", "day", "against")
LEAST_SAMPLES = 29
"""The fewest of which the largest is an upper 95 % bound of the P90: 0.9^29 < 0.05 <= 0.9^28."""


class Caps(Strict):
    """Limits in ms of one group: the absolute rule's, and those that a slow week cannot raise the other rules past."""

    ttft_ms: float | None = Field(default=None, gt=0)
    itl_ms: float | None = Field(default=None, gt=0)
    total_ms: float | None = Field(default=None, gt=0)
    cold_ms: float = Field(default=10_000, gt=0)
    """Slowest of the warm-up requests, to its last token."""

    def of(self, metric: Metric) -> float | None:
        return {"ttft": self.ttft_ms, "itl": self.itl_ms, "total": self.total_ms}[metric]


class Blocks(Strict):
    """The rules that block, for each metric; the others are shown."""

    ttft: list[Rule] = Field(default=["p90", "day"], min_length=1)
    itl: list[Rule] = Field(default=["p90", "day"], min_length=1)
    total: list[Rule] = Field(default=["p90", "day"], min_length=1)

    @field_validator("ttft", "itl", "total", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def of(self, metric: Metric) -> list[Rule]:
        return {"ttft": self.ttft, "itl": self.itl, "total": self.total}[metric]


class Latency(Strict):
    """How the timed groups are judged (docs/decisions/latency-rules.md has the measured error of every rule)."""

    blocks: Blocks = Field(default_factory=Blocks)
    factor: float = Field(default=1.3, gt=1)
    """The slowdown that must not pass: times the P90 of the window; what the other rules must be able to exclude."""
    least: float = Field(default=1.1, gt=1)
    """A slowdown up to this never blocks, however surely it is shown."""
    level: float = Field(default=0.005, gt=0, lt=0.5)
    """Chance that a healthy deployment fails, shared by all blocking rules of all metrics and groups."""
    miss: float = Field(default=0.25, gt=0, lt=0.5)
    """Chance that a slowdown by exactly `factor` passes one test of the day rule or of the second target."""
    min_days: int = Field(default=3, ge=2)
    """Days of history below which the day rule says nothing."""
    warm_up: int = Field(default=2, ge=0)
    """First requests of each group that are reported apart and judged by cold_ms alone."""
    lag_ms: float = Field(default=5, gt=0)
    """A sample does not count when our own event loop was later than this and than a twentieth of its time."""
    caps: dict[str, Caps] = Field(default_factory=dict)
    """Group -> its limits."""

    @model_validator(mode="after")
    def _least_below_factor(self) -> Latency:
        if self.least >= self.factor:
            raise ValueError(
                "key 'least' must be smaller than 'factor': what never blocks cannot be what must not pass"
            )
        return self

    def caps_of(self, group: str) -> Caps:
        return self.caps.get(group, Caps())
