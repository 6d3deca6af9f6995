"""The pictures of a notebook."""

from __future__ import annotations

from typing import Any

import pandas as pd

OUTCOME_COLOURS = {"pass": "#2e7d4f", "fail": "#b3261e", "error": "#8a5a00", "not_measured": "#6b7280"}
STATE_COLOURS = {"enforced": "#2e7d4f", "refused": "#8a5a00", "ignored": "#b3261e", "unfinished": "#6b7280"}


def canvas(rows: float) -> Any:
    """Axes of one picture, as high as its rows need."""
    import matplotlib.pyplot as plt

    figure, drawn = plt.subplots(figsize=(8, max(1.6, 0.28 * rows + 0.9)), layout="constrained")
    drawn.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return drawn


def latency_plot(table: pd.DataFrame, ttft_limit_ms: float) -> Any:
    """Time to first token and to the last one, a bar a streamed request; the greeting's limit as a line."""
    shown = table.dropna(subset=["ttft_ms", "total_ms"]).iloc[::-1]
    drawn = canvas(len(shown))
    drawn.barh(shown.index, shown["total_ms"], color="#c7d2e0", label="last token")
    drawn.barh(shown.index, shown["ttft_ms"], color="#1f5fa8", label="first token")
    drawn.axvline(
        ttft_limit_ms,
        color="#b3261e",
        linestyle="--",
        linewidth=1,
        label=f"limit of a greeting's first token, {ttft_limit_ms:g} ms",
    )
    drawn.set_xlabel("ms since the request was sent")
    drawn.legend(frameon=False, fontsize=8)
    return drawn.figure


def ladder_plot(table: pd.DataFrame) -> Any:
    """How far the cases of each group climb."""
    rungs = [column for column in table.columns if column != "cases"]
    drawn = canvas(len(table) * 2)
    shares = table[rungs].div(table["cases"], axis=0).iloc[::-1]
    image = drawn.imshow(shares, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto", alpha=0.75)
    drawn.set_xticks(range(len(rungs)), rungs)
    drawn.set_yticks(range(len(shares)), shares.index)
    for y, group in enumerate(shares.index):
        for x, rung in enumerate(rungs):
            drawn.text(
                x, y, f"{table.loc[group, rung]}/{table.loc[group, 'cases']}", ha="center", va="center", color="#111827"
            )
    drawn.figure.colorbar(image, ax=drawn, label="share of cases")
    return drawn.figure


def groups_plot(counts: pd.DataFrame) -> Any:
    """Cases by outcome, a bar a group."""
    drawn = canvas(len(counts))
    left = pd.Series(0, index=counts.index)
    for outcome, colour in OUTCOME_COLOURS.items():
        drawn.barh(counts.index, counts[outcome], left=left, color=colour, label=outcome.replace("_", " "))
        left = left + counts[outcome]
    drawn.invert_yaxis()
    drawn.set_xlabel("cases")
    drawn.legend(frameon=False, fontsize=8, ncols=4)
    return drawn.figure
