"""Structured output: the ladder accepted, finished, parses, valid, means; and what a schema keyword is worth here."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from gatebook.judge.checks.registry import Params, Pattern, check, each_text
from gatebook.judge.evidence import Evidence, Reply
from gatebook.judge.finding import Result, Stage
from gatebook.judge.iri import formats
from gatebook.plan.cases import Ask, Case

RUNGS = ("accepted", "finished", "parses", "valid", "means")
KeywordState = Literal["enforced", "refused", "ignored", "unfinished"]
STAGES: dict[KeywordState, Stage] = {
    "refused": Stage.REFUSED,
    "ignored": Stage.CONSTRAINT,
    "unfinished": Stage.BEHAVIOUR,
}


def _path(text: str) -> str:
    from jsonpath_ng import parse as jsonpath

    try:
        jsonpath(text)
    except Exception as error:  # the parser raises plain Exceptions
        raise ValueError(f"is no JSONPath ({error})") from None
    return text


def _schema(schema: Any) -> Any:
    if said := no_schema(schema):
        raise ValueError(said)
    return schema


def no_schema(schema: Any) -> str:
    """Why something is no JSON Schema; empty when it is one."""
    return _no_schema(json.dumps(schema))


@cache
def _no_schema(text: str) -> str:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(json.loads(text))
    except SchemaError as error:
        return f"is no JSON Schema: {error.message[:160]}"
    return ""


def _sends_schema(case: Case, schema: Any) -> str | None:
    if isinstance(schema, dict):
        return None
    sent = [request_schema(ask) for ask in case.requests() if ask.path is None]
    where = "options.response_format.json_schema.schema"
    if not all(sent):
        return f"the request sends no schema in {where}; add it"
    return next((f"{where} {said}" for one in sent if (said := no_schema(one))), None)


class Value(Params):
    """Where to look (JSONPath) and what to find there; every given condition must hold."""

    path: Annotated[str, AfterValidator(_path)]
    equals: Any = None
    one_of: list[Any] | None = None
    min_chars: int | None = None
    max_chars: int | None = None
    contains: str | None = None
    matches: Pattern | None = None


@check("json_parses", Literal[True], stage=Stage.CONSTRAINT)
def json_parses(evidence: Evidence, _: bool) -> Result:
    """The whole answer is one JSON value; no prose and no code fence around it."""
    result = each_text(evidence, lambda text: _parsed(text)[1] or Result("pass", "parses as JSON"))
    return replace(result, stage=_stage(evidence.replies))


@check(
    "json_schema",
    Literal["same"] | Annotated[dict[str, Any], AfterValidator(_schema)],
    _sends_schema,
    stage=Stage.CONSTRAINT,
)
def json_schema(evidence: Evidence, schema: Any) -> Result:
    """Valid by JSON Schema draft 2020-12 with formats; `same` takes the schema that the request sent."""
    replies = [r for r in evidence.replies if r.ask.path is None]
    for reply in replies:
        said = invalid(reply.answer.text, request_schema(reply.ask) if schema == "same" else schema)
        if said:
            said = f"{reply.ask.name}: {said}" if len(replies) > 1 else said
            return Result("fail", said, "invalid", "valid", stage=_stage([reply]))
    return Result("pass", "valid against the schema", "valid", "valid")


def _stage(replies: list[Reply]) -> Stage:
    """What a bad document shows: a constraint that does not hold, unless none was sent or the answer was cut before its end."""
    free = any("response_format" not in r.ask.options or r.answer.finish_reason == "length" for r in replies)
    return Stage.BEHAVIOUR if free else Stage.CONSTRAINT


@check("json_value", Value, stage=Stage.BEHAVIOUR)
def json_value(evidence: Evidence, value: Value) -> Result:
    """What stands at a path of the answer means the right thing."""
    from jsonpath_ng import parse as jsonpath

    def judge(text: str) -> Result:
        parsed, unusable = _parsed(text)
        if unusable:
            return unusable
        found = [match.value for match in jsonpath(value.path).find(parsed)]
        if not found:
            return Result("fail", f"nothing at {value.path}", None, value.path)
        limit, said = _wrong(found[0], value)
        return Result(
            "fail" if said else "pass", said or f"{value.path} is {_short(found[0])}", _short(found[0]), limit
        )

    return each_text(evidence, judge)


@check("keyword", str, _sends_schema, stage=Stage.CONSTRAINT)
def keyword(evidence: Evidence, name: str) -> Result:
    """Whether this server enforces a JSON Schema keyword when the prompt asks for its violation.

    enforced: every answer is valid all the same · refused: a clean 4xx · ignored: HTTP 200 and a violation.
    """
    states = [(reply, *_keyword_state(reply)) for reply in evidence.replies]
    for wanted in ("ignored", "refused", "unfinished"):
        for reply, state, said in states:
            if state == wanted:
                words = {
                    "ignored": "silently ignored",
                    "refused": "refused",
                    "unfinished": "the answer was cut, so nothing is shown",
                }
                return Result(
                    "fail", f"{name} {words[state]} ({reply.ask.name}): {said}", state, "enforced", stage=STAGES[state]
                )
    return Result(
        "pass", f"{name} enforced against {len(states)} prompts that ask for its violation", "enforced", "enforced"
    )


def _keyword_state(reply: Reply) -> tuple[KeywordState, str]:
    if reply.refused:
        return "refused", reply.said
    if reply.answer.finish_reason == "length":
        return "unfinished", _short(reply.answer.text)
    said = invalid(reply.answer.text, request_schema(reply.ask))
    return ("ignored", said) if said else ("enforced", "")


def request_schema(ask: Ask) -> Any:
    """The schema that a request sent, nested as OpenAI has it; {} when it sent none."""
    sent = ask.options.get("response_format", {}).get("json_schema", {})
    return sent.get("schema", {})


def _parsed(text: str) -> tuple[Any, Result | None]:
    try:
        return json.loads(text, parse_constant=_no_constant), None
    except (ValueError, RecursionError) as error:
        return None, Result("fail", f"not JSON ({str(error).split(':')[0]}): {_short(text)}", "no JSON", "JSON")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def invalid(text: str, schema: Any) -> str:
    """Why a text is not a valid instance; empty when it is."""
    parsed, unusable = _parsed(text)
    if unusable:
        return unusable.reason
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:  # an empty registry: judging never fetches a schema from elsewhere
        validator = Draft202012Validator(schema, format_checker=formats(), registry=Registry())
        error = best_match(validator.iter_errors(parsed))
    except Unresolvable as unresolvable:
        return f"the schema cannot be resolved: {unresolvable}"
    return f"{error.json_path}: {error.message[:160]}" if error else ""


def _wrong(found: Any, value: Value) -> tuple[str | None, str]:
    """(limit, what is wrong); an empty text when everything holds."""
    tests: list[tuple[bool, str, str]] = []
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    if "equals" in value.model_fields_set:
        tests.append((type(found) is type(value.equals) and found == value.equals, _short(value.equals), "expected"))
    if value.one_of is not None:
        tests.append(
            (
                any(type(found) is type(v) and found == v for v in value.one_of),
                " | ".join(map(str, value.one_of)),
                "expected one of",
            )
        )
    if value.min_chars is not None:
        tests.append((len(text.strip()) >= value.min_chars, f">= {value.min_chars} chars", "too short,"))
    if value.max_chars is not None:
        tests.append((len(text.strip()) <= value.max_chars, f"<= {value.max_chars} chars", "too long,"))
    if value.contains is not None:
        tests.append((value.contains in text, value.contains, "does not contain"))
    if value.matches is not None:
        tests.append((re.search(value.matches, text) is not None, f"/{value.matches}/", "does not match"))
    for ok, limit, word in tests:
        if not ok:
            return limit, f"{value.path} is {_short(found)}, {word} {limit}"
    return (tests[0][1] if tests else None), ""


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."
