"""Expected behaviour, never expected text."""

from __future__ import annotations

from typing import Any

import pytest
from gatebook.checks import CHECKS, parameters, validate
from gatebook.config.cases import Ask
from gatebook.errors import BadInput

from tests.unit.replies import case, chat_body, evidence, judged, plain


@pytest.mark.parametrize(
    ("check", "raw", "text", "outcome", "reason"),
    [
        ("length_chars", {"min": 2, "max": 4}, "  你好啊 \n", "pass", "3 characters, 2 to 4 expected"),
        ("length_chars", {"min": 2, "max": 4}, "你", "fail", "1 characters"),
        ("length_chars", {"min": 2, "max": 4}, "你好啊你好", "fail", "5 characters"),
        ("length_chars", {}, "  ", "fail", "0 characters"),
        ("contains_any", ["您好", "请"], "请稍等", "pass", "has 请"),
        ("contains_any", ["您好", "请"], "不知道", "fail", "has none of 您好, 请"),
        ("contains_all", ["周报", "客户"], "写周报，回访客户", "pass", "all 2 there"),
        ("contains_all", ["周报", "客户", "会议"], "写周报", "fail", "2 of 3 missing: 客户, 会议"),
        ("contains_none", ["作为AI"], "好的", "pass", "has none of them"),
        ("contains_none", ["作为AI", "抱歉"], "抱歉，作为AI", "fail", "has 作为AI, 抱歉"),
        ("regex", r"^\d{4}$", "2048", "pass", "found"),
        ("regex", r"^\d{4}$", "in 2048", "fail", "not found"),
        ("not_degenerate", True, "The capital of France is Paris.", "pass", "reads like text"),
        ("not_degenerate", True, "!" * 40, "fail", "'!' is 40 of 40 characters"),
    ],
)
def test_a_check_says_what_it_saw(check: str, raw: Any, text: str, outcome: str, reason: str) -> None:
    result = judged(check, raw, evidence(text))
    assert result.outcome == outcome and reason in result.reason


def test_the_worst_of_several_replies_speaks_and_is_named() -> None:
    result = judged("contains_any", ["blue"], evidence("blue", "red", "blue"))
    assert (result.outcome, result.reason) == ("fail", "b: has none of blue")


def test_a_reply_that_is_no_chat_is_not_judged_as_text() -> None:
    seen = evidence(plain("{}"), plain(chat_body("blue")), asks=[Ask(name="models", path="models"), Ask(name="chat")])
    assert judged("contains_any", ["blue"], seen).outcome == "pass"


WRONG: list[tuple[str, Any, list[str]]] = [
    ("no_such_check", 1, ["expect.no_such_check", "unknown check 'no_such_check'", "value 1", "known checks: ", "json_schema"]),
    ("length_chars", {"mim": 3}, ["expect.length_chars.mim", "3"]),
    ("length_chars", {"min": "3"}, ["expect.length_chars.min", "'3'", "integer"]),
    ("length_chars", 3, ["expect.length_chars", "3"]),
    ("length_chars", {"min": 9, "max": 3}, ["expect.length_chars"]),
    ("contains_any", "请", ["expect.contains_any", "'请'", "list"]),
    ("contains_any", [1], ["expect.contains_any.0", "1", "string"]),
    ("contains_any", [], ["expect.contains_any"]),
    ("contains_all", [], ["expect.contains_all"]),
    ("contains_none", [], ["expect.contains_none"]),
    ("contains_none", [""], ["expect.contains_none"]),
    ("regex", 5, ["expect.regex", "5", "string"]),
    ("regex", "(", ["expect.regex", "'('"]),
    ("json_schema", "sane", ["expect.json_schema", "'sane'"]),
    ("json_schema", {"type": "strng"}, ["expect.json_schema", "strng"]),
    ("json_schema", "same", ["expect.json_schema", "schema"]),
    ("keyword", "enum", ["expect.keyword", "schema"]),
    ("json_value", {"equals": 1}, ["expect.json_value.path", "required"]),
    ("json_value", {"path": "$.a", "equal": 1}, ["expect.json_value.equal"]),
    ("json_value", {"path": "$.["}, ["expect.json_value", "$.["]),
    ("json_value", {"path": "$.a", "matches": "["}, ["expect.json_value", "["]),
    ("json_parses", "perhaps", ["expect.json_parses", "'perhaps'"]),
    ("json_parses", False, ["expect.json_parses", "False"]),
    ("ttft_ms", 500, ["expect.ttft_ms", "500", "limit"]),
    ("stop_honoured", {"free": "a", "stopped": "b"}, ["expect.stop_honoured.stop", "required"]),
    ("stop_honoured", {"free": "x", "stopped": "a", "stop": ","}, ["expect.stop_honoured", "'x'"]),
    ("stream_equals_plain", True, ["expect.stream_equals_plain", "'plain'"]),
    ("distinct_answers", {"min": "2"}, ["expect.distinct_answers.min", "'2'"]),
]  # fmt: skip


@pytest.mark.parametrize(("check", "raw", "words"), WRONG, ids=[f"{check}: {raw!r}" for check, raw, _ in WRONG])
def test_wrong_parameters_are_bad_input_before_anything_is_asked(check: str, raw: Any, words: list[str]) -> None:
    wrong = case("odd-one", asks=[{"name": "a"}, {"name": "b"}], expect=[{check: raw}])
    with pytest.raises(BadInput) as caught:
        validate(wrong)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in ["'odd-one'", *words] if word not in message] == []


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_every_check_has_a_one_line_description(check: str) -> None:
    assert CHECKS[check].says


def test_good_parameters_come_back_typed() -> None:
    assert parameters(case(), "length_chars", {"min": 2}) == {"min": 2}
    assert parameters(case(), "json_value", {"path": "$.a", "equals": None}) == {"path": "$.a", "equals": None}
    assert parameters(case(), "not_degenerate", True) == {}
    assert parameters(case(), "contains_any", ["a"]) == {"words": ["a"]}
