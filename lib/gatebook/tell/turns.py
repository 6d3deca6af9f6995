"""A case as a conversation: what was sent and what came back, request by request, shortened for a page."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from gatebook.plan.cases import Case
from gatebook.record.answer import Answer, read_answer
from gatebook.record.exchange import Exchange
from gatebook.record.texts import long_name
from gatebook.tell.standing import CaseStanding
from gatebook.tell.text import both_ends

NOT_OPTIONS = ("messages", "model", "stream", "stream_options", "user")


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, shortened."""

    kind: str
    """prompt, answer or trouble."""
    who: str
    text: str
    more: int
    """Characters that were left out."""
    link: str = ""
    """The file in the run folder with the whole text, where it is long enough to have one."""

    @property
    def lang(self) -> str:
        """Han, kana and hangul need fonts of their own; the right ones are chosen by language."""
        for name, letters in (("ja", "\u3040-\u30ff"), ("ko", "\uac00-\ud7af"), ("zh", "\u3400-\u9fff")):
            if re.search(f"[{letters}]", self.text):
                return name
        return ""


@dataclass(frozen=True)
class Request:
    """One request of a case with its reply."""

    name: str
    turns: list[Turn]
    facts: list[str]
    options: str
    """The request's options as JSON."""


def conversation(case: CaseStanding, most: int) -> list[Request]:
    """What was said in a case, request by request. A canary (the plain request after it) only where it broke."""
    asked = [e for e in case.exchanges if e.kind in ("ask", "ready") or (e.kind == "canary" and e.fault)]
    if not asked and case.case:
        return _never_asked(case.case, most)
    return [_request(e, (e.ask or e.kind) if len(asked) > 1 else "", most) for e in asked]


def _never_asked(case: Case, most: int) -> list[Request]:
    return [
        Request(ask.name if case.asks else "", _prompt(ask.messages or [], ask.path, most), ["never asked"], "")
        for ask in case.requests()
    ]


def _request(exchange: Exchange, name: str, most: int) -> Request:
    answer, body = read_answer(exchange), exchange.body or {}
    turns = _prompt(exchange.messages, None if exchange.body else exchange.path, most)
    turns += _reply(exchange, answer, most)
    options = {key: value for key, value in body.items() if key not in NOT_OPTIONS}
    return Request(name, turns, _facts(exchange, answer), pretty(options)[:most] if options else "")


def _prompt(messages: list[dict[str, Any]], path: str | None, most: int) -> list[Turn]:
    if path is not None:
        return [Turn("prompt", "request", f"GET {path}", 0)]
    return [_turn("prompt", str(m.get("role")), m.get("content"), most) for m in messages]


def _reply(exchange: Exchange, answer: Answer, most: int) -> list[Turn]:
    turns = [_turn("answer", "reasoning field", answer.reasoning, most)] if answer.reasoning else []
    calls = "\n".join(f"{call.name}({call.arguments})" for call in answer.tool_calls)
    if calls:
        turns.append(_turn("answer", "tool calls", calls, most))
    if answer.content is not None:
        turns.append(_turn("answer", "answer", answer.content if answer.content else "(empty)", most))
    elif exchange.text:
        turns.append(_turn("answer", "reply as received", exchange.text, most))
    elif not exchange.fault and not calls:
        turns.append(_turn("answer", "answer", "(no content)", most))
    said = [exchange.detail] if exchange.detail else []
    said += [answer.error] if answer.error and answer.error not in exchange.detail else []
    said += [answer.malformed] if answer.malformed else answer.flaws
    return turns + ([_turn("trouble", "what went wrong", "\n".join(said), most)] if said else [])


def _facts(exchange: Exchange, answer: Answer) -> list[str]:
    """The numbers of a reply, in words."""
    timing, tokens = exchange.timing, {k: answer.tokens(f"{k}_tokens") for k in ("prompt", "completion")}
    facts = [
        f"HTTP {exchange.status}" if exchange.status else "no HTTP status",
        f"finish_reason {answer.finish_reason}" if answer.finish_reason else "",
        f"{tokens['prompt']:,} prompt tokens" if tokens["prompt"] is not None else "",
        f"{tokens['completion']:,} answer tokens" if tokens["completion"] is not None else "",
        f"first token {_time(timing.first_token_ms)}" if timing and timing.first_token_ms is not None else "",
        f"complete {_time(timing.end_ms)}" if timing and timing.end_ms is not None else "",
        f"{len(answer.tool_calls)} tool calls" if answer.tool_calls else "",
        f"{len(exchange.attempts)} attempts on the wire" if len(exchange.attempts) > 1 else "",
    ]
    return [fact for fact in facts if fact]


def _time(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def _turn(kind: str, who: str, content: object, most: int) -> Turn:
    text = content if isinstance(content, str) else pretty(content)
    short, more = both_ends(text, most)
    return Turn(kind, who[:60], short, more, f"texts/{name}.txt" if more and (name := long_name(text)) else "")


def pretty(value: object) -> str:
    """JSON for a person."""
    return json.dumps(value, ensure_ascii=False, indent=1)
