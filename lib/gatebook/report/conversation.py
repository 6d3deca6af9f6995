"""Exchanges as a person reads them: bubbles, and two answers side by side. What a model said is text and never markup."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from html import escape
from typing import Any

from gatebook.checks.finding import Finding
from gatebook.config.cases import Case
from gatebook.record.answer import Answer
from gatebook.record.exchange import Exchange
from gatebook.record.journal import long_name
from gatebook.record.replies import read_answer
from gatebook.report.standing import CaseStanding
from gatebook.report.text import both_ends, excerpt, visible

LONGEST = 6000
MOST_PIECES = 4000
"""Longer answers are compared line by line: difflib is quadratic."""
PIECE = re.compile(r"[A-Za-z0-9_]+|\s+|.", re.DOTALL)
COLOURS = {"system": "#8886", "user": "#4a90d940", "assistant": "#7cb34240"}
MARKS = {"-": "#e5393550", "+": "#43a04750"}
BOX = "border-radius:8px;padding:.4em .7em;margin:.3em 0;max-width:60em"
PRE = "white-space:pre-wrap;overflow-wrap:anywhere;margin:0;background:none"
IGNORED = "tex2jax_ignore mathjax_ignore"
"""Jupyter would set a model's dollar signs as formulas."""


@dataclass(frozen=True)
class Answered:
    """One exchange with what the checks say of its case; shows itself as a conversation."""

    case: str
    run: str
    exchange: Exchange
    findings: list[Finding] = field(default_factory=list)
    why: str = ""
    note: str = ""

    @property
    def text(self) -> str:
        return read_answer(self.exchange).text

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.exchange.messages

    @property
    def label(self) -> str:
        return f"{self.case} · {self.exchange.ask}, {self.note or self.run}"

    def __repr__(self) -> str:
        lines = [f"── {self.label}: {visible(self.why)}".rstrip(": ")]
        lines += [f"   {f.outcome}: {visible(f.reason)}" for f in self.findings]
        return "\n".join(
            [*lines, *(f"   [{role}] {_shown(text)}" for role, text in self.turns()), f"   {self.facts()}"]
        )

    def _repr_html_(self) -> str:
        return f"<div class='{IGNORED}'>{self.html()}</div>"

    def html(self) -> str:
        reasons = "".join(f"<li><b>{escape(f.outcome)}</b> {_safe(f.reason)}</li>" for f in self.findings)
        bubbles = "".join(
            _bubble(role, f"<pre style='{PRE}'>{_safe(_shown(text))}</pre>") for role, text in self.turns()
        )
        head = f"<h4>{_safe(self.label)}</h4><p>{_safe(self.why)}</p><ul>{reasons}</ul>"
        return f"{head}{bubbles}<p><small>{_safe(self.facts())}</small></p>"

    def turns(self) -> list[tuple[str, str]]:
        """(role, text) of everything that was said, the answer last."""
        said = [(str(m.get("role")), _words(m.get("content"))) for m in self.messages]
        said = said or [("asked", f"{self.exchange.method} {self.exchange.path}")]
        answer = read_answer(self.exchange)
        if answer.reasoning:
            said.append(("reasoning", answer.reasoning))
        text = answer.text or self.exchange.detail or self.exchange.text or ""
        return [*said, ("assistant", text or "(nothing)")]

    def facts(self) -> str:
        """Status, finish_reason, times in ms and tokens, as far as they are known."""
        exchange, answer = self.exchange, read_answer(self.exchange)
        timing = exchange.timing
        known: list[tuple[str, Any]] = [
            ("HTTP", exchange.status), ("fault", exchange.fault), ("finish_reason", answer.finish_reason),
            ("TTFT ms", timing and timing.first_token_ms), ("whole answer ms", timing and timing.end_ms),
            *((name.replace("_", " "), answer.tokens(name)) for name in ("prompt_tokens", "completion_tokens")),
            ("attempts", len(exchange.attempts) if len(exchange.attempts) > 1 else None),
        ]  # fmt: skip
        shown = ((name, f"{value:.0f}" if isinstance(value, float) else value) for name, value in known)
        return " · ".join(f"{name} {value}" for name, value in shown if value is not None)


class Shown(list[Answered]):
    """Several exchanges, one below the other."""

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self))

    def _repr_html_(self) -> str:
        return f"<div class='{IGNORED}'>{'<hr>'.join(one.html() for one in self)}</div>"


@dataclass(frozen=True)
class Compared:
    """Two answers side by side; what only one of them says is marked."""

    a: Answered
    b: Answered

    def __repr__(self) -> str:
        if self.a.text == self.b.text:
            return f"the same {len(self.a.text)} characters: {self.a.label} and {self.b.label}"
        lines = difflib.unified_diff(
            visible(self.a.text).splitlines(),
            visible(self.b.text).splitlines(),
            self.a.label,
            self.b.label,
            lineterm="",
        )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        left, right = marked(self.a.text, self.b.text)
        same = "<p>The same text.</p>" if self.a.text == self.b.text else ""
        cells = "".join(
            f"<div style='flex:1;min-width:18em'>{_side(one, text)}</div>"
            for one, text in ((self.a, left), (self.b, right))
        )
        return f"<div class='{IGNORED}'>{same}<div style='display:flex;gap:1em;flex-wrap:wrap'>{cells}</div></div>"


def marked(a: str, b: str) -> tuple[str, str]:
    """Both texts as safe HTML, with a mark on what the other one does not say."""
    left, right = PIECE.findall(visible(a)), PIECE.findall(visible(b))
    if max(len(left), len(right)) > MOST_PIECES:
        left, right = visible(a).splitlines(keepends=True), visible(b).splitlines(keepends=True)
    out: tuple[list[str], list[str]] = ([], [])
    for tag, a1, a2, b1, b2 in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for side, sign, piece in ((0, "-", "".join(left[a1:a2])), (1, "+", "".join(right[b1:b2]))):
            text = escape(piece)
            out[side].append(
                text
                if tag == "equal" or not piece
                else f"<mark style='background:{MARKS[sign]};color:inherit'>{text}</mark>"
            )
    return "".join(out[0]), "".join(out[1])


def _side(one: Answered, text: str) -> str:
    said = "; ".join(dict.fromkeys(f"{f.outcome}: {f.reason}" for f in one.findings if f.outcome != "pass"))
    bubble = _bubble("assistant", f"<pre style='{PRE}'>{text}</pre>")
    return f"<b>{_safe(one.label)}</b>{bubble}<p><small>{_safe(one.facts())}<br>{_safe(said)}</small></p>"


def _bubble(role: str, inner: str) -> str:
    colour = COLOURS.get(role, "#8883")
    side = "margin-left:4em" if role == "user" else "margin-right:4em"
    return f"<div style='background:{colour};{BOX};{side}'><small>{_safe(role)}</small>{inner}</div>"


def _words(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _shown(text: str) -> str:
    head, more = excerpt(text, LONGEST)
    return visible(head) + (f" … ({more} more characters in the record)" if more else "")


def _safe(text: str) -> str:
    return escape(visible(text))


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
