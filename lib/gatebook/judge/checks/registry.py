"""How a check gets its name, and how case files get theirs validated."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from gatebook.errors import BadInput
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, Stage, worst
from gatebook.plan.cases import Case
from gatebook.plan.strict import Strict

Check = Callable[[Evidence, Any], Result]
Needs = Callable[[Case, Any], str | None]
"""What a check needs of its case; says what is wrong."""


@dataclass(frozen=True)
class Registered:
    run: Check
    params: TypeAdapter[Any]
    needs: Needs | None
    stage: Stage
    """Of its results that name no other."""
    judges_text: bool
    """Whether an answer's text alone decides, so that its cases can carry good and bad examples."""


CHECKS: dict[str, Registered] = {}


class Params(Strict):
    """Base of a check's parameters as they stand in a case file."""


def check(
    name: str, params: Any, needs: Needs | None = None, judges_text: bool = True, *, stage: Stage
) -> Callable[[Check], Check]:
    """Register a pure function of the evidence under the name that case files use.

    `stage` says what a bad result explains: the verdict names causes before what follows from them.
    `judges_text=False` where identity, timings, ids or the difference of two replies decide: no example answer can show that.
    """

    def register(function: Check) -> Check:
        CHECKS[name] = Registered(function, TypeAdapter(params), needs, stage, judges_text)
        return function

    return register


def parameters(case: Case, name: str, raw: Any) -> Any:
    """The validated parameters of one expectation. Raises BadInput for an unknown check or a wrong value."""
    where = f"{case.source + ', ' if case.source else ''}case {case.id!r}, key "
    if name not in CHECKS:
        known = ", ".join(sorted(CHECKS))
        raise BadInput(f"{where}'expect.{name}': unknown check {name!r} (value {raw!r}); known checks: {known}")
    try:
        found = CHECKS[name].params.validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["expect", name, *(str(part) for part in first["loc"] if "[" not in str(part))])
        said = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{where}{key!r} has value {first.get('input')!r}: {said}; correct it") from None
    needs = CHECKS[name].needs
    missing = needs(case, found) if needs else None
    if missing:
        raise BadInput(f"{where}'expect.{name}' has value {raw!r}: {missing}")
    return found


def validate(case: Case) -> None:
    """Refuse a case whose expectations no check understands, before anything is asked."""
    for expectation in case.expect:
        for name, raw in expectation.items():
            parameters(case, name, raw)


def each_text(evidence: Evidence, judge: Callable[[str], Result]) -> Result:
    """Judge the text of every reply; the worst one speaks, and says which request it was when there are several."""
    results = [(reply.ask.name, judge(reply.answer.text)) for reply in evidence.replies if reply.ask.path is None]
    outcome = worst([result.outcome for _, result in results])
    name, result = next((n, r) for n, r in results if r.outcome == outcome)
    if len(results) == 1:
        return result
    return replace(result, reason=f"{name}: {result.reason}")


def pattern(text: str) -> str:
    """A regular expression that compiles."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression ({error})") from None
    return text


Pattern = Annotated[str, AfterValidator(pattern)]
Words = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


def needs_asks(*names: str) -> Needs:
    """The case must have asks with these names."""

    def needs(case: Case, _: Any) -> str | None:
        missing = [name for name in names if name not in [ask.name for ask in case.requests()]]
        return f"the case has no ask {missing[0]!r}; add it under 'asks'" if missing else None

    return needs
