"""What the service does around the text: identity, streaming, stopping, sampling, time."""

from __future__ import annotations

from typing import Literal

from gatebook.judge.checks.registry import Params, Words, check, needs_asks
from gatebook.judge.evidence import Evidence, Reply
from gatebook.judge.finding import Result, Stage
from gatebook.plan.cases import Case
from gatebook.record.exchange import Timing

LAG_LIMIT_MS = 5.0
CPU_LIMIT_SHARE = 0.5
SAME_TOKENS = 4
"""What joining parts, or a template's blanks around them, may cost beside the same text in one piece."""


class Stop(Params):
    """The ask without the stop string, the one with it, and the string."""

    free: str
    stopped: str
    stop: str


class Range(Params):
    min: int


class Seeds(Params):
    """The asks with one seed, and the one with another."""

    same: Words
    other: str


@check("model_listed", Literal[True], judges_text=False, stage=Stage.NOT_SERVED)
def model_listed(evidence: Evidence, _: bool) -> Result:
    """/v1/models lists the profile's model name."""
    wanted, served = evidence.profile.target.model, evidence.identity.models
    if not served:
        return Result("not_measured", "the server lists no models at /v1/models", None, wanted)
    if wanted in served:
        return Result("pass", f"serves {wanted}", wanted, wanted)
    return Result("fail", f"model {wanted!r} is not served; served: {', '.join(served)}", ", ".join(served), wanted)


@check("engine_told", Literal[True], judges_text=False, stage=Stage.SETTINGS)
def engine_told(evidence: Evidence, _: bool) -> Result:
    """The engine is one we know, with its version."""
    identity = evidence.identity
    if identity.engine == "unknown":
        return Result("not_measured", "no probe answers as a known engine does, so it is gated by what it does")
    return Result(
        "pass",
        f"{identity.engine} {identity.version or 'of an untold version'}",
        f"{identity.engine} {identity.version or ''}".strip(),
    )


@check("context_limit", Literal[True], judges_text=False, stage=Stage.REFUSED)
def context_limit(evidence: Evidence, _: bool) -> Result:
    """The served context is at least the profile's target.context_tokens."""
    wanted, served = evidence.profile.target.context_tokens, evidence.identity.context_tokens
    if served is None:
        return Result("not_measured", "the server does not tell its context limit", None, wanted, "tokens")
    if wanted is None:
        return Result(
            "pass", f"{served} tokens; the profile asks for no minimum (target.context_tokens)", served, None, "tokens"
        )
    return Result(
        "pass" if served >= wanted else "fail", f"{served} tokens served, {wanted} needed", served, wanted, "tokens"
    )


@check("wrong_model", Literal[True], judges_text=False, stage=Stage.BEHAVIOUR)
def wrong_model(evidence: Evidence, _: bool) -> Result:
    """A model name that nobody serves: vLLM refuses it; llama.cpp and SGLang are known to answer all the same."""
    reply = evidence.replies[0]
    status, engine = reply.exchange.status, evidence.identity.dialect
    if reply.refused:
        return Result("pass", f"refused: {reply.said}", status, "4xx")
    if engine.answers_any_name is False:
        return Result("fail", f"HTTP {status} for a model that is not served; {engine.name} answers 4xx", status, 404)
    known = " (known of this engine)" if engine.answers_any_name else ""
    return Result(
        "pass",
        f"HTTP {status}: answers any model name{known}, so the name in a reply proves nothing",
        status,
        "4xx or recorded",
    )


@check("prompt_tokens", Literal[True, "of_tools"], judges_text=False, stage=Stage.TEMPLATE)
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


@check("every_choice", Literal[True], lambda case, _: _asks_for_several(case), judges_text=False, stage=Stage.ENVELOPE)
def every_choice(evidence: Evidence, _: bool) -> Result:
    """As many answers as `n` asks for, with the indexes 0 to n - 1; llama.cpp counts the tokens of one of them only."""
    for reply in evidence.replies:
        wanted, found = set(range(reply.ask.options["n"])), reply.answer.choice_indexes
        if found != wanted:
            said = f"{reply.ask.name}: {len(wanted)} choices asked, the reply has the indexes {sorted(found)}"
            return Result("fail", said, str(sorted(found)), str(sorted(wanted)))
    return Result("pass", f"every choice is there: {', '.join(r.ask.name for r in evidence.replies)}")


def _asks_for_several(case: Case) -> str | None:
    several = all(isinstance(n := ask.options.get("n"), int) and n > 1 for ask in case.requests())
    return None if several else "the request asks for one choice; set options.n to 2 or more"


@check("ttft_ms", Literal["limit"], judges_text=False, stage=Stage.SPEED)
def ttft_ms(evidence: Evidence, _: str) -> Result:
    """Time to first token within limits.ttft_ms."""
    reply = evidence.replies[0]
    return _timed(
        reply,
        _timing(reply).first_token_ms,
        evidence.profile.limits.ttft_ms,
        "first token",
    )


@check("total_ms", Literal["limit"], judges_text=False, stage=Stage.SPEED)
def total_ms(evidence: Evidence, _: str) -> Result:
    """Last token within limits.total_ms."""
    reply = evidence.replies[0]
    return _timed(
        reply,
        _timing(reply).last_token_ms,
        evidence.profile.limits.total_ms,
        "last token",
    )


