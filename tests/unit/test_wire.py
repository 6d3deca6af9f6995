"""What the wire may carry, judged beside the official client: each input is served by a real HTTP server, asked once through
our lane and once through `openai`. What the client cannot read, or reads as something else, is red; what it reads well is red
only where a report from the field says so (`reported`)."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import socket
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import openai
import pytest
from gatebook.checks.contract import notes, violations
from gatebook.checks.evidence import Reply
from gatebook.collect import client as lanes
from gatebook.collect.client import Lane, LoopLag, normal_base_url
from gatebook.collect.reply import MAX_EVENTS, MAX_REPLY_BYTES, Events, Incoming, Unpacker
from gatebook.config.cases import Ask
from gatebook.config.profile import Target
from gatebook.record.exchange import Exchange
from gatebook.record.replies import read_answer
from hypothesis import example, given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder
from openai.lib.streaming.chat import ChatCompletionStreamState

CREATED = int(time.time()) + 3600
"""The inputs are made when this file is read, and asked minutes later."""
MODEL = "m1"
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
Call = tuple[str | None, str | None, Any]
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


class RawServer:
    """Answers every request with the bytes of the row that its path names, on a free port of the loopback interface."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.asked: list[bytes] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> RawServer:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def url(self, row: Row) -> str:
        self.rows.append(row)
        return f"http://127.0.0.1:{self.port}/{len(self.rows) - 1}/v1"

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
        )
        await reader.readexactly(length)
        self.asked.append(head)
        row = self.rows[int(head.split(b"/")[1])]
        for number, piece in enumerate(row.pieces):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02 if number + 1 < len(row.pieces) else 0)
        await asyncio.sleep(row.stays_s)
        writer.close()


@dataclass
class Row:
    """One input: what is sent, what the client makes of it, what we say."""

    sent: bytes | list[bytes]
    client: str = "reads"
    """`reads` what was meant, `reads ...` something else, or the name of an exception."""
    ours: str | None = None
    """Words of our first reason; None for green."""
    text: str | None = "Hello"
    """What was meant."""
    calls: list[Call] = field(default_factory=list)
    stream: bool = True
    reported: str = ""
    """The report that makes it red though the client reads it."""
    note: str = ""
    stays_s: float = 0.0
    """How long the connection stays open after the last byte."""

    @property
    def pieces(self) -> list[bytes]:
        return self.sent if isinstance(self.sent, list) else [self.sent]


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    with RawServer() as running:
        yield running


@pytest.fixture(scope="module")
def official() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="none-needed", max_retries=0, timeout=5) as client:
        yield client


def ours(url: str, stream: bool = True, deadline_s: float = 5.0, **more: Any) -> Exchange:
    """The exchange as our lane records it."""

    async def ask() -> Exchange:
        async with Lane(Target(model=MODEL), url, LoopLag()) as lane:
            body = {**ASKED, **(STREAMED if stream else {}), **more}
            return await lane.ask(kind="ask", key="case/ask", body=body, deadline_s=deadline_s, retries=3)

    return asyncio.run(ask())


def said(exchange: Exchange, **offers: bool) -> list[str]:
    if exchange.fault:
        return [exchange.detail]
    return list(violations(Reply(Ask(name="ask"), exchange), MODEL, {}, **offers))


def read(official: openai.OpenAI, url: str, stream: bool) -> tuple[str | None, list[Call]] | str:
    """What the official client reads: text and tool calls, or the exception that it raises."""
    client = official.with_options(base_url=url)
    try:
        with warnings.catch_warnings(action="ignore"):  # pydantic's, of fields with another type
            message = (_streamed if stream else _plain)(client)
            return message.content, [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or []]
    except Exception as error:
        return type(error).__name__


def _streamed(client: openai.OpenAI) -> Any:
    state = ChatCompletionStreamState()
    usage = None
    for chunk in client.chat.completions.create(**ASKED, **STREAMED):
        state.handle_chunk(chunk)
        usage = chunk.usage or usage
    done = state.get_final_completion().choices[0]
    assert done.finish_reason and usage and usage.total_tokens == USAGE["total_tokens"], (
        "finish_reason or usage is lost"
    )
    return done.message


def _plain(client: openai.OpenAI) -> Any:
    done = client.chat.completions.create(**ASKED)
    assert done.choices[0].finish_reason and done.usage and done.usage.total_tokens == USAGE["total_tokens"]
    return done.choices[0].message


# --- what servers send ---


