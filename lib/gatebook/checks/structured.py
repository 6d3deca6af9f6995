"""Structured output: the ladder accepted, finished, parses, valid, means; and what a schema keyword is worth here."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache, partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import ABSENT, Pattern, check, each_text, readable
from gatebook.config.cases import Ask, Case
from gatebook.engines.engine import obj

BAD_STATES = {
    "ignored": ("silently ignored", Stage.CONSTRAINT),
    "refused": ("refused", Stage.REFUSED),
    "unfinished": ("the answer was cut, so nothing is shown", Stage.BEHAVIOUR),
}
"""The worst first, each in words and with what it explains."""
UCSCHAR = re.compile(
    r"[\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef"
    + "".join(f"\\U{plane:04x}0000-\\U{plane:04x}fffd" for plane in range(1, 14))
    + r"\U000e1000-\U000efffd]"
)


def _jsonpath(text: str) -> Any:
    from jsonpath_ng import parse

    return parse(text)


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


Path = Annotated[str, readable(_jsonpath, "JSONPath")]
Schema = Annotated[dict[str, Any], AfterValidator(_schema)]


def _sends_schema(case: Case, schema: Any = None, **_: Any) -> str | None:
    if isinstance(schema, dict):
        return None
    sent = [request_schema(ask) for ask in case.requests() if ask.path is None]
    where = "options.response_format.json_schema.schema"
    if not all(sent):
        return f"the request sends no schema in {where}; add it"
    return next((f"{where} {said}" for one in sent if (said := no_schema(one))), None)


@check(Stage.CONSTRAINT, judges_text=True)
def json_parses(evidence: Evidence) -> Result:
    """The whole answer is one JSON value; no prose and no code fence around it."""
    result = each_text(evidence, lambda text: _parsed(text)[1] or Result("pass", "parses as JSON"))
    return replace(result, stage=_stage(evidence.replies))


@check(Stage.CONSTRAINT, _sends_schema, judges_text=True)
def json_schema(evidence: Evidence, schema: Literal["same"] | Schema) -> Result:
    """Valid by JSON Schema draft 2020-12 with formats; `same` takes the schema that the request sent."""
    replies = [r for r in evidence.replies if r.ask.path is None]
    for reply in replies:
        if said := invalid(reply.answer.text, request_schema(reply.ask) if schema == "same" else schema):
            label = f"{reply.ask.name}: " if len(replies) > 1 else ""
            return Result("fail", label + said, "invalid", "valid", stage=_stage([reply]))
    return Result("pass", "valid against the schema", "valid", "valid")


def _stage(replies: list[Reply]) -> Stage:
    """What a bad document shows: a constraint that does not hold, unless none was sent or the answer was cut before its end."""
    free = any("response_format" not in r.ask.options or r.answer.finish_reason == "length" for r in replies)
    return Stage.BEHAVIOUR if free else Stage.CONSTRAINT


@check(Stage.BEHAVIOUR)
def json_value(
    text: str,
    *,
    path: Path,
    equals: Any = ABSENT,
    one_of: list[Any] | None = None,
    min_chars: int | None = None,
    max_chars: int | None = None,
    contains: str | None = None,
    matches: Pattern | None = None,
) -> Result:
    """What stands at a path (JSONPath) of the answer means the right thing: every given condition holds."""
    parsed, unusable = _parsed(text)
    if unusable:
        return unusable
    there = [match.value for match in _jsonpath(path).find(parsed)]
    if not there:
        return Result("fail", f"nothing at {path}", None, path)
    found, shown = there[0], _short(there[0])
    said = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    size = len(said.strip())
    tests: list[tuple[bool, str, str]] = []
    if equals is not ABSENT:
        tests.append((_is(found, equals), _short(equals), "expected"))
    if one_of is not None:
        tests.append((any(_is(found, v) for v in one_of), " | ".join(map(str, one_of)), "expected one of"))
    if min_chars is not None:
        tests.append((size >= min_chars, f">= {min_chars} chars", "too short,"))
    if max_chars is not None:
        tests.append((size <= max_chars, f"<= {max_chars} chars", "too long,"))
    if contains is not None:
        tests.append((contains in said, contains, "does not contain"))
    if matches is not None:
        tests.append((re.search(matches, said) is not None, f"/{matches}/", "does not match"))
    for holds, limit, word in tests:
        if not holds:
            return Result("fail", f"{path} is {shown}, {word} {limit}", shown, limit)
    return Result("pass", f"{path} is {shown}", shown, tests[0][1] if tests else None)


def _is(found: Any, wanted: Any) -> bool:
    return type(found) is type(wanted) and bool(found == wanted)


@check(Stage.CONSTRAINT, _sends_schema, judges_text=True)
def keyword(evidence: Evidence, name: str) -> Result:
    """Whether this server enforces a JSON Schema keyword when the prompt asks for its violation.

    enforced: every answer is valid all the same · refused: a clean 4xx · ignored: HTTP 200 and a violation.
    """
    found = [(reply, *_keyword_state(reply)) for reply in evidence.replies]
    for bad, (words, stage) in BAD_STATES.items():
        for reply, state, said in found:
            if state == bad:
                return Result("fail", f"{name} {words} ({reply.ask.name}): {said}", state, "enforced", stage=stage)
    said = f"{name} enforced against {len(found)} prompts that ask for its violation"
    return Result("pass", said, "enforced", "enforced")


def _keyword_state(reply: Reply) -> tuple[str, str]:
    if reply.refused:
        return "refused", reply.said
    if reply.answer.finish_reason == "length":
        return "unfinished", _short(reply.answer.text)
    said = invalid(reply.answer.text, request_schema(reply.ask))
    return "ignored" if said else "enforced", said


def request_schema(ask: Ask) -> Any:
    """The schema that a request sent, nested as OpenAI has it; {} when it sent none, or something else in its place."""
    return obj(ask.options, "response_format", "json_schema").get("schema", {})


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
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    formats = FormatChecker(())
    iris: dict[str, Any] = {"iri": (is_iri, ()), "iri-reference": (partial(is_iri, rule="URI_reference"), ())}
    formats.checkers = {**Draft202012Validator.FORMAT_CHECKER.checkers, **iris}
    try:  # an empty registry: judging never fetches a schema from elsewhere
        validator = Draft202012Validator(schema, format_checker=formats, registry=Registry())
        error = best_match(validator.iter_errors(parsed))
    except Unresolvable as unresolvable:
        return f"the schema cannot be resolved: {unresolvable}"
    return f"{error.json_path}: {error.message[:160]}" if error else ""


def is_iri(instance: object, rule: str = "URI") -> bool:
    """Whether a text is an IRI (rule `URI`) or a reference (`URI_reference`); what is no text has no format.

    RFC 3987, 3.1: an IRI becomes a URI when its characters beyond ASCII are percent-encoded. Private-use characters, which it
    allows in a query, are not taken. jsonschema's own checkers would build their grammars at each start (1.2 s).
    """
    if not isinstance(instance, str):
        return True
    from rfc3986_validator import validate_rfc3986

    uri = UCSCHAR.sub("%20", instance)
    return uri.isascii() and bool(validate_rfc3986(uri, rule=rule))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."
