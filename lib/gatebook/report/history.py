"""The history for people and for other tools: a table, a file, the trend as a picture."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from gatebook.errors import BadInput, CannotMeasure, one_line, os_reason
from gatebook.record.exchange import Measurement

METRICS = {
    "ttft_ms": "time to first token, ms",
    "itl_ms": "time between tokens, ms",
    "total_ms": "time to last token, ms",
}
COLUMNS = ["run", "group", "n", "ttft", "itl", "total", "tokens/s", "gpu", "revision", "verdict", "accepted"]
VERDICT_COLOURS = {"PASS": "#2e7d4f", "FAIL": "#b3261e", "INCONCLUSIVE": "#6d28d9", "ERROR": "#8a5a00"}
BAND, GREY = "#c7d2e0", "#374151"
FONTS = {"font.size": 8, "axes.titlesize": 9, "axes.labelsize": 7, "xtick.labelsize": 8, "ytick.labelsize": 8}
FRAMES = {
    "date.converter": "concise",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": GREY,
    "legend.frameon": False,
}
MOST_ROWS = 24
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Full-width signs are signs too where a spreadsheet speaks Chinese or Japanese."""


def history_table(rows: Iterable[Measurement]) -> pd.DataFrame:
    """One row a group of a run: medians in ms, and what it may be compared with."""
    found = [
        (
            one_line(r.run), one_line(r.group), r.n, *(f"{median(ms):.1f}" if (ms := getattr(r, name)) else "" for name in METRICS),
            "" if r.tokens_per_s is None else f"{r.tokens_per_s:.1f}", one_line(r.gpu), one_line(r.revision or "none named"),
            r.verdict, "yes" if r.accepted else "no",
        )
        for r in rows
    ]  # fmt: skip
    return pd.DataFrame(found, columns=COLUMNS).set_index("run").rename_axis(index=None, columns="run")


def export(rows: list[Measurement], file: Path) -> None:
    """Write every column to `.csv` (lists as JSON) or `.parquet` (lists as lists, times as UTC). Raises BadInput."""
    frame = pd.DataFrame([row.model_dump() for row in rows], columns=list(Measurement.model_fields))
    if file.suffix == ".csv":
        cells = frame.map(_cell)
        _write(file, lambda: cells.to_csv(file, index=False))
    elif file.suffix == ".parquet":
        _write(file, lambda: frame.to_parquet(file, index=False))
    else:
        raise BadInput(f"{file}: an export is FILE.csv or FILE.parquet; name one of them")


def _cell(value: Any) -> Any:
    """Return the CSV cell; a quote goes before what a spreadsheet would compute (OWASP, CSV injection)."""
    match value:
        case list():
            return json.dumps(value)
        case datetime():
            return value.isoformat()
        case str() if value.lstrip(" \xa0\ufeff").startswith(FORMULA):
            return f"'{value}"
    return value


def plot_trend(rows: list[Measurement], file: Path) -> str:
    """Write the trend to `.png` or `.svg`: a row of pictures for each key, the median of every run coloured by its
    verdict, a band from P10 to P90; hollow where it is not accepted. Says what was left out. Raises BadInput."""
    import matplotlib.pyplot as plt

    if file.suffix not in (".png", ".svg"):
        raise BadInput(f"{file}: a plot is FILE.png or FILE.svg; name one of them")
    if not rows:
        raise BadInput(
            "the history has no such row, so there is nothing to plot; `gatebook history list` shows what it has"
        )
    by_key: dict[tuple[str, ...], list[Measurement]] = defaultdict(list)
    for row in rows:
        by_key[row.key].append(row)
    keys = sorted(sorted(by_key, key=lambda key: by_key[key][-1].at)[-MOST_ROWS:])
    with plt.rc_context({**FONTS, **FRAMES}):
        figure = _figure([by_key[key] for key in keys])
        _write(file, lambda: figure.savefig(file, dpi=110))
    left = len(by_key) - len(keys)
    more = f"; {left} older ones left out, narrow it with --profile or --group" if left else ""
    return f"{file}: {len(keys)} groups{more}"


def _figure(series: list[list[Measurement]]) -> Any:
    import matplotlib.pyplot as plt

    shape, size = (len(series), len(METRICS)), (13, 1.9 * len(series) + 0.9)
    figure, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False, sharex=True)
    plt.close(figure)
    for row, runs in zip(axes, series, strict=True):
        for drawn, name in zip(row, METRICS, strict=True):
            _panel(drawn, [(r, values) for r in runs if (values := getattr(r, name))])
        last = runs[-1]
        where = [last.profile, last.engine, last.suite, *([] if last.gpu == "none" else [last.gpu])]
        row[0].set_ylabel(f"{last.group}\n{' · '.join(where)}\nworkload {last.workload[:8]}")
    for drawn, title in zip(axes[0], METRICS.values(), strict=True):
        drawn.set_title(title)
    made = [r.at for runs in series for r in runs]
    pad = max((max(made) - min(made)) / 30, timedelta(hours=6))
    axes[0][0].set_xlim(min(made) - pad, max(made) + pad)
    axes[-1][0].set_xlabel("when the run was made, UTC")
    marks = {label: mark for drawn in axes.flat for mark, label in zip(*drawn.get_legend_handles_labels(), strict=True)}
    figure.legend(marks.values(), marks, loc="outside upper center", ncols=len(marks))
    return figure


def _panel(drawn: Any, runs: list[tuple[Measurement, list[float]]]) -> None:
    at = [r.at for r, _ in runs]
    shares: Any = np.reshape([np.percentile(values, (10, 50, 90)) for _, values in runs], (-1, 3))
    low, middle, high = shares.T
    drawn.fill_between(at, low, high, color=BAND, alpha=0.7, linewidth=0)
    drawn.vlines(at, low, high, color=BAND, linewidth=3, label="P10 to P90")  # a single run has no band
    drawn.plot(at, middle, color="#9ca3af", linewidth=0.8)
    for (row, _), value in zip(runs, middle, strict=True):
        colour = VERDICT_COLOURS.get(row.verdict, GREY)
        label = f"median, {row.verdict}{'' if row.accepted else ', not accepted'}"
        drawn.plot(row.at, value, "o", color=colour, mfc=colour if row.accepted else "white", markersize=5, label=label)
    drawn.set_ylim(0, max(high, default=1) * 1.15)


def _write(file: Path, write: Callable[[], object]) -> None:
    """Write the file whole or not at all: half an export looks like one."""
    try:
        write()
    except BaseException as error:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CannotMeasure(f"{file}: cannot be written ({os_reason(error)}); choose another file") from None
        raise
