"""What a model or a server said, made safe to look at: as text, and through our templates as HTML."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatebook.config.project import PACKAGE
from gatebook.errors import visible as visible

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
SITE = PACKAGE / "site"
"""The page of the archive."""


def shorten(text: object, most: int = 600) -> str:
    """The first `most` characters, with a mark where there are more."""
    whole = str(text)
    return f"{whole[:most]} …" if len(whole) > most else whole


def both_ends(text: str, most: int) -> tuple[str, int]:
    """An excerpt with the beginning and the end, where the question of a long prompt stands; and how much is left out."""
    more, tail = len(text) - most, most // 3
    if more <= 0:
        return text, 0
    return f"{text[: most - tail]}\n[… {more:,} characters left out …]\n{text[-tail:]}", more


def pretty(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def render(template: str, **values: Any) -> str:
    """HTML from one of our templates; whatever stands in `values` is escaped and made visible."""
    return _environment().get_template(template).render(**values)


def compile_templates() -> None:
    """Compile all of them, for the processes that are forked from this one."""
    for file in TEMPLATES.glob("*.j2"):
        _environment().get_template(file.name)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, SITE]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"show": shorten, "pretty": pretty}
    return environment
