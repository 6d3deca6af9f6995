"""The history for people and for other tools: a table, a file, the trend as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from gatebook.errors import BadInput, CannotMeasure, one_line, os_reason
from gatebook.record.measurement import Measurement
from gatebook.report.tables import headed

METRICS = {
    "ttft_ms": "time to first token, ms",
    "itl_ms": "time between tokens, ms",
    "total_ms": "time to last token, ms",
}
VERDICT_COLOURS = {"PASS": "#2e7d4f", "FAIL": "#b3261e", "INCONCLUSIVE": "#6d28d9", "ERROR": "#8a5a00"}
LISTS = (*METRICS, "prompt_tokens", "completion_tokens")
MOST_ROWS = 24
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Full-width signs are signs too where a spreadsheet speaks Chinese or Japanese."""


def history_table(rows: Iterable[Measurement]) -> pd.DataFrame:
    """One row a group of a run: medians in ms, and what it may be compared with."""
    columns = ["run", "group", "n", "ttft", "itl", "total", "tokens/s", "gpu", "revision", "verdict", "accepted"]
    found = [
        (
            one_line(r.run), one_line(r.group), r.n, *(_shown(getattr(r, name)) for name in METRICS),
            "" if r.tokens_per_s is None else f"{r.tokens_per_s:.1f}", one_line(r.gpu), one_line(r.revision or "none named"), r.verdict, "yes" if r.accepted else "no",
        )
        for r in rows
    ]  # fmt: skip
    return headed(pd.DataFrame(found, columns=columns).set_index("run"))


def _shown(values: list[float]) -> str:
    return f"{median(values):.1f}" if values else ""


def export(rows: list[Measurement], file: Path) -> None:
    """Write every column to `.csv` (lists as JSON) or `.parquet` (lists as lists, times as UTC). Raises BadInput."""
    if file.suffix not in (".csv", ".parquet"):
        raise BadInput(f"{file}: an export is FILE.csv or FILE.parquet; name one of them")
    frame = pd.DataFrame([row.model_dump() for row in rows], columns=list(Measurement.model_fields))
    if file.suffix == ".csv":
        for name in LISTS:
            frame[name] = frame[name].map(json.dumps)
        frame["at"] = [row.at.isoformat() for row in rows]
        for name in frame.columns:
            frame[name] = [inert(value) if isinstance(value, str) else value for value in frame[name]]
        _write(file, lambda: frame.to_csv(file, index=False))
    else:
        _write(file, lambda: frame.to_parquet(file, index=False))


def inert(text: str) -> str:
    """The text as a spreadsheet shows it: with a quote before what it would compute (OWASP, CSV injection)."""
    return f"'{text}" if text.lstrip(" \xa0\ufeff").startswith(FORMULA) else text


def plot_trend(rows: list[Measurement], file: Path) -> str:
    """Write the trend to `.png` or `.svg`: a row of pictures for each key, the median of every run coloured by its
    verdict, a band from P10 to P90; hollow where it is not accepted. Says what was left out. Raises BadInput."""
    if file.suffix not in (".png", ".svg"):
        raise BadInput(f"{file}: a plot is FILE.png or FILE.svg; name one of them")
    if not rows:
        raise BadInput(
            "the history has no such row, so there is nothing to plot; `gatebook history list` shows what it has"
        )
    by_key: dict[tuple[str, ...], list[Measurement]] = {}
    for row in rows:
        by_key.setdefault(row.key, []).append(row)
    keys = sorted(sorted(by_key, key=lambda key: by_key[key][-1].at)[-MOST_ROWS:])
    figure = _figure([by_key[key] for key in keys])
    _write(file, lambda: figure.savefig(file, dpi=110))
    left = len(by_key) - len(keys)
    return f"{file}: {len(keys)} groups" + (
        f"; {left} older ones left out, narrow it with --profile or --group" if left else ""
    )


def _figure(series: list[list[Measurement]]) -> Any:
    import matplotlib.dates as dates
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    high = 1.9 * len(series) + 0.9
    figure, axes = plt.subplots(len(series), len(METRICS), figsize=(13, high), layout="constrained", squeeze=False, sharex=True)  # fmt: skip
    plt.close(figure)
    for row, runs in zip(axes, series, strict=True):
        for drawn, name in zip(row, METRICS, strict=True):
            _panel(drawn, [(r, values) for r in runs if (values := getattr(r, name))])
        last = runs[-1]
        where = f"{last.profile} · {last.engine} · {last.suite}" + ("" if last.gpu == "none" else f" · {last.gpu}")
        row[0].set_ylabel(f"{last.group}\n{where}\nworkload {last.workload[:8]}", fontsize=7)
    for drawn, title in zip(axes[0], METRICS.values(), strict=True):
        drawn.set_title(title, fontsize=9, color="#374151")
    made = [r.at for runs in series for r in runs]
    pad = max((max(made) - min(made)) / 30, timedelta(hours=6))
    axes[0][0].set_xlim(min(made) - pad, max(made) + pad)
    ticks = dates.AutoDateLocator(minticks=2, maxticks=7, tz="UTC")
    for drawn in axes[-1]:
        drawn.xaxis.set_major_locator(ticks)
        drawn.xaxis.get_offset_text().set_fontsize(8)
        drawn.xaxis.set_major_formatter(dates.ConciseDateFormatter(ticks, tz="UTC"))
    axes[-1][0].set_xlabel("when the run was made, UTC", fontsize=8)
    shown = [v for v in VERDICT_COLOURS if any(r.verdict == v for runs in series for r in runs)]
    marks = [Line2D([], [], marker="o", linestyle="", color=VERDICT_COLOURS[v], label=f"median, {v}") for v in shown]
    if any(not r.accepted for runs in series for r in runs):
        marks.append(Line2D([], [], marker="o", linestyle="", color="#374151", mfc="white", label="not accepted"))
    marks.append(Line2D([], [], linewidth=7, color="#c7d2e0", label="P10 to P90"))
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False, fontsize=8)
    return figure


def _panel(drawn: Any, runs: list[tuple[Measurement, list[float]]]) -> None:
    import numpy as np

    drawn.spines[["top", "right"]].set_visible(False)
    drawn.tick_params(labelsize=8)
    at = [r.at for r, _ in runs]
    low, middle, high = ([float(np.percentile(values, p)) for _, values in runs] for p in (10, 50, 90))
    drawn.fill_between(at, low, high, color="#c7d2e0", alpha=0.7, linewidth=0)
    drawn.vlines(at, low, high, color="#c7d2e0", linewidth=3)  # a single run has no band
    drawn.plot(at, middle, color="#9ca3af", linewidth=0.8)
    for (row, _), when, value in zip(runs, at, middle, strict=True):
        colour = VERDICT_COLOURS.get(row.verdict, "#374151")
        drawn.plot(when, value, "o", color=colour, markersize=5, markerfacecolor=colour if row.accepted else "white")
    drawn.set_ylim(0, max(high, default=1) * 1.15)


def _write(file: Path, write: Any) -> None:
    """Whole, or not at all: half an export looks like one."""
    try:
        write()
    except BaseException as error:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CannotMeasure(f"{file}: cannot be written ({os_reason(error)}); choose another file") from None
        raise