def chunk(delta: Any = None, finish: str | None = None, **changes: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": CREATED, "model": MODEL}
    return {**head, "choices": choices, **changes}


ROLE, HELLO, STOP, COUNT = chunk({"role": "assistant", "content": None}), chunk({"content": "Hello"}), chunk({}, "stop"), chunk(usage=USAGE)  # fmt: skip
CALLED = chunk({}, "tool_calls")
DONE = "data: [DONE]\n\n"


def choice(**fields: Any) -> dict[str, Any]:
    """A chunk whose only choice is this."""
    return chunk(choices=[fields])


def lacking(piece: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in piece.items() if key != name}


def events(*pieces: Any, end: str = "\n") -> bytes:
    """Server-sent events; a text stands for itself."""
    return "".join(
        p if isinstance(p, str) else f"data: {json.dumps(p, ensure_ascii=False)}{end}{end}" for p in pieces
    ).encode()


def http(body: bytes, kind: str | None = "text/event-stream", **headers: str) -> bytes:
    told = {
        "Content-Type": kind,
        **{name.replace("_", "-"): value for name, value in headers.items()},
        "Connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items() if value is not None)
    return f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body


def stream(*pieces: Any, **headers: str) -> bytes:
    return http(events(*pieces, DONE), **headers)


def hello(*middle: Any, end: Any = STOP, count: Any = COUNT) -> bytes:
    """The good stream with something in its middle."""
    return stream(ROLE, HELLO, *middle, end, count)


def tool(index: Any = 0, id: Any = "k1", name: Any = "f", arguments: Any = "{}", **more: Any) -> dict[str, Any]:
    return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calling(*calls: Any) -> bytes:
    """A stream with one piece of a tool call a chunk; a list is several in one chunk."""
    return stream(ROLE, *(chunk({"tool_calls": c if isinstance(c, list) else [c]}) for c in calls), CALLED, COUNT)


def later(arguments: str = "{}", **more: Any) -> dict[str, Any]:
    return {"index": 0, "function": {"arguments": arguments}, **more}


def body(message: Any = None, **changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hello"} if message is None else message
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "usage": USAGE,
    }
    return {**head, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **changes}


def reply(said: Any, kind: str | None = "application/json", **headers: str) -> bytes:
    raw = said if isinstance(said, bytes) else json.dumps(said, ensure_ascii=False).encode()
    return http(raw, kind, **headers)


def called(*calls: Any) -> bytes:
    return reply(body({"role": "assistant", "content": None, "tool_calls": list(calls)}))


PLAIN = json.dumps(body()).encode()
GOOD = events(ROLE, HELLO, STOP, COUNT, DONE)
RAW_DEFLATE = (lambda packer: packer.compress(PLAIN) + packer.flush())(zlib.compressobj(wbits=-zlib.MAX_WBITS))
K1: list[Call] = [("k1", "f", "{}")]
TWO: list[Call] = [("k1", "f", "{}"), ("k2", "g", "{}")]
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NOT_PACKED = "Content-Encoding: {}, but the body is not packed"

NULLS = {
    "healthy stream": Row(hello()),
    "usage null in ordinary chunks": Row(stream({**ROLE, "usage": None}, {**HELLO, "usage": None}, {**STOP, "usage": None}, COUNT)),
    "usage in the chunk with finish_reason": Row(stream(ROLE, HELLO, {**STOP, "usage": USAGE})),
    "usage in every chunk": Row(stream(*({**c, "usage": USAGE} for c in (ROLE, HELLO, STOP)))),
    "usage chunk with a choice, as LiteLLM's": Row(hello(count={**chunk({}), "usage": USAGE})),
    "no finish_reason key in ordinary chunks": Row(hello(choice(index=0, delta={}))),
    "tool_calls null and empty": Row(hello(chunk({"content": "", "tool_calls": None}), chunk({"tool_calls": []}))),
    "logprobs null, reasoning null": Row(hello(choice(index=0, delta={"content": "", "reasoning_content": None}, logprobs=None))),
    "delta null with finish_reason": Row(hello(end=choice(index=0, delta=None, finish_reason="stop")), "AttributeError", "`delta` is null"),
    "delta null in the middle": Row(hello(choice(index=0, delta=None, finish_reason=None)), "AttributeError", "`delta` is null"),
    "delta missing": Row(hello(end=choice(index=0, finish_reason="stop")), "AttributeError", "a choice has no `delta`"),
    "delta a text": Row(hello(choice(index=0, delta="x", finish_reason=None)), "AttributeError", "`delta` is a text, no object"),
    "message in place of delta": Row(hello(end=choice(index=0, message={"content": ""}, finish_reason="stop")), "AttributeError", "a choice has no `delta`"),
    "choices null in the usage chunk": Row(hello(count=chunk(choices=None, usage=USAGE)), "TypeError", "`choices` is null"),
    "choices missing in the usage chunk": Row(hello(count=lacking(COUNT, "choices")), "TypeError", "a chunk has no `choices`"),
    "choices an object": Row(hello(chunk(choices={"index": 0})), "TypeError", "`choices` is an object, no list"),
    "choice null": Row(hello(chunk(choices=[None])), "AttributeError", "a choice is null, no object"),
    "choice without index": Row(hello(choice(delta={}, finish_reason=None)), "TypeError", "a choice has no `index`"),
    "choice index null": Row(hello(choice(index=None, delta={}, finish_reason=None)), "TypeError", "`index` of a choice is null"),
    "choice index 1": Row(stream(*(chunk(choices=[{**c, "index": 1} for c in p["choices"]], usage=p.get("usage")) for p in (ROLE, HELLO, STOP, COUNT))), "IndexError", "a choice has the index 1, and 1 was asked for"),
    "a chunk that is {}": Row(hello("data: {}\n\n"), "TypeError", "a chunk has no `choices`"),
    "data: null": Row(hello("data: null\n\n"), "AttributeError", "a chunk that is no object: null"),
    "data: []": Row(hello("data: []\n\n"), "AttributeError", "a chunk that is no object: []"),
    'data: "x"': Row(hello('data: "x"\n\n'), "AttributeError", 'a chunk that is no object: "x"'),
    "data: 5": Row(hello("data: 5\n\n"), "AttributeError", "a chunk that is no object: 5"),
    "content as parts, streamed": Row(stream(ROLE, chunk({"content": [{"type": "text", "text": "Hello"}]}), STOP, COUNT), "reads [", "content is list, not text"),
    "plain: healthy": Row(reply(body()), stream=False),
    "plain: message null": Row(reply(body(choices=[{"index": 0, "message": None, "finish_reason": "stop"}])), "AttributeError", "`message` is null", stream=False),
    "plain: message missing": Row(reply(body(choices=[{"index": 0, "text": "Hello", "finish_reason": "stop"}])), "AttributeError", "a choice has no `message`", stream=False),
    "plain: choice null": Row(reply(body(choices=[None])), "AttributeError", "a choice is null", stream=False),
    "plain: choices null": Row(reply(body(choices=None)), "TypeError", "`choices` is null", stream=False),
    "plain: choices an object": Row(reply(body(choices={})), "KeyError", "`choices` is an object, no list", stream=False),
    "plain: choices missing": Row(reply(lacking(body(), "choices")), "TypeError", "the reply has no choices", stream=False),
    "plain: choice without index": Row(reply(body(choices=[{"message": {"content": "Hello"}, "finish_reason": "stop"}])), stream=False),
    "plain: content as parts": Row(reply(body({"content": [{"type": "text", "text": "Hello"}]})), "reads [", "content is list, not text", stream=False),
    "plain: null": Row(reply(b"null"), "AttributeError", "a reply that is no object: null", stream=False),
    "plain: a list": Row(reply(b"[]"), "AttributeError", "a reply that is no object: []", stream=False),
    "plain: a key twice": Row(reply(PLAIN.replace(b'"content": "Hello"', b'"content": "Bye", "content": "Hello"')), stream=False),
}  # fmt: skip

TOOLS = {
    "healthy call": Row(calling(tool(arguments=""), later("{"), later("}")), text=None, calls=K1),
    "two healthy calls": Row(calling(tool(), tool(1, "k2", "g")), text=None, calls=TWO),
    "two calls in one chunk": Row(calling([tool(arguments="{"), tool(1, "k2", "g", "{")], [later("}"), later("}", index=1)]), text=None, calls=TWO),
    "id null and empty in later pieces": Row(calling(tool(arguments=""), later("{", id=None), later("}", id="", function={"name": None, "arguments": "}"})), text=None, calls=K1),
    "id in a later piece": Row(calling(lacking(tool(arguments=""), "id"), later(id="k1")), text=None, calls=K1),
    "arguments null in the first piece": Row(calling(tool(arguments=None), later()), text=None, calls=K1),
    "no index": Row(calling(lacking(tool(), "index")), "TypeError", "a streamed tool call has no `index`"),
    "no index, two calls": Row(calling(lacking(tool(), "index"), lacking(tool(id="k2", name="g"), "index")), "TypeError", "a streamed tool call has no `index`"),
    "index null": Row(calling(tool(None)), "TypeError", "`index` of a streamed tool call is null"),
    "index a number in a text": Row(calling(tool("0", arguments=""), later()), text=None, calls=K1),
    "index a text": Row(calling(tool("first")), "TypeError", "`index` of a streamed tool call is a text, no whole number"),
    "first index 1": Row(calling(tool(1)), "IndexError", "a streamed tool call begins with the index 1, where 0 is next"),
    "index 0, then 2": Row(calling(tool(), tool(2, "k2")), "IndexError", "begins with the index 2, where 1 is next"),
    "index 0 twice": Row(calling(tool(), tool(id="k2", name="g")), "reads", "two tool calls have one `index`, and clients merge them: 'k1' and 'k2'", text=None, calls=TWO),
    "no id": Row(calling(lacking(tool(), "id")), "reads None [(None", "a tool call has no `id`", text=None, calls=K1),
    "id null": Row(calling(tool(id=None)), "reads None [(None", "a tool call has no `id`", text=None, calls=K1),
    "id a number": Row(calling(tool(id=7)), "reads None [(7", "the id of a tool call is int, not text", text=None, calls=K1),
    "the same id twice": Row(calling(tool(), tool(1, name="g")), "reads", "two tool calls have the same id 'k1'", text=None, calls=TWO),
    "id again in later pieces": Row(calling(tool(arguments=""), later(id="k1")), "reads None [('k1k1'", "clients join it to 'k1k1'", text=None, calls=K1),
    "name again in later pieces": Row(calling(tool(arguments=""), later(function={"name": "f", "arguments": "{}"})), "reads None [('k1', 'ff'", "clients join it to 'ff'", text=None, calls=K1),
    "name in two pieces": Row(calling(tool(name="get_", arguments=""), later(function={"name": "weather", "arguments": "{}"})), text=None, calls=[("k1", "get_weather", "{}")]),
    "no name": Row(calling(tool(function={"arguments": "{}"})), "reads None [('k1', None", "a tool call has no name", text=None, calls=K1),
    "name null": Row(calling(tool(name=None)), "reads None [('k1', None", "a tool call has no name", text=None, calls=K1),
    "arguments an object": Row(calling(tool(arguments={"a": 1})), "reads None [('k1', 'f', {", "arguments of a tool call are dict, not text", text=None, calls=K1),
    "no arguments": Row(calling(tool(function={"name": "f"})), "reads None [('k1', 'f', None", "a tool call has no `arguments`", text=None, calls=K1),
    "function null": Row(calling(tool(function=None)), "AttributeError", "a tool call is no object with a function"),
    "function null in a later piece": Row(calling(tool(), later(function=None)), "AssertionError", "a tool call is no object with a function"),
    "type null in a later piece": Row(calling(tool(arguments=""), later(type=None)), "AssertionError", "`type` is null in a later piece"),
    "type missing": Row(calling(lacking(tool(), "type")), text=None, calls=K1),
    "a call that is null": Row(calling([None]), "AttributeError", "a tool call is no object with a function"),
    "plain: healthy call": Row(called(lacking(tool(), "index")), text=None, calls=K1, stream=False),
    "plain: no id": Row(called(lacking(tool(), "id")), "reads None [(None", "a tool call has no `id`", text=None, calls=K1, stream=False),
    "plain: id null": Row(called(tool(id=None)), "reads None [(None", "a tool call has no `id`", text=None, calls=K1, stream=False),
    "plain: the same id twice": Row(called(tool(), tool(name="g")), "reads", "two tool calls have the same id 'k1'", text=None, calls=TWO, stream=False),
    "plain: no name": Row(called(tool(name=None)), "reads None [('k1', None", "a tool call has no name", text=None, calls=K1, stream=False),
    "plain: arguments an object": Row(called(tool(arguments={})), "reads None [('k1', 'f', {", "arguments of a tool call are dict, not text", text=None, calls=K1, stream=False),
    "plain: arguments null": Row(called(tool(arguments=None)), "reads None [('k1', 'f', None", "a tool call has no `arguments`", text=None, calls=K1, stream=False),
    "plain: function null": Row(called(tool(function=None)), "AttributeError", "a tool call is no object with a function", stream=False),
    "plain: a call that is null": Row(called(None), "AttributeError", "a tool call is no object with a function", stream=False),
}  # fmt: skip

ODD_CHOICES = {
    f"logprobs {odd!r}": Row(stream(choice(index=0, delta={"role": "assistant", "content": "Hello"}, logprobs=odd), STOP, COUNT), "AttributeError", f"`logprobs` is {kind}, no object")
    for odd, kind in (([], "a list"), ("x", "a text"), (5, "a number"), (True, "a truth value"))
} | {
    "the same index twice in one chunk": Row(stream(ROLE, {**HELLO, "choices": HELLO["choices"] * 2}, STOP, COUNT), "reads 'HelloHello'", "two choices of one chunk have the same index"),
}  # fmt: skip

LATE = "vllm 35705: a field after the end is lost by clients that stop at finish_reason"
ENDS = {
    "an empty chunk after finish_reason": Row(hello(STOP | {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}]})),
    "text after finish_reason": Row(stream(ROLE, HELLO, STOP, chunk({"content": " there"}), COUNT), "reads", "text comes after the chunk with finish_reason", text="Hello there", reported=LATE),
    "thoughts after finish_reason": Row(stream(ROLE, HELLO, STOP, chunk({"reasoning_content": "hm"}), COUNT), "reads", "text comes after the chunk with finish_reason", reported=LATE),
    "a tool call after finish_reason": Row(stream(ROLE, HELLO, STOP, chunk({"tool_calls": [tool()]}), COUNT), "reads", "a tool call comes after the chunk with finish_reason", calls=K1, reported=LATE),
    "finish_reason twice": Row(stream(ROLE, HELLO, STOP, STOP, COUNT), "reads", "2 finish_reasons in one reply", reported=LATE),
    "text after [DONE]": Row(stream(ROLE, HELLO, STOP, COUNT, DONE, chunk({"content": " there"})), "reads 'Hello' []", "an answer goes on after [DONE]", text="Hello there"),
    "usage after [DONE]": Row(http(events(ROLE, HELLO, STOP, DONE, COUNT)), "AssertionError", "an answer goes on after [DONE]"),
    "[DONE] twice": Row(stream(ROLE, HELLO, STOP, COUNT, DONE)),
    "no [DONE]": Row(http(events(ROLE, HELLO, STOP, COUNT)), "reads", "the stream ended without [DONE]", reported="F39-done: a cut stream looks the same"),
    "no usage": Row(stream(ROLE, HELLO, STOP), "AssertionError", "usage is missing"),
    "no finish_reason": Row(stream(ROLE, HELLO, COUNT), "AssertionError", "no finish_reason"),
    "the connection stays open after [DONE]": Row(hello(), "reads", "the answer is complete, the connection was not closed", stays_s=3, reported="agentscope-java 2073: clients that wait for the end hang"),
    "broken off after [DONE]": Row(CHUNKED + b"%x\r\n%s\r\n" % (len(GOOD), GOOD), note="the answer is complete, the connection broke off after it"),
    "shorter than its length, but [DONE]": Row(hello().replace(b"Connection", b"Content-Length: 9999\r\nConnection"), note="the answer is complete, the connection broke off after it"),
    "broken off before [DONE]": Row(CHUNKED + b"%x\r\n%s\r\n" % (len(GOOD) - 14, GOOD[:-14]), "APIConnectionError", "connection broke off in the middle of the reply"),
}  # fmt: skip

