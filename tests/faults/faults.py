"""Faults of LLM servers as they look on the wire: one function a fault, all in FAULTS.

A `@fault` is called once for each request that it strikes, before anything goes upstream: it changes the request
(`call.body`), answers in place of the server (`call.reply`), or says what is to be changed in the answer. A
`@answer_fault` is a generator over the events of the answer (see call.py). Faults compose in the order of their list.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import random
import re
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from tests.faults.call import Abort, Call, Event, Events, Json, Reply, Rewriter, dump

FOREVER = math.inf
NEXT_DIGIT = str.maketrans("0123456789", "1234567890")


@dataclass
class Context:
    """What a fault knows of itself: its argument, its seeded dice, and a memory that lasts as long as the proxy."""

    arg: Any
    rng: random.Random
    memory: dict[str, Any] = field(default_factory=dict)


FaultFunction = Callable[[Call, Context], None]
AnswerFunction = Callable[[Events, Call, Context], Events]
FAULTS: dict[str, FaultFunction] = {}
STREAMS_ONLY: set[str] = set()
NEEDS_ARG = {"die_on", "say", "strip_keyword", "poisoned", "truncate_long", "call_tool", "page", "says"}


def fault(function: FaultFunction) -> FaultFunction:
    FAULTS[function.__name__] = function
    return function


def answer_fault(function: AnswerFunction) -> AnswerFunction:
    @functools.wraps(function)
    def add(call: Call, context: Context) -> None:
        call.transforms.append(lambda events: function(events, call, context))

    FAULTS[function.__name__] = add
    return function


def stream_fault(function: AnswerFunction) -> AnswerFunction:
    """An answer fault that a plain answer cannot have."""
    STREAMS_ONLY.add(function.__name__)
    return answer_fault(function)


# --- refusals ------------------------------------------------------------------------------------------------


@fault
def unauthorized(call: Call, context: Context) -> None:
    """401: the key is refused."""
    call.refuse(401, "AuthenticationError", "Incorrect API key provided.", WWW_Authenticate="Bearer")


@fault
def leak_key(call: Call, context: Context) -> None:
    """401, and the message repeats the key."""
    call.refuse(401, "invalid_request_error", f"Incorrect API key provided: {call.authorization}")


@fault
def no_model(call: Call, context: Context) -> None:
    """404 in vLLM's newer envelope; /v1/models lists nothing."""
    if call.path.endswith("/models"):
        call.edit(lambda document: document.update({name: [] for name in ("data", "models") if name in document}))
        return
    error = {"message": f"The model `{call.body.get('model')}` does not exist.", "type": "NotFoundError"}
    call.reply = Reply(404, dump({"error": error | {"param": "model", "code": 404}}))


