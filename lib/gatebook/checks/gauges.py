"""What the load cost in memory, cache and queue: judged from the gauges beside it, nothing is asked."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Literal

from gatebook.checks.evidence import Evidence, Points
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import check, having
from gatebook.engines.sglang import RETRACTED_NOW
from gatebook.record.gauges import KV_CACHE, PREEMPTED, WAITING, series, sessions

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
