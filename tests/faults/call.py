"""One request on its way through the fault proxy, and its answer as a sequence of events.

The events are the SSE events of a stream, or the one JSON body of a plain answer. A transform takes that sequence and
yields another, so nothing waits for the end of a stream, and transforms compose in their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
JSON_EVENT = re.compile(rb"((?:.*\n)?data: ?|\s*)(\{.*\})(\s*)", re.DOTALL)


class Abort(Exception):
    """The server breaks the connection here."""


def dump(document: Json) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass
class Event:
    """One SSE event, or the whole body of a plain answer; `document` is None when it is not a JSON object."""

    raw: bytes
    document: Json | None = None
    head: bytes = b""
    tail: bytes = b""
    promised_bytes: int | None = None
    """Content-Length of a plain answer, where it is not the length of this event."""

    @classmethod
    def parse(cls, raw: bytes) -> Event:
        match = JSON_EVENT.fullmatch(raw)
        try:
            return cls(raw, json.loads(match[2]), match[1], match[3]) if match else cls(raw)
        except ValueError:
            return cls(raw)

    def encode(self) -> bytes:
        return self.raw if self.document is None else self.head + dump(self.document) + self.tail

    def choices(self) -> Iterator[tuple[Json, Json]]:
        """(choice, its delta or message)."""
        for choice in (self.document or {}).get("choices") or []:
            yield choice, choice.get("delta") or choice.get("message") or {}

    def has_content(self) -> bool:
        return any(part.get("content") for _, part in self.choices())

    def finishes(self) -> bool:
        return any(choice.get("finish_reason") for choice, _ in self.choices())


Events = AsyncIterator[Event]
Transform = Callable[[Events], Events]
Rewriter = Callable[[str, bool], str]
"""(next piece of the content, is it the last) -> what is said instead. The last piece may be empty."""


@dataclass
class Reply:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass(eq=False)
class Call:
    """One request on its way through the proxy."""

    path: str
    text: str
    body: Json
    reply: Reply | None = None
    transforms: list[Transform] = field(default_factory=list)
    delay_s: float = 0.0
    slice_bytes: int | None = None
    authorization: str = ""
    closes_silently: bool = False
    kills_server: bool = False

    @property
    def streaming(self) -> bool:
        return self.body.get("stream") is True

    @property
    def messages(self) -> list[Any]:
        found = self.body.get("messages")
        return found if isinstance(found, list) else []

    def contains(self, needle: str) -> bool:
        return needle in self.text or needle in json.dumps(self.body, ensure_ascii=False)

    def refuse(self, status: int, kind: str, message: str, **headers: str) -> None:
        """Answers with the error envelope of newer vLLM."""
        error = {"message": message, "type": kind, "param": None, "code": status}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.reply = Reply(status, dump({"error": error}), {"Content-Type": "application/json"} | named)

    def edit(self, change: Callable[[Json], None]) -> None:
        """Changes each JSON document of the answer in place."""

        async def transform(events: Events) -> Events:
            async for event in events:
                if event.document is not None:
                    change(event.document)
                yield event

        self.transforms.append(transform)

    def edit_parts(self, change: Callable[[Json], None]) -> None:
        """Changes each delta (or the message) that bears content."""

        async def transform(events: Events) -> Events:
            async for event in events:
                for _, part in event.choices():
                    if part.get("content"):
                        change(part)
                yield event

        self.transforms.append(transform)

    def rewrite(self, make: Callable[[], Rewriter]) -> None:
        """Replaces the content, with one rewriter a choice; what is left over is sent before the finish chunk."""

        async def transform(events: Events) -> Events:
            rewriters: dict[int, Rewriter] = {}
            async for event in events:
                silenced = False
                for choice, part in event.choices():
                    old, last = part.get("content") or "", "message" in choice or bool(choice.get("finish_reason"))
                    if part.get("tool_calls") or choice.get("finish_reason") == "tool_calls" or not (old or last):
                        continue
                    index = choice.get("index", 0)
                    new = rewriters.setdefault(index, make())(old, last)
                    if old or "message" in choice:
                        part["content"] = new
                        silenced = not new and not last
                    else:
                        for extra in _content_events(event, index, new):
                            yield extra
                if not silenced:
                    yield event

        self.transforms.append(transform)


def _content_events(finish: Event, index: int, text: str, chars: int = 8) -> Iterator[Event]:
    """Content chunks like the server's own, built from its finish chunk."""
    shared = {name: value for name, value in (finish.document or {}).items() if name not in ("usage", "timings")}
    for start in range(0, len(text), chars):
        delta = {"content": text[start : start + chars]}
        choice = {"index": index, "delta": delta, "finish_reason": None}
        yield Event(b"", shared | {"choices": [choice]}, finish.head, finish.tail)
