"""A case as a conversation: what was asked, what came back, in what time. What a model said is text and never markup."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gatebook.checks.finding import Finding
from gatebook.config.cases import Case
from gatebook.record.answer import Answer
from gatebook.record.exchange import Exchange, Timing
from gatebook.record.journal import long_name
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.report.standing import CaseStanding, standings
from gatebook.report.text import both_ends, pretty, render, visible
from gatebook.verdict.verdict import Verdict

if TYPE_CHECKING:
    from markupsafe import Markup

LONGEST, LONGEST_OF_MANY = 6000, 1500
"""Characters of a text that a notebook shows."""
MOST_PIECES = 4000
"""Longer answers are compared line by line: difflib is quadratic."""
PIECE = re.compile(r"[A-Za-z0-9_]+|\s+|.", re.DOTALL)
MARKS = ("#e5393550", "#43a04750")
"""Behind what only the first, and only the second text says."""
NOT_OPTIONS = ("messages", "model", "stream", "stream_options", "user")
LANGUAGES = {"ja": "[\u3040-\u30ff]", "ko": "[\uac00-\ud7af]", "zh": "[\u3400-\u9fff]"}
"""Han, kana and hangul need fonts of their own; the right ones are chosen by language."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, shortened."""

    kind: str
    """prompt, answer or trouble."""
    who: str
    text: str
    more: int = 0
    """Characters that were left out."""
    link: str = ""
    """The file in the run folder with the whole text, where it is long enough to have one."""
    lang: str = ""


@dataclass(frozen=True)
class Request:
    """One request of a case with its reply."""

    name: str
    turns: list[Turn]
    facts: list[str]
    options: str = ""
    """The request's options as JSON."""


def conversation(case: CaseStanding, most: int) -> list[Request]:
    """Return what was said in a case, request by request. A canary (the plain request after it) only where it broke."""
    asked = [e for e in case.exchanges if e.kind in ("ask", "parent", "ready") or (e.kind == "canary" and e.fault)]
    if case.case and case.case.scored:
        return [_given(case.case, e, most) for e in asked]
    if asked or not case.case:
        return [read_request(e, (e.ask or e.kind) if len(asked) > 1 else "", most) for e in asked]
    return [
        Request(ask.name if case.case.asks else "", _prompt(ask.messages or [], ask.path, most), ["never asked"])
        for ask in case.case.requests()
    ]


def read_request(exchange: Exchange, name: str = "", most: int = LONGEST) -> Request:
    """Read an exchange, its texts shortened to `most` characters."""
    answer, body = read_answer(exchange), exchange.body or {}
    turns = _prompt(exchange.messages, None if exchange.body else exchange.path, most)
    turns += [_turn(*said, most) for said in _reply(exchange, answer) if said[2]]
    options = {key: value for key, value in body.items() if key not in NOT_OPTIONS}
    return Request(name, turns, _facts(exchange, answer), pretty(options)[:most] if options else "")


def _given(case: Case, exchange: Exchange, most: int) -> Request:
    """A golden answer that was given to the server, with what went wrong; its tokens and their values stand in the record."""
    turns = [*_prompt(case.messages, None, most), _turn("answer", "golden answer, given to it", case.golden[0], most)]
    turns += [_turn("trouble", "what went wrong", exchange.detail, most)] if exchange.detail else []
    return Request("", turns, _facts(exchange, read_answer(exchange)))


def _prompt(messages: list[dict[str, Any]], path: str | None, most: int) -> list[Turn]:
    if path is not None:
        return [Turn("prompt", "request", f"GET {path}")]
    return [_turn("prompt", str(m.get("role")), m.get("content"), most) for m in messages]


def _reply(exchange: Exchange, answer: Answer) -> list[tuple[str, str, str]]:
    """(kind, who, text); an empty text is not shown."""
    calls = "\n".join(f"{call.name}({call.arguments})" for call in answer.tool_calls)
    if answer.content is not None:
        said = ("answer", "answer", answer.content or "(empty)")
    elif exchange.text:
        said = ("answer", "reply as received", exchange.text)
    else:
        said = ("answer", "answer", "(no content)" if exchange.status and not exchange.fault and not calls else "")
    wrong = [exchange.detail, answer.error if answer.error and answer.error not in exchange.detail else ""]
    wrong += [answer.malformed] if answer.malformed else answer.flaws
    return [
        ("answer", "reasoning field", answer.reasoning),
        ("answer", "tool calls", calls),
        said,
        ("trouble", "what went wrong", "\n".join(filter(None, wrong))),
    ]


def _turn(kind: str, who: str, content: object, most: int) -> Turn:
    text = content if isinstance(content, str) else pretty(content)
    short, more = both_ends(text, most)
    link = f"texts/{name}.txt" if more and (name := long_name(text)) else ""
    lang = next((name for name, letters in LANGUAGES.items() if re.search(letters, short)), "")
    return Turn(kind, who[:60], short, more, link, lang)