LOST = {"error": {"message": "worker lost", "code": 500}}
FLAT = {"message": "worker lost", "code": 500}
TOLD = "the stream carries an error: worker lost"
ERROR_LINE = "llama.cpp PR 16109: an error outside of the data"
ERRORS = {
    "event: error, then a normal end": Row(hello(f"event: error\ndata: {json.dumps(FLAT)}\n\n"), "TypeError", TOLD),
    "event: error as the last event": Row(http(events(ROLE, HELLO, f"event: error\ndata: {json.dumps(FLAT)}\n\n")), "TypeError", TOLD),
    "event: error after its data": Row(hello(f"data: {json.dumps(LOST)}\nevent: error\n\n"), "APIError", TOLD),
    "event: error with a text": Row(hello("event: error\ndata: worker lost\n\n"), "JSONDecodeError", TOLD),
    "event: error without data": Row(hello("event: error\n\n"), "JSONDecodeError", "the stream carries an error: an error event without data"),
    "an error object first": Row(stream(LOST), "APIError", TOLD),
    "an error object in the middle": Row(hello(LOST), "APIError", TOLD),
    "an error object last": Row(http(events(ROLE, HELLO, LOST)), "APIError", TOLD),
    "an error that is a text": Row(stream({"error": "worker lost"}), "APIError", TOLD),
    "object: error": Row(stream({"object": "error", **FLAT}), "KeyError", TOLD),
    "type: error": Row(stream({"type": "error", **LOST}), "APIError", TOLD),
    "detail": Row(stream({"detail": "worker lost"}), "KeyError", TOLD),
    "code and msg": Row(hello({"code": 5001, "msg": "worker lost"}), "TypeError", TOLD),
    "an error in a choice": Row(hello(choice(index=0, delta={}, error=LOST["error"], finish_reason=None)), "reads", TOLD, reported="every way to say an error at 200"),
    "error null is none": Row(hello({**STOP, "choices": [], "error": None})),
    "a bare error line, alone": Row(http(events(f"error: {json.dumps(LOST['error'])}\n\n")), "AssertionError", TOLD),
    "a bare error line, alone, with [DONE]": Row(stream(f"error: {json.dumps(LOST['error'])}\n\n"), "AssertionError", TOLD),
    "a bare error line in the middle": Row(hello(f"error: {json.dumps(FLAT)}\n\n"), "reads", TOLD, reported=ERROR_LINE),
    "a bare error text": Row(hello("error: worker lost\n\n"), "reads", TOLD, reported=ERROR_LINE),
    "a bare error object in the middle": Row(hello(f"{json.dumps(LOST)}\n\n"), "reads", TOLD, reported=ERROR_LINE),
    "a bare error object, alone": Row(http(json.dumps(LOST, indent=1).encode()), "AssertionError", "the reply carries an error: worker lost"),
    "a text where a chunk should be": Row(hello("data: [ERROR] worker lost\n\n"), "JSONDecodeError", "not valid JSON: '[ERROR] worker lost'"),
    "finish_reason error": Row(hello(end=chunk({}, "error")), "reads", "finish_reason is 'error', which is none of", reported="F22"),
    "stream asked, error body": Row(reply(LOST), "AssertionError", "the reply carries an error: worker lost"),
    "plain: an error object": Row(reply(LOST), "TypeError", "the reply carries an error: worker lost", stream=False),
    "plain: an error text": Row(reply({"error": "worker lost"}), "TypeError", "the reply carries an error: worker lost", stream=False),
    "plain: object: error": Row(reply({"object": "error", **FLAT}), "TypeError", "the reply carries an error: worker lost", stream=False),
    "plain: detail": Row(reply({"detail": "worker lost"}), "TypeError", "the reply carries an error: worker lost", stream=False),
    "plain: code and msg": Row(reply({"code": 5001, "msg": "worker lost"}), "TypeError", "the reply carries an error: worker lost", stream=False),
    "plain: errors": Row(reply({"errors": ["worker lost"]}), "TypeError", "the reply carries an error: ['worker lost']", stream=False),
    "plain: a reply and an error": Row(reply({**body(), **LOST}), "reads", "the reply carries an error: worker lost", stream=False, reported="every way to say an error at 200"),
    "plain: an error event": Row(reply(events(LOST), "text/event-stream"), "AttributeError", TOLD, stream=False),
    "plain: Ollama's own reply": Row(reply({"model": MODEL, "message": {"role": "assistant", "content": "Hello"}, "done": True}), "TypeError", "the reply has no choices", stream=False),
    "plain: HTML": Row(reply(b"<html><h1>Bad gateway</h1></html>", "text/html"), "AttributeError", "not valid JSON: '<html>", stream=False),
    "plain: an empty body": Row(reply(b""), "JSONDecodeError", "the body is empty", stream=False),
    "stream asked, HTML": Row(reply(b"<html>\n\n<h1>Bad gateway</h1>\n\n</html>", "text/html"), "AssertionError", "not valid JSON: '<html>"),
    "stream asked, nothing": Row(http(b""), "AssertionError", "the reply has no choices"),
}  # fmt: skip

