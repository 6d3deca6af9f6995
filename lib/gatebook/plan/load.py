"""Load: how many requests are in flight at once, what a profile asks of the server then, and the word that ties an answer to its asker."""

from __future__ import annotations

import hashlib
import random
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gatebook.plan.strict import Strict

PLACE = "{word}"
"""Where messages and options of a load case take the request's own word."""
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_WORD = re.compile(rf"(?<![A-Z])[{_LETTERS}]{{8}}(?![A-Z])")
Level = Annotated[int, Field(ge=1, le=256)] | Literal["step", "peak", "long_prompts"]
"""Requests in flight, or what the profile's `load` says: every step, the largest one, long_prompts.at_once."""


class Load(Strict):
    """The case's requests are asked so many at a time, with those of its group at the same level and with nothing else beside them."""

    at_once: list[Level] = Field(min_length=1)
    """One level after the other. `step` makes a case of each of the profile's load.steps, `long_prompts` a case of each prompt."""
    requests: int | None = Field(default=None, ge=1, le=10_000)
    """At each level, the asks in turn. Without it every ask once; at `step` the profile's load.requests."""

    @model_validator(mode="after")
    def _alone(self) -> Load:
        if len(self.at_once) > 1 and {"step", "long_prompts"} & {*self.at_once}:
            raise ValueError("`step` and `long_prompts` make cases of their own and stand alone in at_once")
        return self


class Goodput(Strict):
    """Which answers count as good, and how many of them must be."""

    at_once: int | None = Field(default=None, ge=1)
    """The step that is judged; without it the largest."""
    ttft_ms: float = Field(default=2000, gt=0)
    """To the first token, from the first attempt on."""
    itl_ms: float = Field(default=100, gt=0)
    """Mean time between the tokens of an answer."""
    share: float = Field(default=0.9, gt=0, le=1)
    """Of the answers within both."""


class LongPrompts(Strict):
    """Several documents are read at the same time."""

    at_once: int = Field(default=2, ge=1, le=64)
    tokens: int | None = Field(default=None, ge=700)
    """Prompt length of each, in the server's own tokens, in place of the case's; the needles alone take 600."""


class LoadSettings(Strict):
    """What the server must bear, and when its numbers are not to be believed."""

    steps: list[Annotated[int, Field(ge=1, le=256)]] = Field(default=[1, 2, 4, 8], min_length=1)
    """Requests in flight, ascending: a closed loop at each."""
    requests: int = Field(default=10, ge=2, le=10_000)
    """At each step; at least twice the step are asked, so that every lane asks twice. A P90 needs 10."""
    goodput: Goodput = Field(default_factory=Goodput)
    knee_gain: float = Field(default=0.1, gt=0, le=1)
    """The knee is the last step up to which every doubling gains this share of throughput."""
    max_flips: int | None = Field(default=None, ge=0)
    """Decisions that may change under load: 0 on an engine that is deterministic. Without it only the exact McNemar test blocks."""
    long_prompts: LongPrompts = Field(default_factory=LongPrompts)
    client_lag_ms: float = Field(default=20, gt=0)
    """P90 over the requests of the largest delay of our own event loop; past it a step is not measured."""
    client_cpu_share: float = Field(default=0.8, gt=0, le=1)
    """Median share of one core that our own process used; past it a step is not measured."""

    @field_validator("steps")
    @classmethod
    def _ascend(cls, value: list[int]) -> list[int]:
        if value != sorted(set(value)):
            raise ValueError("must ascend, each step once, such as [1, 2, 4, 8]")
        return value

    @model_validator(mode="after")
    def _judges_a_step(self) -> LoadSettings:
        if self.goodput.at_once is not None and self.goodput.at_once not in self.steps:
            raise ValueError(
                f"key 'goodput.at_once' has value {self.goodput.at_once}, which is none of the steps {self.steps}"
            )
        return self

    @property
    def judged_step(self) -> int:
        return self.goodput.at_once or self.steps[-1]

    @property
    def peak(self) -> int:
        return self.steps[-1]


def level_of(ask: str) -> int:
    """How many were in flight when a request of a load case was asked, by its name."""
    return int(ask.partition("-")[0])


def word(run: str, key: str) -> str:
    """Eight consonants that no other request of any run has and that no text holds by chance."""
    digest = hashlib.sha256(f"{run}/{key}".encode()).hexdigest()
    return "".join(random.Random(digest).choices(_LETTERS, k=8))


def words_in(value: Any) -> list[str]:
    """The words in a text, or in the texts of a request, each once."""
    return list(dict.fromkeys(_WORD.findall(value if isinstance(value, str) else str(value))))
