"""A case with everything recorded about it: what the checks see. Intervals are in ms since the Unix epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby, pairwise

from gatebook.checks.finding import Outcome
from gatebook.checks.similarity import Cosines
from gatebook.config.cases import Ask, Case
from gatebook.config.policies import METRICS, RULES, Latency, Metric, Rule
from gatebook.config.profile import Profile
from gatebook.engines import refused
from gatebook.record.answer import Answer
from gatebook.record.exchange import BUSY, Attempt, Exchange, Measurement
from gatebook.record.gauges import UNAVAILABLE, Gauge, Gpu, gpus, unavailable
from gatebook.record.identity import Identity
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.record.samples import Sample, comparable, samples_of

Interval = tuple[float, float]
Points = list[tuple[float, float]]
"""(ms since the Unix epoch, value) of each reading of a gauge."""
HOLE_S = 30.0
"""The longest time with requests in flight and no reading. llama.cpp answers /metrics only between two batches, and a
batch takes two cores 20 s."""


def epoch_ms(at: str) -> float:
    """Return the milliseconds since the Unix epoch of an ISO 8601 time."""
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
    """Return the same time as intervals without overlaps, in order."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def length_s(intervals: Iterable[Interval]) -> float:
    """Return the total length of intervals that do not overlap."""
    return sum(end - start for start, end in intervals) / 1000


def clipped(intervals: Iterable[Interval], window: Interval) -> list[Interval]:
    """Return the parts of intervals that lie inside a window."""
    low, high = window
    return [(max(start, low), min(end, high)) for start, end in intervals if start < high and end > low]


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
        """Return why the readings do not cover the load; None when they do."""
        if not self.busy:
            return "nothing was asked while the gauges were read, so they show no load"
        if (hole := self.hole_s(points)) > HOLE_S:
            return f"no reading for {hole:.0f} s while requests were in flight; a peak there would not have been seen"
        return None

    def missing(self, of: str) -> str:
        """Return why there is no reading of this kind (`gpu`, `metrics`)."""
        told = unavailable(self.gauges, of)
        return "; ".join(told[:3]) or ("it tells none" if self.gauges else "nothing was sampled")

    def unread_gpus(self) -> list[str]:
        """Return the GPUs that were never read, each with the reason."""
        seen = {"all", *(gpu.id for gpu in self.gpus)}
        labels = [r.labels for r in self.gauges if r.name == UNAVAILABLE and r.labels.get("of") == "gpu"]
        rows = [(row.get("gpu", "all"), row.get("why", "")) for row in labels]
        return [f"GPU {gpu}: {why}" for gpu, why in rows if gpu not in seen and not why.startswith("processes")]


@dataclass(frozen=True)
class Timed:
    """One timed case with everything that it is judged by."""

    case: Case
    samples: list[Sample]
    settings: Latency
    history: list[Measurement] = field(default_factory=list)
    """The comparable rows of the window."""
    history_trouble: str | None = None
    """Why the past is not known; that is not the same as having none."""
    second: list[Sample] | None = None
    """The second target's, where one was asked."""
    second_name: str = ""
    second_broken: str | None = None
    """Why the second target gave no sample to some request."""
    tests: int = 1
    """Blocking tests of the whole run, which share settings.level."""

    @property
    def level(self) -> float:
        return self.settings.level / max(self.tests, 1)

    def cap_ms(self, metric: Metric) -> float | None:
        return self.settings.caps_of(self.case.group).of(metric)

    @property
    def judged(self) -> list[Sample]:
        """Without the warm-up."""
        return self.samples[self.settings.warm_up :]

    @property
    def metrics(self) -> list[Metric]:
        """Those that the case judges."""
        return judged_metrics(self.case)

    def values(self, metric: Metric) -> list[float]:
        return [ms for s in self.judged if s.invalid is None and (ms := s.of(metric)) is not None]

    def days(self, metric: Metric) -> dict[str, list[float]]:
        """UTC date -> the samples of that day, the oldest first."""
        rows = groupby(sorted(self.history, key=lambda row: row.at), lambda row: f"{row.at.astimezone(UTC):%Y-%m-%d}")
        found = {day: [ms for row in own for ms in getattr(row, f"{metric}_ms") if ms > 0] for day, own in rows}
        return {day: values for day, values in found.items() if values}

    def blocking(self, metric: Metric) -> list[Rule]:
        """The profile's rules; asking a second target makes its rule one of them."""
        chosen = self.settings.blocks.of(metric)
        return [rule for rule in RULES if rule in chosen or (rule == "against" and self.second is not None)]


