"""Intervals of paired differences: their coverage, by simulation, and the places where they have no meaning."""

from __future__ import annotations

import numpy as np
import pytest
from gatebook.checks.stats import FEWEST_PAIRS, MOST_PAIRS, rate_difference, shift
from hypothesis import given
from hypothesis import strategies as st

COUNT = st.integers(0, 60)


@pytest.mark.parametrize(
    ("both", "worse", "better", "neither"),
    [(0.8, 0.1, 0.05, 0.05), (0.5, 0.2, 0.1, 0.2), (0.9, 0.05, 0.0, 0.05), (0.3, 0.3, 0.3, 0.1)],
)
@pytest.mark.parametrize("n", [20, 100])
def test_the_interval_of_a_rate_holds_the_truth_as_often_as_it_says(
    both: float, worse: float, better: float, neither: float, n: int
) -> None:
    drawn = np.random.default_rng(1).multinomial(n, [both, worse, better, neither], size=1500)
    held = [low <= better - worse <= high for low, high in (rate_difference(*map(int, row)) for row in drawn)]
    assert np.mean(held) > 0.93


@given(COUNT, COUNT, COUNT, COUNT)
def test_the_interval_of_a_rate_is_one(both: int, worse: int, better: int, neither: int) -> None:
    n = both + worse + better + neither
    if n == 0:
        with pytest.raises(ValueError):
            rate_difference(0, 0, 0, 0)
        return
    low, high = rate_difference(both, worse, better, neither)
    assert -1 <= low <= (better - worse) / n <= high <= 1
    swapped = rate_difference(both, better, worse, neither)
    assert swapped == pytest.approx((-high, -low)), "the other run first turns the sign"


def test_more_pairs_narrow_it() -> None:
    widths = [high - low for n in (1, 4, 16) for low, high in [rate_difference(16 * n, 2 * n, n, n)]]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("n", [12, 60])
def test_the_interval_of_a_shift_holds_the_truth_as_often_as_it_says(n: int) -> None:
    drawn = np.random.default_rng(2).standard_t(3, (400, n)) * 20 + 5
    held = [low <= 5 <= high for _, low, high in (shift(list(row)) for row in drawn)]
    assert np.mean(held) > 0.92


def test_one_wild_answer_does_not_move_the_shift() -> None:
    moved, low, high = shift([3.0] * 19 + [5000.0])
    assert (moved, low, high) == (3.0, 3.0, 3.0)


def test_too_few_pairs_have_no_interval() -> None:
    with pytest.raises(ValueError, match="9 pairs are too few"):
        shift([1.0] * (FEWEST_PAIRS - 1))


def test_many_pairs_are_thinned_and_not_cut() -> None:
    assert shift([float(n) for n in range(4 * MOST_PAIRS)])[0] == pytest.approx(2 * MOST_PAIRS, rel=0.01)