def _timing(reply: Reply) -> Timing:
    return reply.exchange.timing or Timing(queued_ms=0)


def _timed(reply: Reply, measured: float | None, limit: float, what: str) -> Result:
    if measured is None:
        return Result("fail", f"there was no {what}", None, limit, "ms")
    if measured <= limit:
        return Result("pass", f"{what} after {measured:.0f} ms, limit {limit:g} ms", round(measured, 1), limit, "ms")
    client = reply.exchange.client
    if client and ((client.loop_lag_ms or 0) > LAG_LIMIT_MS or (client.cpu_share or 0) > CPU_LIMIT_SHARE):
        why = f"our own client was late (loop lag {client.loop_lag_ms} ms, CPU share {client.cpu_share})"
        return Result("not_measured", f"{what} after {measured:.0f} ms, but {why}", round(measured, 1), limit, "ms")
    return Result("fail", f"{what} after {measured:.0f} ms, limit {limit:g} ms", round(measured, 1), limit, "ms")


@check(
    "stream_equals_plain",
    Literal[True],
    needs_asks("plain", "streamed", "again"),
    judges_text=False,
    stage=Stage.BEHAVIOUR,
)
def stream_equals_plain(evidence: Evidence, _: bool) -> Result:
    """At temperature 0 the joined stream says what the plain reply says; asked `plain`, `streamed`, `again` (plain).

    A last character that max_tokens cuts in half is left out. When even the two plain replies differ, the engine is
    not deterministic and equality shows nothing.
    """
    plain, streamed, again = (_whole(evidence.reply(name)) for name in ("plain", "streamed", "again"))
    if streamed in (plain, again):
        return Result("pass", f"the same {len(streamed)} characters")
    if plain != again:
        return Result(
            "not_measured", f"two plain replies at temperature 0 differ already: {plain[:40]!r} and {again[:40]!r}"
        )
    return Result("fail", f"the stream says {streamed[:60]!r}, the plain reply {plain[:60]!r}")


def _whole(reply: Reply) -> str:
    return reply.answer.text.rstrip("\ufffd")


@check(
    "stop_honoured",
    Stop,
    lambda case, params: needs_asks(params.free, params.stopped)(case, params),
    judges_text=False,
    stage=Stage.CONSTRAINT,
)
def stop_honoured(evidence: Evidence, params: Stop) -> Result:
    """With a stop string the answer ends before it; shown on an answer that contains the string without it."""
    free, stopped = evidence.reply(params.free).answer, evidence.reply(params.stopped).answer
    if params.stop in stopped.text:
        return Result("fail", f"the answer contains the stop string {params.stop!r}: {stopped.text[:60]!r}")
    if stopped.finish_reason != "stop":
        return Result(
            "fail", f"finish_reason is {stopped.finish_reason!r} where the stop string {params.stop!r} ends the answer"
        )
    if params.stop not in free.text:
        return Result(
            "not_measured", f"the free answer has no {params.stop!r}, so nothing is shown: {free.text[:60]!r}"
        )
    return Result("pass", f"ends before {params.stop!r}: {stopped.text[:60]!r}")


@check("distinct_answers", Range, judges_text=False, stage=Stage.SAMPLING)
def distinct_answers(evidence: Evidence, params: Range) -> Result:
    """Requests without sampling parameters give different answers, as the model's default temperature has it."""
    texts = {reply.answer.text for reply in evidence.replies}
    reason = f"{len(texts)} different answers to {len(evidence.replies)} equal requests without sampling parameters"
    return Result("pass" if len(texts) >= params.min else "fail", reason, len(texts), params.min, "answers")


@check(
    "seed_honoured",
    Seeds,
    lambda case, params: needs_asks(*params.same, params.other)(case, params),
    judges_text=False,
    stage=Stage.SAMPLING,
)
def seed_honoured(evidence: Evidence, params: Seeds) -> Result:
    """Requests with one seed get one answer, and another seed another, at a temperature that leaves a choice (vllm#21310).

    Engines that batch are not bound to it bit by bit; there the group is for the profile to watch.
    """
    same = [evidence.reply(name).answer.text for name in params.same]
    other = evidence.reply(params.other).answer.text
    different = len(set(same))
    if different > 1:
        said = f"{different} different answers to {len(same)} requests with the same seed: {same[0][:40]!r} and {next(t for t in same if t != same[0])[:40]!r}"
        return Result("fail", f"the seed is not honoured: {said}", different, 1, "answers")
    if other == same[0]:
        return Result("not_measured", f"another seed gives the same answer, so nothing is shown: {other[:40]!r}")
    return Result(
        "pass", f"{len(same)} requests with one seed say the same, another seed another thing", 1, 1, "answers"
    )


@check("distinct_ids", Literal[True], judges_text=False, stage=Stage.ENVELOPE)
def distinct_ids(evidence: Evidence, _: bool) -> Result:
    """Equal messages asked again get a reply of their own, with an id of its own: no cache in between."""
    ids = [sorted(reply.answer.ids) for reply in evidence.replies]
    if not all(ids):
        return Result("fail", "a reply has no id, so nothing shows that it is fresh", len(ids))
    different = len({name for found in ids for name in found})
    return Result(
        "pass" if different >= len(ids) else "fail",
        f"{different} response ids for {len(ids)} requests",
        different,
        len(ids),
        "ids",
    )
