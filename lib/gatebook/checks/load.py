"""Under load: is every answer its asker's own, does a decision hold, and how many requests at once are answered in time?"""

from __future__ import annotations

from typing import Literal

from gatebook.checks import stats
from gatebook.checks.evidence import Evidence, Reply, Seen
from gatebook.checks.finding import Result, Stage, worst
from gatebook.checks.registry import CHECKS, OVER_A_GROUP, check, having, parameters
from gatebook.checks.steps import Step, good_share, spread, steps_of
from gatebook.checks.text import noise
from gatebook.config.cases import Case
from gatebook.config.policies import level_of, words_in
from gatebook.record.exchange import Exchange


@check(Stage.SPEED, having("load", "the case is asked alone; say how many at once with key 'load'"))
def load_step(evidence: Evidence) -> Result:
    """All requests of the level were really in flight together, asked by a client that was in time; tells what was measured.

    Past load.client_lag_ms or load.client_cpu_share, and after a break, the step is not measured.
    """
    step = _steps(evidence.together, evidence)[-1]
    if step.invalid:
        return Result("not_measured", f"{step}; {step.invalid}")
    rate = step.tokens_per_s
    return Result("pass", str(step), None if rate is None else round(rate, 1), None, "tokens/s")


@check(Stage.BEHAVIOUR, OVER_A_GROUP)
def own_word(evidence: Evidence) -> Result:
    """No answer holds another request's word, and an answer that a schema forces to hold its own does (vllm#13408, llama.cpp#28286).

    Words are drawn anew for every request of every run, so another's word is another's answer and never chance.
    """
    replies = [r for one in evidence.over for r in one.replies if r.exchange.kind == "ask" and not r.exchange.fault]
    if not replies:
        return Result("not_measured", "no request of the group was answered")
    owner = {word: r.exchange.key for r in replies for word in words_in(r.exchange.body)}
    wrong = [said for r in replies if (said := _foreign(r, owner))]
    if wrong:
        more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return Result("fail", f"{wrong[0]}{more}", len(wrong), 0, "answers")
    own = sum(bool({*words_in(r.exchange.body)} & {*words_in(r.answer.text)}) for r in replies)
    said = f"{own} of {len(replies)} answers hold the word of their own request, none another's"
    return Result("pass", said, 0, 0, "answers")


def _foreign(reply: Reply, owner: dict[str, str]) -> str | None:
    """How the answer shows that it is not its asker's, if it does."""
    body = reply.exchange.body or {}
    own, said = {*words_in(body)}, words_in(reply.answer.text)
    where = f"{reply.exchange.key} ({level_of(reply.ask.name)} in flight)"
    for word in said:
        if word not in own and word in owner:
            return f"{where} was answered with {word}, the word of {owner[word]}: an answer reached the wrong asker"
    if own and "response_format" in body and not own & {*said}:
        if heard := noise(reply.answer.text):
            return f"{where} was answered with noise: {heard}"
        return f"{where} was answered without the word that its schema forces: {reply.answer.text[:40]!r}"
    return None


@check(Stage.SPEED, OVER_A_GROUP)
def goodput(evidence: Evidence, _: Literal["profile"]) -> Result:
    """At the step load.goodput.at_once, the share of requests answered within both limits is at least load.goodput.share.

    A share below it fails when its Wilson interval (95 %) excludes the limit; else more requests are needed to tell.
    Goodput after DistServe (arXiv 2401.09670).
    """
    settings = evidence.profile.load
    limits = settings.goodput
    steps = _steps([r.exchange for one in evidence.over for r in one.replies if r.exchange.kind == "ask"], evidence)
    step = next((s for s in steps if s.at_once == settings.judged_step), None)
    if step is None:
        return Result("not_measured", f"nothing was asked at {settings.judged_step} in flight")
    share, low, high = good_share(step)
    said = (
        f"at {step.at_once} in flight {step.good} of {step.asked} within TTFT {limits.ttft_ms:g} ms and ITL {limits.itl_ms:g} ms, "
        f"{limits.share:.0%} wanted (95 % interval {low:.0%} to {high:.0%}); TTFT {spread(step.ttft_ms)}, ITL {spread(step.itl_ms)}"
    )
    first = steps[0]
    if share < limits.share and first.at_once < step.at_once and good_share(first)[0] >= limits.share:
        said += f"; at {first.at_once} in flight {first.good} of {first.asked}: it is only so under load"
    if step.unanswered:
        said += f"; {len(step.unanswered)} not answered ({step.unanswered[0].detail})"
    rate = None if step.goodput_per_s is None else round(share, 3)
    if step.invalid and not step.unanswered:
        return Result("not_measured", f"{said}; {step.invalid}", rate, limits.share)
    if share >= limits.share:
        return Result("pass", said, rate, limits.share)
    if high < limits.share:
        return Result("fail", said, rate, limits.share)
    return Result("not_measured", f"{said}; more requests are needed to tell (load.requests)", rate, limits.share)


