"""Tests, bounds and intervals, on scipy's special functions.

scipy.stats and statsmodels would cost each process a second more; the tests compare with both. numpy and scipy are imported
where they are needed: most commands need neither.
"""

from __future__ import annotations

import hashlib
from math import sqrt
from typing import Any

ALPHA = 0.05
Z = 1.959963984540054
"""ndtri(1 - ALPHA / 2)"""
Q = 0.9
"""The quantile of latencies."""
RESAMPLES = 9_999
FEWEST_PAIRS = 10
"""Below it no interval of a shift is told: the normal approximation of its ranks does not hold."""
MOST_PAIRS = 400
"""Walsh averages grow with the square; beyond this every k-th pair is taken."""


def seed_of(text: str) -> int:
    """What is random has a name, so that a replay shows the same numbers."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def mcnemar_worse(worse: Any, better: Any) -> Any:
    """One-sided exact McNemar p-value that the pass rate fell: P(X >= worse), X ~ Binomial(worse + better, 1/2); also of arrays.

    1.0 without discordant pairs. Source: McNemar 1947, exact form.
    """
    from scipy.special import betainc

    return betainc(worse, better + 1, 0.5)


def sign_flip_worse(changes: list[int]) -> float:
    """One-sided exact p-value that paired changes fell: P(S <= sum of the changes) where each keeps its size and takes its sign
    by a coin, S the sum of all. 1.0 where none is negative.

    Of changes of -1, 0 and 1 it is McNemar's exact test. Source: Fisher 1935, 21; by convolution, after Pagano & Tritchler 1983.
    """
    if not any(change < 0 for change in changes):
        return 1.0
    import numpy as np

    sizes = [abs(change) for change in changes if change]
    chances = np.ones(1)
    for size in sizes:  # chances[k] is that of the sum 2 k - (what is in so far)
        chances = np.pad(chances / 2, (0, size)) + np.pad(chances / 2, (size, 0))
    return float(min(chances[: (sum(changes) + sum(sizes)) // 2 + 1].sum(), 1.0))


def holm(p_values: list[float], family: int, alpha: float = ALPHA) -> list[bool]:
    """Which hypotheses Holm's step-down rejects at `alpha` in a family of `family` tests; those not given count as p = 1."""
    size, rejected = max(family, len(p_values)), [False] * len(p_values)
    for rank, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[number] > alpha / (size - rank):
            break
        rejected[number] = True
    return rejected


def smallest_visible_drop(pairs: int, family: int, alpha: float = ALPHA) -> int | None:
    """The fewest newly failing cases, none improved, that can reject in a family of `family` tests; None when `pairs` cannot.

    The strictest Holm step, alpha / family, is taken: a drop of this size shows whatever the other groups do.
    """
    return next((n for n in range(1, pairs + 1) if mcnemar_worse(n, 0) <= alpha / max(family, 1)), None)


def largest_possible_drop(worse: int, pairs: int) -> float:
    """Upper one-sided 95 % bound of the drop of the pass rate, in [0, 1] (Clopper-Pearson on newly failing cases).

    Improvements are not set against it, so the bound is on the safe side.
    """
    from scipy.special import betaincinv

    return 1.0 if worse >= pairs else float(betaincinv(worse + 1, pairs - worse, 1 - ALPHA))


def wilson(passed: int, n: int) -> tuple[float, float]:
    """Two-sided 95 % Wilson interval of a rate. Raises ValueError for n = 0."""
    if n < 1:
        raise ValueError("a rate of no cases has no interval")
    centre, spread = (passed + Z * Z / 2) / (n + Z * Z), Z / (n + Z * Z) * sqrt(passed * (n - passed) / n + Z * Z / 4)
    return max(centre - spread, 0.0), min(centre + spread, 1.0)


def rate_difference(both: int, worse: int, better: int, neither: int) -> tuple[float, float]:
    """Two-sided 95 % interval of the second pass rate less the first, over pairs, in [-1, 1].

    Counts of pairs: passed in both, only in the first, only in the second, in none. Square-and-add of two Wilson
    intervals with the correlation of the pairs. Source: Newcombe 1998, Statistics in Medicine 17:2635, method 10.
    Raises ValueError for no pairs.
    """
    n = both + worse + better + neither
    (low1, high1), (low2, high2) = wilson(both + worse, n), wilson(both + better, n)
    first, second = (both + worse) / n, (both + better) / n
    product = (both + worse) * (better + neither) * (both + better) * (worse + neither)
    cross = both * neither - worse * better
    phi = (max(cross - n / 2, 0.0) if cross > 0 else cross) / sqrt(product) if product else 0.0

    def distance(a: float, b: float) -> float:
        return sqrt(max(a**2 - 2 * phi * a * b + b**2, 0.0))

    low = second - first - distance(second - low2, high1 - first)
    high = second - first + distance(high2 - second, first - low1)
    return max(low, -1.0), min(high, 1.0)


