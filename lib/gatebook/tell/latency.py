"""Latency for the engineer on call: every metric by every rule, this run beside the window, the server's word beside ours."""

from __future__ import annotations

from typing import Any

import pandas as pd

from gatebook.judge.latency import OUTCOMES, SHOWN_LEVEL, deciding, rulings
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
    """A row a metric, as a share of its limit: days of the window in grey, this run's samples, median and P90 in colour."""
    import numpy as np

    shown = [(timed, metric) for timed in _timed(run, notebook) for metric in timed.metrics]
    drawn = canvas(3 * len(shown))
    names = []
    for y, (timed, metric) in enumerate(shown):
        values, said = timed.values(metric), deciding(timed, metric)
        limits = [r.limit for r in said if r.limit is not None and r.rule != "against"]
        outcome = max(
            (r.outcome for r in said),
            key=lambda o: OUTCOMES.index(o) if o in OUTCOMES else len(OUTCOMES),
            default="not_measured",
        )
        scale = min(limits) if limits else (float(np.max(values)) if values else 1.0)
        for number, day in enumerate(days := list(timed.days(metric).values())):
            drawn.plot([float(np.median(day)) / scale, float(p90(day)) / scale], [y + 0.15 + 0.25 * (number + 1) / (len(days) + 1)] * 2,
                       color="#9ca3af", marker="|", linewidth=1)  # fmt: skip
        if values:
            colour = OUTCOME_COLOURS[outcome]
            drawn.plot(np.array(values) / scale, np.full(len(values), y - 0.25), "|", color="#9db4cf", markersize=6)
            drawn.plot(
                [float(np.median(values)) / scale, float(p90(values)) / scale],
                [y, y],
                color=colour,
                linewidth=5,
                solid_capstyle="butt",
            )
            told = f"{_ms(float(np.median(values)))} to {_ms(float(p90(values)))} ms, limit {_ms(scale) if limits else 'none'}"
            drawn.text(
                1.02,
                y,
                f"{told}: {outcome.replace('_', ' ')}",
                va="center",
                fontsize=8,
                color=colour,
                transform=drawn.get_yaxis_transform(),
            )
        names.append(f"{timed.case.group}\n{NAMES[metric]}")
    drawn.axvline(1, color="#b3261e", linestyle="--", linewidth=1)
    drawn.set_yticks(range(len(names)), names, fontsize=8)
    drawn.set_ylim(len(names) - 0.4, -0.6)
    drawn.set_xlim(0, max(1.15, *(b for b in drawn.get_xlim())))
    drawn.set_xlabel(
        "share of the limit (dashed) · bar: median to P90 of this run · blue ticks: its answers · grey: the days before"
    )
    return drawn.figure


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
