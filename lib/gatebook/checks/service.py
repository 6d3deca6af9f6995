"""What the service does around the text: identity, settings, streaming, stopping, sampling, time, and what load costs it in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from gatebook.checks.evidence import Evidence, Points
from gatebook.checks.finding import Outcome, Result, Stage
from gatebook.checks.registry import Words, check, having, lacks
from gatebook.config.cases import Case
from gatebook.config.policies import ITEMS, Item, Production
from gatebook.engines import Said, Value
from gatebook.engines.sglang import RETRACTED_NOW
from gatebook.record.gauges import KV_CACHE, PREEMPTED, WAITING, Gauge, series, sessions
from gatebook.record.identity import Identity, shown

LAG_LIMIT_MS, CPU_LIMIT_SHARE = 5.0, 0.5
OVER_SETTINGS = having("over", "the case does not look at settings; write key 'over' with value settings", "settings")
SAME_TOKENS = 4
"""What joining parts, or a template's blanks around them, may cost beside the same text in one piece."""


@check(Stage.NOT_SERVED)
def model_listed(evidence: Evidence) -> Result:
    """/v1/models lists the profile's model name."""
    wanted, models = evidence.profile.target.model, evidence.identity.models
    if not models:
        return Result("not_measured", "the server lists no models at /v1/models", None, wanted)
    if wanted in models:
        return Result("pass", f"serves {wanted}", wanted, wanted)
    served = ", ".join(models)
    return Result("fail", f"model {wanted!r} is not served; served: {served}", served, wanted)


@check(Stage.SETTINGS)
def engine_told(evidence: Evidence) -> Result:
    """The engine is one we know, with its version."""
    engine, version = evidence.identity.engine, evidence.identity.version
    if engine == "unknown":
        return Result("not_measured", "no probe answers as a known engine does, so it is gated by what it does")
    told = f"{engine} {version}" if version else engine
    return Result("pass", told if version else f"{engine} of an untold version", told)


@check(Stage.SETTINGS, OVER_SETTINGS)
def like_production(evidence: Evidence, item: Item) -> Result:
    """One item of the profile's `production:` block is what the server says of itself; what is untold is not measured."""
    rows = compare(evidence.profile.production, evidence.identity, evidence.watching().gauges)
    found = next(row for row in rows if row.item == item)
    measured = " / ".join(dict.fromkeys(str(s.value) for s in found.said)) or None
    return Result(found.outcome, found.reason, measured, None if found.production is None else str(found.production))


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
    reply, engine = evidence.replies[0], evidence.identity.dialect
    status = reply.exchange.status
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
    told = {reply.ask.name: reply.answer.tokens("prompt_tokens") for reply in evidence.replies}
    shown = ", ".join(f"{name} {count}" for name, count in told.items())
    for name, count in told.items():
        head, _, other = name.partition("-")
        beside = told.get(other)
        if count is None or beside is None:
            continue
        if head == "with" and count <= beside:
            said = f"{name!r} costs {count} tokens, no more than the {beside} without: a message is dropped"
            if about == "of_tools" and evidence.identity.tools is False:
                return Result("not_measured", f"{said}; its chat template knows no tools", shown)
            return Result("fail", said, shown)
        if head == "like" and abs(count - beside) > SAME_TOKENS:
            what = "a part of it is dropped" if count < beside else "something else reaches the model"
            return Result("fail", f"{name!r} costs {count} tokens where {beside} say the same: {what}", shown)
    missing = None in told.values()
    return Result.of(not missing, f"{'usage.prompt_tokens is missing' if missing else 'prompt tokens'}: {shown}", shown)


def _asks_for_several(case: Case) -> str | None:
    several = all(isinstance(n := ask.options.get("n"), int) and n > 1 for ask in case.requests())
    return None if several else "the request asks for one choice; set options.n to 2 or more"


@check(Stage.ENVELOPE, _asks_for_several)
def every_choice(evidence: Evidence) -> Result:
    """As many answers as `n` asks for, with the indexes 0 to n - 1; llama.cpp counts the tokens of one of them only."""
    for reply in evidence.replies:
        wanted, found = [*range(reply.ask.options["n"])], sorted(reply.answer.choice_indexes)
        if found != wanted:
            said = f"{reply.ask.name}: {len(wanted)} choices asked, the reply has the indexes {found}"
            return Result("fail", said, str(found), str(wanted))
    return Result("pass", f"every choice is there: {', '.join(r.ask.name for r in evidence.replies)}")


