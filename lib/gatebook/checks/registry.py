"""How a check gets its name and its parameters: its signature is its YAML."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, create_model

from gatebook.checks.evidence import Evidence
from gatebook.checks.finding import Result, Stage, worst
from gatebook.config.cases import Case
from gatebook.config.files import Strict
from gatebook.errors import BadInput

Schema = dict[str, Any]
Needs = Callable[..., str | None]
"""What a check needs of its case, called as `needs(case, **parameters)`; says what is wrong."""
Function = TypeVar("Function", bound=Callable[..., Result])
ABSENT: Any = object()
"""Default of a parameter where null is a value of its own."""
EMPTY: list[Any] = []
"""Default of a list; nothing changes it."""


@dataclass(frozen=True)
class Check:
    """A function of one `text`, which is applied to each reply, or of the `evidence` of the whole case."""

    function: Callable[..., Result]
    of_text: bool
    yaml: TypeAdapter[dict[str, Any]]
    """Reads what a case file says behind the name, as keyword arguments of the function."""
    needs: Needs | None
    stage: Stage
    """Of its results that name no other."""
    judges_text: bool
    """Whether an answer's text alone decides, so that its cases can carry good and bad examples."""

    @property
    def says(self) -> str:
        """What it demands, in its own words."""
        return inspect.getdoc(self.function) or ""

    def schema(self) -> Schema:
        """The JSON Schema of its YAML; definitions are named `<check>.<model>`."""
        name = self.function.__name__
        schema = self.yaml.json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        defs = {f"{name}.{model}": found for model, found in schema.pop("$defs", {}).items()}
        return {**schema, "description": self.says, **({"$defs": defs} if defs else {})}

    def run(self, evidence: Evidence, given: dict[str, Any]) -> Result:
        """Judge the evidence by parameters that `parameters` returned."""
        if self.of_text:
            return each_text(evidence, lambda text: self.function(text, **given))
        return self.function(evidence, **given)


CHECKS: dict[str, Check] = {}


def check(
    stage: Stage, needs: Needs | None = None, *, judges_text: bool | None = None
) -> Callable[[Function], Function]:
    """Register a pure function under its own name, which case files use.

    `stage` says what a bad result explains: the verdict names causes before what follows from them.
    `judges_text` where it is not what the first parameter says: a check of the evidence that an example answer can show.
    """

    def register(function: Function) -> Function:
        first = next(iter(inspect.signature(function).parameters))
        of_text = get_type_hints(function)[first] is str
        shows = of_text if judges_text is None else judges_text
        CHECKS[function.__name__] = Check(function, of_text, TypeAdapter(_yaml(function)), needs, stage, shows)
        return function

    return register


def _yaml(function: Callable[..., Result]) -> Any:
    """The type of a check's YAML: `true` without parameters, the value of a positional one, a mapping of keyword-only ones."""
    _, *wanted = inspect.signature(function).parameters.values()
    types = get_type_hints(function, include_extras=True)
    if not wanted:
        return Annotated[Literal[True], AfterValidator(lambda _: {})]
    name = wanted[0].name
    if wanted[0].kind is not inspect.Parameter.KEYWORD_ONLY:
        return Annotated[types[name], AfterValidator(lambda value: {name: value})]
    fields: dict[str, Any] = {one.name: (types[one.name], _default(one.default)) for one in wanted}
    model = create_model(function.__name__, __base__=Strict, **fields)
    return Annotated[model, AfterValidator(lambda read: {key: getattr(read, key) for key in read.model_fields_set})]


def _default(value: Any) -> Any:
    if value is ABSENT:
        return Field(default_factory=object)  # JSON Schema can publish no default
    return ... if value is inspect.Parameter.empty else value


def parameters(case: Case, name: str, raw: Any) -> dict[str, Any]:
    """The validated parameters of one expectation. Raises BadInput for an unknown check or a wrong value."""
    where = f"{case.source + ', ' if case.source else ''}case {case.id!r}, key "
    if name not in CHECKS:
        known = ", ".join(sorted(CHECKS))
        raise BadInput(f"{where}'expect.{name}': unknown check {name!r} (value {raw!r}); known checks: {known}")
    try:
        given = CHECKS[name].yaml.validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["expect", name, *(str(part) for part in first["loc"] if "[" not in str(part))])
        said = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{where}{key!r} has value {first.get('input')!r}: {said}; correct it") from None
    needs = CHECKS[name].needs
    missing = needs(case, **given) if needs else None
    if missing:
        raise BadInput(f"{where}'expect.{name}' has value {raw!r}: {missing}")
    return given


def validate(case: Case) -> None:
    """Refuse a case whose expectations no check understands, before anything is asked."""
    for expectation in case.expect:
        for name, raw in expectation.items():
            parameters(case, name, raw)


def each_text(evidence: Evidence, judge: Callable[[str], Result]) -> Result:
    """Apply a function to the text of each reply; return the worst result, with the request's name where there are several."""
    results = [(reply.ask.name, judge(reply.answer.text)) for reply in evidence.replies if reply.ask.path is None]
    outcome = worst([result.outcome for _, result in results])
    name, result = next((n, r) for n, r in results if r.outcome == outcome)
    return result if len(results) == 1 else replace(result, reason=f"{name}: {result.reason}")


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression ({error})") from None
    return text


Text = Annotated[str, Field(min_length=1)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Words = Annotated[list[Text], Field(min_length=1)]


def lacks(case: Case, *names: str) -> str | None:
    """What is wrong where the case has no asks with these names."""
    missing = [name for name in names if name not in [ask.name for ask in case.requests()]]
    return f"the case has no ask {missing[0]!r}; add it under 'asks'" if missing else None


def having(key: str, otherwise: str, value: Any = None) -> Needs:
    """The case must have this key, with this value where one is given; `otherwise` says what to do."""

    def needs(case: Case, **_: Any) -> str | None:
        found = getattr(case, key)
        return None if (found == value if value else found) else otherwise

    return needs


OVER_A_GROUP = having("over", "the case looks over no group; name one with key 'over'")