EMPTY = "an event without data"
FRAMES = {
    "comments": Row(stream(": ok\n\n", ROLE, ": ping\n\n", HELLO, ":\n\n", STOP, COUNT)),
    "no space after data:": Row(http(events(ROLE, HELLO, STOP, COUNT, DONE).replace(b"data: ", b"data:"))),
    "event: message, id and retry beside data": Row(stream("retry: 3000\n", ROLE, "id: 1\nevent: message\n", HELLO, "id: 2\n", STOP, COUNT)),
    "unknown fields": Row(hello("x-trace: 5\n\n", "trace\n\n")),
    "blank lines": Row(stream(ROLE, "\n\n\n", HELLO, "\n", STOP, COUNT)),
    "CRLF": Row(http(events(ROLE, HELLO, STOP, COUNT, end="\r\n") + b"data: [DONE]\r\n\r\n")),
    "CRLF cut in two": Row([http(b""), *(bytes([b]) for b in events(HELLO, end="\r\n")[-5:]), events(ROLE, HELLO, STOP, COUNT, DONE, end="\r\n")]),
    "CR alone": Row(http(events(ROLE, HELLO, STOP, COUNT, end="\r") + b"data: [DONE]\r\r")),
    "data over several lines": Row(stream(ROLE, "data: " + json.dumps(HELLO, indent=1).replace("\n", "\ndata: ") + "\n\n", STOP, COUNT)),
    "no blank line after [DONE]": Row(http(events(ROLE, HELLO, STOP, COUNT, "data: [DONE]"))),
    "text/plain": Row(http(GOOD, "text/plain")),
    "application/json": Row(http(GOOD, "application/json")),
    "no content type": Row(http(GOOD, None)),
    "byte by byte": Row([http(b""), *(GOOD[at : at + 40] for at in range(0, len(GOOD), 40))]),
    "an empty data: line": Row(stream(ROLE, "data:\n\n", HELLO, STOP, COUNT), "JSONDecodeError", EMPTY),
    "data without a colon": Row(stream(ROLE, "data\n\n", HELLO, STOP, COUNT), "JSONDecodeError", EMPTY),
    "event: ping without data": Row(stream(ROLE, "event: ping\n\n", HELLO, STOP, COUNT), "JSONDecodeError", f"{EMPTY} (event: ping)"),
    "event: ping with {}": Row(stream(ROLE, "event: ping\ndata: {}\n\n", HELLO, STOP, COUNT), "TypeError", "a chunk has no `choices`: '{}'"),
    "retry: alone": Row(stream("retry: 3000\n\n", ROLE, HELLO, STOP, COUNT), "JSONDecodeError", EMPTY),
    "a blank line more after an id": Row(stream("id: 1\n", ROLE, "\n", HELLO, STOP, COUNT), "JSONDecodeError", EMPTY),
    "two spaces before [DONE]": Row(http(events(ROLE, HELLO, STOP, COUNT, "data:  [DONE]\n\n")), "JSONDecodeError", "not valid JSON: ' [DONE]'"),
    "a byte order mark before text": Row(http(b"\xef\xbb\xbf" + events(HELLO, STOP, COUNT, DONE)), "reads None", "a byte order mark stands where `data:` should"),
    "a byte order mark before the role": Row(http(b"\xef\xbb\xbf" + GOOD)),
    "Data:": Row(stream(ROLE, f"Data: {json.dumps(HELLO)}\n\n", STOP, COUNT), "reads None", "'Data' stands where `data:` should"),
    "a chunk without data:": Row(hello(f"{json.dumps(HELLO)}\n\n"), "reads 'Hello' []", "a chunk without `data:` before it", text="HelloHello"),
    "lines of JSON": Row(http(b"".join(json.dumps(c).encode() + b"\n" for c in (ROLE, HELLO, STOP, COUNT)), "application/x-ndjson"), "AssertionError", "not valid JSON"),
    "no blank line after the last event": Row(http(events(ROLE, HELLO, STOP, f"data: {json.dumps(COUNT)}")), "AssertionError", "the last event is not ended by a blank line, so clients lose it"),
    "half a chunk": Row(hello('data: {"choices": [\n\n'), "JSONDecodeError", "not valid JSON"),
    "a byte that is no UTF-8": Row(http(events(ROLE, HELLO).replace(b"Hello", b"Hell\xf3") + events(STOP, COUNT, DONE)), "UnicodeDecodeError", "the reply is not valid UTF-8"),
    "a stream where a plain reply was asked": Row(http(GOOD), "AttributeError", "a stream (text/event-stream) where a plain reply was asked", stream=False),
    "the same as JSON": Row(http(GOOD, "application/json"), "JSONDecodeError", "a stream (application/json) where a plain reply was asked", stream=False),
    "a plain reply called a stream": Row(reply(PLAIN, "text/event-stream"), stream=False),
    "a plain reply where a stream was asked": Row(reply(PLAIN), "AssertionError", "asked for a stream, got 'application/json'"),
    "the same, called a stream": Row(reply(PLAIN, "text/event-stream"), "AssertionError", "asked for a stream, got 'text/event-stream'"),
    "plain without a content type": Row(reply(PLAIN, None), stream=False),
    "plain as text": Row(reply(PLAIN, "text/plain"), stream=False),
    "plain with a byte order mark": Row(reply(b"\xef\xbb\xbf" + PLAIN), stream=False),
    "plain in UTF-16": Row(reply(PLAIN.decode().encode("utf-16")), stream=False),
    "plain in Latin-1": Row(reply(PLAIN.replace(b"Hello", b"Hell\xf3")), "UnicodeDecodeError", "the reply is not valid UTF-8", stream=False),
    "a header that is no ASCII": Row(reply(PLAIN).replace(b"Connection", b"Server: caf\xe9\r\nConnection"), stream=False),
}  # fmt: skip

