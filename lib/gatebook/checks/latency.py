"""Is it fast enough? The samples of a timed case against a cap, the window of the history, and a second target.

Each rule says `pass`, `fail`, or `not_measured` where the samples cannot tell. The deciding functions work over the last
axis of arrays; `python -m benchmarks latency` simulates their errors (docs/decisions/latency-rules.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from statistics import median
from typing import Any, Literal, NamedTuple

from gatebook.checks.evidence import Evidence, Reply, Timed, epoch_ms
from gatebook.checks.finding import Outcome, Result, Stage, worst
from gatebook.checks.registry import check, having
from gatebook.checks.stats import day_bounds, p90, p90_lower, seed_of, shift_bounds
from gatebook.config.policies import LEAST_SAMPLES, RULES, Latency, Metric, Rule
from gatebook.record.exchange import Exchange
from gatebook.record.replies import read_answer

PASS, OPEN, FAIL = 0, 1, 2
OUTCOMES: tuple[Outcome, ...] = ("pass", "not_measured", "fail")
UNSETTLED = 3
"""So many judged samples in a row, from the first on, past `factor` times the median of the later half: still warming up."""
NAMES: dict[Metric, str] = {"ttft": "first token", "itl": "time between tokens", "total": "last token"}
LEAST_PAIRS = 4
SLOW_ITSELF = 3.0
"""Times the plain answer. vLLM on two CPU cores with far too much to do, 8 in flight, first run: a healthy schema added 1.15 times."""
MOST = 0.75
"""Of the pairs: a single slow answer, or a busy second, is no constraint that is slow."""


@dataclass(frozen=True)
class Ruling:
    """What one rule says of one metric, in ms; `against` measures and limits a ratio."""

    rule: Rule
    outcome: Outcome
    reason: str
    measured: float | None = None
    limit: float | None = None
    no_history: bool = False
    """The history does not carry the rule yet, so that the absolute limit stands in."""


def _decision(slow: Any, fast: Any) -> Any:
    import numpy as np

    return np.where(slow, FAIL, np.where(fast, PASS, OPEN))


def quantile_decision(samples: Any, limit: Any, level: float) -> Any:
    """P90 at most the limit: pass. Its lower bound past the limit too: fail. Between them the samples cannot tell."""
    fast = p90(samples) <= limit
    return _decision(~fast & (p90_lower(samples, level) > limit), fast)


def day_decision(log_median: Any, days: Any, settings: Latency, level: float) -> Any:
    """Past what a healthy new day shows, and past `least`: fail. A slowdown by `factor` excluded: pass. Else open."""
    mean, strict, loose = day_bounds(days, level, settings.miss)
    shift = log_median - mean
    return _decision((shift > strict) & (shift > log(settings.least)), shift <= log(settings.factor) - loose)


def against_decision(low: Any, high: Any, settings: Latency) -> Any:
    """The bounds of the log shift: wholly past `least` is fail, wholly below `factor` is pass."""
    return _decision(low > log(settings.least), high < log(settings.factor))


def rulings(timed: Timed, metric: Metric) -> list[Ruling]:
    """What every rule says of one metric, blocking or not, in the order of RULES."""
    found = timed.values(metric)
    if why := _few(len(found), "valid samples"):
        invalid = [s.invalid for s in timed.judged if s.invalid]
        why += f" ({len(invalid)} do not count: {invalid[0]})" if invalid else ""
    if why := why or _unsettled(found, timed.settings):
        return [Ruling(rule, "not_measured", why) for rule in RULES]
    return [rule(timed, metric, found) for rule in (_absolute, _p90, _day, _against)]


def _few(count: int, what: str, least: int = LEAST_SAMPLES) -> str | None:
    return f"{count} {what}, {least} are needed" if count < least else None


def _unsettled(found: list[float], settings: Latency) -> str | None:
    """Why the first judged samples are none: they are the end of a warm-up."""
    later = settings.factor * median(found[len(found) // 2 :])
    slow = next((n for n, ms in enumerate(found) if ms <= later), len(found))
    if slow < UNSETTLED:
        return None
    said = f"the first {slow} judged samples take more than {settings.factor:g} times the later ones"
    beside = f"({_say(found[0])} against {_say(later / settings.factor)})"
    return f"{said} {beside}: it is still warming up, or something compiles; see latency.warm_up"


def _absolute(timed: Timed, metric: Metric, found: list[float]) -> Ruling:
    if (cap := timed.cap_ms(metric)) is None:
        why = f"the profile names no latency.caps.{timed.case.group}.{metric}_ms"
        return Ruling("absolute", "not_measured", why, round(float(p90(found)), 3))
    return _quantile("absolute", found, cap, f"limit {_say(cap)}", timed.level)


def _p90(timed: Timed, metric: Metric, found: list[float]) -> Ruling:
    window = [ms for values in timed.days(metric).values() for ms in values]
    if why := timed.history_trouble or _few(len(window), "samples in the window"):
        return Ruling("p90", "not_measured", why, round(float(p90(found)), 3), no_history=not timed.history_trouble)
    usual, factor, cap = float(p90(window)), timed.settings.factor, timed.cap_ms(metric)
    limit, said = factor * usual, f"{factor:g} times the window's P90 of {_say(usual)}"
    if cap is not None and cap < limit:
        limit, said = cap, f"the cap {_say(cap)}, since {said} lies past it"
    return _quantile("p90", found, limit, said, timed.level)


def _quantile(rule: Rule, found: list[float], limit: float, said: str, level: float) -> Ruling:
    outcome, point = OUTCOMES[int(quantile_decision(found, limit, level))], float(p90(found))
    told = f"P90 {_say(point)}, {said}"
    if outcome == "not_measured":
        low = _say(float(p90_lower(found, level)))
        told += f"; {len(found)} samples cannot tell (it may be {low}), so ask more"
    return Ruling(rule, outcome, told, round(point, 3), round(limit, 3))


def _day(timed: Timed, metric: Metric, found: list[float]) -> Ruling:
    import numpy as np

    settings, days = timed.settings, [float(np.median(np.log(v))) for v in timed.days(metric).values()]
    middle = float(np.median(found))
    if why := timed.history_trouble or _few(len(days), "days of history", settings.min_days):
        return Ruling("day", "not_measured", why, round(middle, 3), no_history=not timed.history_trouble)
    mean, strict, loose = (float(x) for x in day_bounds(days, timed.level, settings.miss))
    limit, cap = exp(mean + max(strict, log(settings.least))), timed.cap_ms(metric)
    outcome = OUTCOMES[int(day_decision(log(middle), days, settings, timed.level))]
    ratio = middle / exp(mean)
    told = f"median {_say(middle)}, {ratio:.2f} times that of {len(days)} days; a healthy day stays below {_say(limit)}"
    if cap is not None and middle > cap:
        outcome, limit, told = "fail", cap, f"median {_say(middle)}, past the cap {_say(cap)}"
    elif outcome == "not_measured":
        told += f"; the days differ too much to exclude a slowdown by {settings.factor:g} (below {_say(exp(mean - loose) * settings.factor)} would)"
    return Ruling("day", outcome, told, round(middle, 3), round(limit, 3))


def _against(timed: Timed, metric: Metric, found: list[float]) -> Ruling:
    import numpy as np

    settings, name = timed.settings, timed.second_name
    if timed.second is None:
        return Ruling("against", "not_measured", "no second target was asked (--against PROFILE)")
    theirs = {s.key.removeprefix("against/"): s.of(metric) for s in timed.second if s.invalid is None}
    both = [(s.of(metric), theirs.get(s.key)) for s in timed.judged if s.invalid is None]  # neighbours in time
    ratios = [ours / other for ours, other in both if ours and other]
    if few := _few(len(ratios), "pairs of valid samples"):
        broken = timed.second_broken
        return Ruling("against", "error" if broken else "not_measured", f"{name}: {broken or few}")
    seed = seed_of(f"{timed.samples[0].key} {len(ratios)}")
    shift, low, high = (float(x) for x in shift_bounds(np.log(ratios), timed.level, settings.miss, seed))
    outcome = OUTCOMES[int(against_decision(low, high, settings))]
    told = f"{exp(shift):.2f} times {name} ({exp(low):.2f} to {exp(high):.2f}, {len(ratios)} pairs asked in turn)"
    if outcome == "fail":
        told += f"; shown slower by more than {settings.least:g}"
    elif outcome == "not_measured":
        told += f"; these pairs cannot exclude a slowdown by {settings.factor:g}, so ask more"
    return Ruling("against", outcome, told, round(exp(shift), 4), settings.factor)


def _say(ms: float) -> str:
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.3g} ms"


def deciding(timed: Timed, metric: Metric) -> list[Ruling]:
    """The rulings that block.

    While the history does not carry a rule yet, the absolute limit stands in for it. Where the days cannot tell and the second
    target, asked at the same time, can, it decides; what the days show to be slower stays shown.
    """
    said = {ruling.rule: ruling for ruling in rulings(timed, metric)}
    chosen = [said[rule] for rule in timed.blocking(metric)]
    stands_in = any(r.no_history for r in chosen) and said["absolute"] not in chosen
    kept = [*([said["absolute"]] if stands_in else []), *(r for r in chosen if not r.no_history)]
    if said["against"].outcome == "pass" and said["against"] in kept:
        kept = [r for r in kept if r.rule not in ("p90", "day") or r.outcome != "not_measured" or r.limit is None]
    return kept


IS_TIMED = having("samples", "the case is asked once; say how often with key 'samples'")


@check(Stage.SPEED, IS_TIMED)
def latency_ttft(evidence: Evidence, _: Literal["profile"]) -> Result:
    """Time to first token, by the rules that the profile names under `latency.blocks.ttft`."""
    return _judge(evidence, "ttft")


@check(Stage.SPEED, IS_TIMED)
def latency_itl(evidence: Evidence, _: Literal["profile"]) -> Result:
    """Mean time between the tokens of an answer, by the rules that the profile names under `latency.blocks.itl`."""
    return _judge(evidence, "itl")


@check(Stage.SPEED, IS_TIMED)
def latency_total(evidence: Evidence, _: Literal["profile"]) -> Result:
    """Time to last token, by the rules that the profile names under `latency.blocks.total`."""
    return _judge(evidence, "total")


def _judge(evidence: Evidence, metric: Metric) -> Result:
    """The worst of the rules that block; what the others say stands in the table."""
    if evidence.timed is None:
        return Result("error", "no sample was recorded")
    said, chosen = deciding(evidence.timed, metric), evidence.profile.latency.blocks.of(metric)
    outcome = worst([ruling.outcome for ruling in said])
    told = [ruling for ruling in said if ruling.outcome == outcome]
    instead = f"absolute (too little history for {' and '.join(chosen)})"
    names = [instead if r.rule == "absolute" and "absolute" not in chosen else r.rule for r in told]
    reason = "; ".join(f"{NAMES[metric]} by rule {name}: {r.reason}" for name, r in zip(names, told, strict=True))
    return Result(outcome, reason, told[0].measured, told[0].limit, "times" if told[0].rule == "against" else "ms")


@check(Stage.SPEED, IS_TIMED)
def latency_cold(evidence: Evidence, _: Literal["profile"]) -> Result:
    """The slowest of the first requests, which no other rule counts, within latency.caps.<group>.cold_ms."""
    timed = evidence.timed
    if timed is None or not timed.settings.warm_up:
        return Result("not_measured", "latency.warm_up is 0, so nothing is told apart")
    first = timed.samples[: timed.settings.warm_up]
    took = [s.total_ms for s in first if s.total_ms is not None]
    if not took or len(took) < len(first):
        return Result("not_measured", "a first request has no last token")
    slowest, limit = max(took), timed.settings.caps_of(evidence.case.group).cold_ms
    said = f"the slowest of the first {len(took)} requests took {slowest:.0f} ms, limit {limit:g} ms"
    return Result.of(slowest <= limit, said, round(slowest, 1), limit, "ms")


@check(Stage.SPEED, having("over", "the case asks; name with key 'over' the group whose constrained answers are timed"))
def schema_ms(evidence: Evidence, _: Literal["limit"]) -> Result:
    """What a JSON schema adds to the time of an answer, by the plain request right after each: within limits.schema_ms for most.

    The plain answer's time per token is allowed for every token of the constrained one. On a server that is slow by itself a schema
    may add three times what the plain answer takes. What was sent before the first constrained answer was there is left out where
    enough others are: it waits for the engine to load its grammars, once (vLLM: 3 s). Slow answers that were all open at one moment,
    beside others that were not slow, are one stall of the server.
    """
    found = [pair for seen in evidence.over for r in seen.replies if (pair := _added(r, seen.canary))]
    ready_ms = min((pair.end_ms for pair in found), default=0.0)
    warm = [pair for pair in found if pair.start_ms >= ready_ms]
    pairs, limit = warm if len(warm) >= LEAST_PAIRS else found, evidence.profile.limits.schema_ms
    if len(pairs) < LEAST_PAIRS:
        return Result("not_measured", f"{len(pairs)} pairs of answers, {LEAST_PAIRS} are needed", None, limit, "ms")
    allowed, adds = max(limit, SLOW_ITSELF * median(p.plain_ms for p in pairs)), median(p.added_ms for p in pairs)
    beyond = [p for p in pairs if p.added_ms > allowed]
    said = f"a schema adds {adds:.0f} ms (median of {len(pairs)} pairs), limit {allowed:.0f} ms; {len(beyond)} pairs lie past it"
    slow = len(beyond) >= MOST * len(pairs)
    if slow and len(beyond) < len(pairs) and max(p.start_ms for p in beyond) < min(p.end_ms for p in beyond):
        slow, said = False, f"{said}, all of them open at one moment"
    return Result.of(not slow, said, round(adds, 1), round(allowed, 1), "ms")


class Pair(NamedTuple):
    """A constrained answer, from start to end since the Unix epoch, and what the plain one right after it took."""

    start_ms: float
    end_ms: float
    plain_ms: float
    added_ms: float
    """What the constrained one took beyond it, at the plain one's time per token."""


def _added(reply: Reply, canary: Exchange | None) -> Pair | None:
    """None where one of the two has no end or no tokens."""
    if canary is None or canary.fault or reply.exchange.fault or reply.refused:
        return None
    took, plain = (e.timing.end_ms if e.timing else None for e in (reply.exchange, canary))
    tokens, few = (a.tokens("completion_tokens") for a in (reply.answer, read_answer(canary)))
    if took is None or plain is None or not tokens or not few:
        return None
    start = epoch_ms(reply.exchange.at)
    return Pair(start, start + took, plain, took - plain * max(1.0, tokens / few))