@check(Stage.SPEED, names={"ttft_ms": {"token": "first"}, "total_ms": {"token": "last"}})
def token_in_time(evidence: Evidence, _: Literal["limit"], token: Literal["first", "last"]) -> Result:
    """The first token (`ttft_ms`) or the last one (`total_ms`) within the profile's limit of that name."""
    exchange, limits = evidence.replies[0].exchange, evidence.profile.limits
    limit = limits.ttft_ms if token == "first" else limits.total_ms
    measured: float | None = getattr(exchange.timing, f"{token}_token_ms", None)
    if measured is None:
        return Result("fail", f"there was no {token} token", None, limit, "ms")
    said, client = f"{token} token after {measured:.0f} ms", exchange.client
    lag_ms, cpu_share = (client.loop_lag_ms, client.cpu_share) if client else (None, None)
    if measured > limit and ((lag_ms or 0) > LAG_LIMIT_MS or (cpu_share or 0) > CPU_LIMIT_SHARE):
        said += f", but our own client was late (loop lag {lag_ms} ms, CPU share {cpu_share})"
        return Result("not_measured", said, round(measured, 1), limit, "ms")
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
    if plain == again:
        return Result("fail", f"the stream says {streamed[:60]!r}, the plain reply {plain[:60]!r}")
    said = f"two plain replies at temperature 0 differ already: {plain[:40]!r} and {again[:40]!r}"
    return Result("not_measured", said)


@check(Stage.CONSTRAINT, lambda case, free, stopped, stop: lacks(case, free, stopped))
def stop_honoured(evidence: Evidence, *, free: str, stopped: str, stop: str) -> Result:
    """With a stop string the answer ends before it; shown on an answer that contains the string without it."""
    whole, ended = evidence.reply(free).answer.text, evidence.reply(stopped).answer
    if stop in ended.text:
        return Result("fail", f"the answer contains the stop string {stop!r}: {ended.text[:60]!r}")
    if ended.finish_reason != "stop":
        said = f"finish_reason is {ended.finish_reason!r} where the stop string {stop!r} ends the answer"
        return Result("fail", said)
    if stop not in whole:
        return Result("not_measured", f"the free answer has no {stop!r}, so nothing is shown: {whole[:60]!r}")
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
    first, *more = dict.fromkeys(evidence.reply(name).answer.text for name in same)
    if more:
        said = f"{1 + len(more)} different answers to {len(same)} requests with the same seed: {first[:40]!r} and {more[0][:40]!r}"
        return Result("fail", f"the seed is not honoured: {said}", 1 + len(more), 1, "answers")
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
    found, asked = len(set().union(*ids)), len(ids)
    return Result.of(found >= asked, f"{found} response ids for {asked} requests", found, asked, "ids")


SAME_MEMORY = 0.08
"""A 24 GB card tells 22.5 to 24 GiB, by whether error correction is on."""
SHORT = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}


@dataclass(frozen=True)
class Compared:
    """One item."""

    item: Item
    production: Value | None
    said: tuple[Said, ...]
    outcome: Outcome
    reason: str


def compare(production: Production, identity: Identity, gauges: Iterable[Gauge]) -> list[Compared]:
    """Every item that can be compared, in the order of ITEMS."""
    told = (*identity.settings, *shown(gauges))
    return [_compare(item, getattr(production, item), tuple(s for s in told if s.item == item)) for item in ITEMS]


def _compare(item: Item, wanted: Value | None, said: tuple[Said, ...]) -> Compared:
    heard = "; ".join(f"{s.value} by {s.source}" for s in said)
    if wanted is None:
        reason = f"the profile does not state production.{item} ({f'the server says {heard}' if said else 'the server does not tell it'}); state it, or excuse this case by name"
        return Compared(item, None, said, "not_measured", reason)
    if not said:
        reason = f"unknown: production has {item} {wanted}, and the server does not tell its own; compare it by hand and excuse this case by name"
        return Compared(item, wanted, said, "not_measured", reason)
    if wrong := next((s for s in said if not same(item, wanted, s.value)), None):
        reason = f"{item} is {wrong.value} by {wrong.source}, and production has {wanted}: start the server as production is started, or correct production.{item}"
        return Compared(item, wanted, said, "fail", reason)
    return Compared(item, wanted, said, "pass", f"{item} is {heard}, as in production")


def same(item: Item, wanted: Value, value: Value) -> bool:
    """Whether two values of an item mean the same."""
    if item == "gpu_memory_gb":
        return isinstance(value, int | float) and abs(float(value) - float(wanted)) <= SAME_MEMORY * float(wanted)
    if item == "gpu":
        card, other = (re.sub(r"nvidia|geforce|[^a-z0-9]", "", str(name).lower()) for name in (wanted, value))
        return card == other
    if item in ("dtype", "kv_cache_dtype"):
        return _dtype(wanted) == _dtype(value)
    if item == "cuda_visible_devices":
        return str(wanted).replace(" ", "") == str(value).replace(" ", "")
    return wanted == value and isinstance(wanted, bool) == isinstance(value, bool)


def _dtype(name: Value) -> str:
    plain = str(name).lower().removeprefix("torch.")
    return SHORT.get(plain, plain)


Limit = Literal["limit"]
OVER_GAUGES = having("over", "the case does not look at gauges; write key 'over' with value gauges", "gauges")
UNSTATED = "the profile does not state production.{}; state it, or excuse this case by name"


