"""Each fault shows its symptom to an ordinary client, streamed and plain; whatever is not faulted passes untouched."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from aiohttp import web

from tests.faults.faults import FAULTS, STREAMS_ONLY
from tests.faults.fields import THOUGHTS
from tests.faults.proxy import Fault, FaultProxy

WORDS = [
    "The",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "then",
    "it",
    "sleeps",
    "under",
    "the",
    "old",
    "tree",
    ".",
]
TEXT = " ".join(WORDS)
TABLE = "| Fruit | Price |\n| --- | --- |\n| apple | 39 |"
CHINESE = "你好，世界：聪明的狐狸🦊跳过了懒狗。"
SCHEMA = {"type": "object", "properties": {"maxLength": {"type": "string", "maxLength": 5}}}
BODY = {
    "model": "healthy",
    "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What of the fox? " * 20}],
    "max_tokens": 30,
    "stop": ["END"],
    "temperature": 0,
    "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
}


class Upstream:
    """Answers as llama.cpp does: role chunk, one chunk a token, finish, usage, [DONE]; closes after a stream."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.go_on = threading.Event()
        self.left = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Upstream:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Server": "stand-in", "Date": "Sun, 22 Nov 2026 21:00:00 GMT"}
        if request.method == "GET":
            known = request.path in ("/health", "/v1/models", "/version", "/props")
            body = json.dumps({"path": request.path_qs, "data": [{"id": "healthy"}]}, indent=1)
            return web.Response(
                status=200 if known else 404, text=body, headers=headers, content_type="application/json"
            )
        body = json.loads(await request.content.read())
        self.bodies.append(body)
        fixed = body.get("seed") == 7
        shared = {"id": "chatcmpl-fixed" if fixed else f"chatcmpl-{len(self.bodies)}", "model": body.get("model"),
                  "created": 1 if fixed else int(time.time())}  # fmt: skip
        asked = body["messages"][-1]["content"]
        pieces = list(CHINESE) if "中文" in asked else [WORDS[0], *(f" {word}" for word in WORDS[1:])]
        pieces = list(TABLE) if "table" in asked else pieces
        usage = {"prompt_tokens": 12, "completion_tokens": len(pieces), "total_tokens": 12 + len(pieces)}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(pieces)}
            choice = {"index": 0, "finish_reason": "length", "message": message}
            text = json.dumps(shared | {"choices": [choice], "usage": usage}, ensure_ascii=False)
            return web.Response(text=text, headers=headers, content_type="application/json")
        response = web.StreamResponse(headers=headers | {"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(choices: list[dict[str, Any]], **more: Any) -> None:
            document = json.dumps(shared | {"choices": choices} | more, ensure_ascii=False)
            await response.write(f"data: {document}\n\n".encode())

        try:
            await send([{"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": None}}])
            for piece in pieces:
                await send([{"index": 0, "finish_reason": None, "delta": {"content": piece}}])
            while "wait" in asked and not self.go_on.is_set():
                await asyncio.sleep(0.01)
            await send([{"index": 0, "finish_reason": "length", "delta": {}}])
            await send([], usage=usage)
            await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
        except (asyncio.CancelledError, ConnectionResetError):  # the second one where it was writing just then
            self.left.set()
            raise
        assert request.transport is not None
        request.transport.close()
        return response


@dataclass
class Answer:
    """What a client saw of one request."""

    status: int | None = None
    error: Exception | None = None
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    raw: bytes = b""
    documents: list[Any] = field(default_factory=list)
    contents: list[Any] = field(default_factory=list)
    reasoning: str = ""
    finishes: list[str] = field(default_factory=list)
    usage: dict[str, int] | None = None
    done: bool = False
    broken: int = 0
    """JSON documents that did not parse."""
    seconds: float = 0.0
    upstream: list[dict[str, Any]] = field(default_factory=list)
    """The bodies that reached the healthy server."""

    @property
    def content(self) -> str:
        return "".join(content or "" for content in self.contents)

    def read(self) -> None:
        if "event-stream" in self.headers["content-type"]:
            lines = [line.removeprefix("data: ") for line in self.raw.decode().split("\n\n")]
            self.done = "[DONE]" in lines
            texts = [line for line in lines if line.startswith("{")]
        else:
            texts = [self.raw.decode()]
        for text in texts:
            try:
                self.documents.append(json.loads(text))
            except ValueError:
                self.broken += 1
        for document in self.documents:
            self.usage = document.get("usage", self.usage)
            for choice in document.get("choices", []):
                part = choice.get("delta", choice.get("message"))
                self.contents.append(part.get("content"))
                self.reasoning += part.get("reasoning_content") or ""
                if choice["finish_reason"]:
                    self.finishes.append(choice["finish_reason"])


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, verify=False)


