"""The resampled interval against scipy, and how often it misses."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from gatebook.checks.stats import mean_interval
from gatebook.verdict.sensitivity import pss
from scipy.stats import bootstrap

VALUES = [0.18, -0.11, 0.29, 0.0, 0.07, -0.04, 0.21, 0.0, 0.0, 0.14]


@pytest.mark.parametrize("confidence", [0.90, 0.95])
def test_it_is_scipy_s_percentile_interval(confidence: float) -> None:
    found = mean_interval(VALUES, "run", confidence)
    wanted = bootstrap(
        (VALUES,), np.mean, n_resamples=99_999, confidence_level=confidence, method="percentile", rng=1
    ).confidence_interval
    assert found == pytest.approx((wanted.low, wanted.high), abs=0.005)


def test_the_name_is_the_seed() -> None:
    assert mean_interval(VALUES, "a") == mean_interval(VALUES, "a") != mean_interval(VALUES, "b")


@pytest.mark.parametrize("values", [[], [0.3], [0.0, 0.0, 0.0], [1.0, 1.0]])
def test_equal_differences_have_no_interval(values: list[float]) -> None:
    assert mean_interval(values, "run") is None


def test_it_seldom_sees_a_change_of_sensitivity_where_there_is_none() -> None:
    """Two runs of one server that samples: 14 tasks, 8 phrasings, each passing by its own probability. Nominal is 5 %;
    14 clusters make the percentile interval a little too narrow, so up to 10 % is allowed on either side."""
    dice = Random(20261122)
    above = below = 0
    runs = 300
    for number in range(runs):
        changes = []
        for _ in range(14):
            rates = [dice.choice((0.05, 0.5, 0.95)) for _ in range(8)]
            now, before = ([int(dice.random() < rate) for rate in rates] for _ in range(2))
            changes.append((pss(now) or 0.0) - (pss(before) or 0.0))
        low, high = mean_interval(changes, str(number), confidence=0.90) or (0.0, 0.0)
        above += low > 0
        below += high < 0
    assert above / runs < 0.10 and below / runs < 0.10, (above, below)
