"""What a chat reply says, read from the recorded bytes: both envelopes, streamed or not."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from gatebook.record.exchange import Exchange

MESSAGES = ("message", "detail", "msg", "error_msg", "error_message", "errors")
"""Where servers and gateways say what went wrong."""
CODES = ("code", "status", "status_code", "error_code")


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants to be called. Empty where the server left it out."""

    name: str = ""
    arguments: str = ""
    """JSON text, as it was sent."""
    id: str = ""


@dataclass
class Answer:
    """One assistant reply. Fields that the server left out are None."""

    content: str | None = None
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    """Streamed pieces are joined by their index."""
    finish_reasons: list[str] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    ids: set[str] = field(default_factory=set)
    created: int | None = None
    model: str | None = None
    choices: int = 0
    """Chunks (or replies) that carried a choice."""
    others: dict[int, str] = field(default_factory=dict)
    """The texts of further choices (`n`) by their index."""
    choice_indexes: set[int] = field(default_factory=set)
    """The indexes that were sent."""
    logprobs: list[Any] = field(default_factory=list)
    """Entries of `logprobs.content`, as they were sent."""
    done: bool = False
    """[DONE] was seen; true for a reply that is not streamed."""
    error: str | None = None
    """The server's own error message, in whatever way it stands in a body or in a stream."""
    error_code: int | None = None
    """The `code` or `status` that the error names: 400 where vLLM refuses inside a 200 stream."""
    malformed: str | None = None
    """What is wrong with the first piece that is no JSON object."""
    flaws: list[str] = field(default_factory=list)
    """What the official client cannot read, loses, or reads as something else, in words."""

    @property
    def text(self) -> str:
        return self.content or ""

    @property
    def finish_reason(self) -> str | None:
        return self.finish_reasons[-1] if self.finish_reasons else None

    def texts(self) -> list[str]:
        """Everything in it that a server may have said in several pieces."""
        calls = [text for call in self.tool_calls for text in (call.name, call.arguments, call.id)]
        entries = [entry if isinstance(entry, dict) else {} for entry in self.logprobs]
        tokens = "".join(str(entry.get("token")) for entry in entries)
        raw = [entry.get("bytes") for entry in entries]
        packed = "".join(
            chr(b) for some in raw if isinstance(some, list) for b in some if type(b) is int and 0 <= b < 256
        )
        said = [self.text, self.reasoning, self.error or "", self.malformed or "", tokens, packed]
        return [*said, *calls, *self.others.values(), *self.flaws, *self.ids, *self.finish_reasons]

    def tokens(self, name: str) -> int | None:
        """`prompt_tokens`, `completion_tokens` or `total_tokens` from usage, when it is a whole number."""
        value = (self.usage or {}).get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_answer(exchange: Exchange) -> Answer:
    """Parse the recorded reply as the official client does; never raises on what a server may send."""
    reading = _Reading((exchange.body or {}).get("n"))
    if exchange.events is not None:
        reading.stream(exchange.events, exchange.lines or [])
    elif exchange.text is not None:
        reading.piece(exchange.text, "message")
        reading.answer.done = True
    return reading.end()


def counted_tokens(exchange: Exchange) -> int | None:
    """What /tokenize says: `count` (vLLM, SGLang) or the number of `tokens` (llama.cpp)."""
    said = None if exchange.fault else parse(exchange.text or "")
    if not isinstance(said, dict):
        return None
    count, tokens = said.get("count"), said.get("tokens")
    if isinstance(count, int) and not isinstance(count, bool):
        return count
    return len(tokens) if isinstance(tokens, list) else None


