"""Structured output: parses, valid, means; and what a keyword is worth on this server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gatebook.checks import validate
from gatebook.checks.structured import request_schema
from gatebook.config.cases import Ask
from gatebook.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import case, chat_body, evidence, finding, judged, plain


@pytest.mark.parametrize("text", ["{}", "[1, 2]", '"a"', "null", "-1.5e3", ' {"a": "\\u4f60"}\n'])
def test_one_json_value_parses(text: str) -> None:
    assert judged("json_parses", True, evidence(text)).outcome == "pass"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sure: {}",
        "```json\n{}\n```",
        "{} {}",
        "{'a': 1}",
        '{"a": 1,}',
        "[" * 100_000,
        '{"a": NaN}',
        "Infinity",
        "-Infinity",
    ],
)
def test_anything_else_does_not(text: str) -> None:
    result = judged("json_parses", True, evidence(text))
    assert (result.outcome, result.measured, result.limit) == ("fail", "no JSON", "JSON")
    assert result.reason.startswith("not JSON (") and len(result.reason) < 200


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}, "l": {"$ref": "#/$defs/level"}}, "required": ["n"], "additionalProperties": False, "$defs": {"level": {"enum": ["低", "高"]}}}  # fmt: skip


def asked(schema: Any, name: str = "ask") -> Ask:
    sent = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return Ask(name=name, options={"response_format": sent})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"n": 1}', ""),
        ('{"n": 1, "l": "高"}', ""),
        ('{"n": 1.0}', ""),
        ('{"n": "1"}', "$.n: '1' is not of type 'integer'"),
        ('{"n": true}', "$.n: True is not of type 'integer'"),
        ('{"n": 1, "l": "中"}', "$.l: '中' is not one of ['低', '高']"),
        ("{}", "$: 'n' is a required property"),
        ('{"n": 1, "x": 2}', "$: Additional properties are not allowed"),
        ("n = 1", "not JSON"),
    ],
)
def test_validity_by_the_request_s_own_schema_or_an_explicit_one(text: str, said: str) -> None:
    for raw, asks in (("same", [asked(SCHEMA)]), (SCHEMA, None)):
        result = judged("json_schema", raw, evidence(text, asks=asks))
        assert result.outcome == ("fail" if said else "pass")
        assert said in result.reason


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", "2026-03-01", "2026-02-30"),
        ("date-time", "2026-03-01T12:00:00Z", "2026-03-01 noon"),
        ("time", "12:00:00Z", "25:00:00Z"),
        ("email", "ana@example.com", "ana"),
        ("uuid", "9f86d081-884c-4d65-9a2f-eaa0c55ad015", "9f86"),
        ("ipv4", "10.0.0.1", "10.0.0.256"),
        ("regex", "^a+$", "("),
        ("uri", "https://example.com/a", "no uri"),
    ],
)
def test_formats_are_checked(name: str, good: str, bad: str) -> None:
    schema = {"type": "string", "format": name}
    outcomes = [judged("json_schema", schema, evidence(json.dumps(text))).outcome for text in (good, bad)]
    assert outcomes == ["pass", "fail"]


def test_a_schema_elsewhere_is_never_fetched() -> None:
    """Judging touches no network; a reference that only the network could resolve is a fail and no crash."""
    result = judged("json_schema", "same", evidence("{}", asks=[asked({"$ref": "http://127.0.0.1:9/none.json"})]))
    assert result.outcome == "fail" and "127.0.0.1:9/none.json" in result.reason


NO_SCHEMAS = ({"type": {"answer": {}}}, {"properties": {"n": 3}}, {"type": "object", "minProperties": "many"})


@pytest.mark.parametrize("schema", NO_SCHEMAS)
def test_what_is_no_json_schema_is_refused_where_it_is_written(schema: Any) -> None:
    with pytest.raises(BadInput, match=r"response_format\.json_schema\.schema is no JSON Schema"):
        validate(case(asks=[asked(schema).model_dump()], expect=[{"json_schema": "same"}]))


def test_every_reply_is_validated() -> None:
    result = judged("json_schema", SCHEMA, evidence('{"n": 1}', '{"n": "x"}'))
    assert result.outcome == "fail" and result.reason.startswith("b: $.n")


def test_a_request_without_schema_has_none() -> None:
    assert request_schema(Ask(name="a")) == {}
    assert request_schema(Ask(name="a", options={"response_format": {"type": "json_object"}})) == {}
    assert request_schema(asked(SCHEMA)) == SCHEMA


@pytest.mark.parametrize(
    ("text", "conditions", "outcome"),
    [
        ('{"a": 1}', {"equals": 1}, "pass"),
        ('{"a": true}', {"equals": 1}, "fail"),
        ('{"a": 1}', {"equals": True}, "fail"),
        ('{"a": 0}', {"equals": False}, "fail"),
        ('{"a": "1"}', {"equals": 1}, "fail"),
        ('{"a": null}', {"equals": None}, "pass"),
        ('{"a": ""}', {"equals": None}, "fail"),
        ('{"b": 1}', {"equals": None}, "fail"),
        ('{"a": "功能缺陷"}', {"equals": "功能缺陷"}, "pass"),
        ('{"a": "\\u529f\\u80fd"}', {"equals": "功能"}, "pass"),
        ('{"a": [1, {"b": 2}]}', {"equals": [1, {"b": 2}]}, "pass"),
        ('{"a": "x"}', {"one_of": ["x", "y"]}, "pass"),
        ('{"a": "z"}', {"one_of": ["x", "y"]}, "fail"),
        ('{"a": true}', {"one_of": [1, 2]}, "fail"),
        ('{"a": 1}', {"one_of": [True]}, "fail"),
        ('{"a": "概括的话"}', {"min_chars": 4, "max_chars": 4}, "pass"),
        ('{"a": "概括的"}', {"min_chars": 4}, "fail"),
        ('{"a": "  概括 "}', {"min_chars": 4}, "fail"),
        ('{"a": "概括的话多"}', {"max_chars": 4}, "fail"),
        ('{"a": "iOS 17.5"}', {"contains": "iOS"}, "pass"),
        ('{"a": "Android"}', {"contains": "iOS"}, "fail"),
        ('{"a": ["x", "iOS"]}', {"contains": "iOS"}, "pass"),
        ('{"a": "2048-KX"}', {"matches": r"^\d{4}-"}, "pass"),
        ('{"a": "KX"}', {"matches": r"^\d{4}-"}, "fail"),
        ('{"a": "x"}', {"one_of": ["x"], "min_chars": 5}, "fail"),
        ('{"a": 1}', {}, "pass"),
        ("no json", {"equals": 1}, "fail"),
    ],
)
def test_the_value_at_a_path(text: str, conditions: dict[str, Any], outcome: str) -> None:
    assert judged("json_value", {"path": "$.a", **conditions}, evidence(text)).outcome == outcome


def test_what_is_wrong_with_a_value_is_said() -> None:
    result = judged("json_value", {"path": "$.type", "equals": "功能缺陷"}, evidence('{"type": "其他"}'))
    assert (result.reason, result.measured, result.limit) == ("$.type is 其他, expected 功能缺陷", "其他", "功能缺陷")
    assert judged("json_value", {"path": "$.x"}, evidence("{}")).reason == "nothing at $.x"


KEYWORD_SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 10}}, "required": ["n"]}


def keyword(*states: str) -> Any:
    """The check on one reply a state, as a server gives it."""
    bodies = {"enforced": '{"n": 7}', "ignored": '{"n": 87}', "unfinished": '{"n": 8', "prose": "eighty"}
    replies = []
    for state in states:
        if state == "refused":
            replies.append(plain("{}", status=400, fault="status", detail="no such keyword"))
        else:
            body = chat_body(bodies[state])
            body["choices"][0]["finish_reason"] = "length" if state == "unfinished" else "stop"
            replies.append(plain(body))
    return judged(
        "keyword", "maximum", evidence(*replies, asks=[asked(KEYWORD_SCHEMA, str(n)) for n in range(len(states))])
    )


@pytest.mark.parametrize(
    ("states", "measured", "outcome"),
    [
        (["enforced", "enforced"], "enforced", "pass"),
        (["enforced", "ignored"], "ignored", "fail"),
        (["prose"], "ignored", "fail"),
        (["refused", "enforced"], "refused", "fail"),
        (["refused", "ignored"], "ignored", "fail"),
        (["enforced", "unfinished"], "unfinished", "fail"),
        (["unfinished", "refused"], "refused", "fail"),
    ],
)
def test_the_worst_state_of_a_keyword_counts(states: list[str], measured: str, outcome: str) -> None:
    result = keyword(*states)
    assert (result.measured, result.outcome, result.limit) == (measured, outcome, "enforced")


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5), lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3), max_leaves=6)  # fmt: skip


def is_json(value: Any) -> bool:
    """Python also writes NaN and Infinity."""
    try:
        return bool(json.dumps(value, allow_nan=False))
    except ValueError:
        return False


@given(json_values | st.dictionaries(st.just("a"), json_values))
def test_no_answer_raises_and_every_reason_can_be_written(value: Any) -> None:
    seen = evidence(json.dumps(value))
    conditions = {"equals": 1, "one_of": [1, "x"], "min_chars": 1, "max_chars": 9, "contains": "x", "matches": "x"}
    for name, condition in conditions.items():
        result = judged("json_value", {"path": "$.a", name: condition}, seen)
        finding(
            outcome=result.outcome, reason=result.reason, measured=result.measured, limit=result.limit
        ).model_dump_json()
    outcome = judged("json_schema", {"type": "object"}, seen).outcome
    assert outcome == ("pass" if isinstance(value, dict) and is_json(value) else "fail")


def test_half_a_character_inside_the_json_can_be_told() -> None:
    result = judged("json_value", {"path": "$.a", "equals": "x"}, evidence('{"a": "\\ud83d"}'))
    assert finding(outcome=result.outcome, reason=result.reason, measured=result.measured).model_dump_json()
