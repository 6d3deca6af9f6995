"""A case with everything recorded about it: what the checks see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

from gatebook.checks.finding import Outcome, Result, Stage
from gatebook.checks.similarity import Cosines
from gatebook.checks.timed import Timed
from gatebook.checks.watched import Watched
from gatebook.config.cases import Ask, Case
from gatebook.config.profile import Profile
from gatebook.engines import refused
from gatebook.record.answer import Answer
from gatebook.record.exchange import Exchange
from gatebook.record.identity import Identity
from gatebook.record.replies import read_answer


@dataclass(frozen=True)
class Reply:
    """One asked request and its reply."""

    ask: Ask
    exchange: Exchange
    thinks: bool = False
    """What follows the thoughts is the answer, without the blank lines between them."""
    raw: bool = False
    """Thoughts stand for the text where there is none: what is generated is judged."""

    @cached_property
    def answer(self) -> Answer:
        answer = read_answer(self.exchange)
        if not self.thinks or not answer.reasoning:
            return answer
        said = answer.generated if self.raw else answer.content
        return replace(answer, content=said and said.lstrip("\n"))

    @property
    def refused(self) -> bool:
        """Whether the server said "cannot": a clean 4xx, an engine's own words, or an error alone in a 200 reply."""
        exchange, answer = self.exchange, self.answer
        if exchange.status != 200:
            return refused(exchange.status, exchange.detail)
        return bool(answer.error) and not answer.choices and refused(answer.error_code, answer.error or "")

    @property
    def said(self) -> str:
        """What a refusal says, for reasons."""
        return self.exchange.detail or (f"{self.answer.error} (an error in a 200 stream)" if self.answer.error else "")


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
        return {reply.ask.name: reply for reply in self.replies}[name]

    def ignored(self, reason: str, measured: str | float | None = None, limit: str | float | None = None) -> Result:
        """A part of the API that was asked for and is not there: a fail, except where the profile excuses the case.

        Cases that need what the profile's `offers` say is not offered are not asked at all.
        """
        excused = self.profile.excuse(self.case.id, self.case.group)
        return Result("not_measured" if excused else "fail", reason, measured, limit, stage=Stage.REFUSED)

    @property
    def names(self) -> list[str]:
        return [r.ask.name for r in self.replies]
