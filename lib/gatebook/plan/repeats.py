"""A long text by rule: one sentence so many times, filled into a request when it is asked."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, model_validator

from gatebook.plan.strict import Strict

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


def filled(value: Any, text: str, place: str) -> Any:
    """The messages or options with the text in its place."""
    if isinstance(value, dict):
        return {key: filled(inner, text, place) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, text, place) for inner in value]
    return value.replace(place, text) if isinstance(value, str) else value