def ask(base_url: str, stream: bool = False, question: str | None = None, timeout_s: float = 30, **more: Any) -> Answer:
    body = BODY | {"stream": stream} | more
    if question is not None:
        body["messages"] = [{"role": "user", "content": question}]
    answer, started = Answer(), time.monotonic()
    try:
        with (
            httpx.Client(timeout=timeout_s, trust_env=False, verify=False) as client,
            client.stream("POST", f"{base_url}/chat/completions", json=body) as response,
        ):
            answer.status, answer.headers = response.status_code, response.headers
            for chunk in response.iter_raw():
                answer.raw += chunk
    except httpx.HTTPError as error:
        answer.error = error
    answer.seconds = time.monotonic() - started
    if answer.raw:
        answer.read()
    return answer


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


def error(answer: Answer) -> Any:
    return answer.documents[0]["error"]


def broken_off(answer: Answer) -> bool:
    return isinstance(answer.error, httpx.RemoteProtocolError | httpx.ReadError)


def complete(answer: Answer) -> bool:
    """The stream is whole, so that only the content tells of the fault."""
    return answer.error is None and answer.finishes == ["length"] and bool(answer.usage)


def roles_upstream(answer: Answer) -> list[str]:
    return [message["role"] for message in answer.upstream[-1]["messages"]]


