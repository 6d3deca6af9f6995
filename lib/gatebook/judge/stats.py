"""The statistics of a verdict, thin over scipy and statsmodels; each import waits until it is needed, since they cost a second."""

from __future__ import annotations

ALPHA = 0.05


def mcnemar_worse(worse: int, better: int) -> float:
    """One-sided exact McNemar p-value that the pass rate fell: P(X >= worse), X ~ Binomial(worse + better, 1/2).

    1.0 without discordant pairs. Source: McNemar 1947, exact form.
    """
    from scipy.stats import binomtest

    pairs = worse + better
    return float(binomtest(worse, pairs, 0.5, alternative="greater").pvalue) if pairs else 1.0


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
    from scipy.stats import beta

    return 1.0 if worse >= pairs else float(beta.ppf(1 - ALPHA, worse + 1, pairs - worse))


def wilson(passed: int, n: int) -> tuple[float, float]:
    """Two-sided 95 % Wilson interval of a rate. Raises ValueError for n = 0."""
    if n < 1:
        raise ValueError("a rate of no cases has no interval")
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(passed, n, ALPHA, method="wilson")
    return float(low), float(high)
