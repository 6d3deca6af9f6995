"""What the latency rules see of a timed case: its samples, the comparable days before, the second target's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC
from itertools import groupby

from gatebook.config.cases import Case
from gatebook.config.policies import METRICS, RULES, Latency, Metric, Rule
from gatebook.record.exchange import Exchange, Measurement
from gatebook.record.run import Run
from gatebook.record.samples import Sample, comparable, samples_of


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
