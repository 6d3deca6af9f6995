"""Intervals of paired differences: what a comparison of two runs shows beside each change. The test that decides is in stats."""

from __future__ import annotations

from itertools import combinations_with_replacement
from math import sqrt
from statistics import median

from gatebook.judge.stats import ALPHA, wilson

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
