"""Failing cases in full, for a person: prompt, answer, reason. What a model said is shown as text and never as markup."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from gatebook.checks.finding import Finding
from gatebook.record.answer import Answer
from gatebook.record.exchange import Exchange
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.report.text import both_ends, visible

LONGEST = 1500


class Examples:
    """The failing cases of a notebook; shows itself as HTML in a notebook and as text elsewhere."""

    def __init__(self, run: Run, notebook: str, findings: list[Finding], most: int = 12) -> None:
        red = [f for f in findings if f.outcome != "pass"]
        ids = list(dict.fromkeys(f.case for f in red if f.case in run.cases))
        self._more = max(len(ids) - most, 0)
        exchanges = run.exchanges(notebook)
        self._items = [
            (run.cases[i], [f for f in red if f.case == i], [e for e in exchanges if e.case == i and e.kind == "ask"])
            for i in ids[:most]
        ]

    def __repr__(self) -> str:
        if not self._items:
            return "no failing case"
        blocks = []
        for case, findings, exchanges in self._items:
            lines = [f"── {case.id} ({case.group}): {case.why}", *(f"   {f.outcome}: {f.reason}" for f in findings)]
            for exchange in exchanges:
                lines += [f"   [{exchange.ask}] {name}: {text}" for name, text in _turns(exchange)]
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks) + self._rest()

    def _repr_html_(self) -> str:
        if not self._items:
            return "<p>No failing case.</p>"
        parts = []
        for case, findings, exchanges in self._items:
            reasons = "".join(f"<li><b>{escape(f.outcome)}</b> {escape(f.reason)}</li>" for f in findings)
            turns = "".join(
                f"<dt>{escape(exchange.ask)} · {escape(name)}</dt><dd><pre style='white-space:pre-wrap'>{escape(text)}</pre></dd>"
                for exchange in exchanges
                for name, text in _turns(exchange)
            )
            head = f"<h4>{escape(case.id)} <small>{escape(case.group)}</small></h4><p>{escape(case.why)}</p>"
            parts.append(f"<section>{head}<ul>{reasons}</ul><dl>{turns}</dl></section>")
        return "".join(parts) + (f"<p>{escape(self._rest().strip())}</p>" if self._more else "")

    def _rest(self) -> str:
        return f"\n\nand {self._more} more failing cases: see the evidence table" if self._more else ""


def _turns(exchange: Exchange) -> list[tuple[str, str]]:
    turns = [(str(m.get("role")), _text(m.get("content"))) for m in exchange.messages]
    answer = read_answer(exchange)
    said = exchange.detail or answer.content or answer.reasoning or _calls(answer) or exchange.text or ""
    turns.append((f"answer ({answer.finish_reason or exchange.fault or 'no finish_reason'})", _text(said)))
    return turns


def _calls(answer: Answer) -> str:
    return "\n".join(f"calls {call.name}({call.arguments})" for call in answer.tool_calls)


def _text(value: Any) -> str:
    """The text, shortened, with control and direction-changing characters made visible."""
    return visible(both_ends(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), LONGEST)[0])
