"""The PromptSensiScore against values computed by hand."""

from __future__ import annotations

import pytest
from gatebook.verdict.sensitivity import pss
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1, 1, 1, 1], 0.0),
        ([0, 0], 0.0),
        ([1, 0], 1.0),
        ([1, 0, 0], 2 / 3),  # pairs 1-0, 1-0, 0-0
        ([1, 1, 1, 1, 0, 0, 0, 0], 16 / 28),
        ([1, 1, 1, 1, 1, 1, 0, 0], 12 / 28),
        ([1, 1, 1, 1, 1, 1, 1, 0], 7 / 28),
    ],
)
def test_pss_by_hand(scores: list[int], expected: float) -> None:
    assert pss(scores) == pytest.approx(expected)


@pytest.mark.parametrize("scores", [[], [1]])
def test_one_phrasing_shows_no_sensitivity(scores: list[int]) -> None:
    assert pss(scores) is None


@given(st.lists(st.integers(0, 1), min_size=2, max_size=12))
def test_pss_is_a_share_of_pairs_and_does_not_know_pass_from_fail(scores: list[int]) -> None:
    passed, size = sum(scores), len(scores)
    assert pss(scores) == pytest.approx(2 * passed * (size - passed) / (size * (size - 1)))
    assert pss([1 - score for score in scores]) == pytest.approx(pss(scores) or 0.0)