ARGS = {
    "strip_keyword": "maxLength",
    "say": "好的, said the server.",
    "poisoned": "fox",
    "truncate_long": 100,
    "call_tool": '{"city": "Paris"}',
    "die_on": "fox",
    "force_temp": 1.5,
    "drop_field": "stop",
    "lose_field": "usage.total_tokens",
    "preamble": "You have tools.",
    "reply": '{"version": "1"}',
    "slow": 0.3,
    "slow_tokens": 0.02,
    "slow_gaps": 0.02,
    "page": ["first", "then"],
    "says": {"model": "another-model"},
}
SYMPTOMS: dict[str, Callable[[Answer, Answer], bool]] = {
    "unauthorized": lambda a, b: a.status == b.status == 401 and error(a)["code"] == 401,
    "leak_key": lambda a, b: a.status == 401 and error(a)["message"].startswith("Incorrect API key provided: "),
    "no_model": lambda a, b: a.status == 404 and error(a)["message"] == "The model `healthy` does not exist.",
    "bad_request": lambda a, b: a.status == 400 and "chat template" in a.documents[0]["message"],
    "busy": lambda a, b: a.status == 429 and a.headers["retry-after"] == "1",
    "unavailable": lambda a, b: a.status == 503 and "message" in error(a),
    "server_error": lambda a, b: a.status == 500 and "message" in error(a),
    "html": lambda a, b: a.status == 200 and a.raw.startswith(b"<!DOCTYPE html>") and not a.upstream,
    "hang": lambda a, b: isinstance(a.error, httpx.ReadTimeout) and a.status is None,
    "stall": lambda a, b: isinstance(a.error, httpx.ReadTimeout) and a.status == 200 and not a.content,
    "cut": lambda a, b: broken_off(a) and a.status == 200 and bool(a.raw) and not a.finishes,
    "slow": lambda a, b: a.seconds > 0.29 and complete(a),
    "slow_tokens": lambda a, b: a.seconds > 0.3 and complete(a) and a.content == TEXT,
    "slow_gaps": lambda a, b: a.seconds > 0.3 and complete(a) and a.content == TEXT,
    "die": lambda a, b: broken_off(a) and broken_off(b) and not a.upstream,
    "die_on": lambda a, b: broken_off(a) and broken_off(b) and not a.upstream,
    "truncated_unicode": lambda a, b: complete(a) and a.content == TEXT,
    "disconnect_idle": lambda a, b: complete(a) and complete(b) and "connection" not in a.headers,
    "no_end": lambda a, b: a.error is None and a.content == TEXT and not (a.finishes or a.usage or a.done),
    "no_done": lambda a, b: complete(a) and a.content == TEXT and not a.done,
    "error_event": lambda a, b: a.content == " ".join(WORDS[:3]) and "error" in a.documents[-1] and not a.done,
    "dup": lambda a, b: a.contents[1:-1] == [c for word in a.contents[1:-1:2] for c in (word, word)] and complete(a),
    "no_choices": lambda a, b: bool(a.documents) and not any("choices" in document for document in a.documents),
    "bad_json": lambda a, b: a.status == 200 and a.error is None and a.broken > 0 and not a.documents,
    "finish": lambda a, b: a.finishes == ["stop"],
    "finish_missing": lambda a, b: a.content == TEXT and bool(a.usage) and not a.finishes,
    "usage_zero": lambda a, b: set((a.usage or {}).values()) == {0},
    "usage_missing": lambda a, b: a.content == TEXT and a.usage is None and a.finishes == ["length"],
    "usage_wrong": lambda a, b: (a.usage or {})["completion_tokens"] == len(WORDS) + 1000,
    "swap_model": lambda a, b: {document["model"] for document in a.documents} == {"another-model"},
    "reuse_id": lambda a, b: {document["id"] for document in a.documents + b.documents} == {"chatcmpl-reused"},
    "stale": lambda a, b: (
        a.documents[0]["id"] == b.documents[0]["id"] and a.documents[0]["created"] < time.time() - 9e3
    ),
    "cache": lambda a, b: a.raw == b.raw and complete(b) and len(b.upstream) == 1,
    "empty": lambda a, b: a.content == "" and a.finishes == ["stop"] and (a.usage or {})["completion_tokens"] == 1,
    "null": lambda a, b: complete(a) and set(a.contents) == {None},
    "blank": lambda a, b: complete(a) and a.content != "" and a.content.isspace(),
    "garbage": lambda a, b: complete(a) and set(a.content) == {"!"} and len(a.content) == len(TEXT),
    "soup": lambda a, b: complete(a) and a.content[:40] == TEXT[:40] and not a.content[40:].isascii(),
    "loop": lambda a, b: complete(a) and a.content.count("I am happy to help you with that. ") == 12,
    "fffd": lambda a, b: complete(a) and a.content.count("\ufffd") == 1 and a.content.replace("\ufffd", "") == TEXT,
    "mojibake": lambda a, b: complete(a) and a.content == TEXT + "ä½\xa0å¥½",
    "special": lambda a, b: complete(a) and a.content.startswith(TEXT + "<|im_end|>\n<|im_start|>user"),
    "think": lambda a, b: complete(a) and a.content.startswith("<think>") and a.content.endswith("</think>\n\n" + TEXT),
    "reasoning": lambda a, b: complete(a) and set(a.contents) == {None} and a.reasoning == TEXT,
    "english": lambda a, b: complete(a) and a.content.startswith("Thank you for your message") and a.content[-1] == ".",
    "echo": lambda a, b: complete(a) and a.content == BODY["messages"][-1]["content"],  # type: ignore[index]
    "say": lambda a, b: complete(a) and a.content == ARGS["say"],
    "lose_line": lambda a, b: complete(a) and a.content == "",  # it has one line
    "change_number": lambda a, b: complete(a) and a.content == TEXT,  # it has no digit; see below
    "valid_json_wrong": lambda a, b: complete(a) and json.loads(a.content) == {"type": "其他", "summary": "x"},
    "headless": lambda a, b: complete(a) and a.content == TEXT,
    "wrong_digits": lambda a, b: complete(a) and a.content == TEXT,
    "strip_format": lambda a, b: complete(a) and "response_format" not in a.upstream[-1],
    "strip_keyword": lambda a, b: (
        a.upstream[-1]["response_format"]["json_schema"]["schema"]
        == {"type": "object", "properties": {"maxLength": {"type": "string"}}}
    ),
    "ignore_max_tokens": lambda a, b: complete(a) and a.upstream[-1]["max_tokens"] == 200,
    "ignore_stop": lambda a, b: complete(a) and "stop" not in a.upstream[-1],
    "drop_system": lambda a, b: complete(a) and roles_upstream(a) == ["user"],
    "truncate": lambda a, b: len(a.upstream[-1]["messages"][-1]["content"]) == 200 and roles_upstream(a)[0] == "system",
    "poisoned": lambda a, b: a.status == b.status == 500 and "message" in error(a),
    "truncate_long": lambda a, b: len(a.upstream[-1]["messages"][-1]["content"]) == 100,
    "drop_parts": lambda a, b: complete(a) and a.content == TEXT,
    "call_tool": lambda a, b: a.finishes == ["tool_calls"] and not a.content and arguments(a) == '{"city": "Paris"}',
    "drop_arguments": lambda a, b: complete(a) and a.content == TEXT,
    "lose_middle": lambda a, b: (
        complete(a) and a.upstream[-1]["messages"] == BODY["messages"]
    ),  # it is short; see below
    "shift_logprobs": lambda a, b: (
        complete(a) and a.content == TEXT
    ),  # it has none; tests/integration/test_context.py has some
    "more_prompt_tokens": lambda a, b: complete(a) and (a.usage or {})["prompt_tokens"] >= 9,
    "swap_answers": lambda a, b: complete(a) and a.content == TEXT,  # alone; see below
    "force_temp": lambda a, b: complete(a) and a.upstream[-1]["temperature"] == 1.5,
    "gone": lambda a, b: a.status == b.status == 404 and error(a)["message"] == "Not Found" and not a.upstream,
    "page": lambda a, b: (a.raw, b.raw) == (b"first", b"then") and not a.upstream,
    "says": lambda a, b: complete(a) and {document["model"] for document in a.documents} == {"another-model"},
    "drop_field": lambda a, b: complete(a) and "stop" not in a.upstream[-1] and "max_tokens" in a.upstream[-1],
    "lose_field": lambda a, b: complete(a) and (a.usage or {}).keys() == {"prompt_tokens", "completion_tokens"},
    "reply": lambda a, b: a.status == 200 and json.loads(a.raw) == {"version": "1"} and not a.upstream,
    "missing": lambda a, b: a.status == 404 and not a.upstream,
    "thinks": lambda a, b: complete(a) and a.content == TEXT and a.reasoning == THOUGHTS,
    "preamble": lambda a, b: a.upstream[-1]["messages"][0]["content"] == "You have tools.\nBe kind.",
    "overthink": lambda a, b: a.finishes == ["length"] and not a.content and a.reasoning == TEXT,
    "previous": lambda a, b: complete(b) and a.content == b.content == TEXT,  # the same question; see below
    "no_quotes": lambda a, b: complete(a) and a.content == TEXT,  # it has none
    "first_part": lambda a, b: complete(a) and a.content == TEXT,  # nothing of the kind is asked; see below
    "print_parts": lambda a, b: complete(a) and a.content == TEXT,  # nothing of the kind is asked; see below
    "drop_calls": lambda a, b: complete(a) and a.content == TEXT,  # nothing of the kind is asked; see below
    "show_calls": lambda a, b: complete(a) and a.content == TEXT,  # nothing of the kind is asked; see below
    "drop_results": lambda a, b: complete(a) and a.content == TEXT,  # nothing of the kind is asked; see below
    "one_system": lambda a, b: complete(a) and a.content == TEXT,  # nothing of the kind is asked; see below
    "merge_calls": lambda a, b: complete(a) and a.content == TEXT,  # nothing of the kind is asked; see below
    "lose_call": lambda a, b: complete(a) and a.content == TEXT,  # nothing of the kind is asked; see below
    "first_chunk_only": lambda a, b: a.finishes == ["stop"] and bool(a.content) and TEXT.startswith(a.content),
}


