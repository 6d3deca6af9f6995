"""What the service does around the text: every outcome of every check."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from gatebook.checks import validate
from gatebook.checks.evidence import Evidence
from gatebook.config.cases import Ask
from gatebook.errors import BadInput
from gatebook.record.exchange import Client, Exchange
from gatebook.record.identity import Identity

from tests.unit.replies import USAGE, case, chat_body, evidence, judged, plain, profile, timing


def about(identity: Identity, **target: Any) -> Evidence:
    return evidence(
        plain("{}"), asks=[Ask(name="models", path="models")], identity=identity, judged_by=profile(**target)
    )


@pytest.mark.parametrize(
    ("check", "identity", "target", "outcome", "reason"),
    [
        ("model_listed", Identity(models=("m1", "m2")), {}, "pass", "serves m1"),
        ("model_listed", Identity(models=("m2", "m10")), {}, "fail", "model 'm1' is not served; served: m2, m10"),
        ("model_listed", Identity(), {}, "not_measured", "lists no models"),
        ("engine_told", Identity(engine="vllm", version="0.11.0"), {}, "pass", "vllm 0.11.0"),
        ("engine_told", Identity(engine="sglang"), {}, "pass", "sglang of an untold version"),
        ("engine_told", Identity(), {}, "not_measured", "no probe answers"),
        (
            "context_limit",
            Identity(context_tokens=8192),
            {"context_tokens": 8192},
            "pass",
            "8192 tokens served, 8192 needed",
        ),
        (
            "context_limit",
            Identity(context_tokens=2048),
            {"context_tokens": 8192},
            "fail",
            "2048 tokens served, 8192 needed",
        ),
        ("context_limit", Identity(context_tokens=2048), {}, "pass", "the profile asks for no minimum"),
        ("context_limit", Identity(), {"context_tokens": 8192}, "not_measured", "does not tell its context limit"),
    ],
)
def test_identity(check: str, identity: Identity, target: dict[str, Any], outcome: str, reason: str) -> None:
    result = judged(check, True, about(identity, **target))
    assert result.outcome == outcome and reason in result.reason


REFUSED = plain("{}", status=404, fault="status", detail="The model `x` does not exist.")


@pytest.mark.parametrize(
    ("reply", "engine", "outcome", "reason"),
    [
        (REFUSED, "vllm", "pass", "refused: The model `x` does not exist."),
        (REFUSED, "unknown", "pass", "refused"),
        (plain(chat_body()), "vllm", "fail", "vllm answers 4xx"),
        (plain(chat_body()), "llama.cpp", "pass", "known of this engine"),
        (plain(chat_body()), "sglang", "pass", "known of this engine"),
        (plain(chat_body()), "unknown", "pass", "proves nothing"),
    ],
)
def test_a_model_that_nobody_serves(reply: Exchange, engine: Any, outcome: str, reason: str) -> None:
    result = judged("wrong_model", True, evidence(reply, identity=Identity(engine=engine)))
    assert result.outcome == outcome and reason in result.reason


def counted(**counts: int | None) -> Evidence:
    replies = [plain(chat_body(usage={**USAGE, "prompt_tokens": count})) for count in counts.values()]
    return evidence(*replies, asks=[Ask(name=name.replace("_", "-")) for name in counts])


@pytest.mark.parametrize(
    ("counts", "outcome", "reason"),
    [
        ({"hello": 7, "system": 12, "with_system": 22}, "pass", "prompt tokens: hello 7, system 12, with-system 22"),
        (
            {"system": 12, "with_system": 12},
            "fail",
            "'with-system' costs 12 tokens, no more than the 12 without: a message is dropped",
        ),
        ({"system": 12, "with_system": 9}, "fail", "a message is dropped"),
        ({"hello": None}, "fail", "usage.prompt_tokens is missing: hello None"),
        ({"text": 40, "like_text": 40}, "pass", "prompt tokens"),
        ({"text": 40, "like_text": 44}, "pass", "prompt tokens"),
        ({"text": 40, "like_text": 30}, "fail", "costs 30 tokens where 40 say the same: a part of it is dropped"),
        ({"text": 40, "like_text": 70}, "fail", "where 40 say the same: something else reaches the model"),
        ({"system": 12, "with_system": None}, "fail", "usage.prompt_tokens is missing"),
        ({"with_nothing_beside": 3}, "pass", "with-nothing-beside 3"),
    ],
)
def test_prompt_tokens(counts: dict[str, int | None], outcome: str, reason: str) -> None:
    result = judged("prompt_tokens", True, counted(**counts))
    assert result.outcome == outcome and reason in result.reason


BUSY_LOOP, BUSY_CPU, CALM = Client(in_flight=1, loop_lag_ms=80.0), Client(in_flight=1, cpu_share=0.9), Client(in_flight=1, loop_lag_ms=0.2, cpu_share=0.1)  # fmt: skip


@pytest.mark.parametrize(("check", "field"), [("ttft_ms", "first_token_ms"), ("total_ms", "last_token_ms")])
@pytest.mark.parametrize(
    ("measured", "client", "outcome"),
    [
        (499.0, CALM, "pass"),
        (500.0, None, "pass"),
        (499.0, BUSY_LOOP, "pass"),
        (501.0, CALM, "fail"),
        (501.0, None, "fail"),
        (501.0, BUSY_LOOP, "not_measured"),
        (501.0, BUSY_CPU, "not_measured"),
        (None, CALM, "fail"),
    ],
)
def test_times_against_their_limit(
    check: str, field: str, measured: float | None, client: Client | None, outcome: str
) -> None:
    times = {} if measured is None else {field: measured}
    by = profile().model_copy(
        update={"limits": profile().limits.model_copy(update={"ttft_ms": 500.0, "total_ms": 500.0})}
    )
    seen = evidence(plain(chat_body(), timing=timing(**times), client=client), judged_by=by)
    result = judged(check, "limit", seen)
    assert (result.outcome, result.limit, result.unit) == (outcome, 500.0, "ms")


def test_a_reply_without_times_had_no_first_token() -> None:
    assert judged("ttft_ms", "limit", evidence(plain(chat_body()))).reason == "there was no first token"


def thrice(plain_text: str, streamed_text: str, again: str) -> Evidence:
    return evidence(plain_text, streamed_text, again, asks=[Ask(name=name) for name in ("plain", "streamed", "again")])


@pytest.mark.parametrize(
    ("texts", "outcome"),
    [
        (("red, blue", "red, blue", "red, blue"), "pass"),
        (("聪明\ufffd", "聪明", "聪明\ufffd"), "pass"),
        (("red", "blue", "red"), "fail"),
        (("聪明的", "聪明", "聪明的"), "fail"),
        (("red", "blue", "green"), "not_measured"),
        (("red", "green", "green"), "pass"),
    ],
)
def test_a_stream_says_what_the_plain_reply_says(texts: tuple[str, str, str], outcome: str) -> None:
    assert judged("stream_equals_plain", True, thrice(*texts)).outcome == outcome


def cut(text: str, finish: str) -> Exchange:
    body = chat_body(text)
    body["choices"][0]["finish_reason"] = finish
    return plain(body)


@pytest.mark.parametrize(
    ("free", "stopped", "finish", "outcome", "reason"),
    [
        ("1, 2, 3", "1", "stop", "pass", "ends before ','"),
        ("1, 2, 3", "1, 2", "stop", "fail", "contains the stop string ','"),
        ("1, 2, 3", "1", "length", "fail", "finish_reason is 'length'"),
        ("1 2 3", "1 2 3", "stop", "not_measured", "the free answer has no ','"),
    ],
)
def test_stop_strings(free: str, stopped: str, finish: str, outcome: str, reason: str) -> None:
    seen = evidence(cut(free, "length"), cut(stopped, finish), asks=[Ask(name="free"), Ask(name="stopped")])
    result = judged("stop_honoured", {"free": "free", "stopped": "stopped", "stop": ","}, seen)
    assert result.outcome == outcome and reason in result.reason


@pytest.mark.parametrize(("texts", "outcome"), [(["a", "b", "a"], "pass"), (["a", "a", "a"], "fail")])
def test_default_sampling_gives_different_answers(texts: list[str], outcome: str) -> None:
    result = judged("distinct_answers", {"min": 2}, evidence(*texts))
    assert (result.outcome, result.measured) == (outcome, len(set(texts)))


@pytest.mark.parametrize(
    ("ids", "outcome"), [(["x", "y"], "pass"), (["x", "x"], "fail"), (["x", None], "fail"), ([None, None], "fail")]
)
def test_equal_questions_get_replies_of_their_own(ids: list[str | None], outcome: str) -> None:
    assert judged("distinct_ids", True, evidence(*(plain(chat_body(id=name)) for name in ids))).outcome == outcome


SEEDS = {"same": ["a", "b"], "other": "c"}


@pytest.mark.parametrize(
    ("texts", "outcome", "reason"),
    [
        (("red boat", "red boat", "blue boat"), "pass", "2 requests with one seed say the same"),
        (("red boat", "green boat", "blue boat"), "fail", "the seed is not honoured: 2 different answers"),
        (("red boat", "red boat", "red boat"), "not_measured", "another seed gives the same answer"),
    ],
)
def test_a_seed_is_honoured(texts: tuple[str, ...], outcome: str, reason: str) -> None:
    seen = evidence(*(plain(chat_body(text)) for text in texts), asks=[Ask(name=name) for name in "abc"])
    result = judged("seed_honoured", SEEDS, seen)
    assert (result.outcome, reason in result.reason) == (outcome, True), result.reason


@pytest.mark.parametrize(("knows", "outcome"), [(False, "not_measured"), (True, "fail"), (None, "fail")])
def test_a_template_that_knows_no_tools_says_nothing_of_their_history(knows: bool | None, outcome: str) -> None:
    seen = counted(short=30, with_short=30)
    said = judged("prompt_tokens", "of_tools", replace(seen, identity=Identity(tools=knows)))
    assert said.outcome == outcome and "a message is dropped" in said.reason
    assert judged("prompt_tokens", True, replace(seen, identity=Identity(tools=knows))).outcome == "fail"


def choices(*indexes: int) -> Any:
    body = chat_body()
    body["choices"] = [{**body["choices"][0], "index": index} for index in indexes]
    return plain(body)


@pytest.mark.parametrize(("indexes", "outcome"), [((0, 1), "pass"), ((1, 0), "pass"), ((0,), "fail"), ((0, 0), "fail"), ((0, 2), "fail"), ((0, 1, 2), "fail")])  # fmt: skip
def test_every_choice_that_was_asked_for_is_there(indexes: tuple[int, ...], outcome: str) -> None:
    two = [Ask(name="plain", options={"n": 2})]
    said = judged("every_choice", True, evidence(choices(*indexes), asks=two))
    assert said.outcome == outcome and (said.outcome == "pass" or "2 choices asked" in said.reason)


def test_choices_are_counted_only_where_several_are_asked() -> None:
    with pytest.raises(BadInput, match="asks for one choice"):
        validate(case(expect=[{"every_choice": True}], options={"n": 1}))
