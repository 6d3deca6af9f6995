"""The form of an answer that people and programs read: a Markdown table with its header, a list of so many items."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from gatebook.judge.checks.registry import Params, check, each_text
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, Stage

Name = Annotated[str, Field(min_length=1)]
SEPARATOR = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?")
ITEM = re.compile(r"\s*(?:[-*+•]\s+|\d{1,3}[.)](?!\d)\s*|\d{1,3}、\s*|[（(]\d{1,3}[)）]\s*)(?=\S)")


class Table(Params):
    columns: list[Name | Annotated[list[Name], Field(min_length=1)]] = Field(min_length=1)
    """Each in the header row, in any order; of several names one is enough. Case and emphasis do not count."""


class Items(Params):
    count: int = Field(ge=1)


@check("markdown_table", Table, stage=Stage.BEHAVIOUR)
def markdown_table(evidence: Evidence, params: Table) -> Result:
    """A table with a header row that names the columns, a separator row under it and at least one row of data.

    Source: GitHub Flavored Markdown, 4.10 Tables: header and separator must have as many cells as each other.
    """
    names = [[name] if isinstance(name, str) else name for name in params.columns]
    limit = " | ".join(name[0] for name in names)

    def judge(text: str) -> Result:
        lines = [line.strip() for line in text.splitlines()]
        at = next((n for n, line in enumerate(lines) if "|" in line and SEPARATOR.fullmatch(line)), None)
        if at is None:
            said = "a table without a separator row under a header" if _rows(lines) else "no Markdown table"
            return Result("fail", said, None, limit)
        header = _cells(lines[at - 1]) if at and "|" in lines[at - 1] else []
        if not header:
            return Result("fail", "the table has no header row", None, limit)
        shown = " | ".join(header)
        if len(header) != len(_cells(lines[at])):
            return Result("fail", f"the separator does not fit the header {shown!r}", shown, limit)
        missing = [name[0] for name in names if not any(_same(one, cell) for one in name for cell in header)]
        if missing:
            return Result(
                "fail",
                f"{len(missing)} of {len(names)} columns missing in the header: {', '.join(missing)}",
                shown,
                limit,
            )
        if at + 1 >= len(lines) or "|" not in lines[at + 1]:
            return Result("fail", f"nothing stands under the header {shown!r}", shown, limit)
        return Result("pass", f"header row {shown!r}", shown, limit)

    return each_text(evidence, judge)


@check("list_items", Items, stage=Stage.BEHAVIOUR)
def list_items(evidence: Evidence, params: Items) -> Result:
    """So many list items (`-`, `*`, `1.`, `1)`, `1、`), each on a line of its own; lines between them do not count."""

    def judge(text: str) -> Result:
        count = sum(ITEM.match(line) is not None for line in text.splitlines())
        ok = count == params.count
        return Result(
            "pass" if ok else "fail", f"{count} list items, {params.count} expected", count, params.count, "items"
        )

    return each_text(evidence, judge)


def _rows(lines: list[str]) -> int:
    return sum(line.count("|") >= 2 for line in lines)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _same(name: str, cell: str) -> bool:
    return name.casefold() == re.sub(r"[*_`\s]+", " ", cell).strip().casefold()
