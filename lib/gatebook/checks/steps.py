"""What a step of load measured: throughput, latencies with their n, goodput, and whether the numbers are to be believed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from statistics import median, quantiles

from gatebook.checks import stats
from gatebook.config.policies import Goodput, LoadSettings, level_of
from gatebook.record.exchange import Exchange
from gatebook.record.replies import read_answer


@dataclass(frozen=True)
class Sample:
    """One request under load; missing is None."""

    start_ms: float
    """Of the first attempt, by the clock (UTC)."""
    end_ms: float | None
    ttft_ms: float | None
    """From the first attempt on: a request that was sent again kept its user waiting."""
    itl_ms: float | None
    tokens: int
    """Completion tokens."""

    def good(self, limits: Goodput) -> bool:
        """Answered within both limits; an answer of one token has no time between tokens."""
        return (
            self.end_ms is not None
            and self.ttft_ms is not None
            and self.ttft_ms <= limits.ttft_ms
            and (self.itl_ms or 0) <= limits.itl_ms
        )


@dataclass(frozen=True)
class Step:
    """One level of load, from the record of all its requests."""

    at_once: int
    exchanges: list[Exchange]
    restarts: tuple[str, ...]
    """When collecting began (UTC, ISO 8601): more than once in a run that was resumed."""
    settings: LoadSettings

    @cached_property
    def samples(self) -> list[Sample]:
        return [_sample(e) for e in self.exchanges]

    @property
    def asked(self) -> int:
        return len(self.exchanges)

    @property
    def answered(self) -> int:
        return sum(e.fault is None for e in self.exchanges)

    @property
    def unanswered(self) -> list[Exchange]:
        return [e for e in self.exchanges if e.fault is not None]

    @cached_property
    def wall_s(self) -> float:
        """From the first request sent to the end of the last reply."""
        ends = [s.end_ms for s in self.samples if s.end_ms is not None]
        return (max(ends) - min(s.start_ms for s in self.samples)) / 1000 if ends else 0.0

    @property
    def requests_per_s(self) -> float | None:
        return self.answered / self.wall_s if self.wall_s > 0 else None

    @property
    def tokens_per_s(self) -> float | None:
        """Generated tokens a second, all requests together."""
        return sum(s.tokens for s in self.samples) / self.wall_s if self.wall_s > 0 else None

    @property
    def ttft_ms(self) -> list[float]:
        return [s.ttft_ms for s in self.samples if s.ttft_ms is not None]

    @property
    def itl_ms(self) -> list[float]:
        return [s.itl_ms for s in self.samples if s.itl_ms is not None]

    @property
    def good(self) -> int:
        """Answers within the profile's load.goodput."""
        return sum(s.good(self.settings.goodput) for s in self.samples)

    @property
    def goodput_per_s(self) -> float | None:
        return self.good / self.wall_s if self.wall_s > 0 else None

    @property
    def mean_in_flight(self) -> float | None:
        """Little's law: time that requests were open, over the time of the step. The last requests of a step are open with fewer."""
        spent = sum((s.end_ms - s.start_ms) / 1000 for s in self.samples if s.end_ms is not None)
        return spent / self.wall_s if self.wall_s > 0 else None

    @property
    def lag_ms(self) -> float | None:
        """P90 over the requests of the largest delay of our own event loop; the largest one where that needs more requests."""
        lags = [e.client.loop_lag_ms for e in self.exchanges if e.client and e.client.loop_lag_ms is not None]
        found = percentile(lags, 90)
        return max(lags, default=None) if found is None else found

    @property
    def cpu_share(self) -> float | None:
        """Median CPU share of our own process."""
        shares = [e.client.cpu_share for e in self.exchanges if e.client and e.client.cpu_share is not None]
        return median(shares) if shares else None

    @cached_property
    def invalid(self) -> str | None:
        """Why it is no measure of this level."""
        if not self.exchanges:
            return "nothing of it was asked"
        most = max((e.client.in_flight for e in self.exchanges if e.client), default=0)
        first, last = min(e.at for e in self.exchanges), max(e.at for e in self.exchanges)
        if again := next((at for at in self.restarts if first < at < last), None):
            return f"it was broken off and resumed at {again}, so its requests were not in flight together; measure it in a new run"
        if most < self.at_once:
            return f"never more than {most} of its {self.asked} requests were in flight"
        if (self.lag_ms or 0) > self.settings.client_lag_ms:
            return f"our own event loop was {self.lag_ms:.0f} ms late (load.client_lag_ms {self.settings.client_lag_ms:g}): the client may be the bottleneck"
        if (self.cpu_share or 0) > self.settings.client_cpu_share:
            return f"our own process used {self.cpu_share:.0%} of a core (load.client_cpu_share {self.settings.client_cpu_share:.0%}): the client may be the bottleneck"
        return None

    def __str__(self) -> str:
        told = f"{self.answered} of {self.asked} answered at {self.at_once} in flight"
        if self.tokens_per_s is None:
            return told
        return (
            f"{told}, {self.tokens_per_s:.1f} tokens/s, TTFT {spread(self.ttft_ms)}, ITL {spread(self.itl_ms)}, "
            f"{self.good} within the goodput limits"
        )


