"""Facts: what an answer states, what it must not state."""

from __future__ import annotations

from typing import Any

import pytest
from gatebook.errors import BadInput
from gatebook.judge.checks import validate

from tests.unit.replies import case, evidence, judged

PRICE = {"required": ["Nova-3", ["96", "ninety-six"]], "forbidden": [["69", "re:not .{0,9}96"]]}


@pytest.mark.parametrize(
    ("text", "outcome", "coverage", "reason"),
    [
        ("The Nova-3 costs 96.", "pass", 1.0, "2 of 2 facts stated, 10.0 facts per 100 characters"),
        ("Ｎｏｖａ－３ costs ９６", "pass", 1.0, "2 of 2"),
        ("nova-3: ninety-six", "pass", 1.0, "2 of 2"),
        ("Nova-3，96，5 天", "pass", 1.0, "2 of 2"),
        ("The Nova-3 is cheap.", "fail", 0.5, "1 of 2 facts missing: 96"),
        ("Nova-30 costs 960, 1.96 or 96,000", "fail", 0.0, "2 of 2 facts missing: Nova-3, 96"),
        ("Nova-3 costs not quite 96", "fail", 1.0, "states what is wrong: 69"),
        ("Nova-3 costs 69", "fail", 0.5, "states what is wrong: 69"),
        ("", "fail", 0.0, "2 of 2 facts missing"),
    ],
)
def test_facts_are_found_and_contradictions_too(text: str, outcome: str, coverage: float, reason: str) -> None:
    said = judged("facts", PRICE, evidence(text))
    assert (said.outcome, said.measured, said.unit) == (outcome, coverage, "coverage")
    assert reason in said.reason


@pytest.mark.parametrize("text", ["5000mAh，50分钟", "5000mAh, 50", "电池5000mAh。"])
def test_a_wording_that_ends_in_a_letter_may_stand_before_a_number(text: str) -> None:
    assert judged("facts", {"required": ["5000mAh"]}, evidence(text)).outcome == "pass"


def test_a_share_of_the_facts_may_be_enough() -> None:
    half = {**PRICE, "min_coverage": 0.5}
    assert judged("facts", half, evidence("Nova-3")).outcome == "pass"
    assert judged("facts", half, evidence("neither")).outcome == "fail"


def test_only_forbidden_facts_measure_no_coverage() -> None:
    said = judged("facts", {"forbidden": ["free"]}, evidence("It costs money."))
    assert (said.outcome, said.measured, said.unit) == ("pass", None, "")


@pytest.mark.parametrize(
    "raw", [{}, {"required": []}, {"required": [""]}, {"required": [[]]}, {"forbidden": ["re:("]}, {"required": ["a"], "min_coverage": 0}]
)  # fmt: skip
def test_facts_that_say_nothing_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="expect.facts"):
        validate(case("c", expect=[{"facts": raw}]))
