"""The statistics against scipy, statsmodels and published values; and how often a healthy server is blamed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import cache
from random import Random

import pytest
from gatebook.checks.stats import ALPHA, holm, largest_possible_drop, mcnemar_worse, smallest_visible_drop, wilson
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint


@pytest.fixture(scope="module", autouse=True)
def nothing_to_collect() -> Iterator[None]:
    """statsmodels' multipletests collects garbage at every call, 60 ms on this heap: thousands of calls want none."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(
    ("worse", "better", "p"),
    [(5, 0, 0.03125), (6, 1, 0.0625), (8, 1, 0.01953), (9, 2, 0.03271), (0, 0, 1.0), (0, 5, 1.0), (1, 0, 0.5)],
)
def test_mcnemar_gives_the_published_values(worse: int, better: int, p: float) -> None:
    assert mcnemar_worse(worse, better) == pytest.approx(p, abs=5e-6)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_half_of_the_two_sided_test_of_statsmodels(worse: int, better: int) -> None:
    two_sided = mcnemar([[10, worse], [better, 10]], exact=True).pvalue if worse + better else 1.0
    if worse > better:
        assert mcnemar_worse(worse, better) == pytest.approx(two_sided / 2)
    else:
        assert mcnemar_worse(worse, better) >= 0.5


p_values = st.lists(st.floats(0, 1) | st.sampled_from([0.05, 0.025, ALPHA / 3, 0.001]), max_size=6)


@given(p_values, st.integers(0, 9))
def test_holm_is_that_of_statsmodels_with_the_others_at_one(found: list[float], family: int) -> None:
    padded = found + [1.0] * max(family - len(found), 0)
    expected = multipletests(padded, ALPHA, method="holm")[0][: len(found)].tolist() if found else []
    assert holm(found, family) == expected


@given(p_values)
def test_holm_by_its_definition(found: list[float]) -> None:
    ranked = sorted(range(len(found)), key=lambda i: found[i])
    kept = next((rank for rank, i in enumerate(ranked) if found[i] > ALPHA / (len(found) - rank)), len(found))
    clear = all(abs(found[i] - ALPHA / (len(found) - rank)) > 1e-12 for rank, i in enumerate(ranked))
    if clear:
        assert holm(found, len(found)) == [i in ranked[:kept] for i in range(len(found))]


def test_a_larger_family_never_rejects_more() -> None:
    assert [holm([0.01, 0.02, 0.03], family) for family in (3, 4, 20)] == [
        [True, True, True],
        [True, False, False],
        [False, False, False],
    ]


@pytest.mark.parametrize("family", range(1, 8))
def test_the_smallest_visible_drop_is_sufficient_and_minimal(family: int) -> None:
    for pairs in range(30):
        enough = [n for n in range(1, pairs + 1) if binom.sf(n - 1, n, 0.5) <= ALPHA / family]
        assert smallest_visible_drop(pairs, family) == (enough[0] if enough else None)
        if enough:
            others = [1.0] * (family - 1)
            assert holm([mcnemar_worse(enough[0], 0), *others], family)[0], "whatever the other groups do"
            assert not holm([mcnemar_worse(enough[0] - 1, 0), *others], family)[0]


@pytest.mark.parametrize(
    ("pairs", "family", "drop"),
    [(4, 1, None), (5, 1, 5), (60, 1, 5), (60, 2, 6), (60, 3, 6), (5, 2, None), (0, 1, None)],
)
def test_known_smallest_drops(pairs: int, family: int, drop: int | None) -> None:
    assert smallest_visible_drop(pairs, family) == drop


@pytest.mark.parametrize(
    ("worse", "pairs", "bound"),
    [(0, 58, 0.0503), (0, 59, 0.0495), (0, 299, 0.00997), (1, 93, 0.0500), (3, 3, 1.0), (0, 0, 1.0)],
)
def test_the_largest_possible_drop(worse: int, pairs: int, bound: float) -> None:
    assert largest_possible_drop(worse, pairs) == pytest.approx(bound, abs=6e-5)


@given(st.integers(0, 40), st.integers(1, 80))
def test_the_bound_is_where_so_few_failures_have_a_chance_of_five_percent(worse: int, more: int) -> None:
    pairs = worse + more
    assert binom.cdf(worse, pairs, largest_possible_drop(worse, pairs)) == pytest.approx(ALPHA)
    assert largest_possible_drop(worse, pairs) > worse / pairs


@pytest.mark.parametrize(
    ("passed", "n", "low", "high"),
    [(20, 20, 0.8389, 1.0), (0, 20, 0.0, 0.1611), (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)],
)
def test_wilson_gives_the_published_intervals(passed: int, n: int, low: float, high: float) -> None:
    """20 of 20: the two-sided 95 % interval; 81/263 and 15/148: Newcombe 1998, table I."""
    assert wilson(passed, n) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 400), st.floats(0, 1))
def test_wilson_is_that_of_statsmodels(n: int, share: float) -> None:
    passed = round(n * share)
    assert wilson(passed, n) == pytest.approx(proportion_confint(passed, n, ALPHA, method="wilson"), abs=1e-12)


def test_a_rate_of_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="no cases"):
        wilson(0, 0)


def blamed(seed: int, runs: int, worse_rate: float, better_rate: float) -> float:
    """Share of runs in which any of three groups (60, 40 and 24 cases) is shown worse."""
    p = cache(mcnemar_worse)
    rejects = cache(lambda found: any(holm(list(found), 3)))
    draw, alarms = Random(seed), 0
    for _ in range(runs):
        found = []
        for size in (60, 40, 24):
            fates = [draw.random() for _ in range(size)]
            worse = sum(fate < worse_rate for fate in fates)
            found.append(p(worse, sum(worse_rate <= fate < worse_rate + better_rate for fate in fates)))
        alarms += rejects(tuple(sorted(found)))
    return alarms / runs


def test_a_healthy_server_against_itself_is_blamed_in_at_most_five_percent_of_runs() -> None:
    """One case in ten turns out otherwise, either way; three groups with Holm; 3 sigma of 2,000 runs allowed."""
    assert blamed(seed=1, runs=2000, worse_rate=0.05, better_rate=0.05) <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


def test_a_server_that_lost_a_third_of_its_answers_is_blamed() -> None:
    assert blamed(seed=2, runs=200, worse_rate=0.33, better_rate=0.05) >= 0.95
