"""The statistics of a verdict, on scipy's special functions.

scipy.stats and statsmodels would cost each process a second more; the tests compare with both.
"""

from __future__ import annotations

from math import sqrt

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
