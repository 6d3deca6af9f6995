"""How a check gets its name, and how case files get theirs validated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gatebook.errors import BadInput
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, worst
from gatebook.plan.cases import Case
from gatebook.plan.strict import Strict

Check = Callable[[Evidence, Any], Result]
CHECKS: dict[str, tuple[Check, TypeAdapter[Any]]] = {}


class Params(Strict):
    """Base of a check's parameters as they stand in a case file."""


def check(name: str, params: Any) -> Callable[[Callable[[Evidence, Any], Result]], Callable[[Evidence, Any], Result]]:
    """Register a pure function of the evidence under the name that case files use."""

    def register(function: Check) -> Check:
        CHECKS[name] = (function, TypeAdapter(params))
        return function

    return register


def parameters(case: Case, name: str, raw: Any) -> Any:
    """The validated parameters of one expectation. Raises BadInput for an unknown check or a wrong value."""
    where = f"case {case.id!r}, key 'expect.{name}'"
    if name not in CHECKS:
        raise BadInput(f"{where}: unknown check {name!r} (value {raw!r}); known checks: {', '.join(sorted(CHECKS))}")
    try:
        return CHECKS[name][1].validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        inner = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"{where}{'.' + inner if inner else ''}: has value {first.get('input')!r}: {first['msg']}; correct it"
        ) from None


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
    return Result(result.outcome, f"{name}: {result.reason}", result.measured, result.limit, result.unit)
