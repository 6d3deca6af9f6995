"""What of a run's prompts and answers stands in published files: every stretch of a few words is looked for."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gatebook.record.replies import read_answer
from gatebook.record.run import Run

LATIN, CJK = 24, 10
"""Characters in a row that are a quotation: some four words."""


def leaks(run: Run, published: Path, *more: str) -> dict[str, list[str]]:
    """File (or `said`) -> stretches of what was asked and answered in the run that stand in it."""
    wanted = {stretch for text in texts(run) for stretch in stretches(text)}
    files = {
        p.relative_to(published).as_posix(): p.read_bytes().decode("utf-8", "replace")
        for p in published.rglob("*")
        if p.is_file()
    }
    found = {
        name: sorted({*readings(text)} & wanted)[:5]
        for name, text in [*files.items(), *(("said", text) for text in more)]
    }
    return {name: said for name, said in found.items() if said}


def texts(run: Run) -> Iterator[str]:
    """Everything that was asked and answered."""
    for exchange in (e for notebook in run.notebooks for e in run.exchanges(notebook)):
        answer = read_answer(exchange)
        yield from strings([(exchange.body or {}).get("messages"), answer.content, answer.reasoning])
        yield from (call.arguments for call in answer.tool_calls)
    for case in run.cases.values():
        yield from strings([[ask.messages for ask in case.requests()], case.good, case.bad])


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def readings(text: str) -> Iterator[str]:
    """The stretches of a file as it is, and with the escapes of JSON and HTML undone."""
    for reading in {text, html.unescape(text), unescaped(text), html.unescape(unescaped(text))}:
        yield from stretches(reading)


def unescaped(text: str) -> str:
    for _ in range(3):
        text = text.replace("\\\\", "\\").replace('\\"', '"').replace("\\n", "\n")
    return text


def stretches(text: str) -> Iterator[str]:
    flat = " ".join(text.split())
    for at in range(len(flat)):
        size = CJK if "\u3040" <= flat[at] <= "\u9fff" or "\uac00" <= flat[at] <= "\ud7af" else LATIN
        if len(stretch := flat[at : at + size]) == size:
            yield stretch
