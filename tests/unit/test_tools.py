"""Tool calls: read from plain and streamed replies, and judged by the schema that was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gatebook.checks import CHECKS, parameters, validate
from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Result
from gatebook.config.cases import Case
from gatebook.errors import BadInput
from gatebook.record.answer import ToolCall
from gatebook.record.exchange import Exchange
from gatebook.record.identity import Identity
from gatebook.record.replies import read_answer

from tests.unit import replies as make

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"], "additionalProperties": False}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
NO_SCHEMA = [{"type": "function", "function": {"name": "get_weather", "parameters": {"properties": {"city": 3}}}}]
ASKS = [{"name": "plain", "stream": False}, {"name": "streamed"}, {"name": "without", "options": {"tools": None}}]
PARIS = '{"city": "Paris"}'


def usage(prompt: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": 5, "total_tokens": prompt + 5}


def plain(arguments: Any = PARIS, name: str = "get_weather", finish: str = "tool_calls", prompt: int = 90) -> Exchange:
    calls = [{"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}]
    body = make.chat_body(None, usage=usage(prompt))
    body["choices"][0] |= {
        "message": {"role": "assistant", "content": None, "tool_calls": calls},
        "finish_reason": finish,
    }
    return make.plain(body)


def streamed(pieces: tuple[str, ...] = ('{"ci', 'ty": "Pa', 'ris"}'), finish: str = "tool_calls") -> Exchange:
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
    deltas = [{"tool_calls": [first]}, *({"tool_calls": [{"index": 0, "function": {"arguments": p}}]} for p in pieces)]
    return make.streamed([*(make.chunk(d) for d in deltas), make.chunk({}, finish), make.chunk(usage=usage(90))])


def words(text: str = "Fifty-six.", prompt: int = 90) -> Exchange:
    return make.plain(make.chat_body(text, usage=usage(prompt)))


def case(check: str = "tool_called", raw: Any = None, **fields: Any) -> Case:
    raw = raw if raw is not None else {"name": "get_weather", "arguments": {"city": "Paris"}}
    return make.case(**{"options": {"tools": TOOLS}, "asks": ASKS, "expect": [{check: raw}], **fields})


def judged(
    one: Case, first: Exchange, second: Exchange, without: int = 20, knows: bool | None = None, offered: bool = False
) -> Result:
    found = [first, second, words("Hi.", without)]
    replies = [Reply(ask, e) for ask, e in zip(one.requests(), found, strict=True)]
    ((name, raw),) = one.expect[0].items()
    by = make.profile().model_copy(update={"offers": {"tools": True} if offered else {}})
    return CHECKS[name].run(Evidence(one, replies, Identity(tools=knows), by), parameters(one, name, raw))


# --- reading ---


def test_a_plain_and_a_streamed_call_read_alike() -> None:
    wanted = [ToolCall("get_weather", PARIS, "c1")]
    assert read_answer(plain()).tool_calls == read_answer(streamed()).tool_calls == wanted


def test_interleaved_pieces_are_joined_by_their_index() -> None:
    def piece(index: int, text: str, **more: Any) -> dict[str, Any]:
        return make.chunk({"tool_calls": [{"index": index, "function": {"arguments": text, **more}}]})

    sent = [piece(0, "{", name="f"), piece(1, "[", name="g"), piece(0, "}"), piece(1, "]")]
    assert [(c.name, c.arguments) for c in read_answer(make.streamed(sent)).tool_calls] == [("f", "{}"), ("g", "[]")]


@pytest.mark.parametrize("calls", [[5], ["f"], [{}], [{"function": "f"}], [{"function": {"name": "f", "arguments": {"a": 1}}}]])  # fmt: skip
def test_a_call_that_is_none_is_malformed(calls: list[Any]) -> None:
    body = make.chat_body(None)
    body["choices"][0]["message"]["tool_calls"] = calls
    answer = read_answer(make.plain(body))
    assert answer.flaws and not answer.tool_calls


def test_an_odd_index_costs_nothing() -> None:
    body = make.chunk({"tool_calls": [{"index": 10**9, "function": {"name": "f", "arguments": "{}"}}]})
    assert [c.name for c in read_answer(make.streamed([body])).tool_calls] == ["f"]


# --- judging ---


def test_the_right_call_passes_plain_and_streamed() -> None:
    assert judged(case(), plain(), streamed()) == Result(
        "pass", "calls get_weather, plain and streamed", "calls get_weather", "calls get_weather"
    )


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (words("It is sunny."), "plain: no tool call, but text: 'It is sunny.' (though streamed is right)"),
        (plain('{"city": "Par'), "arguments of get_weather: not JSON"),
        (plain("{}"), "'city' is a required property"),
        (plain('{"city": "Paris", "days": "two"}'), "is not of type 'integer'"),
        (plain('{"city": "Rome"}'), "city is 'Rome', expected 'Paris'"),
        (plain(name="get_time"), "calls get_time, expected get_weather once"),
        (plain(finish="stop"), "finish_reason is 'stop' where a tool is called"),
    ],
)
def test_what_is_wrong_with_a_call_is_told(reply: Exchange, reason: str) -> None:
    said = judged(case(), reply, streamed())
    assert said.outcome == "fail" and reason in said.reason, said.reason


def test_arguments_lost_in_the_stream_alone_are_found() -> None:
    said = judged(case(), plain(), streamed(('{"ci', "", "")))
    assert said.outcome == "fail" and said.reason.startswith("streamed: arguments of get_weather: not JSON")
    assert "though plain is right" in said.reason


def test_several_right_values_and_a_forced_call() -> None:
    several = case(raw={"name": "get_weather", "arguments": {"city": ["Lutetia", "PARIS "]}})
    assert judged(several, plain(), streamed()).outcome == "pass"
    forced = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
    assert judged(case(options=forced), plain(finish="stop"), streamed(finish="stop")).outcome == "pass"


@pytest.mark.parametrize(("given", "wanted", "outcome"), [(1, 1.0, "pass"), (True, 1, "fail"), ("1", 1, "fail")])
def test_numbers_are_no_texts_and_no_booleans(given: Any, wanted: Any, outcome: str) -> None:
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
    one = case(raw={"name": "get_weather", "arguments": {"n": wanted}}, options={"tools": tools})
    arguments = json.dumps({"n": given})
    assert judged(one, plain(arguments), streamed((arguments,))).outcome == outcome


def test_words_where_no_tool_is_needed() -> None:
    one = case("no_tool_call", True)
    assert judged(one, words(), words()).outcome == "pass"
    said = judged(one, words(), streamed())
    assert said.outcome == "fail" and "streamed: calls 'get_weather'" in said.reason


@pytest.mark.parametrize(("knows", "outcome"), [(None, "not_measured"), (False, "not_measured"), (True, "fail")])
@pytest.mark.parametrize("check", ["tool_called", "no_tool_call"])
def test_tools_that_never_reach_the_model_show_nothing(check: str, knows: bool | None, outcome: str) -> None:
    one = case(check, True if check == "no_tool_call" else None)
    said = judged(one, words(prompt=37), words(prompt=37), without=37, knows=knows)
    assert said.outcome == outcome
    assert said.reason.startswith("37 prompt tokens with tools and 37 without: the tools never reach the model")


def test_tools_that_were_offered_and_are_ignored_now_are_a_fail() -> None:
    said = judged(case("tool_called"), words(prompt=37), words(prompt=37), without=37, offered=True)
    assert said.outcome == "fail" and "offered them when `gatebook init` asked" in said.reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"asks": ASKS[:2]}, "no ask 'without'"),
        ({"asks": [ASKS[0], ASKS[2]]}, "a plain ask and in a streamed one"),
        ({"raw": {"name": "fly"}}, "offers no tool 'fly'"),
        ({"options": {"tools": NO_SCHEMA}}, "'get_weather' in ask 'plain': is no JSON Schema"),
    ],
)
def test_a_case_that_could_show_nothing_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        validate(case(**fields))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('"Paris"', "'Paris' is not of type 'object'"),
        ("[]", "[] is not of type 'object'"),
        ("null", "None is not of type 'object'"),
    ],
)
def test_arguments_that_are_no_object_are_a_fault_also_of_a_forced_call(arguments: str, reason: str) -> None:
    """vLLM's hermes parser forces JSON and no object where the request names the tool; clients unpack arguments by name."""
    forced = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
    one = case(raw={"name": "get_weather"}, options=forced)
    said = judged(one, plain(arguments, finish="stop"), streamed(finish="stop"))
    assert said.outcome == "fail" and reason in said.reason, said.reason
    anything = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
    free = case(raw={"name": "get_weather"}, options={"tools": anything})
    assert judged(free, plain(arguments), streamed()).outcome == "fail"