def steps_of(exchanges: Iterable[Exchange], settings: LoadSettings, restarts: tuple[str, ...]) -> list[Step]:
    """The exchanges of load cases by level, the lowest first."""
    levels: dict[int, list[Exchange]] = {}
    for exchange in exchanges:
        levels.setdefault(level_of(exchange.ask), []).append(exchange)
    return [Step(level, found, restarts, settings) for level, found in sorted(levels.items())]


def restarts_of(exchanges: Iterable[Exchange]) -> tuple[str, ...]:
    """When collecting began: each time opens with a one-token chat."""
    return tuple(e.at for e in exchanges if e.kind == "ready")


def knee(steps: list[Step], gain: float) -> int | None:
    """The last level up to which every doubling of the requests in flight raised throughput by at least `gain`.

    A threshold on the marginal gain, because Kneedle (Satopää et al. 2011), which looks for the point of largest curvature,
    needs a smooth curve of many points. None where fewer than two levels were measured.
    """
    told = [(s.at_once, s.tokens_per_s) for s in steps if s.invalid is None and s.tokens_per_s]
    if len(told) < 2:
        return None
    found = told[0][0]
    for (level, rate), (more, faster) in zip(told, told[1:], strict=False):
        if (faster / rate) ** (1 / math.log2(more / level)) - 1 < gain:
            break
        found = more
    return found


def percentile(values: list[float], per_cent: int) -> float | None:
    """Linear interpolation; None where fewer than one value lies beyond it (P90 needs 10, P99 needs 100)."""
    if len(values) < 2 or len(values) * (100 - per_cent) < 100:
        return None
    return quantiles(values, n=100, method="inclusive")[per_cent - 1]


def spread(values: list[float]) -> str:
    """`P50 812, P90 1,204 ms (n 10)`; a percentile that its n cannot carry is left out."""
    if not values:
        return "none"
    shown = [
        f"P{p} {value:,.{0 if value >= 100 else 1}f}"
        for p in (50, 90, 99)
        if (value := percentile(values, p)) is not None
    ]
    return f"{', '.join(shown) or f'{values[0]:,.1f}'} ms (n {len(values)})"


def good_share(step: Step) -> tuple[float, float, float]:
    """Share of the asked requests that were answered within the goodput limits, with its Wilson interval (95 %)."""
    low, high = stats.wilson(step.good, step.asked)
    return step.good / step.asked, low, high


def _sample(exchange: Exchange) -> Sample:
    start = _ms(exchange.attempts[0].at if exchange.attempts else exchange.at)
    sent = _ms(exchange.attempts[-1].at if exchange.attempts else exchange.at)
    timing, waited = exchange.timing, sent - start
    if exchange.fault is not None or timing is None or timing.end_ms is None:
        return Sample(start, None, None, None, 0)
    tokens = read_answer(exchange).tokens("completion_tokens") or 0
    first = timing.first_token_ms
    ttft_ms = None if first is None else first + waited
    return Sample(start, sent + timing.end_ms, ttft_ms, timing.itl_ms(tokens), tokens)


def _ms(at: str) -> float:
    return datetime.fromisoformat(at).timestamp() * 1000
