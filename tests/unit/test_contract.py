"""The contract of DESIGN §7: good replies of every engine keep it, and each broken clause is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from gatebook.checks.contract import clock_behind_s, violations
from gatebook.checks.evidence import Reply
from gatebook.config.cases import Ask
from gatebook.record.exchange import Exchange

from tests.unit.replies import ASKED, MODEL, USAGE, chat_body, chunk, good_chunks, plain, streamed


def said(reply: Exchange, seen: dict[str, str] | None = None) -> list[str]:
    return list(violations(Reply(Ask(name="ask"), reply), MODEL, {} if seen is None else seen))


NOW = int(ASKED.timestamp())
VLLM_PLAIN = {
    "id": "chatcmpl-7f3a", "object": "chat.completion", "created": NOW, "model": MODEL, "service_tier": None, "system_fingerprint": None,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "你好！", "refusal": None, "annotations": None, "audio": None, "function_call": None, "tool_calls": [], "reasoning": None, "reasoning_content": None},
                 "logprobs": None, "finish_reason": "stop", "stop_reason": None, "token_ids": None}],
    "usage": {"prompt_tokens": 9, "total_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": None}, "prompt_logprobs": None, "kv_transfer_params": None,
}  # fmt: skip
VLLM_STREAM = [
    chunk({"role": "assistant", "content": "", "reasoning_content": None}, usage=None),
    chunk({"content": "你"}, logprobs=None),
    chunk({"content": "好！"}),
    chunk({"content": ""}, "stop", stop_reason=None),
    chunk(usage={"prompt_tokens": 9, "total_tokens": 12, "completion_tokens": 3}),
]
LLAMA_PLAIN = {
    "choices": [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "Hello!"}}],
    "created": NOW, "model": MODEL, "system_fingerprint": "b1-unknown", "object": "chat.completion",
    "usage": {"completion_tokens": 3, "prompt_tokens": 31, "total_tokens": 34, "prompt_tokens_details": {"cached_tokens": 0}},
    "id": "chatcmpl-XyZ", "timings": {"cache_n": 0, "prompt_n": 31, "prompt_ms": 200.1, "predicted_n": 3, "predicted_ms": 33.2},
}  # fmt: skip
LLAMA_STREAM = [*good_chunks()[:-1], chunk(usage=USAGE, timings={"cache_n": 1})]
SGLANG_STREAM = [chunk({"role": "assistant", "content": "Hel", "reasoning_content": None, "tool_calls": None}), chunk({"content": "lo"}), chunk({"content": None}, "stop", matched_stop=2), chunk(usage={**USAGE, "reasoning_tokens": 0})]  # fmt: skip


def finished(finish: str, text: str | None, completion: int, cap: int = 32) -> Exchange:
    body = chat_body(text, usage={"prompt_tokens": 7, "completion_tokens": completion, "total_tokens": 7 + completion})
    body["choices"][0]["finish_reason"] = finish
    return plain(body, sent={"max_tokens": cap})


def message(**fields: Any) -> dict[str, Any]:
    body = chat_body(None)
    body["choices"][0]["message"] |= fields
    return body


TOOL = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
GOOD: dict[str, Exchange] = {
    "plain": plain(chat_body()),
    "stream": streamed(good_chunks()),
    "vLLM plain": plain(VLLM_PLAIN),
    "vLLM stream": streamed(VLLM_STREAM),
    "llama.cpp plain": plain(LLAMA_PLAIN),
    "llama.cpp stream": streamed(LLAMA_STREAM),
    "SGLang stream": streamed(SGLANG_STREAM),
    "last character cut by max_tokens": finished("length", "聪明的\ufffd", 5, cap=5),
    "cut before the first character": finished("length", "", 1, cap=1),
    "one token": finished("length", "Hi", 1, cap=1),
    "cut by a cap under its other name": plain(chat_body(), sent={"max_tokens": None, "max_completion_tokens": 5}),
    "tool calls without content": plain(message(tool_calls=TOOL)),
    "a name with a date": plain(chat_body(model=f"{MODEL}-0613")),
    "another model asked for and told": plain(chat_body(model="whatever"), sent={"model": "no-such-model"}),
    "created when the queue began": plain(chat_body(created=NOW - 200)),
    "server's clock ahead": plain(chat_body(created=NOW + 7200)),
    "server's clock behind, and its Date says so": plain(
        chat_body(created=NOW - 7200), headers={"date": format_datetime(ASKED - timedelta(hours=2, seconds=-3), usegmt=False)}
    ),
    "created in milliseconds": plain(chat_body(created=NOW * 1000)),
    "created left out": plain(chat_body(created=None)),
}  # fmt: skip


@pytest.mark.parametrize("reply", GOOD.values(), ids=GOOD.keys())
def test_a_good_reply_keeps_the_contract(reply: Exchange) -> None:
    assert said(reply) == []


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in chat_body().items() if name not in names}


def of_choice(**fields: Any) -> dict[str, Any]:
    body = chat_body()
    body["choices"][0] |= fields
    return body


def used(prompt: Any, completion: Any, total: Any) -> dict[str, Any]:
    return chat_body(usage={"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total})


STALE_DATE = {"date": format_datetime(ASKED)}
BROKEN: dict[str, tuple[Exchange, str]] = {
    "error in a 200": (plain({"error": {"message": "boom", "code": 500}}), "the reply carries an error: boom"),
    "flat error in a 200": (plain({"object": "error", "message": "boom"}), "the reply carries an error: boom"),
    "error in mid-stream": (streamed([*good_chunks()[:3], {"error": {"message": "boom"}}]), "the stream carries an error: boom"),
    "no JSON": (plain("<html>"), "not valid JSON: '<html>'"),
    "empty body": (plain(""), "the body is empty"),
    "malformed chunk": (streamed([*good_chunks()[:2], '{"choices": [', *good_chunks()[2:]]), "not valid JSON: '{\"choices\": ['"),
    "content that is no text": (plain(message(content=[{"type": "text", "text": "x"}])), "content is list, not text"),
    "no choices": (plain(without("choices")), "the reply has no choices"),
    "empty choices": (plain(chat_body(choices=[])), "the reply has no choices"),
    "no stream though asked": (plain(chat_body(), sent={"stream": True}, headers={"content-type": "application/json"}), "asked for a stream, got 'application/json'"),
    "no [DONE]": (streamed(good_chunks(), done=False), "the stream ended without [DONE]"),
    "invalid UTF-8": (plain(chat_body(), invalid_utf8=True), "the reply is not valid UTF-8"),
    "two ids in one reply": (streamed([*good_chunks()[:-1], chunk(usage=USAGE, id="chatcmpl-9")]), "one reply has 2 different response ids"),
    "null content": (plain(chat_body(None)), "content is null"),
    "empty content": (plain(chat_body("")), "content is empty"),
    "blank content": (plain(chat_body(" \n\t")), "content is blank"),
    "empty stream": (streamed([chunk({"role": "assistant"}), chunk({}, "stop"), chunk(usage=USAGE)]), "content is null"),
    "answer in the reasoning field": (plain(message(reasoning_content="Paris is it")), "content is empty and the answer is in the reasoning field: 'Paris is it'"),
    "answer in the other reasoning field": (streamed([chunk({"reasoning": "Paris"}), chunk({}, "stop"), chunk(usage=USAGE)]), "content is empty and the answer is in the reasoning field: 'Paris'"),
    "broken character in the middle": (plain(chat_body("聪\ufffd的人")), "U+FFFD (a broken character) at position 1"),
    "broken last character of a whole answer": (plain(chat_body("聪明\ufffd")), "U+FFFD (a broken character) at position 2"),
    "broken character in the middle of a cut answer": (finished("length", "聪\ufffd的", 5, cap=5), "U+FFFD (a broken character) at position 1"),
    "half a character": (plain('{"choices": [{"message": {"content": "ab\\ud83d c"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}'), "a broken character"),
    "mojibake": (plain(chat_body("cafÃ© au lait")), "mojibake"),
    "special token": (plain(chat_body("Paris.<|im_end|>")), "special token in the answer: '<|im_end|>'"),
    "thinking block": (plain(chat_body("<think>hm</think>4")), "thinking block in the answer"),
    "role header": (plain(chat_body("assistant\nParis")), "role header of the chat template in the answer"),
    "no finish_reason": (plain(of_choice(finish_reason=None)), "no finish_reason"),
    "two finish_reasons": (streamed([*good_chunks()[:-1], chunk({}, "stop"), chunk(usage=USAGE)]), "2 finish_reasons in one reply"),
    "unknown finish_reason": (plain(of_choice(finish_reason="eos")), "finish_reason is 'eos', which is none of stop, length"),
    "cut by a limit of the server": (finished("length", "Hello there", 8, cap=32), "cut after 8 tokens although 32 were allowed"),
    "no usage": (plain(without("usage")), "usage is missing"),
    "no usage chunk": (streamed(good_chunks()[:-1]), "usage is missing"),
    "half a usage": (plain(chat_body(usage={"prompt_tokens": 7})), "usage is incomplete"),
    "usage that is no number": (plain(used("7", 5, 12)), "usage is incomplete"),
    "usage 0": (plain(used(0, 0, 0)), "usage counts no tokens: prompt 0, completion 0"),
    "no completion tokens for a text": (plain(used(7, 0, 7)), "usage counts no tokens: prompt 7, completion 0"),
    "usage that does not add up": (plain(used(7, 5, 13)), "usage does not add up: 7 + 5 is not 13"),
    "more tokens than allowed": (finished("stop", "word " * 40, 40, cap=32), "40 completion tokens although max_tokens is 32"),
    "more tokens than bytes": (finished("stop", "Hi", 30), "usage says 30 completion tokens for 2 bytes of text"),
    "created long ago": (plain(chat_body(created=NOW - 301)), "answered from a cache: created 301 s before it was asked"),
    "created long ago by its own clock": (plain(chat_body(created=NOW - 7200), headers=STALE_DATE), "answered from a cache: created 7,200 s before it was asked"),
    "created long ago with a Date that is none": (plain(chat_body(created=NOW - 7200), headers={"date": "yesterday"}), "answered from a cache"),
    "another model": (plain(chat_body(model="m2")), "answered by model 'm2', asked for 'm1'"),
}  # fmt: skip


@pytest.mark.parametrize(("reply", "clause"), BROKEN.values(), ids=BROKEN.keys())
def test_each_broken_clause_is_named(reply: Exchange, clause: str) -> None:
    found = said(reply)
    assert [text for text in found if clause in text], found
    assert len(found) == 1 or clause.startswith(
        ("usage counts", "content is empty", "a broken", "2 finish", "no finish")
    ), found


@pytest.mark.parametrize(("counted", "broken"), [(5, False), (10, False), (11, True)])
def test_usage_may_count_every_choice_or_one(counted: int, broken: bool) -> None:
    """vLLM counts all of them, llama.cpp one."""
    body = chat_body(usage={"prompt_tokens": 7, "completion_tokens": counted, "total_tokens": 7 + counted})
    body["choices"].append({**body["choices"][0], "index": 1})
    assert said(plain(body, sent={"max_tokens": 5, "n": 2})) == (
        ["11 completion tokens although max_tokens is 5"] if broken else []
    )


def test_an_id_that_answered_before_is_a_cache() -> None:
    seen: dict[str, str] = {}
    assert said(plain(chat_body(), key="a/ask"), seen) == []
    assert said(plain(chat_body(), key="a/ask"), seen) == [], "the same exchange judged twice"
    assert said(plain(chat_body(), key="b/ask"), seen) == [
        "answered from a cache: response id 'chatcmpl-1' was already given to a/ask"
    ]
    assert said(streamed(good_chunks(), key="c/ask"), seen)[0].startswith("answered from a cache")
    assert said(plain(chat_body(id="other"), key="d/ask"), seen) == []


@pytest.mark.parametrize("created", [10**400, -(10**400), True, 1.5, "1", 0, -1])
def test_an_odd_creation_time_is_no_crash(created: Any) -> None:
    assert all("cache" in text for text in said(plain(json.dumps(chat_body(created=created)))))


CHANGES: list[Callable[[dict[str, Any]], object]] = [
    lambda b: b.update(id=None), lambda b: b.update(model=5), lambda b: b.update(usage=[]), lambda b: b.update(choices={}), lambda b: b.update(choices=[5]),
    lambda b: b["choices"][0].update(message="x"), lambda b: b["choices"][0].update(message=None), lambda b: b["choices"][0].update(finish_reason=[1]),
    lambda b: b.update(error=True), lambda b: b.update(usage={"prompt_tokens": 10**400, "completion_tokens": 5, "total_tokens": 5}),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_wrong_types_are_violations_and_never_a_crash(change: Callable[[dict[str, Any]], object]) -> None:
    body = chat_body()
    change(body)
    found = said(plain(json.dumps(body)))
    assert found or body["id"] is None or body["model"] == 5


@pytest.mark.parametrize(
    ("cap", "context", "broken"), [(None, 8192, True), (None, 15, False), (None, None, False), (8, 8192, False)]
)
def test_a_cut_that_nobody_asked_for_is_the_servers_own(cap: int | None, context: int | None, broken: bool) -> None:
    body = chat_body("Hello there, you.", usage={"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15})
    body["choices"][0]["finish_reason"] = "length"
    reply = plain(body, sent={"max_tokens": cap})
    found = list(violations(Reply(Ask(name="ask"), reply), MODEL, {}, context))
    assert any("cut after 8 tokens though the request sets no limit" in text for text in found) == broken, found


def at(second: int, created: int | None) -> Exchange:
    reply = plain(chat_body(created=created))
    later = (ASKED + timedelta(seconds=second)).isoformat()
    return reply.model_copy(update={"attempts": [reply.attempts[-1].model_copy(update={"at": later})]})


@pytest.mark.parametrize(
    ("told", "behind_s"),
    [
        ([(0, NOW), (60, NOW + 60)], 0),
        ([(0, NOW - 299), (60, NOW - 239)], 0),
        ([(0, NOW - 7200), (60, NOW - 7140)], 7200),
        ([(0, NOW - 7200), (60, NOW - 86_340)], 7200),
        ([(0, NOW - 7200), (60, NOW + 60)], 0),
        ([(0, NOW + 7200), (60, NOW + 7260)], -7200),
        ([(0, NOW + 7200), (60, NOW + 60)], 0),
        ([(0, NOW - 7200), (60, NOW - 7200)], 0),
        ([(0, NOW - 7200), (1, NOW - 7200)], 7200),
        ([(0, None), (1, 0), (2, 10**400)], 0),
        ([], 0),
    ],
    ids=["one clock", "nearly", "behind", "behind, and a cache", "a cache", "ahead", "one of the future", "one time for all", "asked at once", "no time", "nothing"],
)  # fmt: skip
def test_the_server_s_clock_is_known_by_its_freshest_reply(told: list[tuple[int, int | None]], behind_s: float) -> None:
    assert clock_behind_s(at(*one) for one in told) == pytest.approx(behind_s, abs=1.5)
