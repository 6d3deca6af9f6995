"""The statistics of latency verdicts, over the last axis of arrays, so that the simulation runs the very code of the gate."""

from __future__ import annotations

from typing import Any

Q = 0.9


def p90(samples: Any) -> Any:
    """The 90th percentile, linear interpolation."""
    import numpy as np

    return np.quantile(np.asarray(samples, dtype=float), Q, axis=-1)


def p90_bounds(samples: Any, level: float) -> tuple[Any, Any]:
    """One-sided lower and upper bounds of the P90, each missed with at most `level`, from order statistics.

    Free of any distribution (Conover 1999, 3.2). A bound that n samples cannot give is 0 or infinite: the upper one at 5 %
    needs 29 samples.
    """
    import numpy as np
    from scipy.stats import binom

    ordered = np.sort(np.asarray(samples, dtype=float), axis=-1)
    n = ordered.shape[-1]
    below = binom.cdf(np.arange(n + 1), n, Q)  # below[k]: at most k samples lie under the P90
    low = int(np.sum(below < level)) if level > 0 else 0  # P(fewer than `low` under it) <= level
    above = np.flatnonzero(below >= 1 - level)
    high = int(above[0]) if len(above) else n
    shape = ordered.shape[:-1]
    return (
        ordered[..., low - 1] if low > 0 else np.zeros(shape),
        ordered[..., high] if high < n else np.full(shape, np.inf),
    )


def day_bounds(days: Any, level: float, miss: float) -> tuple[Any, Any, Any]:
    """From the log medians of d days: their mean, how far above it a new healthy day lies with chance `level`, and with `miss`.

    Prediction interval for one new day: t(d - 1) * s * sqrt(1 + 1/d); the days are the unit, since requests of one day share
    its load and its machine (Hahn & Meeker 1991).
    """
    import numpy as np
    from scipy.stats import t

    values = np.asarray(days, dtype=float)
    d = values.shape[-1]
    spread = values.std(axis=-1, ddof=1) * np.sqrt(1 + 1 / d)
    return values.mean(axis=-1), t.ppf(1 - level, d - 1) * spread, t.ppf(1 - miss, d - 1) * spread


def hodges_lehmann(differences: Any) -> Any:
    """The median of all pairwise means (Walsh averages) of paired differences. Source: Hodges & Lehmann 1963."""
    import numpy as np

    values = np.asarray(differences)
    i, j = np.triu_indices(values.shape[-1])
    return np.median((values[..., i] + values[..., j]) / 2, axis=-1)


def shift_bounds(differences: Any, level: float, miss: float, seed: int, resamples: int = 999) -> tuple[Any, Any, Any]:
    """The Hodges-Lehmann shift, its lower bound at `level` and its upper one at `miss`: t quantile times bootstrap error.

    Percentiles of a bootstrap of 30 pairs say nothing about a level of one in a thousand; its standard error does
    (Efron & Tibshirani 1993, ch. 12; their rates are simulated in docs/decisions/latency-rules.md).
    """
    import numpy as np
    from scipy.stats import t

    values = np.asarray(differences, dtype=np.float32)
    n = values.shape[-1]
    rng = np.random.default_rng(seed)
    drawn = [hodges_lehmann(values[..., rng.integers(0, n, n)]) for _ in range(resamples)]
    error, shift = np.std(drawn, axis=0, ddof=1), hodges_lehmann(values)
    return shift, shift - t.ppf(1 - level, n - 1) * error, shift + t.ppf(1 - miss, n - 1) * error