AGENT = "agentgateway 3040: the header says packed, the body is not"
PACKED = {
    f"{kind} {coding}, not packed": Row(
        reply(PLAIN, Content_Encoding=coding) if kind == "plain" else hello().replace(b"Connection", f"Content-Encoding: {coding}\r\nConnection".encode()),
        "APIConnectionError" if {"gzip", "deflate"} & set(coding.split(", ")) else "reads",
        NOT_PACKED.format(coding),
        stream=kind == "stream",
        reported="" if "gzip" in coding or coding == "deflate" else AGENT,
    )
    for kind in ("plain", "stream")
    for coding in ("gzip", "deflate", "br", "zstd", "aws-chunked", "gzip, deflate")
} | {
    "identity": Row(reply(PLAIN, Content_Encoding="identity"), stream=False),
    "an empty coding": Row(reply(PLAIN, Content_Encoding=""), stream=False),
    "gzip": Row(reply(gzip.compress(PLAIN), Content_Encoding="gzip"), stream=False, note="packed with gzip although identity was asked"),
    "GZIP": Row(reply(gzip.compress(PLAIN), Content_Encoding="GZIP"), stream=False, note="packed with GZIP"),
    "deflate with a zlib header": Row(reply(zlib.compress(PLAIN), Content_Encoding="deflate"), stream=False, note="packed with deflate"),
    "deflate, raw": Row(reply(RAW_DEFLATE, Content_Encoding="deflate"), stream=False, note="packed with deflate"),
    "gzip under deflate": Row(reply(zlib.compress(gzip.compress(PLAIN)), Content_Encoding="gzip, deflate"), stream=False, note="packed with gzip, deflate"),
    "gzip, streamed": Row(http(gzip.compress(GOOD), Content_Encoding="gzip"), note="packed with gzip"),
    "deflate, streamed in pieces": Row([http(b"", Content_Encoding="deflate"), *(bytes([b]) for b in zlib.compress(GOOD)[:4]), zlib.compress(GOOD)[4:]], note="packed with deflate"),
    "gzip, open after [DONE]": Row(http(gzip.compress(GOOD), Content_Encoding="gzip"), "reads", "the connection was not closed", stays_s=3, reported="agentscope-java 2073"),
    "gzip without its check sum": Row(reply(gzip.compress(PLAIN)[:-8], Content_Encoding="gzip"), stream=False, note="packed with gzip"),
    "gzip with a wrong check sum": Row(reply(gzip.compress(PLAIN)[:-8] + b"wrongsum", Content_Encoding="gzip"), "APIConnectionError", "but the body cannot be unpacked", stream=False),
    "gzip in two members": Row(reply(gzip.compress(PLAIN[:99]) + gzip.compress(PLAIN[99:]), Content_Encoding="gzip"), "JSONDecodeError", "more bytes after the packed ones, which clients do not read", stream=False),
    "gzip twice, told once": Row(reply(gzip.compress(gzip.compress(PLAIN)), Content_Encoding="gzip"), "UnicodeDecodeError", "the body is packed with gzip once more", stream=False),
    "gzip, not told": Row(reply(gzip.compress(PLAIN)), "UnicodeDecodeError", "the body is packed with gzip, and no header says so", stream=False),
    "gzip under the name x-gzip": Row(reply(gzip.compress(PLAIN), Content_Encoding="x-gzip"), "UnicodeDecodeError", "clients need a library more to read it", stream=False),
    "br, really packed": Row(reply(b"\x0b\x02\x80\x8f\xff\xfe\x03", Content_Encoding="br"), "UnicodeDecodeError", "Content-Encoding: br, though identity was asked", stream=False),
    "zstd, really packed": Row(reply(b"\x28\xb5\x2f\xfd\x04\x00\xff\xfe", Content_Encoding="zstd"), "UnicodeDecodeError", "Content-Encoding: zstd, though identity was asked", stream=False),
}  # fmt: skip

