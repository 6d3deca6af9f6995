"""From one entry of a case file to the cases that it stands for: `each`, `{{placeholders}}`, seeds, minutes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import product
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from gatebook.config.files import Strict
from gatebook.config.minutes import fill_in
from gatebook.errors import BadInput


def rows_of(entry: dict[str, Any], where: str) -> Iterable[dict[str, Any]]:
    """One mapping a case: `each` as a list of rows, as lists by name (all combinations), or as seeds. Raises BadInput."""
    template = {key: value for key, value in entry.items() if key != "each"}
    if "each" not in entry:
        yield template
        return
    rows = entry["each"]
    if isinstance(rows, dict) and "seeds" in rows:
        rows = _seeds(rows, where)
    elif isinstance(rows, dict) and rows and all(isinstance(column, list) and column for column in rows.values()):
        rows = [dict(zip(rows, values, strict=True)) for values in product(*rows.values())]
    if not isinstance(rows, list) or not rows:
        raise BadInput(
            f"{where}: key 'each' is empty; it is a list of rows, one case a row, or lists by name for all their combinations"
        )
    for row in rows:
        if not isinstance(row, dict):
            raise BadInput(f"{where}: key 'each' has row {row!r}; a row is a mapping of names to values")
        filled = _fill(template, row, where)
        yield {**filled, **({"suites": row["suites"]} if "suites" in row else {})}


def _seeds(each: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """`each: {seeds: [1, 500]}` is 500 rows with a column `seed`."""
    given = each.get("seeds")
    if set(each) != {"seeds"} or not (
        isinstance(given, list) and len(given) == 2 and all(type(n) is int for n in given) and given[0] <= given[1]
    ):
        raise BadInput(f"{where}: key 'each' has value {each!r}; a list of rows, or {{seeds: [first, last]}}")
    return [{"seed": seed} for seed in range(given[0], given[1] + 1)]


def with_minutes(row: dict[str, Any], where: str) -> dict[str, Any]:
    """The case with its minutes written, where it has a seed for some. Raises BadInput."""
    if "minutes" not in row:
        return row
    try:
        return fill_in(row)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["minutes", *map(str, first["loc"])])
        raise BadInput(f"{where}: key {key!r} has value {first['input']!r}: {first['msg']}; correct it") from None


def _fill(value: Any, row: dict[str, Any], where: str) -> Any:
    if isinstance(value, dict):
        return {_fill(k, row, where): _fill(v, row, where) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, row, where) for v in value]
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> Any:
        if match[1] not in row:
            raise BadInput(
                f"{where}: '{{{{{match[1]}}}}}' names no column of `each` (row {row.get('key', row)!r}); add it"
            )
        return row[match[1]]

    if whole := re.fullmatch(r"\{\{(\w+)\}\}", value):
        return look_up(whole)
    return re.sub(r"\{\{(\w+)\}\}", lambda match: str(look_up(match)), value)


PLACE = "{repeat}"
"""Where messages and options take the text."""


class Repeat(Strict):
    """`text` so many times, or so often that it cannot fit the served context."""

    text: Annotated[str, Field(min_length=1)]
    times: int | None = Field(default=None, ge=1)
    contexts: float | None = Field(default=None, gt=0)
    """Instead of `times`: its words alone are this many times the served context. A word is one token at least."""

    @model_validator(mode="after")
    def _whole(self) -> Repeat:
        if (self.times is None) == (self.contexts is None):
            raise ValueError("takes either times or contexts")
        if self.contexts is not None and not self.text.split():
            raise ValueError("contexts counts words, and the text has none")
        return self

    def count(self, context_tokens: int | None) -> int | None:
        """How often the text stands there; None when that depends on a context that nobody tells."""
        if self.contexts is None:
            return self.times
        return (
            None if context_tokens is None else math.ceil(self.contexts * context_tokens / len(self.text.split())) + 1
        )


def filled(value: Any, text: str, place: str = PLACE) -> Any:
    """The messages or options with the text in its place."""
    if isinstance(value, dict):
        return {key: filled(inner, text, place) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, text, place) for inner in value]
    return value.replace(place, text) if isinstance(value, str) else value
