"""Under load: is every answer its asker's own, does a decision hold, and how many requests at once are answered in time?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import Literal, NamedTuple

from gatebook.checks import stats
from gatebook.checks.evidence import Evidence, Reply, epoch_ms
from gatebook.checks.finding import Result, Stage, worst
from gatebook.checks.registry import CHECKS, OVER_A_GROUP, check, having, parameters
from gatebook.checks.text import noise
from gatebook.config.policies import LoadSettings, level_of, words_in
from gatebook.record.exchange import Exchange
from gatebook.record.replies import read_answer


@dataclass(frozen=True)
class Step:
    """What one level of load measured, over all its requests; missing is None."""

    at_once: int
    asked: int
    unanswered: list[Exchange]
    good: int
    """Answered within both limits of load.goodput; an answer of one token has no time between tokens."""
    wall_s: float
    """From the first request sent to the end of the last reply."""
    requests_per_s: float | None
    tokens_per_s: float | None
    """Generated tokens a second, all requests together."""
    ttft_ms: list[float]
    """From the first attempt on: a request that was sent again kept its user waiting."""
    itl_ms: list[float]
    lag_ms: float | None
    """P90 over the requests of the largest delay of our own event loop; the largest one where that needs more requests."""
    invalid: str | None
    """Why it is no measure of this level."""

    @property
    def answered(self) -> int:
        return self.asked - len(self.unanswered)

    def __str__(self) -> str:
        told = f"{self.answered} of {self.asked} answered at {self.at_once} in flight"
        if self.tokens_per_s is None:
            return told
        told += f", {self.tokens_per_s:.1f} tokens/s, TTFT {spread(self.ttft_ms)}, ITL {spread(self.itl_ms)}"
        return f"{told}, {self.good} within the goodput limits"


def steps_of(exchanges: list[Exchange], settings: LoadSettings, restarts: tuple[str, ...]) -> list[Step]:
    """The exchanges of load cases by level, the lowest first. `restarts`: when collecting began (UTC, ISO 8601), more than
    once in a run that was resumed."""
    levels: dict[int, list[Exchange]] = {}
    for exchange in exchanges:
        levels.setdefault(level_of(exchange.ask), []).append(exchange)
    return [_step(level, levels[level], settings, restarts) for level in sorted(levels)]


def _step(at_once: int, exchanges: list[Exchange], settings: LoadSettings, restarts: tuple[str, ...]) -> Step:
    begin_ms = min(epoch_ms(e.attempts[0].at if e.attempts else e.at) for e in exchanges)
    end_ms, tokens, times = begin_ms, 0, list[tuple[float | None, float | None]]()
    for exchange in exchanges:
        timing, sent = exchange.timing, [epoch_ms(a.at) for a in exchange.attempts] or [epoch_ms(exchange.at)]
        if exchange.fault is None and timing and timing.end_ms is not None:
            end_ms = max(end_ms, sent[-1] + timing.end_ms)
            count = read_answer(exchange).tokens("completion_tokens") or 0
            tokens += count
            first = timing.first_token_ms
            times.append((None if first is None else first + (sent[-1] - sent[0]), timing.itl_ms(count)))
    limits, wall_s = settings.goodput, (end_ms - begin_ms) / 1000
    unanswered = [e for e in exchanges if e.fault is not None]
    lags = [e.client.loop_lag_ms for e in exchanges if e.client and e.client.loop_lag_ms is not None]
    lag_ms = max(lags, default=None) if (high := percentile(lags, 90)) is None else high
    return Step(
        at_once=at_once,
        asked=len(exchanges),
        unanswered=unanswered,
        good=sum(t is not None and t <= limits.ttft_ms and (itl or 0) <= limits.itl_ms for t, itl in times),
        wall_s=wall_s,
        requests_per_s=(len(exchanges) - len(unanswered)) / wall_s if wall_s > 0 else None,
        tokens_per_s=tokens / wall_s if wall_s > 0 else None,
        ttft_ms=[ms for ms, _ in times if ms is not None],
        itl_ms=[ms for _, ms in times if ms is not None],
        lag_ms=lag_ms,
        invalid=_invalid(at_once, exchanges, settings, restarts, lag_ms or 0),
    )


def _invalid(
    at_once: int, exchanges: list[Exchange], settings: LoadSettings, restarts: tuple[str, ...], lag_ms: float
) -> str | None:
    first, last = min(e.at for e in exchanges), max(e.at for e in exchanges)
    if again := next((at for at in restarts if first < at < last), None):
        return f"it was broken off and resumed at {again}, so its requests were not in flight together; measure it in a new run"
    clients = [e.client for e in exchanges if e.client]
    most = max((client.in_flight for client in clients), default=0)
    if most < at_once:
        return f"never more than {most} of its {len(exchanges)} requests were in flight"
    if lag_ms > settings.client_lag_ms:
        return f"our own event loop was {lag_ms:.0f} ms late (load.client_lag_ms {settings.client_lag_ms:g}): the client may be the bottleneck"
    share = median([client.cpu_share for client in clients if client.cpu_share is not None] or [0.0])
    if share > settings.client_cpu_share:
        return f"our own process used {share:.0%} of a core (load.client_cpu_share {settings.client_cpu_share:.0%}): the client may be the bottleneck"
    return None


def restarts_of(exchanges: Iterable[Exchange]) -> tuple[str, ...]:
    """When collecting began: each time opens with a one-token chat."""
    return tuple(e.at for e in exchanges if e.kind == "ready")


def knee(steps: list[Step], gain: float) -> int | None:
    """The last level up to which every doubling of the requests in flight raised throughput by at least `gain`.

    A threshold on the marginal gain, because Kneedle (Satopää et al. 2011), which looks for the point of largest curvature,
    needs a smooth curve of many points. None where fewer than two levels were measured.
    """
    told = [(s.at_once, s.tokens_per_s) for s in steps if s.invalid is None and s.tokens_per_s]
    for (level, rate), (more, faster) in zip(told, told[1:], strict=False):
        if (faster / rate) ** (1 / math.log2(more / level)) - 1 < gain:
            return level
    return told[-1][0] if len(told) > 1 else None


def percentile(values: list[float], per_cent: int) -> float | None:
    """Linear interpolation; None where fewer than one value lies beyond it (P90 needs 10, P99 needs 100)."""
    if len(values) < 2 or len(values) * (100 - per_cent) < 100:
        return None
    return quantiles(values, n=100, method="inclusive")[per_cent - 1]


def spread(values: list[float]) -> str:
    """`P50 812, P90 1,204 ms (n 10)`; a percentile that its n cannot carry is left out."""
    if not values:
        return "none"
    known = ((p, percentile(values, p)) for p in (50, 90, 99))
    shown = [f"P{p} {ms:,.{0 if ms >= 100 else 1}f}" for p, ms in known if ms is not None]
    return f"{', '.join(shown) or f'{values[0]:,.1f}'} ms (n {len(values)})"


@check(Stage.SPEED, having("load", "the case is asked alone; say how many at once with key 'load'"))
def load_step(evidence: Evidence) -> Result:
    """All requests of the level were really in flight together, asked by a client that was in time; tells what was measured.

    Past load.client_lag_ms or load.client_cpu_share, and after a break, the step is not measured.
    """
    step = steps_of(evidence.together, evidence.profile.load, evidence.restarts)[-1]
    if step.invalid:
        return Result("not_measured", f"{step}; {step.invalid}")
    rate = step.tokens_per_s
    return Result("pass", str(step), None if rate is None else round(rate, 1), None, "tokens/s")


@check(Stage.BEHAVIOUR, OVER_A_GROUP)
def own_word(evidence: Evidence) -> Result:
    """No answer holds another request's word, one that a schema forces to hold its own does, and two are not noise in company where
    none is alone (vllm#13408, llama.cpp#28286, vllm#14126).

    Words are drawn anew for every request of every run, so another's word is another's answer and never chance.
    """
    replies = [r for one in evidence.over for r in one.replies if r.exchange.kind == "ask" and not r.exchange.fault]
    if not replies:
        return Result("not_measured", "no request of the group was answered")
    owner = {word: r.exchange.key for r in replies for word in words_in(r.exchange.body)}
    swapped = [said for r in replies if (said := _swapped(r, owner))]
    if wrong := swapped or [said for r in replies if (said := _unforced(r))] or _noise_in_company(replies):
        more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return Result("fail", f"{wrong[0]}{more}", len(wrong), 0, "answers", Stage.SWAPPED if swapped else None)
    own = sum(bool({*words_in(r.exchange.body)} & {*words_in(r.answer.text)}) for r in replies)
    said = f"{own} of {len(replies)} answers hold the word of their own request, none another's"
    return Result("pass", said, 0, 0, "answers")


def _where(reply: Reply) -> str:
    return f"{reply.exchange.key} ({level_of(reply.ask.name)} in flight)"


def _swapped(reply: Reply, owner: dict[str, str]) -> str | None:
    """Which word an answer holds that is another's. A question has none, and no model draws one by itself."""
    own, said = words_in(reply.exchange.body or {}), words_in(reply.answer.text)
    if other := next((word for word in said if word not in own and (word in owner or not own)), None):
        whose = owner.get(other, "another request")
        return f"{_where(reply)} was answered with {other}, the word of {whose}: an answer reached the wrong asker"
    return None


def _unforced(reply: Reply) -> str | None:
    """How an answer shows that its schema was not kept, if it does."""
    body, text = reply.exchange.body or {}, reply.answer.text
    own = words_in(body)
    if not own or "response_format" not in body or {*own} & {*words_in(text)}:
        return None
    if heard := noise(text):
        return f"{_where(reply)} was answered with noise: {heard}"
    return f"{_where(reply)} was answered without the word that its schema forces: {text[:40]!r}"


def _noise_in_company(replies: list[Reply]) -> list[str]:
    """The noise that two and more were answered with beside others, where some were asked alone and none of them was: a small model
    may draw one, or say nothing else."""
    alone, beside = ([r for r in replies if (level_of(r.ask.name) == 1) == here] for here in (True, False))
    if not alone or any(noise(r.answer.text) for r in alone):
        return []
    heard = [f"{_where(r)} was answered with noise: {said}" for r in beside if (said := noise(r.answer.text))]
    return heard if len(heard) > 1 else []


@check(Stage.SPEED, OVER_A_GROUP)
def goodput(evidence: Evidence, _: Literal["profile"]) -> Result:
    """At the step load.goodput.at_once, the share of requests answered within both limits is at least load.goodput.share.

    A share below it fails when its Wilson interval (95 %) excludes the limit; else more requests are needed to tell.
    Goodput after DistServe (arXiv 2401.09670).
    """
    settings = evidence.profile.load
    limits, level = settings.goodput, settings.judged_step
    asked = [r.exchange for one in evidence.over for r in one.replies if r.exchange.kind == "ask"]
    steps = {step.at_once: step for step in steps_of(asked, settings, evidence.restarts)}
    if level not in steps:
        return Result("not_measured", f"nothing was asked at {level} in flight")
    step, first = steps[level], next(iter(steps.values()))
    share, (low, high) = step.good / step.asked, stats.wilson(step.good, step.asked)
    said = (
        f"at {level} in flight {step.good} of {step.asked} within TTFT {limits.ttft_ms:g} ms and ITL {limits.itl_ms:g} ms, "
        f"{limits.share:.0%} wanted (95 % interval {low:.0%} to {high:.0%}); TTFT {spread(step.ttft_ms)}, ITL {spread(step.itl_ms)}"
    )
    if share < limits.share <= first.good / first.asked and first.at_once < level:
        said += f"; at {first.at_once} in flight {first.good} of {first.asked}: it is only so under load"
    if step.unanswered:
        said += f"; {len(step.unanswered)} not answered ({step.unanswered[0].detail})"
    measured = round(share, 3) if step.wall_s > 0 else None
    if step.invalid and not step.unanswered:
        return Result("not_measured", f"{said}; {step.invalid}", measured, limits.share)
    if share >= limits.share or high < limits.share:
        return Result.of(share >= limits.share, said, measured, limits.share)
    return Result("not_measured", f"{said}; more requests are needed to tell (load.requests)", measured, limits.share)


@check(Stage.BEHAVIOUR, OVER_A_GROUP)
def decision_flips(evidence: Evidence) -> Result:
    """Each question's verdict alone and under load, in pairs: fails past load.max_flips, or when the one-sided exact McNemar test shows
    that right answers become wrong (batch-dependent kernels, vllm#23138; shared grammar state, sglang#2414). Wording may differ."""
    pairs = [pair for one in evidence.over if (pair := _twice(one))]
    if not pairs:
        return Result("not_measured", "no question was answered both alone and under load")
    level = max(pair.level for pair in pairs)
    worse, better = ([p for p in pairs if (p.alone, p.loaded) == (way, not way)] for way in (True, False))
    right, lost, flips = sum(p.alone for p in pairs), len(evidence.over) - len(pairs), len(worse) + len(better)
    p_value = stats.mcnemar_worse(len(worse), len(better))
    said = (
        f"{len(worse)} of {right} right answers become wrong at {level} in flight, {len(better)} of {len(pairs) - right} wrong ones right"
        f" (one-sided exact McNemar p {p_value:.3g}{f'; {lost} questions not answered twice' if lost else ''})"
    )
    told = f"{said}: {'; '.join(p.said for p in (worse + better)[:3])}" if flips else said
    if swapped := [how for one in evidence.over for r in one.replies if (how := _swapped(r, {}))]:
        return Result("fail", f"{swapped[0]}; {told}", flips, evidence.profile.load.max_flips, "flips", Stage.SWAPPED)
    most_flips = evidence.profile.load.max_flips
    clients = [r.exchange.client for one in evidence.over for r in one.replies]
    most = max((client.in_flight for client in clients if client), default=0)

    def result(outcome: Literal["pass", "fail", "not_measured"], reason: str) -> Result:
        return Result(outcome, reason, flips, most_flips, "flips")

    if most_flips is not None and flips > most_flips:
        return result("fail", f"{told}; load.max_flips is {most_flips}")
    if p_value <= stats.ALPHA and worse:
        return result("fail", told)
    if most < level:
        return result("not_measured", f"never more than {most} questions were in flight; {said}")
    if most_flips is None and stats.smallest_visible_drop(right, 1) is None:
        return result("not_measured", f"only {right} right answers alone: too few to show a flip; {said}")
    return result("pass", told)


class Twice(NamedTuple):
    """One question at its lowest and at its highest level."""

    alone: bool
    loaded: bool
    """Whether all of its answers at that level are right."""
    level: int
    said: str


def _twice(seen: Evidence) -> Twice | None:
    """None where one of the two levels has no answer."""
    levels = sorted({level_of(r.ask.name) for r in seen.replies})
    replies = [r for r in seen.replies if r.exchange.kind == "ask" and not r.exchange.fault]
    ends = [[r for r in replies if level_of(r.ask.name) == level] for level in (levels[:1] + levels[1:][-1:])]
    if len(ends) < 2 or not all(ends):
        return None
    alone, loaded = (all(_right(replace(seen, replies=[r])) for r in found) for found in ends)
    said = f"{seen.case.id} (alone {ends[0][0].answer.text[:40]!r}, at {levels[-1]} {ends[1][0].answer.text[:40]!r})"
    return Twice(alone, loaded, levels[-1], said)


def _right(seen: Evidence) -> bool:
    """Whether its replies pass everything that the question expects."""
    expected = [(name, raw) for item in seen.case.expect for name, raw in item.items()]
    said = [CHECKS[name].run(seen, parameters(seen.case, name, raw)).outcome for name, raw in expected]
    return worst(said) == "pass"