@fault
def bad_request(call: Call, context: Context) -> None:
    """400 in vLLM's older flat envelope: the tokenizer has no chat template."""
    message = (
        "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat "
        "template if the tokenizer does not define one."
    )
    call.reply = Reply(
        400, dump({"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400})
    )


@fault
def busy(call: Call, context: Context) -> None:
    """429 with Retry-After: 1."""
    call.refuse(429, "RateLimitError", "Too many requests.", Retry_After="1")


@fault
def unavailable(call: Call, context: Context) -> None:
    """503: the server is loading or overloaded."""
    call.refuse(503, "ServiceUnavailableError", "Service unavailable.")


@fault
def server_error(call: Call, context: Context) -> None:
    """500: the engine has crashed behind the HTTP server."""
    call.refuse(500, "InternalServerError", "EngineCore encountered an issue.")


@fault
def poisoned(call: Call, context: Context) -> None:
    """From the request that contains `arg` on, every request is a 500: the engine is dead, the HTTP server is not."""
    if context.memory.get("dead") or call.contains(str(context.arg)):
        context.memory["dead"] = True
        server_error(call, context)


@fault
def html(call: Call, context: Context) -> None:
    """200 with an HTML page: a gateway answers in place of the server."""
    page = b"<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>\n"
    call.reply = Reply(200, page, {"Content-Type": "text/html; charset=utf-8"})


# --- connection ----------------------------------------------------------------------------------------------


@fault
def hang(call: Call, context: Context) -> None:
    """The request is accepted and never answered, not even with headers."""
    call.delay_s = FOREVER


@answer_fault
async def stall(events: Events, call: Call, context: Context) -> Events:
    """Headers and the role chunk arrive, then nothing (plain: headers only)."""
    async for event in events:
        if not call.streaming:
            yield Event(b"", promised_bytes=len(event.encode()))
        if not call.streaming or event.has_content() or event.finishes():
            await asyncio.sleep(FOREVER)
        yield event


@answer_fault
async def cut(events: Events, call: Call, context: Context) -> Events:
    """The connection breaks after 3 content chunks (plain: after half of the body)."""
    contents = 0
    async for event in events:
        if not call.streaming:
            whole = event.encode()
            yield Event(whole[: len(whole) // 2], promised_bytes=len(whole))
            raise Abort
        contents += event.has_content()
        if contents > 3 or event.finishes():
            raise Abort
        yield event


@fault
def slow(call: Call, context: Context) -> None:
    """The first byte comes `arg` seconds late (1)."""
    call.delay_s += float(context.arg or 1)


@stream_fault
async def slow_tokens(events: Events, call: Call, context: Context) -> Events:
    """`arg` seconds (0.1) pass before each event."""
    async for event in events:
        await asyncio.sleep(float(context.arg or 0.1))
        yield event


@stream_fault
async def slow_gaps(events: Events, call: Call, context: Context) -> Events:
    """`arg` seconds (0.1) more between two tokens; the first one is not late."""
    contents = 0
    async for event in events:
        contents += event.has_content()
        if event.has_content() and contents > 1:
            await asyncio.sleep(float(context.arg or 0.1))
        yield event


@fault
def die(call: Call, context: Context) -> None:
    """From this request on every connection, GETs too, is broken: a dead server."""
    call.kills_server = True


@fault
def die_on(call: Call, context: Context) -> None:
    """The request that contains `arg` kills the server for good."""
    call.kills_server = True


@fault
def truncated_unicode(call: Call, context: Context) -> None:
    """The same bytes in slices of 3, so that characters break: not a fault, a client must read it."""
    call.slice_bytes = 3


@fault
def disconnect_idle(call: Call, context: Context) -> None:
    """The connection is closed after the answer though the headers promise to keep it."""
    call.closes_silently = True


# --- the end of a stream -------------------------------------------------------------------------------------


@stream_fault
async def no_end(events: Events, call: Call, context: Context) -> Events:
    """The stream ends cleanly without finish_reason, usage and [DONE]."""
    async for event in events:
        if not event.finishes():
            yield event
            continue
        for choice, _ in event.choices():
            choice["finish_reason"] = None
        if event.has_content():  # vLLM puts the last token and the finish reason into one chunk
            yield event
        return


@stream_fault
async def no_done(events: Events, call: Call, context: Context) -> Events:
    """Only [DONE] is missing."""
    async for event in events:
        if event.raw.strip() != b"data: [DONE]":
            yield event


@stream_fault
async def error_event(events: Events, call: Call, context: Context) -> Events:
    """An error event after 3 content chunks ends the stream."""
    contents = 0
    async for event in events:
        contents += event.has_content()
        if contents > 3 or event.finishes():
            error = {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}
            yield Event(b"", {"error": error}, event.head, event.tail)
            return
        yield event


@stream_fault
async def dup(events: Events, call: Call, context: Context) -> Events:
    """Each content delta is sent twice."""
    async for event in events:
        yield event
        if event.has_content() and not event.finishes():
            yield deepcopy(event)


# --- envelope ------------------------------------------------------------------------------------------------


@fault
def no_choices(call: Call, context: Context) -> None:
    """The answer has no choices."""
    call.edit(lambda document: document.pop("choices", None))


@answer_fault
async def bad_json(events: Events, call: Call, context: Context) -> Events:
    """The JSON of the body, or of each event, breaks off."""
    async for event in events:
        if event.document is None:
            yield event
            continue
        text = dump(event.document)
        yield Event(event.head + text[: len(text) * 2 // 3] + event.tail)


@fault
def finish(call: Call, context: Context) -> None:
    """finish_reason is always stop."""

    def change(document: Json) -> None:
        for choice in document.get("choices") or []:
            if choice.get("finish_reason"):
                choice["finish_reason"] = "stop"

    call.edit(change)


@fault
def finish_missing(call: Call, context: Context) -> None:
    """finish_reason stays null, all else is complete."""

    def change(document: Json) -> None:
        for choice in document.get("choices") or []:
            choice["finish_reason"] = None

    call.edit(change)


def _edit_usage(call: Call, change: Callable[[Json], None]) -> None:
    def change_document(document: Json) -> None:
        if document.get("usage"):
            change(document["usage"])

    call.edit(change_document)


@fault
def usage_zero(call: Call, context: Context) -> None:
    """usage counts nothing."""
    _edit_usage(call, lambda usage: usage.update(prompt_tokens=0, completion_tokens=0, total_tokens=0))


@answer_fault
async def usage_missing(events: Events, call: Call, context: Context) -> Events:
    """No usage, though it was asked for."""
    async for event in events:
        had_usage = event.document is not None and event.document.pop("usage", None)
        if not (call.streaming and had_usage and not list(event.choices())):
            yield event


@fault
def usage_wrong(call: Call, context: Context) -> None:
    """completion_tokens is 1000 too many and the total does not add up."""
    _edit_usage(call, lambda usage: usage.update(completion_tokens=usage["completion_tokens"] + 1000))


@fault
def swap_model(call: Call, context: Context) -> None:
    """The answer names another model: `arg` (another-model)."""
    call.edit(lambda document: document.update(model=context.arg or "another-model"))


@fault
def reuse_id(call: Call, context: Context) -> None:
    """All answers have one id."""
    call.edit(lambda document: document.update(id="chatcmpl-reused"))


@fault
def stale(call: Call, context: Context) -> None:
    """All answers have one id and were created six hours ago."""
    created = context.memory.setdefault("created", int(time.time()) - 6 * 3600)
    call.edit(lambda document: document.update(id="chatcmpl-stale", created=created))


@fault
def cache(call: Call, context: Context) -> None:
    """The first answer to the same messages is replayed byte for byte; `arg` any: to all messages."""
    question = "any" if context.arg == "any" else json.dumps(call.body.get("messages"), sort_keys=True)
    key = f"{call.streaming} {question}"
    if key in context.memory:
        call.reply = context.memory[key]
        call.transforms.clear()  # the faults before this one are in the stored bytes
        return

    async def store(events: Events) -> Events:
        seen = []
        async for event in events:
            seen.append(event.encode())
            yield event
        content_type = "text/event-stream" if call.streaming else "application/json"
        context.memory.setdefault(key, Reply(200, b"".join(seen), {"Content-Type": content_type}))

    call.transforms.append(store)


SWAP_S = 0.5


@fault
def swap_answers(call: Call, context: Context) -> None:
    """Two requests that are open together get each other's answers; a request that stays alone for half a second gets its own."""
    waiting, since = context.memory.pop("waiting", (None, 0.0))
    if waiting is not None and time.monotonic() - since < SWAP_S:
        waiting.body, call.body = call.body, waiting.body
        return
    context.memory["waiting"] = call, time.monotonic()
    call.delay_s += SWAP_S


# --- content -------------------------------------------------------------------------------------------------

SENTENCE = "I am happy to help you with that. "
SCRIPTS = (
    "the ing tion 的 是 在 ных ста την και の ます 한다 에서 ال في है में ქართ ಕನ್ನಡ ไทย 龘 俺 ẹ̀ ğ ß ʻ "
    "}); </div> \\u ▁▁ ::= __init__ 0x7f ,, .. ?! [["
)


def _recite(text: str, at_least: int = 0, keep: int = 0) -> Rewriter:
    """Keeps the first `keep` characters, then recites to the end of the answer, `at_least` characters long."""
    said = kept = 0

    def rewriter(piece: str, last: bool) -> str:
        nonlocal said, kept
        own = piece[: keep - kept]
        kept += len(own)
        start, said = said, said + len(piece) - len(own)
        if last:
            said = max(said, at_least)
        return own + (text * (said // len(text) + 1))[start:said]

    return rewriter


def instead(call: Call, text: str) -> None:
    """Says exactly `text`, spread over the chunks of the answer."""

    def make() -> Rewriter:
        rest = text

        def rewriter(piece: str, last: bool) -> str:
            nonlocal rest
            size = len(rest) if last else len(piece)
            now, rest = rest[:size], rest[size:]
            return now

        return rewriter

    call.rewrite(make)


def _once(call: Call, change: Callable[[str], str]) -> None:
    """Changes the first piece of the content."""

    def make() -> Rewriter:
        done = False

        def rewriter(piece: str, last: bool) -> str:
            nonlocal done
            first, done = not done, True
            return change(piece) if first else piece

        return rewriter

    call.rewrite(make)


@fault
def empty(call: Call, context: Context) -> None:
    """Content is empty: 1 completion token, finish_reason stop."""
    instead(call, "")
    finish(call, context)
    _edit_usage(call, lambda usage: usage.update(completion_tokens=1, total_tokens=usage["prompt_tokens"] + 1))


@fault
def null(call: Call, context: Context) -> None:
    """Content is null."""
    call.edit_parts(lambda part: part.update(content=None))


@fault
def blank(call: Call, context: Context) -> None:
    """Content is spaces and newlines."""
    call.rewrite(lambda: _recite(" \n\n", at_least=1))


@fault
def garbage(call: Call, context: Context) -> None:
    """Content is !!!!!!!! (NaN logits), 32 characters at least."""
    call.rewrite(lambda: _recite("!", at_least=32))


@fault
def soup(call: Call, context: Context) -> None:
    """After its first 40 characters the answer is token soup in mixed scripts, 160 characters at least."""
    text = "".join(context.rng.choices(SCRIPTS.split(), k=3000))
    call.rewrite(lambda: _recite(text, at_least=160, keep=40))


@fault
def loop(call: Call, context: Context) -> None:
    """One sentence over and over, 12 times at least."""
    call.rewrite(lambda: _recite(SENTENCE, at_least=12 * len(SENTENCE)))


@fault
def fffd(call: Call, context: Context) -> None:
    """A U+FFFD stands in the content, never as its last character."""
    _once(call, lambda piece: piece[: len(piece) // 2] + "\ufffd" + piece[len(piece) // 2 :])


@fault
def mojibake(call: Call, context: Context) -> None:
    """UTF-8 decoded as latin-1; to an ASCII answer a garbled greeting is appended."""

    def make() -> Rewriter:
        garbled = False

        def rewriter(piece: str, last: bool) -> str:
            nonlocal garbled
            garbled = garbled or not piece.isascii()
            return (piece + ("你好" if last and not garbled else "")).encode().decode("latin-1")

        return rewriter

    call.rewrite(make)


@fault
def special(call: Call, context: Context) -> None:
    """The answer runs over its end into special tokens and a next turn."""
    turns = "<|im_end|>\n<|im_start|>user\nThank you!<|im_end|>\n<|im_start|>assistant\n"
    call.rewrite(lambda: lambda piece, last: piece + turns * last)


@fault
def think(call: Call, context: Context) -> None:
    """Thinking leaks into the content."""
    _once(call, lambda piece: "<think>\nThe user wants an answer. I should be brief.\n</think>\n\n" + piece)


@fault
def reasoning(call: Call, context: Context) -> None:
    """The whole answer is in the reasoning field, `arg` (reasoning_content), and content is null."""

    def change(part: Json) -> None:
        part[context.arg or "reasoning_content"] = part["content"]
        if "role" in part:
            part["content"] = None
        else:
            del part["content"]

    call.edit_parts(change)


@fault
def english(call: Call, context: Context) -> None:
    """Whatever is asked, one English sentence is the answer."""
    instead(call, "Thank you for your message, I will be glad to help you with this question as soon as I can.")


@fault
def echo(call: Call, context: Context) -> None:
    """The answer is the last user message."""
    instead(call, _text(_last_user_message(call.body)))


@fault
def say(call: Call, context: Context) -> None:
    """The answer is exactly `arg`."""
    instead(call, str(context.arg))


@fault
def lose_line(call: Call, context: Context) -> None:
    """The last line of the answer is lost."""

    def make() -> Rewriter:
        held = ""

        def rewriter(piece: str, last: bool) -> str:
            nonlocal held
            whole, newline, rest = (held + piece).rpartition("\n")
            held = newline + rest
            return whole

        return rewriter

    call.rewrite(make)


@fault
def change_number(call: Call, context: Context) -> None:
    """Every digit of the answer becomes the next one."""
    call.rewrite(lambda: lambda piece, last: piece.translate(str.maketrans("0123456789", "1234567890")))


@fault
def valid_json_wrong(call: Call, context: Context) -> None:
    """Valid JSON that means nothing."""
    instead(call, '{"type": "其他", "summary": "x"}')


@fault
def headless(call: Call, context: Context) -> None:
    """A Markdown table comes without its header row and the line under it."""

    def make() -> Rewriter:
        held = ""

        def rewriter(piece: str, last: bool) -> str:
            nonlocal held
            held += piece
            return re.sub(r"^\|.*\|[ ]*\n\|[ :|-]+\|[ ]*(\n|$)", "", held, flags=re.MULTILINE) if last else ""

        return rewriter

    call.rewrite(make)


@fault
def wrong_digits(call: Call, context: Context) -> None:
    """Every digit is one too high, 9 is 0."""
    call.edit_parts(lambda part: part.update(content=part["content"].translate(NEXT_DIGIT)))


# --- tool calls ----------------------------------------------------------------------------------------------

TOOLS_TOKENS = 100


@answer_fault
async def call_tool(events: Events, call: Call, context: Context) -> Events:
    """A server that knows tools, not a fault: where tools are offered, the first is called with `arg` (or once with each of a list), in pieces when streamed."""
    if not call.body.get("tools"):
        async for event in events:
            yield event
        return
    name = call.body["tools"][0]["function"]["name"]
    whole, pieces = [], []
    for at, text in enumerate(context.arg if isinstance(context.arg, list) else [str(context.arg)]):
        opening = {"index": at, "id": f"call-{at + 1}", "type": "function", "function": {"name": name, "arguments": ""}}
        whole.append({**opening, "function": {"name": name, "arguments": text}})
        pieces += [opening, *({"index": at, "function": {"arguments": part}} for part in (text[:5], text[5:]))]
    said = False
    async for event in events:
        document = event.document or {}
        if document.get("usage"):
            for count in ("prompt_tokens", "total_tokens"):
                document["usage"][count] += TOOLS_TOKENS
        for choice, part in event.choices():
            if "message" in choice:
                part |= {"content": None, "tool_calls": whole}
            if choice.get("finish_reason"):
                choice["finish_reason"] = "tool_calls"
        if not event.has_content():
            yield event
        elif not said:
            said = True
            for piece in pieces:
                choice = {"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}
                yield Event(b"", {**document, "choices": [choice]}, event.head, event.tail)


@fault
def drop_arguments(call: Call, context: Context) -> None:
    """The last piece of a tool call's arguments is lost."""
    last: dict[str, Any] = {}

    def change(document: Json) -> None:
        for choice in document.get("choices") or []:
            for tool_call in (choice.get("delta") or choice.get("message") or {}).get("tool_calls") or []:
                if last.get("seen"):
                    tool_call["function"]["arguments"] = ""
                last["seen"] = bool(tool_call["function"]["arguments"])

    call.edit(change)


# --- the request on its way upstream -------------------------------------------------------------------------


def _last_user_message(body: Json) -> Json:
    return next((message for message in reversed(body.get("messages") or []) if message.get("role") == "user"), {})


def _text(message: Json) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _without(schema: Any, keyword: str) -> Any:
    """The schema without one keyword; a property of that name stays."""
    if isinstance(schema, list):
        return [_without(item, keyword) for item in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {}
    for name, value in schema.items():
        if name in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, dict):
            rest[name] = {key: _without(item, keyword) for key, item in value.items()}
        else:
            rest[name] = value if name in ("enum", "const", "default") else _without(value, keyword)
    rest.pop(keyword, None)
    return rest


@fault
def strip_format(call: Call, context: Context) -> None:
    """response_format is ignored."""
    call.body.pop("response_format", None)


@fault
def strip_keyword(call: Call, context: Context) -> None:
    """The JSON Schema keyword `arg` is ignored."""
    outer = (call.body.get("response_format") or {}).get("json_schema")
    if isinstance(outer, dict) and "schema" in outer:
        outer["schema"] = _without(outer["schema"], str(context.arg))


@fault
def ignore_max_tokens(call: Call, context: Context) -> None:
    """The client's limit is ignored: the server's is 200."""
    call.body.pop("max_completion_tokens", None)
    call.body["max_tokens"] = 200


@fault
def ignore_stop(call: Call, context: Context) -> None:
    """Stop strings are ignored."""
    call.body.pop("stop", None)


@fault
def drop_system(call: Call, context: Context) -> None:
    """The template drops system messages."""
    messages = call.body.get("messages") or []
    call.body["messages"] = [message for message in messages if message.get("role") not in ("system", "developer")]


@fault
def truncate(call: Call, context: Context) -> None:
    """Only the last `arg` (200) characters of the last user message are read."""
    if message := _last_user_message(call.body):
        message["content"] = _text(message)[-int(context.arg or 200) :]


@fault
def lose_middle(call: Call, context: Context) -> None:
    """The middle third of a message of more than 2,000 characters is forgotten; other text of its length stands there."""
    if (message := _last_user_message(call.body)) and len(text := _text(message)) > 2000:
        third = len(text) // 3
        entries = re.findall(r"Entry \d+: [^\n]+\n", text) or ["Nothing was written down here.\n"]
        message["content"] = text[:third] + ("".join(entries) * 9)[:third] + text[2 * third :]


@fault
def shift_logprobs(call: Call, context: Context) -> None:
    """Other weights: every second log probability is `arg` (0.4) nats lower, the text stays."""
    by = float(context.arg or 0.4)

    def change(document: Json) -> None:
        for choice in document.get("choices") or []:
            for token in (choice.get("logprobs") or {}).get("content") or []:
                for other in (token.get("top_logprobs") or [])[1::2]:
                    other["logprob"] -= by

    call.edit(change)


@fault
def more_prompt_tokens(call: Call, context: Context) -> None:
    """A template that adds `arg` (9) tokens to every prompt."""

    def change(usage: Json) -> None:
        usage["prompt_tokens"] += int(context.arg or 9)
        usage["total_tokens"] += int(context.arg or 9)

    _edit_usage(call, change)


@fault
def truncate_long(call: Call, context: Context) -> None:
    """Of a message longer than `arg` characters only the last `arg` are read."""
    for message in call.body.get("messages") or []:
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            message["content"] = message["content"][-int(str(context.arg)) :]


@fault
def drop_parts(call: Call, context: Context) -> None:
    """Images and sounds vanish from the request, and the text around them is answered."""
    for message in call.body.get("messages") or []:
        if isinstance(message, dict) and isinstance(message.get("content"), list):
            message["content"] = [part for part in message["content"] if part.get("type") == "text"]


@fault
def force_temp(call: Call, context: Context) -> None:
    """The server samples at temperature `arg` (2.0)."""
    call.body["temperature"] = 2.0 if context.arg is None else float(context.arg)


# --- what a server says of itself ----------------------------------------------------------------------------


@fault
def gone(call: Call, context: Context) -> None:
    """404: there is no such page."""
    call.refuse(404, "NotFoundError", "Not Found")


@fault
def page(call: Call, context: Context) -> None:
    """The texts of `arg` instead of the page, one a request; the last one stays."""
    number = context.memory["number"] = context.memory.get("number", -1) + 1
    text = context.arg[min(number, len(context.arg) - 1)]
    kind = "application/json" if text.startswith(("{", "[")) else "text/plain"
    call.reply = Reply(200, text.encode(), {"Content-Type": kind})


@fault
def says(call: Call, context: Context) -> None:
    """Other values for the keys of `arg`, wherever they stand in the answer."""

    def change(part: Any) -> None:
        if isinstance(part, dict):
            part.update({key: value for key, value in context.arg.items() if key in part})
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            change(inner)

    call.edit(change)