def judged_metrics(case: Case) -> list[Metric]:
    return [m for m in METRICS if any(f"latency_{m}" in item for item in case.expect)]


def blocking_tests(cases: Iterable[Case], settings: Latency, against: bool) -> int:
    """How many tests of a run may block: metrics that a case judges, times the rules that block for each."""
    extra = ["against"] if against else []
    return sum(len({*settings.blocks.of(m), *extra}) for case in cases if case.samples for m in judged_metrics(case))


def timed_cases(run: Run, notebook: str, exchanges: list[Exchange]) -> dict[str, Timed]:
    """Case id -> what is known of it, for the timed cases of a notebook. Raises BrokenRecord.

    Comparable are rows with this run's own key: the same engine, GPU, suite and workload.
    """
    cases = [case for case in run.expected(notebook) if case.samples]
    if not cases:
        return {}
    settings, against = run.manifest.profile.latency, run.manifest.against
    planned = (run.cases[i] for ids in run.manifest.expected.values() for i in ids)
    tests, rows = blocking_tests(planned, settings, against is not None), comparable(run, notebook)
    found = {}
    for case in cases:
        second = samples_of(case, exchanges, settings.lag_ms, against=True) if against else None
        faults = [e.detail for e in exchanges if e.kind == "against" and e.case == case.id and e.fault]
        found[case.id] = Timed(
            case, samples_of(case, exchanges, settings.lag_ms), settings, [row for row in rows if row.group == case.group],
            run.history_trouble, second, against.name if against else "",
            faults[0] if faults else None if second else "was never asked", tests,
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Reply:
    """One asked request and its reply."""

    ask: Ask
    exchange: Exchange
    thinks: bool = False
    """What follows the thoughts is the answer, without the blank lines between them."""
    raw: bool = False
    """Thoughts stand for the text where there is none: what is generated is judged."""

    @cached_property
    def answer(self) -> Answer:
        answer = read_answer(self.exchange)
        if not self.thinks or not answer.reasoning:
            return answer
        said = answer.generated if self.raw else answer.content
        return replace(answer, content=said and said.lstrip("\n"))

    @property
    def refused(self) -> bool:
        """Whether the server said "cannot": a clean 4xx, an engine's own words, or an error alone in a 200 reply."""
        exchange, answer = self.exchange, self.answer
        if exchange.status != 200:
            return refused(exchange.status, exchange.detail)
        return bool(answer.error) and not answer.choices and refused(answer.error_code, answer.error or "")

    @property
    def said(self) -> str:
        """What a refusal says, for reasons."""
        return self.exchange.detail or (f"{self.answer.error} (an error in a 200 stream)" if self.answer.error else "")


@dataclass(frozen=True)
class Evidence:
    """All replies of a case, in the order of its asks, and what the checks may compare them with."""

    case: Case
    replies: list[Reply]
    identity: Identity
    profile: Profile
    cosines: Callable[[], Cosines] | None = None
    """The notebook's cosines, looked up or computed when a check asks for them."""
    over: list[Evidence] = field(default_factory=list)
    """The judged cases of the group that the case looks at."""
    outcome: Outcome | None = None
    """Of a case that was judged already."""
    canary: Exchange | None = None
    """The plain request after it."""
    timed: Timed | None = None
    """Of a case with samples: they, the history and the second target's."""
    together: list[Exchange] = field(default_factory=list)
    """Of a load case: everything that its group asked at its levels."""
    restarts: tuple[str, ...] = ()
    """When collecting began (UTC, ISO 8601); more than once in a run that was resumed."""
    watching: Callable[[], Watched] = lambda: Watched([], [])
    """The notebook's gauges beside its requests, read when a check asks for them."""

    def reply(self, name: str) -> Reply:
        """The reply of the ask with this name. Raises KeyError."""
        return {reply.ask.name: reply for reply in self.replies}[name]
