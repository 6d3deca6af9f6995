"""From one entry of a case file to the cases that it stands for: `each`, `{{placeholders}}`, seeds; and a text that is repeated."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import Annotated, Any

from pydantic import Field

from gatebook.config.files import Strict
from gatebook.errors import BadInput

PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def rows_of(entry: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Yield one mapping a case: `each` as a list of rows, as lists by name (all combinations), or as seeds. Raises BadInput."""
    template = {key: value for key, value in entry.items() if key != "each"}
    if "each" not in entry:
        yield template
        return
    for row in _rows(entry["each"], where):
        if not isinstance(row, dict):
            raise BadInput(f"{where}: key 'each' has row {row!r}; a row is a mapping of names to values")
        filled = _filled_in(template, row, where)
        own = {"tags": {**(filled.get("tags") or {}), **row["tags"]}} if isinstance(row.get("tags"), dict) else {}
        yield {**filled, **own, **({"suites": row["suites"]} if "suites" in row else {})}


def _rows(each: Any, where: str) -> list[Any]:
    match each:
        case {"seeds": [first, last]} if len(each) == 1 and type(first) is type(last) is int and first <= last:
            return [{"seed": seed} for seed in range(first, last + 1)]
        case {"seeds": _}:
            raise BadInput(f"{where}: key 'each' has value {each!r}; a list of rows, or {{seeds: [first, last]}}")
        case dict() if each and all(isinstance(column, list) and column for column in each.values()):
            return [dict(zip(each, values, strict=True)) for values in product(*each.values())]
        case [_, *_]:
            return list(each)
    raise BadInput(
        f"{where}: key 'each' is empty; it is a list of rows, one case a row, or lists by name for all their combinations"
    )


def _filled_in(template: dict[str, Any], row: dict[str, Any], where: str) -> dict[str, Any]:
    """The template with the row's values; a text that is one placeholder takes the value's own type."""

    def look_up(match: re.Match[str]) -> Any:
        if match[1] not in row:
            raise BadInput(
                f"{where}: '{{{{{match[1]}}}}}' names no column of `each` (row {row.get('key', row)!r}); add it"
            )
        return row[match[1]]

    def change(text: str) -> Any:
        if whole := PLACEHOLDER.fullmatch(text):
            return look_up(whole)
        return PLACEHOLDER.sub(lambda match: str(look_up(match)), text)

    return dict(changed(template, change))


def changed(value: Any, change: Callable[[str], Any]) -> Any:
    """Return the value with `change` applied to every text in it, keys too."""
    if isinstance(value, dict):
        return {changed(key, change): changed(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [changed(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


PLACE = "{repeat}"
"""Where messages and options take the text."""


class Repeat(Strict):
    """`text` so many times, or so often that it cannot fit the served context."""

    text: Annotated[str, Field(min_length=1)]
    times: int | None = Field(default=None, ge=1)
    contexts: float | None = Field(default=None, gt=0)
    """Instead of `times`: its words alone are this many times the served context. A word is one token at least."""

    def mistakes(self) -> Iterator[str]:
        if (self.times is None) == (self.contexts is None):
            yield "takes either times or contexts"
        if self.contexts is not None and not self.text.split():
            yield "contexts counts words, and the text has none"

    def count(self, context_tokens: int | None) -> int | None:
        """Return how often the text is repeated; None when that depends on an unknown context."""
        if self.contexts is None or context_tokens is None:
            return self.times
        return math.ceil(self.contexts * context_tokens / len(self.text.split())) + 1


def filled(value: Any, text: str, place: str = PLACE) -> Any:
    """Return the messages or options with the text in place of `place`."""
    return changed(value, lambda said: said.replace(place, text))