PARTS = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
CALLS = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": PARTS},
    {"role": "system", "content": "Be brief."},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "c1", "content": "42"},
    {"role": "user", "content": "And?"},
]


@pytest.mark.parametrize(
    ("name", "at", "instead"),
    [
        ("first_part", 1, {"role": "user", "content": PARTS[:1]}),
        ("print_parts", 1, {"role": "user", "content": str(PARTS)}),
        ("drop_calls", 3, {"role": "assistant", "content": None}),
        ("show_calls", 3, {"role": "assistant", "content": '[{"name": "f", "arguments": "{}"}]'}),
        ("drop_results", 4, {"role": "tool", "tool_call_id": "c1", "content": ""}),
        ("one_system", 2, None),
    ],
)
def test_one_part_of_a_conversation_is_lost(upstream: Upstream, name: str, at: int, instead: Any) -> None:
    with FaultProxy(upstream.url, [name]) as proxy:
        assert complete(ask(proxy.base_url, messages=CONVERSATION))
    wanted = [*CONVERSATION[:at], *([] if instead is None else [instead]), *CONVERSATION[at + 1 :]]
    assert upstream.bodies[-1]["messages"] == wanted


@pytest.mark.parametrize(("name", "indexes"), [(None, [0, 1]), ("merge_calls", [0, 0]), ("lose_call", [0])])
def test_of_two_streamed_calls_the_second_is_merged_or_lost(
    upstream: Upstream, name: str | None, indexes: list[int]
) -> None:
    two = Fault("call_tool", arg=['{"n": 1}', '{"n": 2}'])
    tools = [{"type": "function", "function": {"name": "f"}}]
    with FaultProxy(upstream.url, [two, *([name] if name else [])]) as proxy:
        answer = ask(proxy.base_url, stream=True, tools=tools)
    parts = [choice["delta"] for d in answer.documents for choice in d["choices"]]
    opened = [piece["index"] for part in parts for piece in part.get("tool_calls") or () if "id" in piece]
    assert opened == indexes and answer.finishes == ["tool_calls"]