def mean_interval(differences: list[float], name: str, confidence: float = 0.95) -> tuple[float, float] | None:
    """Two-sided percentile interval of the mean; None where fewer than two differ or all are equal, which resampling
    cannot tell from certainty. `name` (the run's) is the seed.

    Each difference is one cluster (a task, a prompt). Source: Efron 1979; percentile method. With few clusters it is too
    narrow: the share of misses is simulated in tests/unit/test_bootstrap.py.
    """
    if len(set(differences)) < 2:
        return None
    import numpy as np

    values = np.asarray(differences, dtype=float)
    drawn = np.random.default_rng(seed_of(name)).integers(0, len(values), (RESAMPLES, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[drawn].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def p90(samples: Any) -> Any:
    """The 90th percentile over the last axis, linear interpolation."""
    import numpy as np

    return np.quantile(np.asarray(samples, dtype=float), Q, axis=-1)


def p90_lower(samples: Any, level: float) -> Any:
    """One-sided lower bound of the P90, missed with at most `level`; 0 where there are too few samples to give one.

    An order statistic over the last axis, free of any distribution (Conover 1999, 3.2).
    """
    import numpy as np
    from scipy.special import bdtr

    ordered = np.sort(np.asarray(samples, dtype=float), axis=-1)
    n = ordered.shape[-1]
    rank = int(np.sum(bdtr(np.arange(n + 1), n, Q) < level))  # P(fewer than `rank` samples under the P90) <= level
    return ordered[..., rank - 1] if rank else np.zeros(ordered.shape[:-1])


def day_bounds(days: Any, level: float, miss: float) -> tuple[Any, Any, Any]:
    """From the log medians of d days: their mean, how far above it a new healthy day lies with chance `level`, and with `miss`.

    Prediction interval for one new day: t(d - 1) * s * sqrt(1 + 1/d); the days are the unit, since requests of one day share
    its load and its machine (Hahn & Meeker 1991).
    """
    import numpy as np
    from scipy.special import stdtrit

    values = np.asarray(days, dtype=float)
    d = values.shape[-1]
    spread = values.std(axis=-1, ddof=1) * np.sqrt(1 + 1 / d)
    return values.mean(axis=-1), stdtrit(d - 1, 1 - level) * spread, stdtrit(d - 1, 1 - miss) * spread


def _walsh(values: Any) -> Any:
    """The mean of every pair of values, each with itself too, over the last axis."""
    import numpy as np

    i, j = np.triu_indices(values.shape[-1])
    return (values[..., i] + values[..., j]) / 2


def hodges_lehmann(differences: Any) -> Any:
    """The median of the Walsh averages of paired differences, over the last axis. Source: Hodges & Lehmann 1963."""
    import numpy as np

    return np.median(_walsh(np.asarray(differences)), axis=-1)


def shift(differences: list[float]) -> tuple[float, float, float]:
    """Hodges-Lehmann shift of paired differences, with its two-sided 95 % interval.

    The interval inverts the Wilcoxon signed-rank test by the normal approximation of its ranks. Source: Hollander, Wolfe &
    Chicken 2014, 3.3. Raises ValueError below FEWEST_PAIRS.
    """
    if len(differences) < FEWEST_PAIRS:
        raise ValueError(f"{len(differences)} pairs are too few for an interval; {FEWEST_PAIRS} are needed")
    import numpy as np

    values = np.asarray(differences[:: -(-len(differences) // MOST_PAIRS)], dtype=float)
    n, averages = len(values), np.sort(_walsh(values))
    rank = max(int(n * (n + 1) / 4 - Z * sqrt(n * (n + 1) * (2 * n + 1) / 24)), 1)
    return float(np.median(averages)), float(averages[rank - 1]), float(averages[-rank])


def shift_bounds(differences: Any, level: float, miss: float, seed: int, resamples: int = 999) -> tuple[Any, Any, Any]:
    """The Hodges-Lehmann shift, its lower bound at `level` and its upper one at `miss`: t quantile times bootstrap error.

    Percentiles of a bootstrap of 30 pairs say nothing about a level of one in a thousand; its standard error does
    (Efron & Tibshirani 1993, ch. 12; their rates are simulated in docs/decisions/latency-rules.md).
    """
    import numpy as np
    from scipy.special import stdtrit

    values, rng = np.asarray(differences, dtype=np.float32), np.random.default_rng(seed)
    n = values.shape[-1]
    drawn = [hodges_lehmann(values[..., rng.integers(0, n, n)]) for _ in range(resamples)]
    error, middle = np.std(drawn, axis=0, ddof=1), hodges_lehmann(values)
    return middle, middle - stdtrit(n - 1, 1 - level) * error, middle + stdtrit(n - 1, 1 - miss) * error
