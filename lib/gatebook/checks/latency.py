"""Is it fast enough? Each metric of a timed case is judged apart, by the rules that the profile's `latency` names."""

from __future__ import annotations

from statistics import median
from typing import Literal

from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Result, Stage, worst
from gatebook.checks.intervals import epoch_ms
from gatebook.checks.registry import check, having
from gatebook.checks.rulings import Ruling, deciding
from gatebook.config.policies import Metric
from gatebook.record.exchange import Exchange
from gatebook.record.replies import read_answer

IS_TIMED = having("samples", "the case is asked once; say how often with key 'samples'")
LEAST_PAIRS = 4
SLOW_ITSELF = 3.0
"""Times the plain answer. vLLM on two CPU cores with far too much to do, 8 in flight, first run: a healthy schema added 1.15 times."""
MOST = 0.75
"""Of the pairs: a single slow answer, or a busy second, is no constraint that is slow."""
NAMES: dict[Metric, str] = {"ttft": "first token", "itl": "time between tokens", "total": "last token"}


@check(Stage.SPEED, IS_TIMED)
def latency_ttft(evidence: Evidence, _: Literal["profile"]) -> Result:
    """Time to first token, by the rules that the profile names under `latency.blocks.ttft`."""
    return _judged(evidence, "ttft")


@check(Stage.SPEED, IS_TIMED)
def latency_itl(evidence: Evidence, _: Literal["profile"]) -> Result:
    """Mean time between the tokens of an answer, by the rules that the profile names under `latency.blocks.itl`."""
    return _judged(evidence, "itl")


@check(Stage.SPEED, IS_TIMED)
def latency_total(evidence: Evidence, _: Literal["profile"]) -> Result:
    """Time to last token, by the rules that the profile names under `latency.blocks.total`."""
    return _judged(evidence, "total")


@check(Stage.SPEED, IS_TIMED)
def latency_cold(evidence: Evidence, _: Literal["profile"]) -> Result:
    """The slowest of the first requests, which no other rule counts, within latency.caps.<group>.cold_ms."""
    timed = evidence.timed
    if timed is None or not timed.settings.warm_up:
        return Result("not_measured", "latency.warm_up is 0, so nothing is told apart")
    took = [s.total_ms for s in timed.samples[: timed.settings.warm_up]]
    if not took or any(ms is None for ms in took):
        return Result("not_measured", "a first request has no last token")
    worst_ms, limit = max(ms for ms in took if ms is not None), timed.settings.caps_of(evidence.case.group).cold_ms
    said = f"the slowest of the first {len(took)} requests took {worst_ms:.0f} ms, limit {limit:g} ms"
    return Result.of(worst_ms <= limit, said, round(worst_ms, 1), limit, "ms")


@check(Stage.SPEED, having("over", "the case asks; name with key 'over' the group whose constrained answers are timed"))
def schema_ms(evidence: Evidence, _: Literal["limit"]) -> Result:
    """What a JSON schema adds to the time of an answer, by the plain request right after each: within limits.schema_ms for most.

    The plain answer's time per token is allowed for every token of the constrained one. On a server that is slow by itself a schema
    may add three times what the plain answer takes. What was sent before the first constrained answer was there is left out where
    enough others are: it waits for the engine to load its grammars, once (vLLM: 3 s). Slow answers that were all open at one moment,
    beside others that were not slow, are one stall of the server.
    """
    found = [(r, pair) for seen in evidence.over for r in seen.replies if (pair := _added(r, seen.canary))]
    timed = [(r.exchange.at, r.exchange.timing) for r, _ in found]
    ready_ms = min((epoch_ms(at) + timing.end_ms for at, timing in timed if timing and timing.end_ms), default=0.0)
    warm = [(r, pair) for r, pair in found if epoch_ms(r.exchange.at) >= ready_ms]
    judged = warm if len(warm) >= LEAST_PAIRS else found
    pairs = [pair for _, pair in judged]
    limit = evidence.profile.limits.schema_ms
    if len(pairs) < LEAST_PAIRS:
        return Result("not_measured", f"{len(pairs)} pairs of answers, {LEAST_PAIRS} are needed", None, limit, "ms")
    allowed = max(limit, SLOW_ITSELF * median(plain for plain, _ in pairs))
    adds, beyond = median(added for _, added in pairs), [r.exchange for r, (_, added) in judged if added > allowed]
    said = f"a schema adds {adds:.0f} ms (median of {len(pairs)} pairs), limit {allowed:.0f} ms; {len(beyond)} pairs lie past it"
    slow = len(beyond) >= MOST * len(pairs)
    if slow and len(beyond) < len(pairs) and _open_together(beyond):
        slow, said = False, f"{said}, all of them open at one moment"
    return Result.of(not slow, said, round(adds, 1), round(allowed, 1), "ms")


def _open_together(exchanges: list[Exchange]) -> bool:
    """Whether there is a moment at which all of them were open."""
    starts = [epoch_ms(e.at) for e in exchanges]
    ends = [start + (e.timing.end_ms or 0.0) for start, e in zip(starts, exchanges, strict=True) if e.timing]
    return max(starts) < min(ends)


def _added(reply: Reply, canary: Exchange | None) -> tuple[float, float] | None:
    """(ms of the plain answer, what the constrained one took beyond it); None where one of them has no end or no tokens."""
    if canary is None or canary.fault or reply.exchange.fault or reply.refused:
        return None
    took, plain = (e.timing.end_ms if e.timing else None for e in (reply.exchange, canary))
    tokens, few = (a.tokens("completion_tokens") for a in (reply.answer, read_answer(canary)))
    if took is None or plain is None or not tokens or not few:
        return None
    return plain, took - plain * max(1.0, tokens / few)


def _judged(evidence: Evidence, metric: Metric) -> Result:
    """The worst of the rules that block; what the others say stands in the table."""
    if evidence.timed is None:
        return Result("error", "no sample was recorded")
    said = deciding(evidence.timed, metric)
    outcome = worst([ruling.outcome for ruling in said])
    told = [ruling for ruling in said if ruling.outcome == outcome]
    reason = "; ".join(f"{NAMES[metric]} by {_name(evidence, ruling, metric)}: {ruling.reason}" for ruling in told)
    unit = "times" if told[0].rule == "against" else "ms"
    return Result(outcome, reason, told[0].measured, told[0].limit, unit)


def _name(evidence: Evidence, ruling: Ruling, metric: Metric) -> str:
    chosen = evidence.profile.latency.blocks.of(metric)
    stands_in = ruling.rule == "absolute" and "absolute" not in chosen
    return f"rule absolute (too little history for {' and '.join(chosen)})" if stands_in else f"rule {ruling.rule}"
