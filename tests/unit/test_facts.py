"""Facts: what an answer states, what it must not state."""

from __future__ import annotations

from typing import Any

import pytest
from gatebook.checks import validate
from gatebook.errors import BadInput

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


DENIED = ["客户不想维修", "不要求换货或维修", "无需维修、换货", "维修就不用了", "并非要求维修", "no repair", "does not want a repair", "neither a refund nor a repair", "a repair is not wanted"]  # fmt: skip
STATED = ["客户想维修", "不得不维修", "不能不维修", "不仅要维修", "非维修不可", "非要维修", "分别要求维修和换货", "是不是要维修", "无条件维修", "未收到货申请维修", "不满意，要求维修", "not only a repair", "not working, repair wanted", "no refund but a repair"]  # fmt: skip


@pytest.mark.parametrize("text", DENIED)
def test_what_is_denied_is_not_stated(text: str) -> None:
    assert judged("facts", {"forbidden": ["维修", "换货", "repair", "refund"]}, evidence(text)).outcome == "pass"


@pytest.mark.parametrize("text", STATED)
def test_a_denial_of_something_else_denies_nothing(text: str) -> None:
    said = judged("facts", {"forbidden": ["维修", "repair"]}, evidence(text))
    assert (said.outcome, "states what is wrong" in said.reason) == ("fail", True)


@pytest.mark.parametrize(
    ("wording", "text"), [("12 天", "下单十二天了"), ("12天", "下单 12 天"), ("两把", "少 2 把"), ("二十五个", "共 25 个"), ("leak", "it leaks"), ("周三", "每周三 20:00")]
)  # fmt: skip
def test_one_form_for_blanks_and_numbers(wording: str, text: str) -> None:
    assert judged("facts", {"required": [wording]}, evidence(text)).outcome == "pass"


@pytest.mark.parametrize(
    ("wording", "text"),
    [("2 把", "少了十二把"), ("3 次", "第三次"), ("3 次", "周三次日"), ("key", "keyboard"), ("12", "二")],
)
def test_and_no_other_number_or_word(wording: str, text: str) -> None:
    assert judged("facts", {"required": [wording]}, evidence(text)).outcome == "fail"