def _facts(exchange: Exchange, answer: Answer) -> list[str]:
    """The numbers of a reply, in words."""
    timing, attempts = exchange.timing or Timing(queued_ms=0), len(exchange.attempts)
    facts: list[tuple[str, Any]] = [
        ("HTTP {}" if exchange.status else "no HTTP status", exchange.status or ""),
        ("finish_reason {}", answer.finish_reason or None),
        ("{:,} prompt tokens", answer.tokens("prompt_tokens")),
        ("{:,} answer tokens", answer.tokens("completion_tokens")),
        ("first token {}", _time(timing.first_token_ms)),
        ("complete {}", _time(timing.end_ms)),
        ("{} tool calls", len(answer.tool_calls) or None),
        ("{} attempts on the wire", attempts if attempts > 1 else None),
    ]
    return [words.format(value) for words, value in facts if value is not None]


def _time(ms: float | None) -> str | None:
    return None if ms is None else f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


@dataclass(frozen=True)
class Answered:
    """One exchange with what the checks say of its case; shows itself as a conversation."""

    case: str
    run: str
    exchange: Exchange
    findings: list[Finding] = field(default_factory=list)
    why: str = ""
    note: str = ""
    most: int = LONGEST

    @property
    def text(self) -> str:
        return read_answer(self.exchange).text

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.exchange.messages

    @property
    def label(self) -> str:
        return f"{self.case} · {self.exchange.ask or self.exchange.kind}, {self.note or self.run}"

    @property
    def request(self) -> Request:
        return read_request(self.exchange, most=self.most)

    def __repr__(self) -> str:
        said = [f"── {self.label}: {self.why}".rstrip(": "), *(f"   {f.outcome}: {f.reason}" for f in self.findings)]
        said += [f"   [{turn.who}] {turn.text}" for turn in self.request.turns]
        return visible("\n".join([*said, "   " + " · ".join(self.request.facts)]))

    def _repr_html_(self) -> str:
        return render("shown.html.j2", shown=[self], note="")


class Shown(list[Answered]):
    """Several exchanges, one below the other, and a line under them."""

    def __init__(self, shown: Iterable[Answered], note: str = "") -> None:
        super().__init__(shown)
        self.note = note

    def __repr__(self) -> str:
        return "\n\n".join([*map(repr, self), *filter(None, [self.note])])

    def _repr_html_(self) -> str:
        return render("shown.html.j2", shown=self, note=self.note)


def failing_cases(run: Run, verdict: Verdict, notebook: str, most: int = 12) -> Shown:
    """The failing cases of a notebook with what was asked and answered; more than `most` are counted."""
    red = [c for c in standings(run, verdict, notebook) if c.case and c.red]
    shown: list[Answered] = []
    for found in red[:most]:
        body = {"messages": run.cases[found.id].messages}
        lost = Exchange(kind="skip", key=found.id, at=run.manifest.created, body=body, detail="(not recorded)")
        first, *more = [e for e in found.exchanges if e.kind in ("ask", "parent")] or [lost]
        shown.append(Answered(found.id, found.group, first, found.red, run.cases[found.id].why, most=LONGEST_OF_MANY))
        shown += [Answered(found.id, found.group, e, most=LONGEST_OF_MANY) for e in more]
    left = f"and {len(red) - most} more failing cases: see the evidence table" if len(red) > most else ""
    return Shown(shown, left if red else "no failing case")


@dataclass(frozen=True)
class Compared:
    """Two answers side by side; what only one of them says is marked."""

    a: Answered
    b: Answered

    def __repr__(self) -> str:
        if self.a.text == self.b.text:
            return f"the same {len(self.a.text)} characters: {self.a.label} and {self.b.label}"
        a, b = (visible(one.text).splitlines() for one in (self.a, self.b))
        return "\n".join(difflib.unified_diff(a, b, self.a.label, self.b.label, lineterm=""))

    def _repr_html_(self) -> str:
        sides = zip((self.a, self.b), marked(self.a.text, self.b.text), strict=True)
        return render("compared.html.j2", sides=sides, same=self.a.text == self.b.text)


def marked(a: str, b: str) -> tuple[Markup, Markup]:
    """Both texts as safe HTML, with a mark on what the other one does not say."""
    from markupsafe import Markup

    left, right = PIECE.findall(visible(a)), PIECE.findall(visible(b))
    if max(len(left), len(right)) > MOST_PIECES:
        left, right = visible(a).splitlines(keepends=True), visible(b).splitlines(keepends=True)
    out = [Markup(), Markup()]
    for tag, a1, a2, b1, b2 in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for side, piece in enumerate(("".join(left[a1:a2]), "".join(right[b1:b2]))):
            mark = "{1}" if tag == "equal" or not piece else "<mark style='background:{0};color:inherit'>{1}</mark>"
            out[side] += Markup(mark).format(MARKS[side], piece)  # noqa: S704 (format escapes)
    return out[0], out[1]