ROWS = {f"{part}: {name}": row for part, rows in {"null": NULLS, "choice": ODD_CHOICES, "tool": TOOLS, "end": ENDS, "error": ERRORS, "frame": FRAMES, "coding": PACKED}.items() for name, row in rows.items()}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_our_reading_and_the_official_client_s_agree(server: RawServer, official: openai.OpenAI, row: Row) -> None:
    url = server.url(row)
    seen = read(official, url, row.stream)
    outcome = (
        seen if isinstance(seen, str) else "reads" if seen == (row.text, row.calls) else f"reads {seen[0]!r} {seen[1]}"
    )
    assert outcome.startswith(row.client), outcome
    exchange = ours(url, row.stream)
    found = said(exchange)
    assert row.ours in found[0] if row.ours and found else not row.ours and not found, (row.ours, found)
    assert (outcome == "reads") == (row.ours is None or bool(row.reported)), (outcome, row.ours)
    if row.ours is None:
        told = "; ".join(notes(Reply(Ask(name="ask"), exchange)))
        assert row.note in told and bool(row.note) == bool(told), told


@pytest.fixture(autouse=True)
def grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "AFTER_DONE_S", 1.0)


# --- any damage, in process ---

ODD: list[Any] = [None, 0, 1, "0", 0.0, "", "x", [], {}, [None], [{}], {"a": 1}, True, 1.5]
CALLING = [ROLE, *(chunk({"tool_calls": calls}) for calls in ([tool(arguments="")], [later("{")], [tool(1, "k2", "g", "{")], [later("}"), later("}", index=1)])), CALLED, COUNT]  # fmt: skip
WHOLE = {
    "stream": [ROLE, HELLO, STOP, COUNT],
    "streamed calls": CALLING,
    "plain": [body()],
    "plain calls": [body({"role": "assistant", "content": None, "tool_calls": [tool(), tool(1, "k2", "g")]})],
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def damaged(pieces: list[Any], dice: random.Random) -> list[Any]:
    """A copy in which one value, anywhere, is missing, comes twice or is another one."""
    copy = json.loads(json.dumps(pieces))
    *way, last = dice.choice(list(places(copy)))
    owner: Any = copy
    for key in way:
        owner = owner[key]
    how = dice.random()
    if how < 0.3:
        del owner[last]
    elif how < 0.4 and isinstance(owner, list):
        owner.insert(last, owner[last])
    else:
        owner[last] = dice.choice(ODD)
    return copy


@pytest.mark.parametrize("kind", WHOLE)
def test_no_damage_that_the_official_client_stumbles_over_is_green(kind: str) -> None:
    streamed, served = kind.startswith("stream"), [b""]

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            200, content=served[0], headers={"content-type": "text/event-stream" if streamed else "application/json"}
        )

    transport = httpx2.MockTransport(answer)
    dice, red = random.Random(kind), 0
    with openai.OpenAI(
        base_url="http://x/v1", api_key="none", max_retries=0, http_client=httpx2.Client(transport=transport)
    ) as client:
        for _ in range(200):
            pieces = damaged(WHOLE[kind], dice)
            if dice.random() < 0.3 and pieces:
                pieces = damaged(pieces, dice)
            served[0] = events(*pieces, DONE) if streamed else json.dumps(pieces[0] if pieces else None).encode()
            seen = read(client, "http://x/v1", streamed)
            found = replay(served[0], streamed)
            mine = read_answer(found)
            calls = [(c.id, c.name, c.arguments) for c in mine.tool_calls]
            broken = said(found)
            red += bool(broken)
            assert broken or (not isinstance(seen, str) and (seen[0] or "", seen[1]) == (mine.text, calls)), (
                served[0],
                seen,
            )
    assert 40 < red < 195, "both sides are tried"


def replay(raw: bytes, streamed: bool) -> Exchange:
    """The exchange that the lane would record of these bytes."""
    taken = Incoming("stream" if streamed else "plain")
    taken.begin(0, 200, {"content-type": "text/event-stream" if streamed else "application/json"})
    assert taken.take(0, raw) is None
    taken.end()
    found, text, invalid = taken.read()
    return Exchange(
        kind="ask", key="case/ask", at="2026-03-01T12:00:00+00:00", status=200, body={**ASKED, "stream": streamed}, text=text, invalid_utf8=invalid,
        events=None if found is None else [(0.0, data) for _, data in found.events], lines=found.lines if found else None,
    )  # fmt: skip


# --- what the record keeps ---


def test_the_record_keeps_what_proves_it(server: RawServer) -> None:
    pieces = (": ping\n\n", HELLO, ": ping\n\n", f"event: error\ndata: {json.dumps(FLAT)}\n\n")
    found = ours(server.url(Row(stream(ROLE, *pieces, Content_Encoding="identity"))))
    assert found.lines == [(1, ": ping"), (2, "event: error")], "each text once"
    assert found.headers["content-encoding"] == "identity" and found.packing is None
    packed = ours(server.url(Row(CHUNKED.replace(b"Transfer", b"Content-Encoding: gzip\r\nTransfer") + b"0\r\n\r\n")))
    assert packed.headers["transfer-encoding"] == "chunked" and packed.packing is None and packed.events == []


def test_an_old_record_is_read_and_a_plain_exchange_is_written_as_before(server: RawServer) -> None:
    found = ours(server.url(Row(reply(body()))), stream=False)
    written = found.model_dump(exclude_none=True, mode="json")
    assert not {"lines", "packing", "after_done"} & written.keys()
    assert Exchange.model_validate(written) == found


def test_a_connection_that_stays_open_costs_its_grace_and_no_time(server: RawServer) -> None:
    found = ours(server.url(Row(hello(), stays_s=4)))
    assert (found.fault, found.after_done) == (None, "open")
    assert found.timing and found.timing.end_ms and found.timing.end_ms < 1000 * lanes.AFTER_DONE_S
    assert found.attempts[0].elapsed_ms < 2500
    cut = ours(server.url(Row(hello(), stays_s=4)), deadline_s=lanes.AFTER_DONE_S / 2)
    assert (cut.fault, cut.after_done) == (None, "open")
    assert said(cut) == said(found) == ["the answer is complete, the connection was not closed"]


def test_a_connection_that_stays_open_without_done_is_no_complete_reply(server: RawServer) -> None:
    found = ours(server.url(Row(http(events(ROLE, HELLO, STOP, COUNT)), stays_s=4)), deadline_s=0.6)
    assert (found.fault, found.detail) == ("deadline", "no complete reply within 0.6 s")


@pytest.mark.parametrize(
    ("sent", "message", "code"),
    [
        (stream({"error": {"message": "no such format", "type": "BadRequestError", "code": 400}}), "no such format", 400),
        (stream({"error": {"message": "no", "code": "429"}}), "no", 429),
        (stream({"object": "error", "message": "no", "code": 404}), "no", 404),
        (http(events('error: {"code": 503, "message": "no"}\n\n')), "no", 503),
        (hello(LOST), "worker lost", 500),
        (stream({"error": {"message": "no", "code": "invalid_schema", "status": 422}}), "no", 422),
        (stream({"error": "no"}), "no", None),
        (stream({"error": {"message": "no", "code": "invalid_schema"}}), "no", None),
        (hello(), None, None),
    ],
)  # fmt: skip
def test_an_error_tells_its_code(server: RawServer, sent: bytes, message: str | None, code: int | None) -> None:
    answer = read_answer(ours(server.url(Row(sent))))
    assert (answer.error, answer.error_code) == (message, code)


