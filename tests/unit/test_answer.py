"""What a chat reply says, whatever shape the server gives it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gatebook.record.answer import Answer
from gatebook.record.replies import error_message, is_token, read_answer
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.replies import USAGE, chat_body, chunk, good_chunks, plain, streamed


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}}', "The model `x` does not exist."),
        ('{"object": "error", "message": "max_tokens is too large", "type": "BadRequestError", "param": null, "code": 400}', "max_tokens is too large"),
        ('{"object":"error","message":"The input (61709 tokens) is longer","type":"BadRequestError","param":null,"code":400}', "The input (61709 tokens) is longer"),
        ('{"error":{"code":500,"message":"image input is not supported","type":"server_error"}}', "image input is not supported"),
        ('{"error": "model not loaded"}', "model not loaded"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}', "[{'loc': ['body', 'messages'], 'msg': 'field required'}]"),
        ('{"error": {"detail": "quota"}}', "quota"),
        ("upstream connect error\n  or disconnect", "upstream connect error or disconnect"),
        ("<html><body>502 Bad Gateway</body></html>", "<html><body>502 Bad Gateway</body></html>"),
        ('["not", "a", "mapping"]', '["not", "a", "mapping"]'),
        ("", ""),
        (None, ""),
    ],
    ids=["vLLM newer", "vLLM older", "SGLang", "llama.cpp", "error text", "FastAPI", "FastAPI list", "error detail", "plain text", "HTML", "JSON list", "empty", "no body"],
)  # fmt: skip
def test_every_error_envelope_gives_its_message(body: str | None, message: str) -> None:
    assert error_message(body) == message


def test_a_long_error_is_one_short_line() -> None:
    assert len(error_message("x\n" * 1000)) <= 200 and "\n" not in error_message("x\n" * 1000)


@pytest.mark.parametrize(
    "body", ['{"error": {"message": "boom"}}', '{"object": "error", "message": "boom", "code": 500}']
)
def test_an_error_inside_a_200_is_an_error(body: str) -> None:
    assert read_answer(plain(body)).error == "boom"
    assert read_answer(streamed([*good_chunks()[:2], body])).error == "boom"


def test_a_plain_reply() -> None:
    answer = read_answer(plain(chat_body("你好")))
    assert (answer.text, answer.finish_reason, answer.choices, answer.done) == ("你好", "stop", 1, True)
    assert (answer.ids, answer.model, answer.usage, answer.malformed) == ({"chatcmpl-1"}, "m1", USAGE, None)


def test_a_stream_is_joined() -> None:
    answer = read_answer(streamed(good_chunks("Hello there, you.")))
    assert (answer.text, answer.finish_reasons, answer.done) == ("Hello there, you.", ["stop"], True)
    assert (answer.usage, answer.tokens("completion_tokens"), answer.error, answer.malformed) == (USAGE, 5, None, None)


def test_several_tokens_in_one_chunk_are_not_lost() -> None:
    answer = read_answer(
        streamed([chunk({"role": "assistant", "content": "Hel"}), chunk({"content": "lo there"}, "stop")])
    )
    assert (answer.text, answer.finish_reasons) == ("Hello there", ["stop"])


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_kept_apart_under_either_name(field: str) -> None:
    chunks = [chunk({field: "let me "}), chunk({field: "think"}), chunk({"content": "4"}, "stop")]
    assert (read_answer(streamed(chunks)).reasoning, read_answer(streamed(chunks)).text) == ("let me think", "4")
    body = chat_body(None)
    body["choices"][0]["message"][field] = "let me think"
    assert (read_answer(plain(body)).reasoning, read_answer(plain(body)).content) == ("let me think", None)


def test_reasoning_under_both_names_counts_once() -> None:
    chunks = [chunk({"reasoning": "hm", "reasoning_content": "hm"})]
    assert read_answer(streamed(chunks)).reasoning == "hm"


def test_null_empty_and_missing_content_are_told_apart() -> None:
    missing = chat_body()
    del missing["choices"][0]["message"]["content"]
    assert [read_answer(plain(body)).content for body in (chat_body(None), chat_body(""), missing)] == [None, "", None]


@pytest.mark.parametrize(
    ("data", "token"),
    [
        (chunk({"role": "assistant"}), False),
        (chunk({"role": "assistant", "content": ""}), False),
        (chunk({"role": "assistant", "content": None}), False),
        (chunk({"content": "H"}), True),
        (chunk({"content": " "}), True),
        (chunk({"reasoning_content": "hm"}), True),
        (chunk({"reasoning": "hm"}), True),
        (chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}), True),
        (chunk({"tool_calls": []}), False),
        (chunk({}, "stop"), False),
        (chunk(usage=USAGE), False),
        ({"error": {"message": "boom"}}, False),
    ],
)
def test_what_counts_as_the_first_token(data: dict[str, Any], token: bool) -> None:
    assert is_token(json.dumps(data)) is token


@pytest.mark.parametrize(
    "piece",
    ["{not json", "", "[1, 2]", '"text"', "null", "data: {}", '{"choices": [{"delta": {"content": {"a": 1}}}]}'],
)
def test_a_malformed_chunk_is_noticed_and_the_rest_still_read(piece: str) -> None:
    answer = read_answer(streamed([*good_chunks("Hi you")[:2], piece, *good_chunks("Hi you")[2:]]))
    assert answer.malformed is not None or answer.flaws
    assert answer.text == "Hi you"


@pytest.mark.parametrize("text", ["", "   ", "Internal Server Error", "<html></html>", "[]", "\x00", "{"])
def test_a_body_that_is_no_reply_is_malformed(text: str) -> None:
    answer = read_answer(plain(text))
    assert answer.malformed and answer.choices == 0


def test_a_stream_without_its_end_is_not_done() -> None:
    assert not read_answer(streamed(good_chunks(), done=False)).done


def test_different_ids_in_one_reply_are_all_kept() -> None:
    assert read_answer(streamed([chunk({"content": "a"}), chunk({"content": "b"}, id="chatcmpl-2")])).ids == {
        "chatcmpl-1",
        "chatcmpl-2",
    }


@pytest.mark.parametrize("value", [True, "5", 5.0, None, float("nan"), [5]])
def test_only_a_whole_number_counts_as_tokens(value: Any) -> None:
    assert Answer(usage={"prompt_tokens": value}).tokens("prompt_tokens") is None


def test_a_character_split_over_two_chunks_is_whole_again() -> None:
    high, low = '{"choices": [{"delta": {"content": "\\ud83d"}}]}', '{"choices": [{"delta": {"content": "\\ude00"}}]}'
    assert read_answer(streamed([high, low])).text == "😀"


@pytest.mark.parametrize("field", ["content", "reasoning"])
def test_half_a_character_becomes_a_broken_one_that_can_be_written(field: str) -> None:
    answer = read_answer(streamed([json.dumps(chunk({field: "ab\ud83d"}))]))
    assert (answer.text or answer.reasoning).encode().decode() == "ab\ufffd"


def test_an_error_with_half_a_character_can_be_written() -> None:
    assert error_message('{"error": {"message": "bad \\ud83d"}}').encode()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("content", "reasoning", "reasoning_content", "tool_calls", "role")
messages = st.dictionaries(st.sampled_from(NAMES), values, max_size=4) | values
choices = st.fixed_dictionaries({}, optional={"delta": messages, "message": messages, "finish_reason": values}) | values
TOP = {
    "id": values,
    "created": values,
    "model": values,
    "usage": values,
    "error": values,
    "object": st.just("error") | values,
}
bodies = st.fixed_dictionaries({}, optional={**TOP, "choices": st.lists(choices, max_size=2) | values}) | values


@given(st.lists(bodies, max_size=4))
@example([{"choices": [{"delta": {"tool_calls": 5}}]}])
@example([{"choices": [{"delta": {"tool_calls": True}}]}])
def test_no_json_that_a_server_may_send_raises(pieces: list[Any]) -> None:
    answer = read_answer(streamed(pieces))
    assert isinstance(answer.text, str)
    for piece in pieces:
        assert isinstance(is_token(json.dumps(piece)), bool)
        read_answer(plain(json.dumps(piece)))
        error_message(json.dumps(piece))


@given(st.text())
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example("1" * 5000)
@example('{"error": {"message": ' + "[" * 5000)
def test_no_text_that_a_server_may_send_raises(text: str) -> None:
    assert read_answer(plain(text)).malformed is not None or read_answer(plain(text)).choices == 0
    read_answer(streamed([text]))
    error_message(text)


def of(index: Any, text: str, finish: str | None = None) -> dict[str, Any]:
    return chunk(None, choices=[{"index": index, "delta": {"content": text}, "finish_reason": finish}])


def test_other_choices_are_counted_and_never_mixed_into_the_first() -> None:
    sent = [of(0, "red"), of(1, "blue"), of(1, "ish", "stop"), of(0, "dish", "length"), chunk(usage=USAGE)]
    answer = read_answer(streamed(sent))
    assert (answer.text, answer.finish_reasons, answer.choice_indexes) == ("reddish", ["length"], {0, 1})
    both = chat_body("red")
    both["choices"].append({"index": 1, "message": {"role": "assistant", "content": "blue"}, "finish_reason": "stop"})
    assert (read_answer(plain(both)).text, read_answer(plain(both)).choice_indexes) == ("red", {0, 1})
    together = chunk(None, choices=[{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}])
    assert read_answer(streamed([together, of(0, "x"), of(1, "c")])).text == "ax"


@pytest.mark.parametrize("index", [None, "0", True])
def test_a_choice_without_an_index_is_known_by_its_place(index: Any) -> None:
    answer = read_answer(streamed([of(index, "red", "stop")]))
    assert (answer.text, answer.choice_indexes) == ("red", {0})
