"""At the edge of what a server can do: it refuses cleanly, it never cuts in silence, and it lives on."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import Words, check, lacks
from gatebook.config.cases import Case
from gatebook.engines import REFUSALS
from gatebook.record.replies import read_answer

TOLERANCE = 0.02
"""usage.prompt_tokens may be this share below what the shorter prompts foretell: a line's tokens depend on its neighbours."""
Naming = Annotated[Words, Field(description="The refusal's message has one of these words, in any case.")]


def _negative(case: Case, **_: Any) -> str | None:
    if case.negative and case.canary:
        return None
    return "the case may be refused, so it needs `negative: true` and `canary: true`"


@check(Stage.BEHAVIOUR, _negative)
def refused(evidence: Evidence, *, naming: Naming) -> Result:
    """A clean refusal that names what is refused; a 200 is a fail, whatever it says. The next plain request is answered."""
    for reply in evidence.replies:
        status, detail = reply.exchange.status, reply.said
        label = f"{reply.ask.name}: " if len(evidence.replies) > 1 else ""
        if not reply.refused:
            said = f"{label}answered with HTTP {status} instead of refusing: {reply.answer.text[:80]!r}"
            return Result("fail", said, status, "4xx")
        if not any(word.casefold() in detail.casefold() for word in naming):
            said = f"{label}refused, but the message names none of {', '.join(naming)}: {detail}"
            return Result("fail", said, status, "4xx")
    return _dead(evidence) or Result("pass", _how(evidence.replies[0]), evidence.replies[0].exchange.status, "4xx")


@check(Stage.BEHAVIOUR, _negative)
def survives(evidence: Evidence) -> Result:
    """A clean refusal or an answer, both are right; a plain request must be answered afterwards. The contract judges the answer."""
    for reply in evidence.replies:
        status = reply.exchange.status
        if status != 200 and not reply.refused:
            return Result("fail", f"{reply.ask.name}: {reply.exchange.detail}", status, "200 or 4xx")
    reply = evidence.replies[0]
    said = _how(reply) if reply.refused else f"answered: {reply.answer.text[:60]!r}"
    return _dead(evidence) or Result("pass", said, reply.exchange.status, "200 or 4xx")


def _how(reply: Reply) -> str:
    known = "" if reply.exchange.status in REFUSALS else " (in its own way; a client expects a 4xx)"
    return f"refused: {reply.said}{known}"


def _dead(evidence: Evidence) -> Result | None:
    """What the plain request after a negative control says, unless it was answered."""
    canary = evidence.canary
    if canary is None:
        return Result("error", "no record of the plain request that must follow")
    if canary.fault or not read_answer(canary).text.strip():
        status = evidence.replies[0].exchange.status
        said = f"after its HTTP {status} the plain request was not answered: {canary.detail or 'empty content'}"
        return Result("fail", said, canary.status, 200)
    return None


def _repeats(case: Case, **names: str) -> str | None:
    if missing := lacks(case, names["short"], names["double"], names["long"]):
        return missing
    asks = {ask.name: ask.repeat for ask in case.requests()}
    short, double, long = asks[names["short"]], asks[names["double"]], asks[names["long"]]
    if short is None or double is None or long is None or not short.text == double.text == long.text:
        return "all three asks take `repeat` with the same text"
    if short.times is None or double.times is None or double.times <= short.times:
        return "`short` and `double` take `times`, and `double` takes more"
    return None


@check(Stage.REFUSED, _repeats)
def not_truncated(evidence: Evidence, *, short: str, double: str, long: str) -> Result:
    """The long prompt is read whole or refused, never cut in silence (ollama#8099, SGLang --allow-auto-truncate).

    Asks with the same text, repeated ever more often: two that surely fit, and the one that is judged. How many tokens it
    has is foretold from `usage` of the two shorter ones, so no tokenizer is needed.
    """
    once, twice, judged = evidence.reply(short), evidence.reply(double), evidence.reply(long)
    low, high = once.answer.tokens("prompt_tokens"), twice.answer.tokens("prompt_tokens")
    if low is None or high is None or high <= low:
        return Result("fail", f"usage.prompt_tokens of the shorter prompts is {low} and {high}: it does not count them")
    rate = (high - low) / (_times(twice) - _times(once))
    sent = round(low + rate * (_times(judged) - _times(once)))
    limit = evidence.identity.context_tokens or evidence.profile.target.context_tokens
    if judged.refused:
        if limit is not None and sent < limit * (1 - TOLERANCE):
            said = f"refused although {sent:,} tokens fit {limit:,}: {judged.exchange.detail}"
            return Result("fail", said, sent, limit)
        return Result("pass", f"about {sent:,} tokens refused: {judged.exchange.detail}", sent, limit, "tokens")
    counted = judged.answer.tokens("prompt_tokens")
    if limit is not None and sent > limit * (1 + TOLERANCE):
        said = f"answered although {sent:,} tokens do not fit {limit:,}: truncated silently (usage says {counted})"
        return Result("fail", said, counted, limit, "tokens")
    if counted is None or counted < sent * (1 - TOLERANCE):
        said = f"{sent:,} tokens were sent, usage counts {counted}: truncated silently"
        return Result("fail", said, counted, sent, "tokens")
    return Result("pass", f"read whole: {sent:,} tokens were sent, usage counts {counted:,}", counted, sent, "tokens")


def _times(reply: Reply) -> int:
    """How often the text was really sent, by the record."""
    text = reply.ask.repeat.text if reply.ask.repeat else ""
    return sum(str(m.get("content")).count(text) for m in reply.exchange.messages)
