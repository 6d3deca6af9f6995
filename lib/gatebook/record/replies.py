"""What a chat reply says, read from the recorded bytes: both envelopes, streamed or not."""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any
from weakref import ref

from gatebook.engines.engine import Json, obj, whole_number
from gatebook.record.answer import Answer, ToolCall
from gatebook.record.exchange import Exchange

MESSAGES = ("message", "detail", "msg", "error_msg", "error_message", "errors")
"""Where servers and gateways say what went wrong."""
CODES = ("code", "status", "status_code", "error_code")
NO_ANSWER = ("", "event", "id", "retry")
"""Fields of a stream in which clients read no answer."""
SYSTEM, LAST = "system_fingerprint", 4
"""Chunks at a stream's end, the usage chunk and [DONE] among them, that are read for who wrote it."""
REMEMBERED_CHARS = 65_536
"""A longer text is parsed again rather than remembered: thousands are."""
REMEMBERED_LOGPROBS = 1024
"""Answers with log probabilities, by far the largest, that are kept. Others are as long as their exchange: a dozen questions read each."""
_answers: dict[int, tuple[ref[Exchange], Answer]] = {}
_with_logprobs: deque[int] = deque()  # their ids, the oldest first


def read_answer(exchange: Exchange) -> Answer:
    """Parse the recorded reply as the official client does; never raises on what a server may send. Callers must not change it."""
    key = id(exchange)
    if (known := _answers.get(key)) and known[0]() is exchange:
        return known[1]
    answer = _read(exchange)
    if len(exchange.text or "") + sum(len(data) for _, data in exchange.events or ()) <= REMEMBERED_CHARS:
        _answers[key] = (ref(exchange, lambda _: _answers.pop(key, None)), answer)
        if answer.logprobs:
            _with_logprobs.append(key)
        if len(_with_logprobs) > REMEMBERED_LOGPROBS:
            _answers.pop(_with_logprobs.popleft(), None)
    return answer


def _read(exchange: Exchange) -> Answer:
    reading = _Reading(wanted=(exchange.body or {}).get("n"))
    if exchange.events is not None:
        reading.read_stream(exchange.events, exchange.lines or [])
    elif exchange.text is not None:
        reading.read_piece(exchange.text, "message")
        reading.done = True
    return reading.ended()


def is_good(exchange: Exchange) -> bool:
    """A complete chat reply with a token: the server can do it."""
    asked = exchange.kind in ("ask", "canary", "ready") and exchange.method == "POST"
    return asked and not exchange.fault and read_answer(exchange).has_token


def is_token(data: str) -> bool:
    """Whether an event carries generated text."""
    return _chunk(data).has_token


def counted_tokens(exchange: Exchange) -> int | None:
    """What /tokenize says: `count` (vLLM, SGLang) or the number of `tokens` (llama.cpp)."""
    said = obj(None if exchange.fault else parse(exchange.text or ""))
    count, tokens = whole_number(said.get("count")), said.get("tokens")
    return count if count is not None else len(tokens) if isinstance(tokens, list) else None


