"""The picture that several notebooks draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def heatmap(shares: pd.DataFrame, labels: pd.DataFrame | None = None, height: float = 0.55) -> Any:
    """A cell a number in [0, 1], red to green; grey where there is none. `labels`: what stands in the cells. Returns a figure; a sentence where there is no cell."""
    import matplotlib.pyplot as plt

    if shares.empty:
        return "nothing of it was asked"
    rows, columns = ([_name(label) for label in axis] for axis in (shares.index, shares.columns))
    figure, axes = plt.subplots(figsize=(8, max(1.6, height * len(rows) + 1.1)), layout="constrained")
    plt.close(figure)
    axes.set_facecolor("#e5e7eb")
    image = axes.imshow(shares.astype(float), cmap="RdYlGn", vmin=0, vmax=1, aspect="auto", alpha=0.75)
    axes.set_xticks(range(len(columns)), columns, rotation=0 if len(columns) < 10 else 90)
    axes.set_yticks(range(len(rows)), rows)
    for (y, x), text in np.ndenumerate([] if labels is None else labels.to_numpy()):
        axes.text(x, y, str(text), ha="center", va="center", color="#111827", fontsize=8)
    figure.colorbar(image, ax=axes, label="share of cases")
    return figure


def _name(label: Any) -> str:
    return " ".join(map(str, label)) if isinstance(label, tuple) else str(label)