def test_a_header_that_is_no_ascii_is_kept_and_can_be_written(server: RawServer) -> None:
    found = ours(
        server.url(Row(reply(PLAIN).replace(b"Connection", b"Server: caf\xe9 \xff\r\nConnection"))), stream=False
    )
    assert found.headers["server"].startswith("caf") and found.model_dump_json()


# --- limits ---


def test_a_packed_reply_is_unpacked_no_further_than_the_limit(server: RawServer) -> None:
    bomb = gzip.compress(b"{" + b" " * (MAX_REPLY_BYTES + 100))
    assert len(bomb) < 100_000
    found = ours(server.url(Row(reply(bomb, Content_Encoding="gzip"))), stream=False, deadline_s=60)
    assert (found.fault, found.detail) == ("broken", "the reply is larger than 32 MiB")


def test_too_many_events_are_told_with_their_number(server: RawServer) -> None:
    flood = http(b"data: 1\n\n" * (MAX_EVENTS + 1))
    found = ours(server.url(Row(flood)), deadline_s=60)
    assert (found.fault, found.detail) == ("broken", "the reply has more than 100,000 events")


@contextlib.contextmanager
def endless(head: bytes, piece: bytes) -> Iterator[int]:
    """The port of a server that answers one request with the head, and with the piece until nobody listens."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            connection.sendall(head)
            while not ended.wait(0):
                connection.sendall(piece)

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
    thread.join(10)


OPEN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "piece", "said"),
    [
        (CHUNKED + b"6\r\ndata: \r\n", b"1\r\na\r\n" * 5_000, "no complete reply within 3 s"),
        (CHUNKED, b"1\r\n:\r\n" * 5_000, "no complete reply within 3 s"),
        (OPEN, b"data: {}\n\n" * 5_000, "the reply has more than 100,000 events"),
        (OPEN, b"data: x\n" * 5_000, "the reply has more than 100,000 events"),
        (OPEN, b"\n" * 60_000, "the reply has more than 400,000 lines"),
        (OPEN, b"x" * 60_000, "the reply is larger than 32 MiB"),
        (OPEN, b"[" * 60_000, "the reply has more than 2,000,000 values"),
        (OPEN.replace(b"\r\n\r\n", b"\r\nX: "), b"a" * 1_000, "no complete reply within 3 s"),
    ],
    ids=["bytes without a line end", "colons", "events", "lines of one event", "blank lines", "one line", "brackets", "a header"],
)  # fmt: skip
def test_a_reply_without_an_end_costs_its_deadline_at_most(head: bytes, piece: bytes, said: str) -> None:
    with endless(head, piece) as port:
        began = time.monotonic()
        found = ours(f"http://127.0.0.1:{port}/v1", deadline_s=3 if "3 s" in said else 60)
        took = time.monotonic() - began
    assert found.fault in ("deadline", "broken", "no_byte") and said in found.detail
    assert took < 120 and len(found.text or "") <= 65_536 and len(found.events or []) <= 1024


@pytest.mark.parametrize("inside", [b"data: {}\n\n" * 3_300_000, b"\n" * 33_000_000], ids=["events", "blank lines"])
def test_what_a_packed_stream_holds_is_bounded_too(server: RawServer, inside: bytes) -> None:
    found = ours(server.url(Row(http(gzip.compress(inside), Content_Encoding="gzip"))), deadline_s=60)
    assert found.fault == "broken" and "the reply has more than" in found.detail and len(found.events or []) <= 1024


def test_an_answer_of_a_million_characters_is_not_read_on(server: RawServer) -> None:
    long = body({"role": "assistant", "content": "ab " * 400_000})
    found = ours(server.url(Row(reply(long))), stream=False, deadline_s=30)
    assert (found.fault, found.detail) == ("broken", "the answer has 1,200,000 characters, 1,048,576 at most are read")
    assert len(found.text or "") < 100_000


def split(raw: bytes, sizes: list[int]) -> Events:
    found, at = Events(), 0
    for size in [*sizes, len(raw)]:
        found.feed(0, raw[at : at + size])
        at += size
    found.finish(0)
    return found


LINES = st.lists(st.sampled_from([b"data: 1", b"data:", b"data", b": x", b"event: e", b"id: 1", b"retry: 5", b"x: y", b"", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r"]), max_size=30)  # fmt: skip


@given(LINES, st.lists(st.integers(0, 9), max_size=9))
@example([b"data: 1", b"\r\n"], [8, 0])
def test_events_are_split_as_the_official_client_splits_them(lines: list[bytes], sizes: list[int]) -> None:
    raw = b"".join(lines)
    found = [data for _, data in split(raw, sizes).events]
    assert found == [event.data for event in SSEDecoder().iter_bytes(iter([raw]))]


def test_a_long_line_in_many_pieces_takes_time_in_proportion() -> None:
    def seconds(pieces: int) -> float:
        found, began = Events(), time.process_time()
        for _ in range(pieces):
            found.feed(0, b"x" * 100)
        found.finish(0)
        return time.process_time() - began

    assert min(seconds(80_000) for _ in range(3)) < 12 * max(min(seconds(20_000) for _ in range(3)), 0.01)


@given(st.binary(min_size=1), st.sampled_from(["gzip", "deflate", "br", "gzip, deflate", "x,y,z"]))
def test_no_bytes_that_a_server_may_send_raise(raw: bytes, coding: str) -> None:
    unpacker = Unpacker.of(coding)
    assert unpacker is not None
    for byte in raw:
        assert len(unpacker.feed(bytes([byte]), 1000)) <= 1001


# --- waiting, and where to ask ---


@pytest.mark.parametrize("told", ["seconds", "date", "date without a zone"])
def test_a_busy_server_is_waited_for_as_it_says(server: RawServer, told: str) -> None:
    when = datetime.now(UTC) + timedelta(seconds=2)
    after = {
        "seconds": "1",
        "date": format_datetime(when, usegmt=True),
        "date without a zone": f"{when:%a, %d %b %Y %H:%M:%S}",
    }
    row = Row(
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\nRetry-After: %b\r\n\r\n"
        % after[told].encode()
    )
    url = server.url(row)
    began = time.monotonic()

    async def ask() -> Exchange:
        async with Lane(Target(model=MODEL), url, LoopLag()) as lane:
            asked = asyncio.create_task(lane.ask(kind="ask", key="case/ask", body={**ASKED}, deadline_s=20, retries=1))
            while not row.pieces or len(server.asked) == before:
                await asyncio.sleep(0.01)
            row.sent = reply(body())
            return await asked

    before = len(server.asked)
    found = asyncio.run(ask())
    assert (found.fault, [a.status for a in found.attempts]) == (None, [429, 200])
    assert 0.9 <= time.monotonic() - began < 10


def test_a_wait_beyond_the_deadline_is_the_deadline_s(server: RawServer) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True).encode()
    found = ours(
        server.url(Row(b"HTTP/1.1 429 Busy\r\nContent-Length: 0\r\nRetry-After: %b\r\n\r\n" % later)), deadline_s=3
    )
    assert (found.fault, found.detail) == ("status", "HTTP 429: ; still so after 1 attempts in 3 s")


@pytest.mark.parametrize(
    ("told", "base"),
    [
        ("http://box:8000", "http://box:8000/v1"),
        ("http://box:8000/", "http://box:8000/v1"),
        ("http://box:8000/v1", "http://box:8000/v1"),
        ("http://box:8000/v1/", "http://box:8000/v1"),
        ("http://box/v1/chat/completions", "http://box/v1"),
        ("http://box/v1/chat/completions/", "http://box/v1"),
        ("http://box/v1/completions", "http://box/v1"),
        ("http://box/v1/models", "http://box/v1"),
        ("https://box/llm/v1/chat/completions", "https://box/llm/v1"),
        ("http://box/api/models", "http://box/api/models"),
    ],
)
def test_what_follows_v1_is_left_off(told: str, base: str) -> None:
    assert normal_base_url(told) == base


# --- usage, choices, log probabilities ---


@pytest.mark.parametrize(
    ("usage", "red"),
    [
        ({"reasoning_tokens": 400}, False),
        ({"completion_tokens_details": {"reasoning_tokens": 400}}, False),
        ({"reasoning_tokens": 0}, True),
        ({"reasoning_tokens": None, "completion_tokens_details": None}, True),
        ({"reasoning_tokens": "400"}, True),
    ],
)
def test_thoughts_are_counted(server: RawServer, usage: dict[str, Any], red: bool) -> None:
    counted = {"prompt_tokens": 7, "completion_tokens": 403, "total_tokens": 410, **usage}
    found = said(ours(server.url(Row(reply(body({"content": "Hello there"}, usage=counted)))), stream=False))
    assert found == (["usage says 403 completion tokens for 11 bytes of text"] if red else [])


def test_what_is_not_offered_is_not_owed(server: RawServer) -> None:
    bare = ours(server.url(Row(http(events(ROLE, HELLO, STOP)))))
    assert said(bare) == ["the stream ended without [DONE]", "usage is missing"]
    assert said(bare, ends_with_done=False) == ["usage is missing"]
    assert said(bare, ends_with_done=False, counts_streams=False) == []
    endless = ours(server.url(Row(http(events(ROLE, HELLO)))))
    assert said(endless, ends_with_done=False, counts_streams=False) == ["no finish_reason"]
    wrong = ours(server.url(Row(hello(count=chunk(usage={**USAGE, "total_tokens": 99})))))
    assert said(wrong, counts_streams=False) == ["usage does not add up: 7 + 5 is not 99"]
    plain = ours(server.url(Row(reply(lacking(body(), "usage")))), stream=False)
    assert said(plain, ends_with_done=False, counts_streams=False) == ["usage is missing"]


def second(piece: dict[str, Any]) -> dict[str, Any]:
    return {**piece, "choices": [{**c, "index": 1} for c in piece["choices"]]}


def test_several_choices_are_kept_apart(server: RawServer) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 60, "total_tokens": 67}
    bye = chunk({"content": "Goodbye, and thank you for the fish."})
    sent = stream(ROLE, second(ROLE), HELLO, second(bye), STOP, second(STOP), chunk(usage=usage))
    found = ours(server.url(Row(sent)), n=2, max_tokens=32)
    answer = read_answer(found)
    assert (answer.text, answer.others, answer.finish_reasons) == (
        "Hello",
        {1: "Goodbye, and thank you for the fish."},
        ["stop"],
    )
    assert said(found) == []
    both = body(
        choices=[
            {"index": i, "message": {"content": t}, "finish_reason": "stop"} for i, t in enumerate(("Hello", "Bye"))
        ]
    )
    plain = ours(server.url(Row(reply(both))), stream=False, n=2)
    assert (read_answer(plain).text, read_answer(plain).others, said(plain)) == ("Hello", {1: "Bye"}, [])
    assert said(ours(server.url(Row(reply(both))), stream=False)) == ["a choice has the index 1, and 1 was asked for"]


def token(text: str, raw: Any = None) -> dict[str, Any]:
    return {"token": text, "logprob": -0.1, "bytes": raw, "top_logprobs": []}


OTHER = "logprob tokens do not spell the answer"


@pytest.mark.parametrize(
    ("text", "tokens", "red"),
    [
        ("In the sea", [token("In"), token(" the"), token(" sea")], False),
        ("In the sea", [token("In"), token(" the"), token(" sea"), token("<|im_end|>")], False),
        ("In the sea", [token("In"), token(" the"), token(" sea"), token(" END")], False),
        ("In the sea", [token("In"), token("<jupyter_code>"), token(" the"), token(" sea")], False),
        ("In <b> it", [token("In"), token("<|fim|>"), token(" <"), token("b"), token(">"), token(" it")], False),
        ("In the sea", [token("Over"), token("<jupyter_code>"), token(" the"), token(" sea")], True),
        ("<br>", [token("Over"), token(" the"), token(" sea")], True),
        ("sea", [token("<think>"), token("\n\n"), token("</think>"), token("\n\n"), token("sea")], False),
        ("In the sea", [token("In"), token("Ġthe"), token("Ġsea")], True),
        ("In the sea", [token("In", [73, 110]), token("Ġthe", [196, 160, 116, 104, 101]), token("Ġsea", None)], True),
        ("the", [token("Ġthe")], True),
        ("Ġ is a letter", [token("Ġ"), token(" is"), token(" a"), token(" letter")], False),
        ("是", [token("æĺ¯")], True),
        ("是的", [token("是"), token("的")], False),
        ("是的", [token("", []), token("", []), token("是"), token("的")], False),
        ("是的", [token("", []), token("æĺ¯"), token("的")], False),
        ("是的", [token("\ufffd", [230]), token("\ufffd", [152, 175]), token("的")], False),
        ("是的", [token("bytes:\\xe6\\x98", [230, 152]), token("bytes:\\xaf", [175]), token("的")], False),
        ("the sea", [token("token_id:178", [116, 104, 101]), token("token_id:9", [32, 115, 101, 97])], False),
        ("the sea", [token("token_id:178"), token("token_id:9")], False),
        ("cut 是\ufffd", [token("cut"), token(" 是"), token("\ufffd", [230])], False),
        ("In the sea", [token("Over"), token(" the"), token(" sea")], True),
        ("In the sea", [None, 5], False),
        ("In the sea", [], False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_tokens_of_logprobs_spell_the_answer(
    server: RawServer, text: str, tokens: list[Any], red: bool, streamed: bool
) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15}
    told: dict[str, Any] = {"logprobs": {"content": tokens}, "finish_reason": "length"}
    if streamed:
        parts = [choice(index=0, delta={"content": text}, logprobs=told["logprobs"]), chunk({}, "length")]
        found = ours(server.url(Row(stream(ROLE, *parts, chunk(usage=usage)))), max_tokens=8)
    else:
        whole = {"index": 0, "message": {"content": text}, **told}
        found = ours(server.url(Row(reply(body(choices=[whole], usage=usage)))), stream=False, max_tokens=8)
    assert [OTHER in reason for reason in said(found)] == ([True] if red else [])
