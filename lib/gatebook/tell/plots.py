"""The pictures of a notebook."""

from __future__ import annotations

from typing import Any

import pandas as pd

OUTCOME_COLOURS = {"pass": "#2e7d4f", "fail": "#b3261e", "error": "#8a5a00", "not_measured": "#6b7280"}
STATE_COLOURS = {"enforced": "#2e7d4f", "refused": "#8a5a00", "ignored": "#b3261e", "unfinished": "#6b7280"}


def _axes(rows: int) -> Any:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, max(1.6, 0.28 * rows + 0.9)), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return axes


def latency_plot(table: pd.DataFrame, ttft_limit_ms: float) -> Any:
    """Time to first token and to the last one, a bar a streamed request; the greeting's limit as a line."""
    shown = table.dropna(subset=["ttft_ms", "total_ms"]).iloc[::-1]
    axes = _axes(len(shown))
    axes.barh(shown.index, shown["total_ms"], color="#c7d2e0", label="last token")
    axes.barh(shown.index, shown["ttft_ms"], color="#1f5fa8", label="first token")
    axes.axvline(
        ttft_limit_ms,
        color="#b3261e",
        linestyle="--",
        linewidth=1,
        label=f"limit of a greeting's first token, {ttft_limit_ms:g} ms",
    )
    axes.set_xlabel("ms since the request was sent")
    axes.legend(frameon=False, fontsize=8)
    return axes.figure


def ladder_plot(table: pd.DataFrame) -> Any:
    """How far the cases of each group climb."""
    rungs = [column for column in table.columns if column != "cases"]
    axes = _axes(len(table) * 2)
    shares = table[rungs].div(table["cases"], axis=0).iloc[::-1]
    image = axes.imshow(shares, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto", alpha=0.75)
    axes.set_xticks(range(len(rungs)), rungs)
    axes.set_yticks(range(len(shares)), shares.index)
    for y, group in enumerate(shares.index):
        for x, rung in enumerate(rungs):
            axes.text(
                x, y, f"{table.loc[group, rung]}/{table.loc[group, 'cases']}", ha="center", va="center", color="#111827"
            )
    axes.figure.colorbar(image, ax=axes, label="share of cases")
    return axes.figure


def groups_plot(counts: pd.DataFrame) -> Any:
    """Cases by outcome, a bar a group."""
    axes = _axes(len(counts))
    left = pd.Series(0, index=counts.index)
    for outcome, colour in OUTCOME_COLOURS.items():
        axes.barh(counts.index, counts[outcome], left=left, color=colour, label=outcome.replace("_", " "))
        left = left + counts[outcome]
    axes.invert_yaxis()
    axes.set_xlabel("cases")
    axes.legend(frameon=False, fontsize=8, ncols=4)
    return axes.figure
