"""The contract of DESIGN §7: what every complete answer must satisfy before anyone asks what it means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime

from gatebook.judge.checks.text import broken_characters, leaked_markup
from gatebook.judge.evidence import Reply
from gatebook.record.answer import Answer
from gatebook.record.exchange import Exchange

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")
STALE_S = 300
"""`created` may lag behind our clock by this much before it is taken for an old answer."""
SAMPLED_ENOUGH = 4
"""Answers of one case from which a single broken character is told from an engine that breaks them."""
LATEST = 2**40
"""Seconds; a creation time beyond it is no time."""


def violations(reply: Reply, model: str, seen_ids: dict[str, str], context_tokens: int | None = None) -> Iterator[str]:
    """Every broken clause of one 200 reply, most telling first. `seen_ids`: response id -> the request it first answered."""
    exchange, answer = reply.exchange, reply.answer
    if answer.error:
        yield f"the reply carries an error: {answer.error}"
        return
    if answer.malformed is not None:
        yield f"not valid JSON: {answer.malformed!r}"
        return
    if not answer.choices:
        yield "the reply has no choices"
        return
    yield from _envelope(exchange, answer)
    yield from _content(answer)
    yield from _finish(exchange, answer, context_tokens)
    yield from _usage(exchange, answer)
    yield from _fresh(exchange, answer, seen_ids)
    asked = (exchange.body or {}).get("model", model)
    if asked == model and answer.model is not None and not _same_model(answer.model, model):
        yield f"answered by model {answer.model!r}, asked for {model!r}"


def drawn_by_chance(replies: list[Reply]) -> tuple[Reply, str] | None:
    """The one answer with U+FFFD among at least four that were sampled, and its violation.

    Half a character is a token like any other, and a small model draws it now and then; an engine that breaks characters
    breaks more than one answer of a case, or a greedy one.
    """
    sampled = [r for r in replies if (r.exchange.body or {}).get("temperature") != 0]
    broken = [(r, said) for r in sampled if (said := _broken(r.answer)) and said.startswith("U+FFFD")]
    return broken[0] if len(sampled) >= SAMPLED_ENOUGH and len(broken) == 1 else None


def _broken(answer: Answer) -> str | None:
    return broken_characters(answer.text, answer.finish_reason == "length")


def _same_model(told: str, asked: str) -> bool:
    """The name itself, or the name with a date, as hosted services tell it."""
    return told == asked or re.fullmatch(re.escape(asked) + r"-\d{4}[\d-]*", told) is not None


def _envelope(exchange: Exchange, answer: Answer) -> Iterator[str]:
    streamed = bool((exchange.body or {}).get("stream"))
    if streamed and exchange.events is None:
        yield f"asked for a stream, got {exchange.headers.get('content-type', 'no content type')!r}"
    if exchange.events is not None and not answer.done:
        yield "the stream ended without [DONE]"
    if exchange.invalid_utf8:
        yield "the reply is not valid UTF-8"
    if len(answer.ids) > 1:
        yield f"one reply has {len(answer.ids)} different response ids"


def _content(answer: Answer) -> Iterator[str]:
    if not answer.text.strip() and not answer.tool_calls and not _cut_before_first_character(answer):
        if answer.reasoning.strip():
            yield f"content is empty and the answer is in the reasoning field: {answer.reasoning[:60]!r}"
        else:
            yield (
                "content is null"
                if answer.content is None
                else "content is empty"
                if not answer.content
                else "content is blank"
            )
    if said := _broken(answer):
        yield said
    if said := leaked_markup(answer.text):
        yield said


def _cut_before_first_character(answer: Answer) -> bool:
    return answer.finish_reason == "length" and (answer.tokens("completion_tokens") or 9) <= 4


def _finish(exchange: Exchange, answer: Answer, context_tokens: int | None) -> Iterator[str]:
    if len(answer.finish_reasons) != 1:
        yield (
            "no finish_reason"
            if not answer.finish_reasons
            else f"{len(answer.finish_reasons)} finish_reasons in one reply"
        )
        return
    reason, limit, used = answer.finish_reason, max_tokens(exchange), answer.tokens("completion_tokens")
    if reason not in FINISH_REASONS:
        yield f"finish_reason is {reason!r}, which is none of {', '.join(FINISH_REASONS)}"
    total = answer.tokens("total_tokens")
    if reason == "length" and limit is not None and used is not None and used < limit:
        yield f"cut after {used} tokens although {limit} were allowed (the server has a limit of its own; context used: {total})"
    if reason == "length" and limit is None and total is not None and context_tokens and total < context_tokens:
        yield f"cut after {used} tokens though the request sets no limit (a default of the server; {total} of {context_tokens} tokens of context used)"


def _usage(exchange: Exchange, answer: Answer) -> Iterator[str]:
    prompt, completion, total = (answer.tokens(f"{part}_tokens") for part in ("prompt", "completion", "total"))
    if prompt is None or completion is None or total is None:
        yield "usage is missing" if answer.usage is None else f"usage is incomplete: {answer.usage}"
        return
    if prompt < 1 or (completion < 1 and answer.text):
        yield f"usage counts no tokens: prompt {prompt}, completion {completion}"
    if total != prompt + completion:
        yield f"usage does not add up: {prompt} + {completion} is not {total}"
    limit, several = max_tokens(exchange), len(answer.choice_indexes)  # usage counts all choices, or one (llama.cpp)
    if limit is not None and completion > limit * max(several, 1):
        yield f"{completion} completion tokens although max_tokens is {limit}"
    size = len((answer.text + answer.reasoning).encode())
    if size and several == 1 and not answer.tool_calls and completion > size + 16:
        yield f"usage says {completion} completion tokens for {size} bytes of text"


def _fresh(exchange: Exchange, answer: Answer, seen_ids: dict[str, str]) -> Iterator[str]:
    for name in sorted(answer.ids):
        if seen_ids.setdefault(name, exchange.key) != exchange.key:
            yield f"answered from a cache: response id {name!r} was already given to {seen_ids[name]}"
    if not answer.created or not 0 < answer.created < LATEST or not exchange.attempts:
        return
    age_s = datetime.fromisoformat(exchange.attempts[-1].at).timestamp() - answer.created
    if age_s > STALE_S and not _clock_agrees(exchange, answer.created):
        yield f"answered from a cache: created {age_s:,.0f} s before it was asked"


def _clock_agrees(exchange: Exchange, created: int) -> bool:
    """Whether the server's own Date header says that `created` is now, so that only its clock is behind ours."""
    try:
        return abs(parsedate_to_datetime(exchange.headers["date"]).timestamp() - created) <= STALE_S
    except (KeyError, ValueError, TypeError):
        return False


def max_tokens(exchange: Exchange) -> int | None:
    """The cap that the request set, under either name."""
    body = exchange.body or {}
    value = body.get("max_completion_tokens", body.get("max_tokens"))
    return value if isinstance(value, int) else None
