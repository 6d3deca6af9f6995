"""Resampling the mean of paired differences: the interval that a table shows beside a change. It decides nothing."""

from __future__ import annotations

import hashlib

RESAMPLES = 9_999


def mean_interval(differences: list[float], name: str, confidence: float = 0.95) -> tuple[float, float] | None:
    """Two-sided percentile interval of the mean; None where fewer than two differ or all are equal, which resampling
    cannot tell from certainty. The seed comes from `name` (the run's), so that a replay shows the same numbers.

    Each difference is one cluster (a task, a prompt). Source: Efron 1979; percentile method. With few clusters it is too
    narrow: the share of misses is simulated in tests/unit/test_bootstrap.py.
    """
    if len(set(differences)) < 2:
        return None
    import numpy as np

    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    values = np.asarray(differences, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[drawn].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)
