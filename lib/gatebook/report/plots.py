"""The two pictures that several notebooks draw."""

from __future__ import annotations

from typing import Any

import pandas as pd


def heatmap(shares: pd.DataFrame, labels: pd.DataFrame | None = None, height: float = 0.55) -> Any:
    """A cell a number in [0, 1], red to green; grey where there is none. `labels`: what stands in the cells. Returns a figure; a sentence where there is no cell."""
    import matplotlib.pyplot as plt

    values = shares.astype(float)
    if values.empty:
        return "nothing of it was asked"
    figure, axes = plt.subplots(figsize=(8, max(1.6, height * len(values) + 1.1)), layout="constrained")
    plt.close(figure)
    axes.set_facecolor("#e5e7eb")
    image = axes.imshow(values, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto", alpha=0.75)
    axes.set_xticks(
        range(values.shape[1]), [_name(name) for name in values.columns], rotation=0 if values.shape[1] < 10 else 90
    )
    axes.set_yticks(range(len(values)), [_name(name) for name in values.index])
    if labels is not None:
        for y, row in enumerate(labels.to_numpy()):
            for x, text in enumerate(row):
                axes.text(x, y, str(text), ha="center", va="center", color="#111827", fontsize=8)
    figure.colorbar(image, ax=axes, label="share of cases")
    return figure


def _name(label: Any) -> str:
    return " ".join(map(str, label)) if isinstance(label, tuple) else str(label)
