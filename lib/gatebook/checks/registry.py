"""How a check gets its name and its parameters: its signature is its YAML."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from gatebook.checks.evidence import Evidence
from gatebook.checks.finding import Result, Stage, worst
from gatebook.config.cases import Case
from gatebook.config.files import Strict
from gatebook.errors import BadInput, GatebookError

Schema = dict[str, Any]
Needs = Callable[..., str | None]
"""What a check needs of its case, called as `needs(case, **parameters)`; says what is wrong."""
Function = TypeVar("Function", bound=Callable[..., Result])
ABSENT: Any = Field(default_factory=object)  # JSON Schema can publish no default
"""Default of a parameter where null is a value of its own."""
EMPTY: list[Any] = []
"""Default of a list; nothing changes it."""


@dataclass(frozen=True)
class Check:
    """A function of one `text`, which is applied to each reply, or of the `evidence` of the whole case."""

    name: str
    function: partial[Result]
    """With the parameters that its name fixes."""
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
        return inspect.getdoc(self.function.func) or ""

    def schema(self) -> Schema:
        """The JSON Schema of its YAML; definitions are named `<check>.<model>`."""
        schema = self.yaml.json_schema(ref_template=f"#/$defs/{self.name}.{{model}}")
        defs = {f"{self.name}.{model}": found for model, found in schema.pop("$defs", {}).items()}
        return {**schema, "description": self.says, **({"$defs": defs} if defs else {})}

    def run(self, evidence: Evidence, given: dict[str, Any]) -> Result:
        """Judge the evidence by parameters that `parameters` returned."""
        if self.of_text:
            return each_text(evidence, partial(self.function, **given))
        return self.function(evidence, **given)


CHECKS: dict[str, Check] = {}


def check(
    stage: Stage, needs: Needs | None = None, *, judges_text: bool = False, names: dict[str, Schema] | None = None
) -> Callable[[Function], Function]:
    """Register a pure function under its own name, which case files use, or under `names`, each with what it fixes.

    `stage` says what a bad result explains: the verdict names causes before what follows from them.
    `judges_text`: a check of the evidence that an example answer can show; one of a text always can.
    """

    def register(function: Function) -> Function:
        types = get_type_hints(function, include_extras=True)
        first, *others = inspect.signature(function).parameters.values()
        of_text = types[first.name] is str
        for name, fixed in (names or {function.__name__: {}}).items():
            yaml = TypeAdapter(_yaml(name, [one for one in others if one.name not in fixed], types))
            made = partial(function, **fixed)
            CHECKS[name] = Check(name, made, of_text, yaml, needs, stage, of_text or judges_text)
        return function

    return register


class _Parameters(Strict):
    """Of a check. They have no docstrings, and pydantic would look for them through every module: half of the import."""

    model_config = ConfigDict(use_attribute_docstrings=False)


def _yaml(name: str, wanted: list[inspect.Parameter], types: dict[str, Any]) -> Any:
    """The type of a check's YAML: `true` without parameters, the value of a positional one, a mapping of keyword-only ones."""
    if not wanted:
        return Annotated[Literal[True], AfterValidator(lambda _: {})]
    only = wanted[0]
    if only.kind is not inspect.Parameter.KEYWORD_ONLY:
        return Annotated[types[only.name], AfterValidator(lambda value: {only.name: value})]
    fields: dict[str, Any] = {
        one.name: (types[one.name], ... if one.default is inspect.Parameter.empty else one.default) for one in wanted
    }
    model = create_model(name, __base__=_Parameters, **fields)
    return Annotated[model, AfterValidator(lambda read: {key: getattr(read, key) for key in read.model_fields_set})]


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
    if needs and (missing := needs(case, **given)):
        raise BadInput(f"{where}'expect.{name}' has value {raw!r}: {missing}")
    return given


def validate(case: Case) -> None:
    """Refuse a case whose expectations no check understands, before anything is asked."""
    for name, raw in (item for expectation in case.expect for item in expectation.items()):
        parameters(case, name, raw)


def each_text(evidence: Evidence, judge: Callable[[str], Result]) -> Result:
    """Apply a function to the text of each reply; return the worst result, with the request's name where there are several."""
    results = [(reply.ask.name, judge(reply.answer.text)) for reply in evidence.replies if reply.ask.path is None]
    outcome = worst([result.outcome for _, result in results])
    name, result = next((n, r) for n, r in results if r.outcome == outcome)
    return result if len(results) == 1 else replace(result, reason=f"{name}: {result.reason}")


def readable(read: Callable[[str], object], what: str) -> AfterValidator:
    """Accept a text that `read` can parse; the error of any other says why it is no `what`."""

    def known(text: str) -> str:
        try:
            read(text)
        except (MemoryError, GatebookError):  # a limit of whoever judges
            raise
        except Exception as error:  # the parser of JSONPath raises plain Exceptions
            raise ValueError(f"is no {what} ({error})") from None
        return text

    return AfterValidator(known)


Text = Annotated[str, Field(min_length=1)]
Pattern = Annotated[str, readable(re.compile, "regular expression")]
Words = Annotated[list[Text], Field(min_length=1)]


def lacks(case: Case, *names: str) -> str | None:
    """Return what is wrong where the case has no asks with these names."""
    missing = [name for name in names if name not in [ask.name for ask in case.requests()]]
    return f"the case has no ask {missing[0]!r}; add it under 'asks'" if missing else None


def having(key: str, otherwise: str, value: Any = None) -> Needs:
    """The case must have this key, with this value where one is given; `otherwise` says what to do."""

    def needs(case: Case, **_: Any) -> str | None:
        found = getattr(case, key)
        return None if (found == value if value else found) else otherwise

    return needs


OVER_A_GROUP = having("over", "the case looks over no group; name one with key 'over'")