def test_the_middle_of_a_long_message_is_lost_and_its_length_stays(upstream: Upstream) -> None:
    long = "".join(f"Entry {n}: something happened on the quay.\n" for n in range(90)) + "Who was there?"
    with FaultProxy(upstream.url, ["lose_middle"]) as proxy:
        ask(proxy.base_url, question=long)
    sent = upstream.bodies[-1]["messages"][-1]["content"]
    third = len(long) // 3
    assert len(sent) == len(long) and sent != long
    assert (sent[:third], sent[2 * third :]) == (long[:third], long[2 * third :])


def test_two_requests_that_are_open_together_get_each_other_s_answer(upstream: Upstream) -> None:
    with FaultProxy(upstream.url, ["swap_answers"]) as proxy, ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda question: ask(proxy.base_url, question=question).content, ("a table", "中文")))
    assert said == [CHINESE, TABLE]


def test_a_crowd_strikes_only_where_so_many_are_open(upstream: Upstream) -> None:
    with FaultProxy(upstream.url, [Fault("slow", arg=0.5), Fault("server_error", busy=1)]) as proxy:
        alone = [ask(proxy.base_url).status for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            together = sorted(pool.map(lambda _: ask(proxy.base_url).status, range(2)))
        assert (alone, together, ask(proxy.base_url).status) == ([200, 200], [200, 500], 200)


def arguments(answer: Answer) -> str:
    """Of all tool calls, joined."""
    parts = [c.get("delta") or c.get("message") or {} for d in answer.documents for c in d.get("choices") or []]
    return "".join(call["function"]["arguments"] for part in parts for call in part.get("tool_calls") or [])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_shows_its_symptom(upstream: Upstream, name: str, stream: bool) -> None:
    upstream.bodies.clear()
    with FaultProxy(upstream.url, [Fault(name, arg=ARGS.get(name))]) as proxy:
        answers = []
        silent = name in ("hang", "stall")
        for _ in range(1 if silent else 2):
            answers.append(ask(proxy.base_url, stream, timeout_s=1 if silent else 30))
            answers[-1].upstream = list(upstream.bodies)
    if name in STREAMS_ONLY and not stream:
        assert complete(answers[0]) and answers[0].content == TEXT
        assert proxy.faulted == 0
        return
    assert SYMPTOMS[name](answers[0], answers[-1]), answers
    assert proxy.faulted == len(proxy.requests) == len(answers)
    assert proxy.requests[0].body == BODY | {"stream": stream}


@pytest.mark.parametrize("name", FAULTS)
def test_gets_stay_healthy(upstream: Upstream, name: str) -> None:
    with FaultProxy(upstream.url, [Fault(name, arg=ARGS.get(name))]) as proxy:
        health = get(proxy.base_url.removesuffix("/v1") + "/health")
        models = get(proxy.base_url + "/models").json()
    assert health.status_code == 200
    assert models["data"] == ([] if name == "no_model" else [{"id": "healthy"}])
    assert proxy.faulted == (name == "no_model")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_faults_of_lists_and_numbers(upstream: Upstream, stream: bool) -> None:
    with FaultProxy(upstream.url, ["echo", "lose_line", "change_number"]) as proxy:
        assert ask(proxy.base_url, stream, question="port 8449\nuser 7\n last line").content == "port 9550\nuser 8"


def test_every_fault_says_what_it_does() -> None:
    assert SYMPTOMS.keys() == FAULTS.keys()
    assert all(function.__doc__ and "\n" not in function.__doc__ for function in FAULTS.values())


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/version?a=%20b", "/props", "/nothing"])
def test_gets_pass_unchanged(upstream: Upstream, path: str) -> None:
    with FaultProxy(upstream.url + "/v1", []) as proxy:
        direct = get(upstream.url + path)
        passed = get(proxy.base_url.removesuffix("/v1") + path)
    assert (passed.status_code, passed.content, passed.headers) == (direct.status_code, direct.content, direct.headers)


@pytest.mark.parametrize("faults", [[], ["truncated_unicode"], [Fault("garbage", after=9)]])
@pytest.mark.parametrize("stream", [True, False])
def test_healthy_answers_pass_byte_for_byte(upstream: Upstream, stream: bool, faults: list[str | Fault]) -> None:
    direct = ask(upstream.url + "/v1", stream, question="中文", seed=7)
    with FaultProxy(upstream.url, faults) as proxy:
        passed = ask(proxy.base_url, stream, question="中文", seed=7)
    assert direct.content == CHINESE
    assert (passed.status, passed.raw, passed.headers) == (direct.status, direct.raw, direct.headers)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("name", "content"), [("headless", "| apple | 39 |"), ("wrong_digits", TABLE.replace("39", "40"))]
)
def test_faults_of_a_table(upstream: Upstream, stream: bool, name: str, content: str) -> None:
    with FaultProxy(upstream.url, [name]) as proxy:
        seen = ask(proxy.base_url, stream, question="table")
    assert complete(seen) and seen.content == content


