"""Mutants: each is one edit away, wrong, and the same every time."""

from __future__ import annotations

import pytest
from gatebook.checks.similarity import mutants
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("golden", "expected"),
    [
        ("The port is 8443.", {"number": ["The port is 8444."], "negation": ["The port is not 8443."]}),
        ("It cannot be reset.", {"negation": ["It can be reset."]}),
        ("It is not full after 99 days.", {"number": ["It is not full after 100 days."], "negation": ["It is full after 99 days."]}),
        ("电池可以用三天。", {"number": ["电池可以用四天。"], "negation": ["电池不可以用三天。"]}),
        ("包裹没有到。", {"negation": ["包裹有到。"]}),
        ("他还没到。", {"negation": ["他已到。"]}),
        ("订单 D09 已取消。", {"number": ["订单 D10 已取消。"], "negation": ["订单 D09 未取消。"]}),
        ("好。", {}),
    ],
)  # fmt: skip
def test_numbers_and_negations(golden: str, expected: dict[str, list[str]]) -> None:
    found: dict[str, list[str]] = {}
    for text, kind in mutants(golden, [], []).items():
        found.setdefault(kind, []).append(text)
    assert found == expected


def test_entities_come_from_the_same_slot_of_another_case() -> None:
    found = mutants("订单甲的水壶漏水。", ["甲", "水壶", "漏水", "维修"], ["乙", "耳机", "漏水", "退款"])
    assert [text for text, kind in found.items() if kind == "entity"] == ["订单乙的水壶漏水。", "订单甲的耳机漏水。"]


@given(
    st.text(max_size=80),
    st.lists(st.text(min_size=1, max_size=4), max_size=3),
    st.lists(st.text(min_size=1, max_size=4), max_size=3),
)
def test_a_mutant_is_never_the_golden_answer(golden: str, own: list[str], other: list[str]) -> None:
    texts = mutants(golden, own, other)
    assert golden not in texts and len(texts) <= 5
    assert list(texts.items()) == list(mutants(golden, own, other).items())
