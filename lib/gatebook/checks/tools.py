"""Tool calls: made when they should be and not otherwise, with arguments that parse, validate and mean the right thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import check
from gatebook.checks.structured import invalid, no_schema
from gatebook.config.cases import Ask, Case
from gatebook.config.files import Strict
from gatebook.record.answer import ToolCall
from gatebook.record.replies import parse

WITHOUT = "without"
"""The ask with the same messages and no tools: where it costs as many prompt tokens, the model never saw the tools."""


class Called(Strict):
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What must stand there; a list holds several right values. Texts compare without case and outer blanks."""


def _offers(case: Case) -> str | None:
    asks = {ask.name: ask for ask in case.requests()}
    offering = [ask for ask in asks.values() if ask.options.get("tools")]
    if WITHOUT not in asks or asks[WITHOUT].options.get("tools"):
        return f"the case has no ask {WITHOUT!r} that offers no tools (`options: {{tools: null, tool_choice: null}}`)"
    if {bool(ask.stream) for ask in offering} != {True, False}:
        return "the tools are offered in a plain ask and in a streamed one, since servers parse them apart"
    return None


def _offers_it(case: Case, call: Called) -> str | None:
    asks = [ask for ask in case.requests() if ask.name != WITHOUT]
    return _offers(case) or _unusable(asks, call.name)


def _offers_all(case: Case, calls: list[Called]) -> str | None:
    if len(calls) < 2:
        return "name two calls or more; for one there is `tool_called`"
    return next((said for call in calls if (said := _unusable(case.requests(), call.name))), None)


def _unusable(asks: list[Ask], name: str) -> str | None:
    """Why calls of this tool cannot be judged by what the requests declare of it."""
    for ask in asks:
        schema = _schema(ask, name)
        if schema is None:
            return f"ask {ask.name!r} offers no tool {name!r}"
        if said := no_schema(schema):
            return f"the parameters of tool {name!r} in ask {ask.name!r}: {said}"
    return None


@check(Stage.BEHAVIOUR, _offers_it)
def tool_called(evidence: Evidence, call: Called) -> Result:
    """Exactly this tool is called, once, plain and streamed alike; its arguments are judged by the schema that was sent."""
    return _unseen(evidence) or _each(evidence, lambda reply: _call_wrong(reply, call), f"calls {call.name}")


@check(Stage.BEHAVIOUR, _offers)
def no_tool_call(evidence: Evidence) -> Result:
    """A question that needs no tool is answered in words."""
    return _unseen(evidence) or _each(evidence, _words_wrong, "answers in words")


def _words_wrong(reply: Reply) -> str:
    if calls := reply.answer.tool_calls:
        return f"calls {calls[0].name!r} with {calls[0].arguments[:60]} where no tool is needed"
    return "" if reply.answer.text.strip() else "neither text nor a tool call"


@check(Stage.BEHAVIOUR, _offers_all)
def tools_called(evidence: Evidence, calls: list[Called]) -> Result:
    """All these calls are made in one reply and no other, each with an id of its own; arguments are judged as for `tool_called`."""
    wanted = " and ".join(call.name for call in calls)
    for reply in evidence.replies:
        made = reply.answer.tool_calls
        if not made and evidence.identity.tools is False:
            return Result("not_measured", "no tool call; its chat template does not know them", None, wanted)
        if said := _calls_wrong(reply, made, calls):
            return Result("fail", f"{reply.ask.name}: {said}", said[:60], wanted)
    return Result("pass", f"calls {wanted}", wanted, wanted)


def _calls_wrong(reply: Reply, calls: list[ToolCall], asked: list[Called]) -> str:
    """What is wrong with the calls of a reply, in whatever order they come; empty when nothing is."""
    if not calls:
        return f"no tool call, but text: {reply.answer.text[:60]!r}"
    if len(calls) != len(asked):
        made = "; ".join(f"{call.name} {call.arguments[:60]}" for call in calls)
        return f"{len(calls)} calls where {len(asked)} are asked for: {made}"
    if reply.answer.finish_reason != "tool_calls":
        return f"finish_reason is {reply.answer.finish_reason!r} where tools are called"
    if not all(call.id for call in calls) or len({call.id for call in calls}) < len(calls):
        return f"ids of the calls are {[call.id for call in calls]}: results cannot be told apart"
    open_calls = list(calls)
    for wanted in asked:
        said = [_arguments_wrong(call, wanted, reply.ask) for call in open_calls]
        if "" not in said:
            return said[0]
        open_calls.pop(said.index(""))
    return ""


