"""Latency for the engineer on call: every metric by every rule, this run beside the window, the server's word beside ours."""

from __future__ import annotations

from typing import Any

import pandas as pd

from gatebook.judge.finding import worst
from gatebook.judge.latency import SHOWN_LEVEL, deciding, rulings
from gatebook.judge.latency_stats import p90, p90_bounds
from gatebook.judge.server_side import server_side
from gatebook.judge.timed import Timed, timed_cases
from gatebook.plan.latency import METRICS, Metric
from gatebook.record.run import Run
from gatebook.record.samples import is_cold
from gatebook.tell.plots import OUTCOME_COLOURS, canvas
from gatebook.tell.tables import headed

NAMES: dict[Metric, str] = {"ttft": "first token", "itl": "between tokens", "total": "last token"}


def _timed(run: Run, notebook: str) -> list[Timed]:
    return list(timed_cases(run, notebook, run.exchanges(notebook)).values())


def latency_table(run: Run, notebook: str) -> pd.DataFrame:
    """One row a group, metric and rule: which limit it sets, whether it blocks, what it says."""
    rows = []
    for timed in _timed(run, notebook):
        for metric in timed.metrics:
            values, blocks = timed.values(metric), timed.blocking(metric)
            stands_in = [r.rule for r in deciding(timed, metric) if r.rule not in blocks]
            for ruling in rulings(timed, metric):
                unit = "times" if ruling.rule == "against" else "ms"
                rows.append((
                    f"{timed.case.group} {NAMES[metric]}", len(values), _median(values), _interval(values), ruling.rule,
                    "stands in" if ruling.rule in stands_in else "blocks" if ruling.rule in blocks else "shown",
                    "" if ruling.limit is None else f"{_ms(ruling.limit)} {unit}", ruling.outcome, ruling.reason,
                ))  # fmt: skip
    columns = ["metric", "n", "median ms", "P90 ms (90 % interval)", "rule", "blocks", "limit", "outcome", "reason"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("metric"))


def cold_table(run: Run, notebook: str) -> pd.DataFrame:
    """The first requests of each group, which no rule counts, beside the later ones; what did not count, and why."""
    rows = []
    for timed in _timed(run, notebook):
        first, later = timed.samples[: timed.settings.warm_up], timed.samples[timed.settings.warm_up :]
        for metric in METRICS:
            cold = [f"{_ms(v)}" for s in first if (v := s.of(metric)) is not None]
            rows.append((
                f"{timed.case.group} {NAMES[metric]}", ", ".join(cold), _median(timed.values(metric)),
                "cold" if is_cold(timed.case) else "warm", sum(s.invalid is not None for s in later),
                next((s.invalid for s in later if s.invalid), ""),
            ))  # fmt: skip
    columns = ["metric", "first requests ms", "then median ms", "prefix cache", "do not count", "because"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("metric"))


def server_table(run: Run, notebook: str) -> pd.DataFrame:
    """What we waited beside what the server says it took; the difference is network, gateway and queue."""
    rows = [
        (f"{side.group} {NAMES[side.metric]}", _ms(side.client_ms), _ms(side.server_ms), _ms(side.client_ms - side.server_ms), side.source, side.says)
        for timed in _timed(run, notebook)
        for side in server_side(timed, run.exchanges(notebook))
    ]  # fmt: skip
    columns = ["metric", "we waited ms", "server says ms", "difference ms", "source", "so"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("metric"))


def latency_plot(run: Run, notebook: str) -> Any:
    """A row a metric, in multiples of its usual time: this run's answers, its median to P90 as a bar, the days before in
    grey, and above the bar where the median and the P90 would have had to stop."""
    import numpy as np

    shown = [(timed, metric) for timed in _timed(run, notebook) for metric in timed.metrics if timed.values(metric)]
    drawn = canvas(3.5 * len(shown))
    for y, (timed, metric) in enumerate(shown):
        values, days, said = timed.values(metric), list(timed.days(metric).values()), deciding(timed, metric)
        usual = float(np.median([np.median(day) for day in days] or values))
        outcome = worst([ruling.outcome for ruling in said])
        colour = OUTCOME_COLOURS[outcome]
        for number, day in enumerate(days, 1):
            drawn.plot(_bar(day, usual), [y + 0.1 + 0.3 * number / len(days)] * 2, color="#b8bec8", linewidth=1.5)
        drawn.plot(np.array(values) / usual, np.full(len(values), y), "|", color="#9db4cf", markersize=5)
        drawn.plot(_bar(values, usual), [y - 0.12] * 2, color=colour, linewidth=5, solid_capstyle="butt")
        told = []
        for name, rules, measured in (
            ("median", ("day",), np.median(values)),
            ("P90", ("p90", "absolute"), p90(values)),
        ):
            limits = [r.limit for r in said if r.rule in rules and r.limit is not None]
            if limits:
                x = min(limits) / usual
                drawn.plot([x, x], [y - 0.3, y - 0.05], color="#b3261e", linewidth=1.5)
                drawn.text(x, y - 0.31, f"{name} limit", fontsize=6, ha="center", va="bottom", color="#b3261e")
            told.append(f"{name} {_ms(float(measured))}{f' of {_ms(min(limits))}' if limits else ''}")
        text = f"{', '.join(told)} ms\n{outcome.replace('_', ' ')}"
        drawn.text(1.01, y, text, va="center", fontsize=8, color=colour, transform=drawn.get_yaxis_transform())
    drawn.set_yticks(range(len(shown)), [f"{t.case.group}\n{NAMES[m]}" for t, m in shown], fontsize=8)
    drawn.set_ylim(max(len(shown), 1) - 0.4, -0.7)
    drawn.set_xlim(left=0)
    drawn.set_xlabel("times the usual (1 = median of the days before, or of this run without any)\n"
                     "bar: median to P90 of this run · ticks: its answers · grey: median to P90 of each day before", fontsize=8)  # fmt: skip
    return drawn.figure


def _bar(values: list[float], usual: float) -> list[float]:
    import numpy as np

    return [float(np.median(values)) / usual, float(p90(values)) / usual]


def _median(values: list[float]) -> str:
    from statistics import median

    return _ms(median(values)) if values else ""


def _interval(values: list[float]) -> str:
    if not values:
        return ""
    low, high = p90_bounds(values, SHOWN_LEVEL)
    top = "?" if high == float("inf") else _ms(float(high))
    return f"{_ms(float(p90(values)))} ({_ms(float(low))} to {top})"


def _ms(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
