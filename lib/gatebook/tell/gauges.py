"""GPU, KV cache and queue over time, beside the requests that were in flight; and how like production the server is."""

from __future__ import annotations

from typing import Any

import pandas as pd

from gatebook.judge.gauges import Points, Watched
from gatebook.judge.intervals import in_flight
from gatebook.judge.production import compare
from gatebook.plan.production import Production
from gatebook.record.gauges import UNAVAILABLE
from gatebook.record.identity import identify
from gatebook.record.run import Run
from gatebook.tell.tables import headed

RED, BLUE, GREY = "#b3261e", "#1f5fa8", "#9aa5b1"
SOURCES = {"nvml": "NVML", "metrics": "DCGM", "trace": "a trace"}
COLOURS = (BLUE, "#2e7d4f", "#8a5a00", "#6b3fa0")


def watched(run: Run, notebook: str) -> Watched:
    """Raises BrokenRecord."""
    return Watched(run.gauges(notebook), run.exchanges(notebook))


def gauges_table(run: Run, notebook: str) -> pd.DataFrame:
    """One row a gauge: at the start, at the peak and last; the limit, what was left of it, and how often it was read."""
    seen, production = watched(run, notebook), run.manifest.profile.production
    limit = production.gpu_memory_limit_gb
    rows: list[tuple[str, ...]] = []
    for gpu in seen.gpus:
        size = f" of {gpu.total_mib / 1024:.1f} GB" if gpu.total_mib else ""
        name = f"GPU {gpu.id} {gpu.name}{size} ({SOURCES[gpu.source]})"
        rows.append(_row(name, [(ms, mib / 1024) for ms, mib in gpu.used], limit, "{:.2f} GB"))
        rows += [(f"GPU {gpu.id} process {pid}", "", f"{mib / 1024:.2f} GB", "", "", "", "") for pid, mib in sorted(gpu.processes.items())]  # fmt: skip
    rows.append(_row("KV cache in use", seen.kv_cache, production.kv_cache_usage_limit, "{:.0%}"))
    rows.append(_row("waiting in the server", seen.waiting, production.queue_limit, "{:.0f}"))
    rows.append(_row("running in the server", seen.running, None, "{:.0f}"))
    rows.append(_row("preempted since it started", seen.preempted, None, "{:.0f}"))
    why = [r.labels for r in seen.gauges if r.name == UNAVAILABLE]
    rows += [(f"not read: {r.get('of', '')}", "", "", "", "", "", r.get("why", "")) for r in why]
    return headed(
        pd.DataFrame(rows, columns=["gauge", "first", "peak", "last", "limit", "headroom", "readings"]).set_index(
            "gauge"
        )
    )


def _row(name: str, points: Points, limit: float | None, shape: str) -> tuple[str, ...]:
    if not points:
        return name, "", "", "", "" if limit is None else shape.format(limit), "", "not told"
    first, last, peak = points[0][1], points[-1][1], max(value for _, value in points)
    told = [shape.format(value) for value in (first, peak, last)]
    against = ("", "") if limit is None else (shape.format(limit), shape.format(limit - peak))
    return name, *told, *against, str(len(points))


def gauges_plot(run: Run, notebook: str) -> Any:
    """GPU memory with its limit, the KV cache with its limit, and the requests in flight and waiting, on one axis of time."""
    import matplotlib.pyplot as plt

    seen, production = watched(run, notebook), run.manifest.profile.production
    panels = [draw for draw, wanted in ((_memory, seen.gpus), (_kv_cache, seen.kv_cache)) if wanted]
    figure, axes = plt.subplots(
        len(panels) + 1, 1, sharex=True, squeeze=False, figsize=(8, 1.1 + 1.9 * (len(panels) + 1)), layout="constrained"
    )
    start = seen.start_ms() or 0.0
    for axis, draw in zip(axes[:, 0], [*panels, _requests], strict=True):
        axis.spines[["top", "right"]].set_visible(False)
        draw(axis, seen, production, start)
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes[-1, 0].set_xlabel("seconds since the first request")
    plt.close(figure)
    return figure


def _memory(axis: Any, seen: Watched, production: Production, start: float) -> None:
    for number, gpu in enumerate(seen.gpus):
        if gpu.used:
            axis.plot(
                *_xy(gpu.used, start, 1 / 1024),
                color=COLOURS[number % 4],
                label=f"GPU {gpu.id}, {SOURCES[gpu.source]}",
                linewidth=1.2,
            )
    sizes = [gpu.total_mib / 1024 for gpu in seen.gpus if gpu.total_mib]
    if sizes:
        axis.axhline(max(sizes), color=GREY, linewidth=1, label=f"the card, {max(sizes):.1f} GB")
    if production.gpu_memory_limit_gb:
        _limit(axis, production.gpu_memory_limit_gb, f"limit, {production.gpu_memory_limit_gb:g} GB")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("GPU memory, GB")


def _kv_cache(axis: Any, seen: Watched, production: Production, start: float) -> None:
    axis.plot(*_xy(seen.kv_cache, start, 100), color=BLUE, label="in use", linewidth=1.2)
    if production.kv_cache_usage_limit:
        _limit(axis, production.kv_cache_usage_limit * 100, f"limit, {production.kv_cache_usage_limit:.0%}")
    growth = [(b[0] - start) / 1000 for a, b in zip(seen.preempted, seen.preempted[1:], strict=False) if b[1] > a[1]]
    for number, second in enumerate(growth):
        axis.axvline(second, color=RED, alpha=0.5, linewidth=0.8, label="preemption" if number == 0 else None)
    axis.set_ylim(0, 105)
    axis.set_ylabel("KV cache, %")


def _requests(axis: Any, seen: Watched, production: Production, start: float) -> None:
    steps = in_flight(e for e in seen.exchanges if e.kind != "probe")
    if steps:
        xs, ys = _xy([(ms, float(count)) for ms, count in steps], start, 1)
        axis.step(xs, ys, where="post", color=GREY, label="in flight, as sent", linewidth=1)
        axis.fill_between(xs, ys, step="post", color=GREY, alpha=0.25)
    if seen.running:
        axis.plot(*_xy(seen.running, start, 1), color=BLUE, label="running", linewidth=1.2)
    if seen.waiting:
        axis.plot(*_xy(seen.waiting, start, 1), color=RED, label="waiting in the server", linewidth=1.2)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("requests")


def _limit(axis: Any, at: float, label: str) -> None:
    axis.axhline(at, color=RED, linestyle="--", linewidth=1, label=label)


def _xy(points: Points, start: float, scale: float) -> tuple[list[float], list[float]]:
    return [(ms - start) / 1000 for ms, _ in points], [value * scale for _, value in points]


def production_table(run: Run, notebook: str) -> pd.DataFrame:
    """One row an item: what production has, what the server says, who says it, and the outcome. Raises BrokenRecord."""
    profile = run.manifest.profile
    identity = identify(run.exchanges(notebook), profile.target.model)
    rows = []
    for row in compare(profile.production, identity, run.gauges(notebook)):
        told = " / ".join(dict.fromkeys(str(s.value) for s in row.said)) or "unknown"
        sources = "; ".join(s.source for s in row.said)
        stated = "not stated" if row.production is None else str(row.production)
        rows.append((row.item, stated, told, sources, row.outcome.replace("_", " ")))
    columns = ["item", "production", "the server says", "where", "outcome"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("item"))