def _each(evidence: Evidence, wrong: Callable[[Reply], str], right: str) -> Result:
    offered = [reply for reply in evidence.replies if reply.ask.name != WITHOUT]
    said = [(reply, wrong(reply)) for reply in offered]
    for reply, text in said:
        if text:
            fine = [r.ask.name for r, other in said if not other]
            tail = f" (though {fine[0]} is right)" if fine else ""
            return Result("fail", f"{reply.ask.name}: {text}{tail}", text[:60], right)
    return Result("pass", f"{right}, {' and '.join(reply.ask.name for reply in offered)}", right, right)


def _unseen(evidence: Evidence) -> Result | None:
    """Why nothing is shown: the tools never reached the model. Where the template knows tools that is a fault."""
    without = evidence.reply(WITHOUT).answer.tokens("prompt_tokens")
    offered = next(reply for reply in evidence.replies if reply.ask.name != WITHOUT)
    with_tools = offered.answer.tokens("prompt_tokens")
    if without is None or with_tools is None or with_tools > without:
        return None
    if offered.answer.tool_calls and not _forced(offered):  # a grammar can force a call of tools that were never read
        return None
    said = f"{with_tools} prompt tokens with tools and {without} without: the tools never reach the model"
    measured = (with_tools, f"> {without}", "tokens")
    if evidence.identity.tools:
        return Result("fail", f"{said}, although its chat template knows tools", *measured)
    if evidence.profile.offers.get("tools") is True:
        return Result("fail", f"{said}, and it offered them when `gatebook init` asked", *measured, Stage.REFUSED)
    return Result("not_measured", f"{said}; its chat template does not know them", *measured)


def _call_wrong(reply: Reply, wanted: Called) -> str:
    """What is wrong with a reply; empty when nothing is."""
    calls = reply.answer.tool_calls
    if not calls:
        return f"no tool call, but text: {reply.answer.text[:60]!r}"
    if len(calls) > 1 or calls[0].name != wanted.name:
        return f"calls {', '.join(call.name or 'nameless' for call in calls)}, expected {wanted.name} once"
    reason = reply.answer.finish_reason
    if reason != "tool_calls" and not (_forced(reply) and reason == "stop"):  # OpenAI ends a forced call with stop
        return f"finish_reason is {reason!r} where a tool is called"
    return _arguments_wrong(calls[0], wanted, reply.ask)


def _forced(reply: Reply) -> bool:
    """Whether the request names the tool."""
    return isinstance(reply.ask.options.get("tool_choice"), dict)


def _arguments_wrong(call: ToolCall, wanted: Called, ask: Ask) -> str:
    """What is wrong with one call: its name, or arguments that clients cannot unpack, are invalid or mean something else."""
    if call.name != wanted.name:
        return f"calls {call.name or 'nameless'}, expected {wanted.name}"
    if said := invalid(call.arguments, {"type": "object"}) or invalid(call.arguments, _schema(ask, wanted.name)):
        return f"arguments of {wanted.name}: {said}"
    given: dict[str, Any] = parse(call.arguments)
    wrong = [
        f"{key} is {given.get(key)!r}, expected {value!r}"
        for key, value in wanted.arguments.items()
        if not any(_same(given.get(key), v) for v in (value if isinstance(value, list) else [value]))
    ]
    return f"arguments of {wanted.name}: {'; '.join(wrong)}" if wrong else ""


def _same(given: Any, wanted: Any) -> bool:
    if isinstance(given, str) and isinstance(wanted, str):
        return given.strip().casefold() == wanted.strip().casefold()
    return isinstance(given, bool) == isinstance(wanted, bool) and bool(given == wanted)


def _schema(ask: Ask, name: str) -> Any:
    """The parameters of the tool as the request declares them; None when it offers no such tool."""
    functions = [tool.get("function", {}) for tool in ask.options.get("tools") or []]
    return next((f.get("parameters", {}) for f in functions if f.get("name") == name), None)
