"""What the service does around the text: identity, settings, streaming, stopping, sampling, time."""

from __future__ import annotations

from typing import Literal

from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import Words, check, having, lacks
from gatebook.checks.settings import compare
from gatebook.config.cases import Case
from gatebook.config.policies import Item

LAG_LIMIT_MS = 5.0
CPU_LIMIT_SHARE = 0.5
OVER_SETTINGS = having("over", "the case does not look at settings; write key 'over' with value settings", "settings")
SAME_TOKENS = 4
"""What joining parts, or a template's blanks around them, may cost beside the same text in one piece."""


@check(Stage.NOT_SERVED)
def model_listed(evidence: Evidence) -> Result:
    """/v1/models lists the profile's model name."""
    wanted, served = evidence.profile.target.model, evidence.identity.models
    if not served:
        return Result("not_measured", "the server lists no models at /v1/models", None, wanted)
    if wanted in served:
        return Result("pass", f"serves {wanted}", wanted, wanted)
    return Result("fail", f"model {wanted!r} is not served; served: {', '.join(served)}", ", ".join(served), wanted)


@check(Stage.SETTINGS)
def engine_told(evidence: Evidence) -> Result:
    """The engine is one we know, with its version."""
    identity = evidence.identity
    if identity.engine == "unknown":
        return Result("not_measured", "no probe answers as a known engine does, so it is gated by what it does")
    told = f"{identity.engine} {identity.version or ''}".strip()
    return Result("pass", told if identity.version else f"{told} of an untold version", told)


@check(Stage.SETTINGS, OVER_SETTINGS)
def like_production(evidence: Evidence, item: Item) -> Result:
    """One item of the profile's `production:` block is what the server says of itself. What is not stated, or not told, is not
    measured."""
    rows = compare(evidence.profile.production, evidence.identity, evidence.watched.gauges)
    found = next(row for row in rows if row.item == item)
    measured = " / ".join(dict.fromkeys(str(s.value) for s in found.said)) or None
    limit = None if found.production is None else str(found.production)
    return Result(found.outcome, found.reason, measured, limit)


@check(Stage.REFUSED)
def context_limit(evidence: Evidence) -> Result:
    """The served context is at least the profile's target.context_tokens."""
    wanted, served = evidence.profile.target.context_tokens, evidence.identity.context_tokens
    if served is None:
        return Result("not_measured", "the server does not tell its context limit", None, wanted, "tokens")
    if wanted is None:
        said = f"{served} tokens; the profile asks for no minimum (target.context_tokens)"
        return Result("pass", said, served, None, "tokens")
    return Result.of(served >= wanted, f"{served} tokens served, {wanted} needed", served, wanted, "tokens")


@check(Stage.BEHAVIOUR)
def wrong_model(evidence: Evidence) -> Result:
    """A model name that nobody serves: vLLM refuses it; llama.cpp and SGLang are known to answer all the same."""
    reply = evidence.replies[0]
    status, engine = reply.exchange.status, evidence.identity.dialect
    if reply.refused:
        return Result("pass", f"refused: {reply.said}", status, "4xx")
    if engine.answers_any_name is False:
        return Result("fail", f"HTTP {status} for a model that is not served; {engine.name} answers 4xx", status, 404)
    known = " (known of this engine)" if engine.answers_any_name else ""
    said = f"HTTP {status}: answers any model name{known}, so the name in a reply proves nothing"
    return Result("pass", said, status, "4xx or recorded")


@check(Stage.TEMPLATE)
def prompt_tokens(evidence: Evidence, about: Literal[True, "of_tools"]) -> Result:
    """usage.prompt_tokens of fixed messages: an exact fingerprint of chat template and tokenizer.

    An ask `with-<x>` must cost more tokens than the ask `<x>`, else part of its messages is dropped; `like-<x>` says the same
    in another form and must cost as many. `of_tools`: where the engine says that its template knows no tools, nothing is shown.
    """
    counts = {reply.ask.name: reply.answer.tokens("prompt_tokens") for reply in evidence.replies}
    shown = ", ".join(f"{name} {count}" for name, count in counts.items())
    for name, count in counts.items():
        more, alike = (counts.get(name.removeprefix(head)) for head in ("with-", "like-"))
        if name.startswith("with-") and count is not None and more is not None and count <= more:
            said = f"{name!r} costs {count} tokens, no more than the {more} without: a message is dropped"
            if about == "of_tools" and evidence.identity.tools is False:
                return Result("not_measured", f"{said}; its chat template knows no tools", shown)
            return Result("fail", said, shown)
        if name.startswith("like-") and count is not None and alike is not None and abs(count - alike) > SAME_TOKENS:
            what = "a part of it is dropped" if count < alike else "something else reaches the model"
            return Result("fail", f"{name!r} costs {count} tokens where {alike} say the same: {what}", shown)
    if None in counts.values():
        return Result("fail", f"usage.prompt_tokens is missing: {shown}", shown)
    return Result("pass", f"prompt tokens: {shown}", shown)


def _asks_for_several(case: Case) -> str | None:
    several = all(isinstance(n := ask.options.get("n"), int) and n > 1 for ask in case.requests())
    return None if several else "the request asks for one choice; set options.n to 2 or more"


@check(Stage.ENVELOPE, _asks_for_several)
def every_choice(evidence: Evidence) -> Result:
    """As many answers as `n` asks for, with the indexes 0 to n - 1; llama.cpp counts the tokens of one of them only."""
    for reply in evidence.replies:
        wanted, found = set(range(reply.ask.options["n"])), reply.answer.choice_indexes
        if found != wanted:
            said = f"{reply.ask.name}: {len(wanted)} choices asked, the reply has the indexes {sorted(found)}"
            return Result("fail", said, str(sorted(found)), str(sorted(wanted)))
    return Result("pass", f"every choice is there: {', '.join(evidence.names)}")