@check(Stage.SPEED, OVER_GAUGES)
def gpu_memory(evidence: Evidence, _: Limit) -> Result:
    """Peak memory of every GPU within production.gpu_memory_limit_gb. vLLM and SGLang take their memory at the start: there
    it is evidence, and load.kv_cache decides."""
    limit, watched = evidence.profile.production.gpu_memory_limit_gb, evidence.watching()
    if not watched.gpus:
        return Result("not_measured", f"no GPU memory: {watched.missing('gpu')}", None, limit, "GB")
    fullest = max(watched.gpus, key=lambda gpu: gpu.peak_mib or 0)
    peak = round((fullest.peak_mib or 0) / 1024, 2)
    name = f"GPU {fullest.id}{f' ({fullest.name})' if fullest.name else ''}"
    size = f" of {fullest.total_mib / 1024:.1f}" if fullest.total_mib else ""
    told = f"{name} held {peak:.1f}{size} GB at the peak"
    if limit is None:
        return Result("not_measured", f"{told}; {UNSTATED.format('gpu_memory_limit_gb')}", peak, None, "GB")
    if blind := watched.unread_gpus():
        return Result("not_measured", f"{told}, but not every GPU could be read: {blind[0]}", peak, limit, "GB")
    if unseen := next((f"GPU {gpu.id}: {said}" for gpu in watched.gpus if (said := watched.unseen(gpu.used))), None):
        return Result("not_measured", unseen, peak, limit, "GB")
    if evidence.identity.dialect.takes_memory_at_start:
        engine = evidence.identity.engine
        told += f" (limit {limit:g} GB); {engine} takes its memory at the start, so load.kv_cache decides"
        return Result("pass", told, peak, limit, "GB")
    if peak <= limit:
        return Result("pass", f"{told}, {limit - peak:.1f} GB below the limit of {limit:g} GB", peak, limit, "GB")
    others = f"; its processes: {', '.join(sorted(fullest.processes))}" if fullest.processes else ""
    told += f", limit {limit:g} GB: lower the concurrency or the context{others}"
    return Result("fail", told, peak, limit, "GB")


@check(Stage.SPEED, OVER_GAUGES)
def kv_cache_usage(evidence: Evidence, _: Limit) -> Result:
    """The KV cache's peak use within production.kv_cache_usage_limit."""
    points = series(evidence.watching().gauges, KV_CACHE, total=False)
    told = "the KV cache was {peak:.0%} full at the peak, limit {limit:.0%}"
    todo = "the next request waits or pushes another one out; lower the concurrency or give the cache more memory"
    return _within(evidence, "KV-cache use", points, round(_peak(points), 4), "kv_cache_usage_limit", told, todo, "")


@check(Stage.SPEED, OVER_GAUGES)
def queue(evidence: Evidence, _: Limit) -> Result:
    """Requests that waited inside the server at a time, within production.queue_limit."""
    points = series(evidence.watching().gauges, WAITING, total=True)
    told = "{peak} requests waited in the server at the peak, limit {limit}"
    todo = "it takes fewer at a time than it was sent; compare max_num_seqs with production"
    return _within(evidence, "queue length", points, int(_peak(points)), "queue_limit", told, todo)


@check(Stage.SPEED, OVER_GAUGES)
def preemptions(evidence: Evidence, _: Limit) -> Result:
    """Requests that the engine preempted or retracted during the load, within production.preemptions_limit."""
    gauges, steps, retracted = evidence.watching().gauges, list[float](), 0.0
    points = series(gauges, PREEMPTED, total=True) or series(gauges, (RETRACTED_NOW,), total=True)
    for stretch in sessions(gauges):  # what happened between two stretches of sampling is not the load's
        if counter := series(stretch, PREEMPTED, total=True):
            steps += [b - a for (_, a), (_, b) in pairwise(counter)]
        else:
            retracted += _peak(series(stretch, (RETRACTED_NOW,), total=True))
    count = int(sum(step for step in steps if step > 0) + retracted)
    told = "{peak} preemptions during the load, limit {limit}"
    todo = "the KV cache ran out and answers were begun anew; lower max_num_seqs or the context, or give the cache more memory"
    found = _within(evidence, "count of preemptions", points, count, "preemptions_limit", told, todo)
    if found.outcome == "not_measured" or not any(step < 0 for step in steps):
        return found
    said = "the count of preemptions fell during the load: the server started anew"
    return replace(found, outcome="fail", reason=said)


def _peak(points: Points) -> float:
    return max((value for _, value in points), default=0.0)


def _within(
    evidence: Evidence, what: str, read: Points, peak: float, setting: str, told: str, todo: str, unit: str = "requests"
) -> Result:
    """A gauge of the engine within a limit of production; `todo` is said past the limit."""
    limit, watched = getattr(evidence.profile.production, setting), evidence.watching()
    if not read:
        return Result("not_measured", f"the server tells no {what}: {watched.missing('metrics')}", None, limit)
    if limit is None:
        return Result("not_measured", UNSTATED.format(setting), _peak(read), None)
    if unseen := watched.unseen(read):
        return Result("not_measured", unseen, None, limit)
    reason = told.format(peak=peak, limit=limit)
    return Result.of(peak <= limit, reason if peak <= limit else f"{reason}: {todo}", peak, limit, unit)