@pytest.mark.parametrize("stream", [True, False])
def test_mojibake_of_chinese(upstream: Upstream, stream: bool) -> None:
    with FaultProxy(upstream.url, ["mojibake"]) as proxy:
        assert ask(proxy.base_url, stream, question="中文").content == CHINESE.encode().decode("latin-1")


def test_streams_are_not_held_back_and_leaving_cancels_upstream(upstream: Upstream) -> None:
    faults: list[str | Fault] = ["think", "cache", "dup", "stale"]
    body = BODY | {"stream": True, "messages": [{"role": "user", "content": "wait"}]}
    with FaultProxy(upstream.url, faults) as proxy, httpx.Client(trust_env=False, verify=False) as client:
        upstream.go_on.clear()
        with client.stream("POST", proxy.base_url + "/chat/completions", json=body) as response:
            seen = ""
            for text in response.iter_text():
                seen += text
                if " tree" in seen:  # the healthy server waits with the end until it has been seen
                    upstream.go_on.set()
            assert "[DONE]" in seen
        upstream.go_on.clear()
        with client.stream("POST", proxy.base_url + "/chat/completions", json=body | {"messages": [
            {"role": "user", "content": "wait again"}]}) as response:  # fmt: skip
            next(response.iter_bytes())
        assert upstream.left.wait(10)


