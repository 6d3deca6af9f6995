"""The statistics of a verdict, on scipy's special functions.

scipy.stats and statsmodels would cost each process a second more; the tests compare with both.
"""

from __future__ import annotations

import hashlib
from itertools import combinations_with_replacement
from math import sqrt
from statistics import median

ALPHA = 0.05


def mcnemar_worse(worse: int, better: int) -> float:
    """One-sided exact McNemar p-value that the pass rate fell: P(X >= worse), X ~ Binomial(worse + better, 1/2).

    1.0 without discordant pairs. Source: McNemar 1947, exact form.
    """
    from scipy.special import betainc

    return float(betainc(worse, better + 1, 0.5)) if worse else 1.0


def holm(p_values: list[float], family: int, alpha: float = ALPHA) -> list[bool]:
    """Which hypotheses Holm's step-down rejects at `alpha` in a family of `family` tests; those not given count as p = 1."""
    size, rejected = max(family, len(p_values)), [False] * len(p_values)
    for rank, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[number] > alpha / (size - rank):
            break
        rejected[number] = True
    return rejected


def smallest_visible_drop(pairs: int, family: int) -> int | None:
    """The fewest newly failing cases, none improved, that can reject in a family of `family` tests; None when `pairs` cannot.

    The strictest Holm step, alpha / family, is taken: a drop of this size shows whatever the other groups do.
    """
    return next((n for n in range(1, pairs + 1) if mcnemar_worse(n, 0) <= ALPHA / max(family, 1)), None)


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
    from scipy.special import ndtri

    z = float(ndtri(1 - ALPHA / 2))
    centre, spread = (passed + z * z / 2) / (n + z * z), z / (n + z * z) * sqrt(passed * (n - passed) / n + z * z / 4)
    return max(centre - spread, 0.0), min(centre + spread, 1.0)


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


FEWEST_PAIRS = 10
"""Below it no interval of a shift is told: the normal approximation of its ranks does not hold."""
MOST_PAIRS = 400
"""Walsh averages grow with the square; beyond this every k-th pair is taken."""


def rate_difference(both: int, worse: int, better: int, neither: int) -> tuple[float, float]:
    """Two-sided 95 % interval of the second pass rate less the first, over pairs, in [-1, 1].

    Counts of pairs: passed in both, only in the first, only in the second, in none. Square-and-add of two Wilson
    intervals with the correlation of the pairs. Source: Newcombe 1998, Statistics in Medicine 17:2635, method 10.
    Raises ValueError for no pairs.
    """
    n = both + worse + better + neither
    first, second = (both + worse) / n if n else 0.0, (both + better) / n if n else 0.0
    (low1, high1), (low2, high2) = wilson(both + worse, n), wilson(both + better, n)
    product = (both + worse) * (better + neither) * (both + better) * (worse + neither)
    cross = float(both * neither - worse * better)
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    phi = cross / sqrt(product) if product else 0.0
    down, up = second - low2, high1 - first
    low = second - first - sqrt(max(down**2 - 2 * phi * down * up + up**2, 0.0))
    up, down = high2 - second, first - low1
    high = second - first + sqrt(max(up**2 - 2 * phi * up * down + down**2, 0.0))
    return max(low, -1.0), min(high, 1.0)


def shift(differences: list[float]) -> tuple[float, float, float]:
    """Hodges-Lehmann shift (median of the Walsh averages) of paired differences, with its two-sided 95 % interval.

    The interval inverts the Wilcoxon signed-rank test by the normal approximation of its ranks. Source: Hodges & Lehmann
    1963; Hollander, Wolfe & Chicken 2014, 3.3. Raises ValueError below FEWEST_PAIRS.
    """
    if len(differences) < FEWEST_PAIRS:
        raise ValueError(f"{len(differences)} pairs are too few for an interval; {FEWEST_PAIRS} are needed")
    from scipy.special import ndtri

    values = differences[:: -(-len(differences) // MOST_PAIRS)]
    n = len(values)
    averages = sorted((a + b) / 2 for a, b in combinations_with_replacement(values, 2))
    z = float(ndtri(1 - ALPHA / 2))
    rank = max(int(n * (n + 1) / 4 - z * sqrt(n * (n + 1) * (2 * n + 1) / 24)), 1)
    return median(averages), averages[rank - 1], averages[-rank]
