"""A case with everything recorded about it: what the checks see."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gatebook.judge.finding import Outcome
from gatebook.judge.gauges import Watched
from gatebook.judge.similarity import Cosines
from gatebook.judge.timed import Timed
from gatebook.plan.cases import Ask, Case
from gatebook.plan.settings import Profile
from gatebook.record.answer import Answer, read_answer
from gatebook.record.exchange import Exchange
from gatebook.record.identity import EngineName, Identity

REFUSALS = frozenset({400, 404, 413, 415, 422})
"""A clean 4xx: the server, or the gateway before it, understood and said no."""
KNOWN_REFUSALS: dict[EngineName, re.Pattern[str]] = {
    "llama.cpp": re.compile(r"HTTP 500: ((image|audio|video) input is not supported|Failed to parse (messages|tools))"),
    "vllm": re.compile(r"HTTP 501: "),
}
"""Refusals that an engine is known to send with a wrong status, and that name what they refuse (FAULTS.md §5, F66)."""


@dataclass(frozen=True)
class Reply:
    """One asked request and its reply."""

    ask: Ask
    exchange: Exchange
    engine: EngineName = "unknown"

    @cached_property
    def answer(self) -> Answer:
        return read_answer(self.exchange)

    @property
    def refused(self) -> bool:
        """A clean refusal, by the standards of the engine."""
        known = KNOWN_REFUSALS.get(self.engine)
        return self.exchange.status in REFUSALS or bool(known and known.match(self.exchange.detail))


@dataclass(frozen=True)
class Seen:
    """A case that was judged already, with its outcome: what a case `over` its group looks at."""

    case: Case
    outcome: Outcome
    replies: list[Reply]
    canary: Exchange | None = None
    """The plain request after it."""


@dataclass(frozen=True)
class Evidence:
    """All replies of a case, in the order of its asks, and what the checks may compare them with."""

    case: Case
    replies: list[Reply]
    identity: Identity
    profile: Profile
    cosines: Callable[[], Cosines] | None = None
    """The notebook's cosines, looked up or computed when a check asks for them."""
    over: list[Seen] = field(default_factory=list)
    """The judged cases of the group that the case looks at."""
    canary: Exchange | None = None
    """The plain request after a negative control."""
    timed: Timed | None = None
    """Of a case with samples: they, the history and the second target's."""
    together: list[Exchange] = field(default_factory=list)
    """Of a load case: everything that its group asked at its levels."""
    restarts: tuple[str, ...] = ()
    """When collecting began (UTC, ISO 8601); more than once in a run that was resumed."""
    watching: Callable[[], Watched] | None = None
    """The notebook's gauges beside its requests, read when a check asks for them."""

    @property
    def watched(self) -> Watched:
        return self.watching() if self.watching else Watched([], [])

    def reply(self, name: str) -> Reply:
        """The reply of the ask with this name. Raises KeyError."""
        return next(r for r in self.replies if r.ask.name == name) if name in self.names else self._no_such(name)

    @property
    def names(self) -> list[str]:
        return [r.ask.name for r in self.replies]

    def _no_such(self, name: str) -> Any:
        raise KeyError(f"case {self.case.id!r} has no ask {name!r}; it has {', '.join(self.names)}")