@check(Stage.SPEED)
def ttft_ms(evidence: Evidence, _: Literal["limit"]) -> Result:
    """Time to first token within limits.ttft_ms."""
    timing = evidence.replies[0].exchange.timing
    measured = timing.first_token_ms if timing else None
    return _timed(evidence.replies[0], measured, evidence.profile.limits.ttft_ms, "first token")


@check(Stage.SPEED)
def total_ms(evidence: Evidence, _: Literal["limit"]) -> Result:
    """Last token within limits.total_ms."""
    timing = evidence.replies[0].exchange.timing
    measured = timing.last_token_ms if timing else None
    return _timed(evidence.replies[0], measured, evidence.profile.limits.total_ms, "last token")


def _timed(reply: Reply, measured: float | None, limit: float, what: str) -> Result:
    if measured is None:
        return Result("fail", f"there was no {what}", None, limit, "ms")
    said, client = f"{what} after {measured:.0f} ms", reply.exchange.client
    lag_ms, cpu_share = (client.loop_lag_ms, client.cpu_share) if client else (None, None)
    if measured > limit and ((lag_ms or 0) > LAG_LIMIT_MS or (cpu_share or 0) > CPU_LIMIT_SHARE):
        why = f"our own client was late (loop lag {lag_ms} ms, CPU share {cpu_share})"
        return Result("not_measured", f"{said}, but {why}", round(measured, 1), limit, "ms")
    return Result.of(measured <= limit, f"{said}, limit {limit:g} ms", round(measured, 1), limit, "ms")


@check(Stage.BEHAVIOUR, lambda case: lacks(case, "plain", "streamed", "again"))
def stream_equals_plain(evidence: Evidence) -> Result:
    """At temperature 0 the joined stream says what the plain reply says; asked `plain`, `streamed`, `again` (plain).

    A last character that max_tokens cuts in half is left out. When even the two plain replies differ, the engine is
    not deterministic and equality shows nothing.
    """
    replies = (evidence.reply(name) for name in ("plain", "streamed", "again"))
    plain, streamed, again = (reply.answer.text.rstrip("\ufffd") for reply in replies)
    if streamed in (plain, again):
        return Result("pass", f"the same {len(streamed)} characters")
    if plain != again:
        said = f"two plain replies at temperature 0 differ already: {plain[:40]!r} and {again[:40]!r}"
        return Result("not_measured", said)
    return Result("fail", f"the stream says {streamed[:60]!r}, the plain reply {plain[:60]!r}")


@check(Stage.CONSTRAINT, lambda case, free, stopped, stop: lacks(case, free, stopped))
def stop_honoured(evidence: Evidence, *, free: str, stopped: str, stop: str) -> Result:
    """With a stop string the answer ends before it; shown on an answer that contains the string without it."""
    whole, ended = evidence.reply(free).answer, evidence.reply(stopped).answer
    if stop in ended.text:
        return Result("fail", f"the answer contains the stop string {stop!r}: {ended.text[:60]!r}")
    if ended.finish_reason != "stop":
        return Result(
            "fail", f"finish_reason is {ended.finish_reason!r} where the stop string {stop!r} ends the answer"
        )
    if stop not in whole.text:
        return Result("not_measured", f"the free answer has no {stop!r}, so nothing is shown: {whole.text[:60]!r}")
    return Result("pass", f"ends before {stop!r}: {ended.text[:60]!r}")


@check(Stage.SAMPLING)
def distinct_answers(evidence: Evidence, *, min: int) -> Result:
    """Requests without sampling parameters give different answers, as the model's default temperature has it."""
    found = len({reply.answer.text for reply in evidence.replies})
    reason = f"{found} different answers to {len(evidence.replies)} equal requests without sampling parameters"
    return Result.of(found >= min, reason, found, min, "answers")


@check(Stage.SAMPLING, lambda case, same, other: lacks(case, *same, other))
def seed_honoured(evidence: Evidence, *, same: Words, other: str) -> Result:
    """Requests with one seed get one answer, and another seed another, at a temperature that leaves a choice (vllm#21310).

    Engines that batch are not bound to it bit by bit; there the group is for the profile to watch.
    """
    first, *more = [evidence.reply(name).answer.text for name in same]
    differs, different = next((text for text in more if text != first), None), len({first, *more})
    if differs is not None:
        said = f"{different} different answers to {len(same)} requests with the same seed: {first[:40]!r} and {differs[:40]!r}"
        return Result("fail", f"the seed is not honoured: {said}", different, 1, "answers")
    if evidence.reply(other).answer.text == first:
        return Result("not_measured", f"another seed gives the same answer, so nothing is shown: {first[:40]!r}")
    said = f"{len(same)} requests with one seed say the same, another seed another thing"
    return Result("pass", said, 1, 1, "answers")


@check(Stage.ENVELOPE)
def distinct_ids(evidence: Evidence) -> Result:
    """Equal messages asked again get a reply of their own, with an id of its own: no cache in between."""
    ids = [reply.answer.ids for reply in evidence.replies]
    if not all(ids):
        return Result("fail", "a reply has no id, so nothing shows that it is fresh", len(ids))
    found, asked = len({name for told in ids for name in told}), len(ids)
    return Result.of(found >= asked, f"{found} response ids for {asked} requests", found, asked, "ids")
