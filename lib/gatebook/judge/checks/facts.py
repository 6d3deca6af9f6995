"""Key information: which facts an answer states, which it must not state, and how densely."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

from pydantic import Field, model_validator

from gatebook.judge.checks.registry import Params, check, each_text, needs_asks
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, Stage
from gatebook.plan.cases import Case

COVERAGE = "coverage"
"""Unit of what the check measures."""
Wording = Annotated[str, Field(min_length=1)]
Fact = Wording | Annotated[list[Wording], Field(min_length=1)]
"""One fact: a wording, or several of which one is enough. `re:` opens a regular expression."""


class Facts(Params):
    required: list[Fact] = Field(default_factory=list)
    forbidden: list[Fact] = Field(default_factory=list)
    """What would contradict them: another number, another name, a negation."""
    min_coverage: float = Field(default=1.0, gt=0, le=1)
    """Share of the required facts that an answer must state."""
    ask: str | None = None
    """Only the answer of this ask; default: each answer of the case."""

    @model_validator(mode="after")
    def _says_something(self) -> Facts:
        if not self.required and not self.forbidden:
            raise ValueError("has neither required nor forbidden facts; name at least one")
        for wording in (w for fact in (*self.required, *self.forbidden) for w in wordings(fact)):
            if wording.startswith("re:"):
                try:
                    re.compile(wording[3:])
                except re.error as error:
                    raise ValueError(f"{wording!r} is no regular expression ({error})") from None
        return self


def _has_ask(case: Case, params: Facts) -> str | None:
    return needs_asks(params.ask)(case, params) if params.ask else None


@check("facts", Facts, needs=_has_ask, stage=Stage.BEHAVIOUR)
def facts(evidence: Evidence, params: Facts) -> Result:
    """Coverage: stated / required, in [0, 1]; nothing forbidden may be stated. Density is told: facts per 100 characters.

    Source: research/science.md §7 (equal keyword sets hold for 4 % of correct paraphrases; facts decide instead).
    """
    if params.ask:
        result = covered(evidence.reply(params.ask).answer.text, params)
        return Result(result.outcome, f"{params.ask}: {result.reason}", result.measured, result.limit, result.unit)
    return each_text(evidence, lambda text: covered(text, params))


def covered(text: str, params: Facts) -> Result:
    """One text against the facts."""
    said = normal(text)
    missing = [fact for fact in params.required if not states(said, fact)]
    wrong = [fact for fact in params.forbidden if states(said, fact)]
    found, total = len(params.required) - len(missing), len(params.required)
    coverage = round(found / total, 4) if total else None
    dense = f", {100 * found / max(len(said), 1):.1f} facts per 100 characters" if found else ""
    if wrong:
        return Result("fail", f"states what is wrong: {named(wrong)}", coverage, params.min_coverage, COVERAGE)
    if coverage is not None and coverage < params.min_coverage:
        reason = f"{len(missing)} of {total} facts missing: {named(missing)}"
        return Result("fail", reason, coverage, params.min_coverage, COVERAGE)
    reason = f"{found} of {total} facts stated{dense}" if total else "states nothing that is forbidden"
    return Result("pass", reason, coverage, params.min_coverage if total else None, COVERAGE if total else "")


def states_all(case: Case, text: str) -> bool:
    """Whether a text passes every `facts` of the case's last answer."""
    last = case.requests()[-1].name
    listed = [Facts.model_validate(item["facts"]) for item in case.expect if "facts" in item]
    return all(covered(text, params).outcome == "pass" for params in listed if params.ask in (None, last))


def wordings(fact: Fact) -> list[str]:
    return [fact] if isinstance(fact, str) else fact


def named(listed: list[Fact]) -> str:
    """Facts for a reason, each by its first wording."""
    return ", ".join(wordings(fact)[0].removeprefix("re:") for fact in listed)


def normal(text: str) -> str:
    """NFKC, lower case, white space squeezed: １２ is 12, Ａ is a. A Chinese comma ends a number: 4417，5 is no 4,417,5."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text.replace("，", ", "))).casefold()


def states(said: str, fact: Fact) -> bool:
    """Whether a text, already `normal`, states a fact by one of its wordings.

    A number is not found inside a longer one (12 is not in 128, 1.12 or 12,000), nor a Latin word inside another.
    """
    return any(_found(said, wording) for wording in wordings(fact))


def _found(said: str, wording: str) -> bool:
    if wording.startswith("re:"):
        return re.search(wording[3:], said, re.IGNORECASE) is not None
    wanted = normal(wording)
    first, last = wanted[0], wanted[-1]
    before = r"(?<![0-9a-z_])" if first.isascii() and first.isalnum() else ""
    before += r"(?<![0-9][.,])" if first.isdigit() else ""
    after = r"(?![0-9a-z_])" if last.isascii() and last.isalnum() else ""
    after += r"(?![.,][0-9])" if last.isdigit() else ""
    return re.search(before + re.escape(wanted) + after, said) is not None
