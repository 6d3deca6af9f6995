"""Is it fast enough? Each metric of a timed case is judged apart, by the rules that the profile's `latency` names."""

from __future__ import annotations

from typing import Literal

from gatebook.judge.checks.registry import check
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, Stage, worst
from gatebook.judge.latency import Ruling, deciding
from gatebook.plan.cases import Case
from gatebook.plan.latency import Metric

NAMES: dict[Metric, str] = {"ttft": "first token", "itl": "time between tokens", "total": "last token"}


def _is_timed(case: Case, _: object) -> str | None:
    return None if case.samples else "the case is asked once; say how often with key 'samples'"


@check("latency_ttft", Literal["profile"], _is_timed, judges_text=False, stage=Stage.SPEED)
def latency_ttft(evidence: Evidence, _: str) -> Result:
    """Time to first token, by the rules that the profile names under `latency.blocks.ttft`."""
    return _judged(evidence, "ttft")


@check("latency_itl", Literal["profile"], _is_timed, judges_text=False, stage=Stage.SPEED)
def latency_itl(evidence: Evidence, _: str) -> Result:
    """Mean time between the tokens of an answer, by the rules that the profile names under `latency.blocks.itl`."""
    return _judged(evidence, "itl")


@check("latency_total", Literal["profile"], _is_timed, judges_text=False, stage=Stage.SPEED)
def latency_total(evidence: Evidence, _: str) -> Result:
    """Time to last token, by the rules that the profile names under `latency.blocks.total`."""
    return _judged(evidence, "total")


@check("latency_cold", Literal["profile"], _is_timed, judges_text=False, stage=Stage.SPEED)
def latency_cold(evidence: Evidence, _: str) -> Result:
    """The slowest of the first requests, which no other rule counts, within latency.caps.<group>.cold_ms."""
    timed = evidence.timed
    if timed is None or not timed.settings.warm_up:
        return Result("not_measured", "latency.warm_up is 0, so nothing is told apart")
    took = [s.total_ms for s in timed.samples[: timed.settings.warm_up]]
    if not took or any(ms is None for ms in took):
        return Result("not_measured", "a first request has no last token")
    worst_ms, limit = max(ms for ms in took if ms is not None), timed.settings.caps_of(evidence.case.group).cold_ms
    said = f"the slowest of the first {len(took)} requests took {worst_ms:.0f} ms, limit {limit:g} ms"
    return Result("pass" if worst_ms <= limit else "fail", said, round(worst_ms, 1), limit, "ms")


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