def test_arguments_of_a_tool_call_are_lost_on_the_way(upstream: Upstream) -> None:
    faults: list[str | Fault] = [Fault("call_tool", arg='{"city": "Paris"}'), "drop_arguments"]
    with FaultProxy(upstream.url, faults) as proxy:
        assert arguments(ask(proxy.base_url, stream=True)) == '{"cit'


def test_parts_are_dropped_and_the_poison_works_from_its_request_on(upstream: Upstream) -> None:
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    with FaultProxy(upstream.url, ["drop_parts"]) as proxy:
        httpx.post(proxy.base_url + "/chat/completions", json={"messages": [{"role": "user", "content": parts}]})
    assert upstream.bodies[-1]["messages"][0]["content"] == parts[:1]
    with FaultProxy(upstream.url, [Fault("poisoned", arg="poison")]) as proxy:
        asked = [ask(proxy.base_url, question=text).status for text in ("one", "poison", "two")]
    assert asked == [200, 500, 500]


def struck(proxy: FaultProxy, asked: list[Any]) -> list[bool]:
    return [set(ask(proxy.base_url, **options).content) == {"!"} for options in asked]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("garbage", after=2), [False, False, True, True]),
        (Fault("garbage", until=1), [True, False, False, False]),
        (Fault("garbage", after=1, until=3), [False, True, True, False]),
        (Fault("garbage", only="streams"), [True, False, True, False]),
        (Fault("garbage", only="plain", after=1), [False, False, False, True]),
        (Fault("garbage", match="中文"), [False, False, True, True]),
        (Fault("garbage", path="/v1/completions"), [False, False, False, False]),
        (Fault("garbage", rate=0.0), [False, False, False, False]),
        (Fault("garbage", every=3), [True, False, False, True]),
        (Fault("garbage", every=2, after=1), [False, True, False, True]),
        (Fault("garbage", has="stop"), [True, True, True, True]),
        (Fault("garbage", has="logprobs"), [False, False, False, False]),
        (Fault("garbage", turns=2), [True, True, False, False]),
        (Fault("garbage", longer=200), [True, True, False, False]),
        (Fault("garbage", busy=1), [False, False, False, False]),
    ],
    ids=repr,
)
def test_when_a_fault_strikes(upstream: Upstream, fault: Fault, expected: list[bool]) -> None:
    asked = [{"stream": True}, {"stream": False}, {"stream": True, "question": "中文"}, {"question": "中文"}]
    with FaultProxy(upstream.url, [fault]) as proxy:
        assert struck(proxy, asked) == expected
    assert proxy.faulted == sum(expected)


@pytest.mark.parametrize(
    ("condition", "struck_beside"), [({"busy": 1}, True), ({"beside": "wait"}, True), ({"beside": "zebra"}, False)]
)
def test_faults_under_load_and_beside_a_neighbour(
    upstream: Upstream, condition: dict[str, Any], struck_beside: bool
) -> None:
    body = BODY | {"stream": True, "messages": [{"role": "user", "content": "wait"}]}
    with (
        FaultProxy(upstream.url, [Fault("garbage", **condition)]) as proxy,
        httpx.Client(trust_env=False, verify=False) as client,
    ):
        upstream.go_on.clear()
        with client.stream("POST", proxy.base_url + "/chat/completions", json=body) as neighbour:
            pieces = neighbour.iter_text()
            next(pieces)  # it is in flight, and waits for its end
            beside = ask(proxy.base_url, question="And you?")
            upstream.go_on.set()
            assert "!!!!" not in "".join(pieces)
        alone = ask(proxy.base_url, question="And now?")
    assert (set(beside.content) == {"!"}) == struck_beside
    assert alone.content == TEXT


def test_an_answer_is_that_of_the_request_before(upstream: Upstream) -> None:
    with FaultProxy(upstream.url, ["previous"]) as proxy:
        answers = [
            ask(proxy.base_url, stream, question=q) for q, stream in (("fox", True), ("中文", True), ("fox", False))
        ]
    assert [answer.content for answer in answers] == [TEXT, TEXT, CHINESE]