@check(Stage.BEHAVIOUR, OVER_A_GROUP)
def decision_flips(evidence: Evidence) -> Result:
    """Each question's verdict alone and under load, in pairs: fails past load.max_flips, or when the one-sided exact McNemar test shows
    that right answers become wrong (batch-dependent kernels, vllm#23138; shared grammar state, sglang#2414). Wording may differ."""
    pairs = [pair for one in evidence.over if (pair := _pair(one, evidence))]
    if not pairs:
        return Result("not_measured", "no question was answered both alone and under load")
    level = max(high for _, _, _, high, _ in pairs)
    clients = [r.exchange.client for one in evidence.over for r in one.replies]
    most = max((client.in_flight for client in clients if client), default=0)
    worse = [p for p in pairs if p[1] and not p[2]]
    better = [p for p in pairs if p[2] and not p[1]]
    right, exact = sum(p[1] for p in pairs), evidence.profile.load.max_flips
    p_value = stats.mcnemar_worse(len(worse), len(better))
    flips, lost = len(worse) + len(better), len(evidence.over) - len(pairs)
    said = (
        f"{len(worse)} of {right} right answers become wrong at {level} in flight, {len(better)} of {len(pairs) - right} wrong ones right"
        f" (one-sided exact McNemar p {p_value:.3g}{f'; {lost} questions not answered twice' if lost else ''})"
    )
    told = f"{said}: {'; '.join(p[4] for p in (worse + better)[:3])}" if flips else said
    if exact is not None and flips > exact:
        return Result("fail", f"{told}; load.max_flips is {exact}", flips, exact, "flips")
    if p_value <= stats.ALPHA and worse:
        return Result("fail", told, flips, exact, "flips")
    if most < level:
        return Result("not_measured", f"never more than {most} questions were in flight; {said}", flips, exact, "flips")
    if exact is None and (stats.smallest_visible_drop(right, 1)) is None:
        few = f"only {right} right answers alone: too few to show a flip; {said}"
        return Result("not_measured", few, flips, exact, "flips")
    return Result("pass", told, flips, exact, "flips")


Pair = tuple[str, bool, bool, int, str]
"""Case, right alone, right under load, the level of the load, what was said."""


def _pair(seen: Seen, evidence: Evidence) -> Pair | None:
    """The verdicts of one question at its lowest and at its highest level; None where one of them has no answer."""
    levels = sorted({level_of(r.ask.name) for r in seen.replies})
    replies = [r for r in seen.replies if r.exchange.kind == "ask" and not r.exchange.fault]
    ends = [[r for r in replies if level_of(r.ask.name) == level] for level in (levels[:1] + levels[1:][-1:])]
    if len(ends) < 2 or not all(ends):
        return None
    alone, loaded = (all(_right(seen.case, r, evidence) for r in found) for found in ends)
    said = f"{seen.case.id} (alone {ends[0][0].answer.text[:40]!r}, at {levels[-1]} {ends[1][0].answer.text[:40]!r})"
    return seen.case.id, alone, loaded, levels[-1], said


def _right(case: Case, reply: Reply, evidence: Evidence) -> bool:
    """Whether this one reply passes everything that the question expects."""
    alone = Evidence(case, [reply], evidence.identity, evidence.profile)
    said = [CHECKS[n].run(alone, parameters(case, n, raw)).outcome for item in case.expect for n, raw in item.items()]
    return worst(said) == "pass"


def _steps(exchanges: list[Exchange], evidence: Evidence) -> list[Step]:
    return steps_of(exchanges, evidence.profile.load, evidence.restarts)