def whole(text: str) -> str:
    """The text with halves of a character (lone surrogates, which JSON may carry) joined, or replaced by U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_good(exchange: Exchange) -> bool:
    """A complete chat reply with text: the server can do it."""
    return (
        exchange.kind in ("ask", "canary", "ready")
        and exchange.method == "POST"
        and not exchange.fault
        and bool(read_answer(exchange).text)
    )


def is_token(data: str) -> bool:
    """Whether an event carries generated text: content, reasoning or tool calls. A role alone is not a token."""
    reading = _Reading()
    reading.piece(data, "delta")
    return bool(reading.answer.content or reading.answer.reasoning or reading.answer.tool_calls)


def error_message(body: str | None) -> str:
    """The message of an error body: `{"error": {...}}`, `{"error": "..."}`, flat `{"message": ...}`, `{"detail": ...}` and the like."""
    body = whole(body or "")
    parsed = parse(body)
    if not isinstance(parsed, dict):
        return " ".join(body.split())[:200]
    inner = parsed.get("error") or parsed
    if isinstance(inner, dict):
        inner = next((inner[name] for name in MESSAGES if inner.get(name)), inner)
    return whole(" ".join(str(inner).split())[:200])


def _error_code(piece: dict[str, Any]) -> int | None:
    inner = piece.get("error")
    for owner in (inner if isinstance(inner, dict) else {}, piece):
        for name in CODES:
            told = str(owner.get(name))
            if re.fullmatch(r"\d{1,9}", told, re.ASCII):
                return int(told)
    return None


REMEMBERED_CHARS = 65_536
"""A longer text is parsed again rather than remembered: thousands are."""


def parse(text: str) -> Any:
    """The JSON value of a text, or None. Callers must not change what they get."""
    return _remembered(text) if len(text) <= REMEMBERED_CHARS else _parsed(text)


@lru_cache(maxsize=4096)
def _remembered(text: str) -> Any:
    return _parsed(text)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


@dataclass
class _Reading:
    """One reply being read, piece by piece."""

    wanted: Any = None
    """`n` of the request."""
    answer: Answer = field(default_factory=Answer)
    argued: set[int] = field(default_factory=set)
    """Tool calls that have brought arguments, and below those whose type is told."""
    typed: set[int] = field(default_factory=set)

    def stream(self, events: list[tuple[float, str]], lines: list[tuple[int, str]]) -> None:
        after: dict[int, list[str]] = {}
        for number, line in lines:
            after.setdefault(number, []).append(line)
        for number, (_, data) in enumerate([*events, (0.0, "[DONE]")]):
            beside = after.get(number, [])
            for line in beside:
                self._line(line)
            if data.startswith("[DONE]"):
                self.answer.done = number < len(events)
                if any(_carries(late) for _, late in events[number + 1 :]):
                    self._flaw("an answer goes on after [DONE], where clients stop reading")
                return
            names = [line.partition(":")[2].strip() for line in beside if line.startswith("event:")]
            self.piece(data, "delta", names[-1] if names else "")

    def piece(self, data: str, part: str, event: str = "") -> None:
        """One chunk, or a whole reply."""
        piece = parse(data)
        if event == "error":
            self._error(error_message(data) or "an error event without data", piece)
        if isinstance(piece, dict):
            self._object(piece, data, part)
            return
        self.answer.malformed = self.answer.malformed or _no_object(data, part, event)

    def end(self) -> Answer:
        answer = self.answer
        answer.content = None if answer.content is None else whole(answer.content)
        answer.reasoning = whole(answer.reasoning)
        answer.others = {index: whole(text) for index, text in answer.others.items()}
        answer.tool_calls = [replace(call, arguments=whole(call.arguments)) for call in answer.tool_calls]
        for number, call in enumerate(answer.tool_calls):
            if not call.id:
                self._flaw("a tool call has no `id`")
            if not call.name:
                self._flaw("a tool call has no name")
            if number not in self.argued:
                self._flaw("a tool call has no `arguments`")
        ids = [call.id for call in answer.tool_calls if call.id]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            self._flaw(f"two tool calls have the same id {twice[0]!r}")
        return answer

    def _line(self, line: str) -> None:
        """A line that clients do not read. What the server says in it counts all the same, and so does what is lost with it."""
        name, _, value = line.partition(":")
        if name in ("", "event", "id", "retry"):
            return
        if name == "error":
            self._error(error_message(value.strip()) or line, parse(value))
        elif name == "data":
            if _carries(value):
                self._flaw("the last event is not ended by a blank line, so clients lose it")
        elif isinstance(piece := parse(line), dict):
            if said := _said_error(piece, line):
                self._error(said, piece)
            elif _carries(line):
                self._flaw(f"a chunk without `data:` before it, which clients do not read: {line[:60]!r}")
        elif name.strip("\ufeff \t").lower() == "data" and _carries(value):
            what = "a byte order mark" if name.startswith("\ufeff") else repr(name)
            self._flaw(f"a chunk that clients do not read, as {what} stands where `data:` should")

    def _error(self, said: str, piece: Any) -> None:
        if self.answer.error is None:
            self.answer.error = said
            self.answer.error_code = _error_code(piece) if isinstance(piece, dict) else None

    def _flaw(self, said: str) -> None:
        if said not in self.answer.flaws:
            self.answer.flaws.append(said)

    def _object(self, piece: dict[str, Any], data: str, part: str) -> None:
        answer = self.answer
        if said := _said_error(piece, data):
            self._error(said, piece)
        if isinstance(piece.get("id"), str):
            answer.ids.add(whole(piece["id"]))
        answer.created = piece["created"] if isinstance(piece.get("created"), int) else answer.created
        answer.model = whole(piece["model"]) if isinstance(piece.get("model"), str) else answer.model
        answer.usage = piece["usage"] if isinstance(piece.get("usage"), dict) else answer.usage
        choices = piece.get("choices")
        if not isinstance(choices, list):
            if "choices" in piece:
                self._flaw(f"`choices` is {_kind(choices)}, no list")
            elif part == "delta" and not said:
                self._flaw(f"a chunk has no `choices`: {whole(data[:60])!r}")
            return
        indexes = [choice.get("index") for choice in choices if isinstance(choice, dict)]
        if part == "delta" and any(indexes.count(index) > 1 for index in indexes if index is not None):
            self._flaw(f"two choices of one chunk have the same index: {indexes}")
        for number, choice in enumerate(choices):
            if isinstance(choice, dict):
                self._choice(choice, part, number)
            else:
                self._flaw(f"a choice is {_kind(choice)}, no object")

    def _choice(self, choice: dict[str, Any], part: str, number: int) -> None:
        answer = self.answer
        index = number
        told = choice.get("index")
        if isinstance(told, bool) or not isinstance(told, int):
            told = None
        answer.choice_indexes.add(number if told is None else told)
        if part == "delta":
            if told is None:
                self._flaw(_no_index(choice, "choice"))
            else:
                index = told
        if choice.get("error"):
            self._error(error_message(json.dumps({"error": choice["error"]})), choice)
        message = choice.get(part)
        if not isinstance(message, dict):
            self._flaw(f"`{part}` is {_kind(message)}, no object" if part in choice else f"a choice has no `{part}`")
            message = {}
        if index:
            if not isinstance(self.wanted, int) or index >= self.wanted:
                self._flaw(f"a choice has the index {index}, and {self.wanted or 1} was asked for")
            text = message.get("content")
            answer.others[index] = answer.others.get(index, "") + (text if isinstance(text, str) else "")
            return
        answer.choices += 1
        ended = bool(answer.finish_reasons)
        before = (answer.content or "", answer.reasoning, len(answer.tool_calls))
        self._message(message, part)
        if ended and before != (answer.content or "", answer.reasoning, len(answer.tool_calls)):
            self._flaw(
                f"{'a tool call' if message.get('tool_calls') else 'text'} comes after the chunk with finish_reason"
            )
        if choice.get("finish_reason"):
            answer.finish_reasons.append(whole(str(choice["finish_reason"])))
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
            answer.logprobs += logprobs["content"]
        elif logprobs is not None and not isinstance(logprobs, dict) and part == "delta":
            self._flaw(f"`logprobs` is {_kind(logprobs)}, no object")

    def _message(self, message: dict[str, Any], part: str) -> None:
        answer = self.answer
        if isinstance(message.get("content"), str):
            answer.content = (answer.content or "") + message["content"]
        elif message.get("content") is not None:
            self._flaw(f"content is {type(message['content']).__name__}, not text")
        for name in ("reasoning_content", "reasoning"):
            if isinstance(message.get(name), str):
                answer.reasoning += message[name]
                break
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                self._call(call, streamed=part == "delta")
        elif calls:
            self._flaw(f"`tool_calls` is {_kind(calls)}, no list")

    def _call(self, call: Any, streamed: bool) -> None:
        """Join one piece of a tool call as the client does: names and arguments are appended, and so would an id be."""
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            self._flaw(f"a tool call is no object with a function: {whole(str(call)[:60])}")
            return
        arguments, told = function.get("arguments"), call.get("id")
        if not isinstance(arguments, str | None):
            self._flaw(f"arguments of a tool call are {type(arguments).__name__}, not text")
            return
        for what, value in (("id", told), ("name", function.get("name"))):
            if not isinstance(value, str | None):
                self._flaw(f"the {what} of a tool call is {type(value).__name__}, not text")
        name, own = whole(str(function.get("name") or "")), whole(str(told or ""))
        at = self._place(call, own) if streamed else len(self.answer.tool_calls)
        if at == len(self.answer.tool_calls):
            self.answer.tool_calls.append(ToolCall())
        old = self.answer.tool_calls[at]
        if own and old.id:
            self._flaw(
                f"the id of a tool call comes again in its later pieces, and clients join it to {old.id + own!r}"
                if own == old.id
                else f"two tool calls have one `index`, and clients merge them: {old.id!r} and {own!r}"
            )
        if name and name == old.name:
            self._flaw(
                f"the name of a tool call comes again in its later pieces, and clients join it to {name + name!r}"
            )
            name = ""
        if "type" in call and call["type"] is None and at in self.typed:
            self._flaw("`type` is null in a later piece of a tool call")
        if isinstance(call.get("type"), str):
            self.typed.add(at)
        if arguments is not None:
            self.argued.add(at)
        self.answer.tool_calls[at] = ToolCall(old.name + name, old.arguments + (arguments or ""), old.id or own)

    def _place(self, call: dict[str, Any], own: str) -> int:
        """The place of a streamed piece by its `index`; without a right one, a new id begins a new call."""
        calls, index = self.answer.tool_calls, _index(call)
        if index is not None and 0 <= index <= len(calls):
            return index
        if index is None:
            self._flaw(_no_index(call, "streamed tool call"))
        else:
            self._flaw(f"a streamed tool call begins with the index {index}, where {len(calls)} is next")
        return len(calls) if not calls or (own and own != calls[-1].id) else len(calls) - 1


def _said_error(piece: dict[str, Any], data: str) -> str | None:
    """The server's own words, where the piece says an error in any of the known ways."""
    if piece.get("error") or "error" in (piece.get("object"), piece.get("type")):
        return error_message(data)
    if "choices" not in piece and any(piece.get(name) and isinstance(piece[name], str | list) for name in MESSAGES):
        return error_message(data)
    return None