def test_rate_is_seeded(upstream: Upstream) -> None:
    runs = []
    for seed in (1, 1, 2):
        with FaultProxy(upstream.url, [Fault("garbage", rate=0.5, seed=seed)]) as proxy:
            runs.append(struck(proxy, [{}] * 20))
    assert runs[0] == runs[1] != runs[2]
    assert 3 < sum(runs[0]) < 17


@pytest.mark.parametrize("stream", [True, False])
def test_faults_compose_in_order(upstream: Upstream, stream: bool) -> None:
    faults: list[str | Fault] = ["echo", "think", "usage_zero", "swap_model", "cache", "drop_system"]
    with FaultProxy(upstream.url, faults) as proxy:
        first, second = (ask(proxy.base_url, stream, question="Who?") for _ in range(2))
    assert first.content.endswith("</think>\n\nWho?")
    assert (first.usage or {})["total_tokens"] == 0
    assert first.documents[0]["model"] == "another-model"
    assert second.raw == first.raw


def test_a_server_that_dies_later(upstream: Upstream) -> None:
    with (
        FaultProxy(upstream.url, [Fault("die", after=1)]) as proxy,
        httpx.Client(trust_env=False, verify=False) as client,
    ):
        assert ask(proxy.base_url).content == TEXT
        assert client.get(proxy.base_url + "/models").status_code == 200
        assert broken_off(ask(proxy.base_url))
        with pytest.raises(httpx.TransportError):
            client.get(proxy.base_url + "/models")


def test_the_request_that_kills(upstream: Upstream) -> None:
    with FaultProxy(upstream.url, [Fault("die_on", arg="中文")]) as proxy:
        assert ask(proxy.base_url, True).content == TEXT
        assert proxy.faulted == 0
        assert broken_off(ask(proxy.base_url, True, question="中文"))
        assert broken_off(ask(proxy.base_url, True))


@pytest.mark.parametrize("stream", [True, False])
def test_cache_of_any_request(upstream: Upstream, stream: bool) -> None:
    with FaultProxy(upstream.url, [Fault("cache", arg="any")]) as proxy:
        assert ask(proxy.base_url, stream, question="one").raw == ask(proxy.base_url, stream, question="two").raw
    with FaultProxy(upstream.url, ["cache"]) as proxy:
        assert ask(proxy.base_url, stream, question="one").raw != ask(proxy.base_url, stream, question="two").raw


@pytest.mark.parametrize("stream", [True, False])
def test_an_idle_connection_is_closed_silently(upstream: Upstream, stream: bool) -> None:
    with FaultProxy(upstream.url, ["disconnect_idle"]) as proxy:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        connection.request("POST", "/v1/chat/completions", json.dumps(BODY | {"stream": stream}))
        response = connection.getresponse()
        response.read()
        assert response.getheader("connection") is None
        assert connection.sock.recv(1) == b""
        connection.close()


def test_a_large_request_passes(upstream: Upstream) -> None:
    with FaultProxy(upstream.url, ["force_temp"]) as proxy:
        assert ask(proxy.base_url, question="长" * 2**20).status == 200
    assert len(upstream.bodies[-1]["messages"][0]["content"]) == 2**20


def test_a_dead_upstream_is_a_dead_proxy() -> None:
    with FaultProxy("http://127.0.0.1:9") as proxy:
        assert broken_off(ask(proxy.base_url))


def test_unknown_faults_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match="no fault 'nothing'; there are: bad_json"):
        Fault("nothing")
    with pytest.raises(ValueError, match="no option when"):
        Fault.parse("garbage,when=now")
    with pytest.raises(ValueError, match="die_on needs an arg"):
        Fault("die_on")
    assert Fault.parse("slow,rate=0.3,after=5,only=streams,arg=2") == Fault("slow", 0.3, 5, only="streams", arg="2")


def test_command_line(upstream: Upstream) -> None:
    command = [sys.executable, "-m", "tests.faults.proxy"]
    listed = subprocess.run([*command, "--list"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(FAULTS)
    arguments = ["--upstream", upstream.url, "think", "--fault", "garbage,only=plain"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        assert ask(base_url, stream=True).content.startswith("<think>")
        assert set(ask(base_url, stream=False).content) == {"!"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
