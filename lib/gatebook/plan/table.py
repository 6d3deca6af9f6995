"""A table of rows with their line numbers, from CSV or JSONL. Every mistake is one line with file, line and column."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatebook.errors import BadInput
from gatebook.plan.strict import read_file

MAX_TABLE_MIB = 64


@dataclass(frozen=True)
class Row:
    where: str
    """`<file>, line <n>`"""
    line: int
    cells: dict[str, Any]
    """Column -> value: texts from CSV, any JSON value from JSONL."""


def read_table(path: Path) -> list[Row]:
    """All rows; at least one, all with the same columns. Raises BadInput."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise BadInput(f"{path}: must be a .csv or a .jsonl file")
    try:
        text = read_file(path, MAX_TABLE_MIB).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8, such as: iconv -f GB18030 -t UTF-8 {path.name}"
        ) from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the path") from None
    rows = list(_csv(path, text) if path.suffix.lower() == ".csv" else _jsonl(path, text))
    if not rows:
        raise BadInput(f"{path}: holds no rows; nothing to import")
    return rows


def _csv(path: Path, text: str) -> Iterator[Row]:
    """RFC 4180; the header names the columns. Separated by comma, semicolon or tab, whichever the header has most of."""
    csv.field_size_limit(
        max(csv.field_size_limit(), len(text))
    )  # 131,072 characters by default: a long document is a cell
    header_line = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header_line.count), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        start = reader.line_num + 1
        for cells in reader:
            where = f"{path}, line {start}"
            if cells and len(cells) != len(header):
                raise BadInput(
                    f"{where}: has {len(cells)} cells for {len(header)} columns; quote cells with separators in them"
                )
            if cells:
                yield Row(where, start, dict(zip(header, cells, strict=True)))
            start = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: not valid CSV ({error}); check its quotes") from None


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise BadInput(f"{path}: is empty; the first line names the columns")
    twice = [name for name, count in Counter(header).items() if count > 1 or not name]
    if twice:
        raise BadInput(f"{path}, line 1: column {twice[0]!r} has no name or stands twice; give every column its own")


def _jsonl(path: Path, text: str) -> Iterator[Row]:
    columns: set[str] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{where}: not valid JSON ({str(error).split(':')[0]}); one object a line") from None
        if not isinstance(value, dict) or not value:
            raise BadInput(f"{where}: is {type(value).__name__}; one object a line")
        columns = columns or set(value)
        if missing := sorted(columns ^ set(value)):
            raise BadInput(
                f"{where}: column {missing[0]!r} is not in every row; write null or an empty text where it is missing"
            )
        yield Row(where, number, value)