def _no_object(data: str, part: str, event: str) -> str:
    """In words, a chunk or a body that is no JSON object."""
    if not data and part == "delta":
        return f"an event without data{f' (event: {whole(event[:40])})' if event else ''}"
    if not data.strip():
        return "the body is empty"
    if parse(data) is not None or data.strip() == "null":
        return f"{'a chunk' if part == 'delta' else 'a reply'} that is no object: {whole(data[:60])}"
    return f"not valid JSON: {whole(data[:120])!r}"


def _carries(data: str) -> bool:
    """Whether a chunk has anything that a client would miss."""
    reading = _Reading()
    reading.piece(data, "delta")
    told = reading.answer
    return bool(told.content or told.reasoning or told.tool_calls or told.finish_reasons or told.usage)


def _index(owner: dict[str, Any]) -> int | None:
    """`index` of a tool call where it is a whole number, also one written as a text, as the client takes it."""
    told = owner.get("index")
    if isinstance(told, str):
        return int(told) if re.fullmatch(r"\d{1,9}", told, re.ASCII) else None
    return int(told) if isinstance(told, int) or (isinstance(told, float) and told.is_integer()) else None


def _no_index(owner: dict[str, Any], what: str) -> str:
    told = owner.get("index")
    if told is None:
        return f"`index` of a {what} is null" if "index" in owner else f"a {what} has no `index`"
    return f"`index` of a {what} is {_kind(told)}, no whole number"


