"""What a chat reply says, read from the recorded bytes: both envelopes, streamed or not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from gatebook.record.exchange import Exchange


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
    choice_indexes: set[int] = field(default_factory=set)
    """Of every choice that was sent."""
    read_index: int | None = None
    """Of the choice that is read, as clients do that ask for one: the first that was sent."""
    done: bool = False
    """[DONE] was seen; true for a reply that is not streamed."""
    error: str | None = None
    """The server's own error message, from a body or from inside a stream."""
    malformed: str | None = None
    """The first piece that is not the JSON it should be."""

    @property
    def text(self) -> str:
        return self.content or ""

    @property
    def finish_reason(self) -> str | None:
        return self.finish_reasons[-1] if self.finish_reasons else None

    def tokens(self, name: str) -> int | None:
        """`prompt_tokens`, `completion_tokens` or `total_tokens` from usage, when it is a whole number."""
        value = (self.usage or {}).get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_answer(exchange: Exchange) -> Answer:
    """Parse the recorded reply; never raises on what a server may send."""
    answer = Answer()
    if exchange.events is not None:
        for _, data in exchange.events:
            if data.strip() == "[DONE]":
                answer.done = True
            else:
                _add(answer, data, "delta")
    elif exchange.text is not None:
        _add(answer, exchange.text, "message")
        answer.done = True
    answer.content = None if answer.content is None else whole(answer.content)
    answer.reasoning = whole(answer.reasoning)
    answer.tool_calls = [replace(call, arguments=whole(call.arguments)) for call in answer.tool_calls]
    return answer


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


def is_token(data: str) -> bool:
    """Whether an event carries generated text: content, reasoning or tool calls. A role alone is not a token."""
    answer = Answer()
    _add(answer, data, "delta")
    return bool(answer.content or answer.reasoning or answer.tool_calls)


def error_message(body: str | None) -> str:
    """The message of an error body: `{"error": {...}}`, `{"error": "..."}`, flat `{"message": ...}` or `{"detail": ...}`."""
    body = whole(body or "")
    parsed = parse(body)
    if not isinstance(parsed, dict):
        return " ".join(body.split())[:200]
    inner = parsed.get("error", parsed)
    if isinstance(inner, dict):
        inner = inner.get("message") or inner.get("detail") or inner
    return whole(" ".join(str(inner).split())[:200])


@lru_cache(maxsize=4096)
def parse(text: str) -> Any:
    """The JSON value of a text, or None. Callers must not change what they get."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _add(answer: Answer, data: str, part: str) -> None:
    piece = parse(data)
    if not isinstance(piece, dict):
        answer.malformed = answer.malformed or (whole(data[:120]) or "an empty body")
        return
    if piece.get("error") or piece.get("object") == "error":
        answer.error = answer.error or error_message(data)
    if isinstance(piece.get("id"), str):
        answer.ids.add(whole(piece["id"]))
    answer.created = piece["created"] if isinstance(piece.get("created"), int) else answer.created
    answer.model = whole(piece["model"]) if isinstance(piece.get("model"), str) else answer.model
    answer.usage = piece["usage"] if isinstance(piece.get("usage"), dict) else answer.usage
    choices = piece.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return
    answer.choices += 1
    sent: dict[int, dict[str, Any]] = {}
    for at, one in enumerate(choices):
        if isinstance(one, dict):
            sent.setdefault(_index(one, at), one)
    answer.choice_indexes |= sent.keys()
    answer.read_index = next(iter(sent)) if answer.read_index is None else answer.read_index
    choice = sent.get(answer.read_index)
    if choice is None:  # a chunk of another choice
        return
    if choice.get("finish_reason"):
        answer.finish_reasons.append(whole(str(choice["finish_reason"])))
    message = choice.get(part)
    if not isinstance(message, dict):
        return
    if isinstance(message.get("content"), str):
        answer.content = (answer.content or "") + message["content"]
    elif message.get("content") is not None:
        answer.malformed = answer.malformed or f"content is {type(message['content']).__name__}, not text"
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str):
            answer.reasoning += message[name]
            break
    calls = message.get("tool_calls")
    for number, call in enumerate(calls if isinstance(calls, list) else []):
        _add_call(answer, call, number)


def _index(choice: dict[str, Any], at: int) -> int:
    """The choice's own index; where it has none, its place."""
    index = choice.get("index")
    return index if isinstance(index, int) and not isinstance(index, bool) else at


def _add_call(answer: Answer, call: Any, number: int) -> None:
    """Join one piece of a tool call: the first name and id stay, arguments are appended."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        answer.malformed = answer.malformed or f"a tool call is no object with a function: {str(call)[:60]}"
        return
    if not isinstance(function.get("arguments"), str | None):
        answer.malformed = (
            answer.malformed or f"arguments of a tool call are {type(function['arguments']).__name__}, not text"
        )
        return
    index = call.get("index")
    at = index if isinstance(index, int) and 0 <= index < 1000 else number
    answer.tool_calls += [ToolCall()] * (at + 1 - len(answer.tool_calls))
    old = answer.tool_calls[at]
    answer.tool_calls[at] = replace(
        old,
        name=old.name or whole(str(function.get("name") or "")),
        arguments=old.arguments + (function.get("arguments") or ""),
        id=old.id or whole(str(call.get("id") or "")),
    )