def test_a_call_forced_out_of_a_model_that_never_saw_the_tools_shows_nothing() -> None:
    forced = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
    blind = (plain(finish="stop", prompt=20), plain(finish="stop", prompt=20))
    assert judged(case(options=forced), *blind, without=20).outcome == "not_measured"
    assert judged(case(), plain(prompt=20), streamed(), without=20).outcome == "pass", "a free call was read"


TWO = [{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "get_weather", "arguments": {"city": "Rome"}}]


def calls(*made: tuple[str, str, str], finish: str = "tool_calls") -> Exchange:
    """Streamed calls (name, arguments, id), told apart by their index."""
    pieces = [
        {"index": at, "id": i, "type": "function", "function": {"name": name, "arguments": text}}
        for at, (name, text, i) in enumerate(made)
    ]
    return make.streamed(
        [*(make.chunk({"tool_calls": [p]}) for p in pieces), make.chunk({}, finish), make.chunk(usage=usage(90))]
    )


OSLO, ROME = ("get_weather", '{"city": "Oslo"}', "c1"), ("get_weather", '{"city": "Rome"}', "c2")


@pytest.mark.parametrize(
    ("reply", "outcome", "reason"),
    [
        (calls(OSLO, ROME), "pass", "calls get_weather and get_weather"),
        (calls(ROME, OSLO), "pass", "calls get_weather and get_weather"),
        (calls(OSLO), "fail", "1 calls where 2 are asked for: get_weather"),
        (calls(("get_weather", OSLO[1] + ROME[1], "c1")), "fail", "1 calls where 2 are asked for"),
        (calls(OSLO, ROME, ROME), "fail", "3 calls where 2 are asked for"),
        (calls(OSLO, OSLO[:2] + ("c2",)), "fail", "city is 'Oslo', expected 'Rome'"),
        (calls(OSLO, ROME[:2] + ("c1",)), "fail", "results cannot be told apart"),
        (calls(OSLO, ROME[:2] + ("",)), "fail", "results cannot be told apart"),
        (calls(OSLO, ("get_weather", '{"city": "Ro', "c2")), "fail", "not JSON"),
        (calls(OSLO, ("get_time", "{}", "c2")), "fail", "calls get_time, expected get_weather"),
        (calls(OSLO, ROME, finish="stop"), "fail", "finish_reason is 'stop' where tools are called"),
        (words("It is cold there."), "fail", "no tool call, but text"),
    ],
)
def test_two_calls_in_one_reply(reply: Exchange, outcome: str, reason: str) -> None:
    one = make.case(options={"tools": TOOLS}, expect=[{"tools_called": TWO}])
    seen = Evidence(one, [Reply(one.requests()[0], reply)], Identity(), make.profile())
    said = make.judged("tools_called", TWO, seen)
    assert said.outcome == outcome and reason in said.reason, said.reason


def test_two_calls_of_a_template_that_knows_no_tools_are_not_measured() -> None:
    one = make.case(options={"tools": TOOLS}, expect=[{"tools_called": TWO}])
    seen = Evidence(one, [Reply(one.requests()[0], words())], Identity(tools=False), make.profile())
    assert make.judged("tools_called", TWO, seen).outcome == "not_measured"
    for raw, reason in ((TWO[:1], "two calls or more"), ([TWO[0], {"name": "fly"}], "no tool 'fly'")):
        with pytest.raises(BadInput, match=reason):
            validate(make.case(options={"tools": TOOLS}, expect=[{"tools_called": raw}]))