def _kind(value: Any) -> str:
    """A JSON value's type, in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


UNTOLD = -9999.0
"""What vLLM writes where it has no log probability."""
TOKEN_ID = re.compile(r"token_id:\d+")


@dataclass(frozen=True)
class TokenLogprobs:
    """One generated token, in nats."""

    token: str
    logprob: float
    top: dict[str, float]
    """The most likely tokens at this place, the chosen one among them or not."""

    @property
    def gap(self) -> float:
        """How far the best token is ahead of the second; infinite when only one is told. A small gap flips by rounding."""
        best = sorted(self.top.values(), reverse=True)
        return best[0] - best[1] if len(best) > 1 else math.inf

    @property
    def shortfall(self) -> float:
        """How much less likely this token is than the best at its place; 0 for the best itself."""
        return max(self.logprob, *self.top.values()) - self.logprob


def read_logprobs(exchange: Exchange) -> list[TokenLogprobs]:
    """Every token of a reply that is not streamed; empty where the server tells none, or tells what is no number."""
    try:
        content = json.loads(exchange.text or "")["choices"][0]["logprobs"]["content"]
        found = [_token(entry) for entry in content]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return []
    return found if all(math.isfinite(v) for t in found for v in (t.logprob, *t.top.values())) else []


def mean_logprob(tokens: list[TokenLogprobs]) -> float | None:
    """Nats a token; None for no tokens."""
    return sum(t.logprob for t in tokens) / len(tokens) if tokens else None


def mean_shortfall(tokens: list[TokenLogprobs]) -> float | None:
    """Nats a token by which a text is less likely, at each of its places, than the best: 0 at temperature 0.

    None for no tokens and where the server tells no likely tokens. Unlike the mean logprob it does not grow with how
    open the places are that a text happens to pass, so that a temperature shows in fewer samples.
    """
    return sum(t.shortfall for t in tokens) / len(tokens) if tokens and all(t.top for t in tokens) else None


def _token(entry: dict[str, Any]) -> TokenLogprobs:
    """One place of a text. Alternatives that have no name of their own are kept apart by their rank."""
    top: dict[str, float] = {}
    told = [e for e in entry.get("top_logprobs") or [] if float(e["logprob"]) > UNTOLD]
    for e in told:
        top[_name(e) or f"<part of a character {sum(name.startswith('<part') for name in top) + 1}>"] = float(
            e["logprob"]
        )
    chosen = float(entry["logprob"])
    if chosen <= UNTOLD:
        raise ValueError("no log probability is told")
    nameless = next(
        (name for name, value in top.items() if name.startswith("<part") and value == chosen), "<part of a character>"
    )
    return TokenLogprobs(_name(entry) or nameless, chosen, top)


def _name(entry: dict[str, Any]) -> str:
    """What tells a token from every other: the engine's id where the request asked for it, the bytes, the text.

    A part of a character has no text of its own; vLLM sends neither text nor bytes then (0.32), llama-cpp-python no
    bytes (0.3.36): "" for such a one.
    """
    token, raw = str(entry["token"]), entry.get("bytes")
    if TOKEN_ID.fullmatch(token):  # its `bytes` are those of this very text
        return token
    packed = bytes(raw) if isinstance(raw, list) else b""
    try:
        return packed.decode() if packed else token
    except (UnicodeDecodeError, ValueError):
        return f"<{packed.hex()}>"