def parse(text: str) -> Any:
    """The JSON value of a text, or None. Callers must not change it."""
    return _parsed(text) if len(text) <= REMEMBERED_CHARS else _parsed.__wrapped__(text)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def whole(text: str) -> str:
    """The text with lone surrogates, which JSON may carry, joined to a character or replaced by U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def signed(exchange: Exchange) -> Json:
    """`model`, `system_fingerprint` and `usage` of a good reply, by the first and last chunks of a stream; {} of any other."""
    if exchange.status != 200 or exchange.fault:
        return {}
    pieces = [exchange.text or ""] if exchange.events is None else [data for _, data in exchange.events]
    read = [obj(parse(data)) for data in (*pieces[:1], *pieces[1:][-LAST:])]
    if any(piece.get("error") for piece in read) or not any(piece.get("choices") for piece in read):
        return {}
    return {name: piece[name] for piece in read for name in ("model", SYSTEM, "usage") if piece.get(name)}


def error_message(body: str | None) -> str:
    """The message of an error body: `{"error": {...}}`, `{"error": "..."}`, flat `{"message": ...}`, `{"detail": ...}` and the like."""
    said: Any = whole(body or "")
    if isinstance(parsed := parse(said), dict):
        said = parsed.get("error") or parsed
    if isinstance(said, dict):
        said = next((said[name] for name in MESSAGES if said.get(name)), said)
    return whole(" ".join(str(said).split())[:200])


@dataclass
class _Reading(Answer):
    """A reply while it is read, piece by piece."""

    wanted: Any = None
    """`n` of the request."""
    brought: set[tuple[int, str]] = field(default_factory=set)
    """(place of a tool call, `arguments` or `type`) where it came in some piece."""

    def read_stream(self, events: list[tuple[float, str]], lines: list[tuple[int, str]]) -> None:
        beside: dict[int, list[str]] = defaultdict(list)
        for number, line in lines:
            beside[number].append(line)
        for number, (_, data) in enumerate([*events, (0.0, "[DONE]")]):
            for line in beside[number]:
                self._read_line(line)
            if data.startswith("[DONE]"):
                self.done = number < len(events)
                if any(_chunk(late).has_anything for _, late in events[number + 1 :]):
                    self._flaw("an answer goes on after [DONE], where clients stop reading")
                return
            names = [line.partition(":")[2].strip() for line in beside[number] if line.startswith("event:")]
            self.read_piece(data, "delta", names[-1] if names else "")

    def read_piece(self, data: str, part: str, event: str = "") -> None:
        """One chunk (`part` is `delta`), or a whole reply (`message`)."""
        piece = parse(data)
        if event == "error":
            self._error(error_message(data) or "an error event without data", piece)
        if isinstance(piece, dict):
            self._read_object(piece, data, part)
        else:
            self.malformed = self.malformed or _no_object(data, part, event)

    def ended(self) -> Answer:
        self.content = None if self.content is None else whole(self.content)
        self.reasoning = whole(self.reasoning)
        self.model = None if self.model is None else whole(self.model)
        self.others = {index: whole(text) for index, text in self.others.items()}
        self.tool_calls = [replace(call, arguments=whole(call.arguments)) for call in self.tool_calls]
        for number, call in enumerate(self.tool_calls):
            brought = (number, "arguments") in self.brought
            for what, there in (("`id`", call.id), ("name", call.name), ("`arguments`", brought)):
                if not there:
                    self._flaw(f"a tool call has no {what}")
        ids = sorted(call.id for call in self.tool_calls if call.id)
        if twice := [a for a, b in pairwise(ids) if a == b]:
            self._flaw(f"two tool calls have the same id {twice[0]!r}")
        return self

    def _error(self, said: str, piece: Any) -> None:
        if self.error is None:
            codes = [str(owner.get(name)) for owner in (obj(piece, "error"), obj(piece)) for name in CODES]
            whole_codes = (int(code) for code in codes if re.fullmatch(r"\d{1,9}", code, re.ASCII))
            self.error, self.error_code = said, next(whole_codes, None)

    def _flaw(self, said: str) -> None:
        if said not in self.flaws:
            self.flaws.append(said)

    def _read_line(self, line: str) -> None:
        """A line that clients do not read: an error in it counts all the same, and an answer in it is lost."""
        name, _, value = line.partition(":")
        if name in NO_ANSWER:
            return
        if name == "error":
            self._error(error_message(value.strip()) or line, parse(value))
        elif name == "data":
            if _chunk(value).has_anything:
                self._flaw("the last event is not ended by a blank line, so clients lose it")
        elif isinstance(piece := parse(line), dict):
            if said := _said_error(piece, line):
                self._error(said, piece)
            elif _chunk(line).has_anything:
                self._flaw(f"a chunk without `data:` before it, which clients do not read: {line[:60]!r}")
        elif name.strip("\ufeff \t").lower() == "data" and _chunk(value).has_anything:
            what = "a byte order mark" if name.startswith("\ufeff") else repr(name)
            self._flaw(f"a chunk that clients do not read, as {what} stands where `data:` should")

    def _read_object(self, piece: Json, data: str, part: str) -> None:
        if said := _said_error(piece, data):
            self._error(said, piece)
        if isinstance(piece.get("id"), str):
            self.ids.add(whole(piece["id"]))
        for name, kind in (("created", int), ("model", str), ("usage", dict)):
            if isinstance(piece.get(name), kind):
                setattr(self, name, piece[name])
        choices = piece.get("choices")
        if isinstance(choices, list):
            self._read_choices(choices, part)
        elif "choices" in piece:
            self._flaw(f"`choices` is {_kind(choices)}, no list")
        elif part == "delta" and not said:
            self._flaw(f"a chunk has no `choices`: {whole(data[:60])!r}")

    def _read_choices(self, choices: list[Any], part: str) -> None:
        indexes = [choice.get("index") for choice in choices if isinstance(choice, dict)]
        if part == "delta" and any(indexes.count(index) > 1 for index in indexes if index is not None):
            self._flaw(f"two choices of one chunk have the same index: {indexes}")
        for number, choice in enumerate(choices):
            if isinstance(choice, dict):
                self._read_choice(choice, part, number)
            else:
                self._flaw(f"a choice is {_kind(choice)}, no object")

    def _read_choice(self, choice: Json, part: str, number: int) -> None:
        told = whole_number(choice.get("index"))
        if told is None and part == "delta":
            self._flaw(_no_index(choice, "choice"))
        self.choice_indexes.add(number if told is None else told)
        if choice.get("error"):
            self._error(error_message(json.dumps({"error": choice["error"]})), choice)
        message = choice.get(part)
        if not isinstance(message, dict):
            self._flaw(f"`{part}` is {_kind(message)}, no object" if part in choice else f"a choice has no `{part}`")
        if index := number if told is None or part == "message" else told:
            if not isinstance(self.wanted, int) or index >= self.wanted:
                self._flaw(f"a choice has the index {index}, and {self.wanted or 1} was asked for")
            text = obj(message).get("content")
            self.others[index] = self.others.get(index, "") + (text if isinstance(text, str) else "")
            return
        self.choices += 1
        self._read_message(obj(message), part)
        if choice.get("finish_reason"):
            self.finish_reasons.append(whole(str(choice["finish_reason"])))
        logprobs = choice.get("logprobs")
        if isinstance(content := obj(logprobs).get("content"), list):
            self.logprobs += content
        elif part == "delta" and not isinstance(logprobs, dict | None):
            self._flaw(f"`logprobs` is {_kind(logprobs)}, no object")

    def _read_message(self, message: Json, part: str) -> None:
        before = len(self.text), len(self.reasoning), len(self.tool_calls)
        content, calls = message.get("content"), message.get("tool_calls")
        if isinstance(content, str):
            self.content = self.text + content
        elif content is not None:
            self._flaw(f"content is {type(content).__name__}, not text")
        thoughts = [message[name] for name in ("reasoning_content", "reasoning") if isinstance(message.get(name), str)]
        self.reasoning += "".join(thoughts[:1])
        if isinstance(calls, list):
            for call in calls:
                self._read_call(call, streamed=part == "delta")
        elif calls:
            self._flaw(f"`tool_calls` is {_kind(calls)}, no list")
        if self.finish_reasons and before != (len(self.text), len(self.reasoning), len(self.tool_calls)):
            self._flaw(f"{'a tool call' if calls else 'text'} comes after the chunk with finish_reason")

    def _read_call(self, call: Any, streamed: bool) -> None:
        """Join one piece of a tool call as the client does: names and arguments are appended, and so would an id be."""
        function = obj(call).get("function")
        if not isinstance(function, dict):
            self._flaw(f"a tool call is no object with a function: {whole(str(call)[:60])}")
            return
        arguments = function.get("arguments")
        if not isinstance(arguments, str | None):
            self._flaw(f"arguments of a tool call are {type(arguments).__name__}, not text")
            return
        for what, value in (("id", call.get("id")), ("name", function.get("name"))):
            if not isinstance(value, str | None):
                self._flaw(f"the {what} of a tool call is {type(value).__name__}, not text")
        name, own = whole(str(function.get("name") or "")), whole(str(call.get("id") or ""))
        at = self._place(call, own) if streamed else len(self.tool_calls)
        if at == len(self.tool_calls):
            self.tool_calls.append(ToolCall())
        self.tool_calls[at] = self._joined(self.tool_calls[at], ToolCall(name, arguments or "", own))
        if call.get("type", "") is None and (at, "type") in self.brought:
            self._flaw("`type` is null in a later piece of a tool call")
        came = {"type": isinstance(call.get("type"), str), "arguments": arguments is not None}
        self.brought |= {(at, what) for what, there in came.items() if there}

    def _joined(self, old: ToolCall, piece: ToolCall) -> ToolCall:
        again = "comes again in its later pieces, and clients join it to"
        if old.id and piece.id:
            merged = f"two tool calls have one `index`, and clients merge them: {old.id!r} and {piece.id!r}"
            self._flaw(f"the id of a tool call {again} {2 * old.id!r}" if old.id == piece.id else merged)
        same = piece.name and piece.name == old.name
        if same:
            self._flaw(f"the name of a tool call {again} {2 * old.name!r}")
        name = old.name if same else old.name + piece.name
        return ToolCall(name, old.arguments + piece.arguments, old.id or piece.id)

    def _place(self, call: Json, own: str) -> int:
        """The place of a streamed piece by its `index`; without a right one, a new id begins a new call."""
        index, count = _index(call), len(self.tool_calls)
        if index is not None and 0 <= index <= count:
            return index
        wrong = f"a streamed tool call begins with the index {index}, where {count} is next"
        self._flaw(_no_index(call, "streamed tool call") if index is None else wrong)
        return count if not count or (own and own != self.tool_calls[-1].id) else count - 1


def _chunk(data: str) -> Answer:
    """What one chunk says by itself."""
    reading = _Reading()
    reading.read_piece(data, "delta")
    return reading


def _said_error(piece: Json, data: str) -> str | None:
    """The server's own words, where the piece says an error in any of the known ways."""
    named = piece.get("error") or "error" in (piece.get("object"), piece.get("type"))
    told = any(piece.get(name) and isinstance(piece[name], str | list) for name in MESSAGES)
    return error_message(data) if named or ("choices" not in piece and told) else None


def _no_object(data: str, part: str, event: str) -> str:
    """In words, a chunk or a body that is no JSON object."""
    if not data and part == "delta":
        return f"an event without data{f' (event: {whole(event[:40])})' if event else ''}"
    if not data.strip():
        return "the body is empty"
    if parse(data) is not None or data.strip() == "null":
        return f"{'a chunk' if part == 'delta' else 'a reply'} that is no object: {whole(data[:60])}"
    return f"not valid JSON: {whole(data[:120])!r}"


def _index(owner: Json) -> int | None:
    """`index` of a tool call where it is a whole number, also one written as a text, as the client takes it."""
    told = owner.get("index")
    if isinstance(told, str):
        return int(told) if re.fullmatch(r"\d{1,9}", told, re.ASCII) else None
    return int(told) if isinstance(told, int) or (isinstance(told, float) and told.is_integer()) else None


def _no_index(owner: Json, what: str) -> str:
    told = owner.get("index")
    if told is None:
        return f"`index` of a {what} is null" if "index" in owner else f"a {what} has no `index`"
    return f"`index` of a {what} is {_kind(told)}, no whole number"


def _kind(value: Any) -> str:
    """A JSON value's type, in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
