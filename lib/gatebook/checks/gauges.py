"""What the load cost in memory, cache and queue: judged from the gauges beside it, nothing is asked."""

from __future__ import annotations

from typing import Literal

from gatebook.checks.evidence import Evidence
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import check, having
from gatebook.checks.watched import HOLE_S, Points, Watched

Limit = Literal["limit"]
OVER_GAUGES = having("over", "the case does not look at gauges; write key 'over' with value gauges", "gauges")
UNSTATED = "the profile does not state production.{}; state it, or excuse this case by name"


@check(Stage.SPEED, OVER_GAUGES)
def gpu_memory(evidence: Evidence, _: Limit) -> Result:
    """Peak memory of every GPU within production.gpu_memory_limit_gb. vLLM and SGLang take their memory at the start: there
    it is evidence, and load.kv_cache decides."""
    limit, watched = evidence.profile.production.gpu_memory_limit_gb, evidence.watched
    read = [gpu for gpu in watched.gpus if gpu.used]
    if not read:
        return Result("not_measured", f"no GPU memory: {watched.missing('gpu')}", None, limit, "GB")
    fullest = max(read, key=lambda gpu: gpu.peak_mib or 0)
    peak = round((fullest.peak_mib or 0) / 1024, 2)
    name = f"GPU {fullest.id}{f' ({fullest.name})' if fullest.name else ''}"
    size = f" of {fullest.total_mib / 1024:.1f}" if fullest.total_mib else ""
    told = f"{name} held {peak:.1f}{size} GB at the peak"
    if limit is None:
        return Result("not_measured", f"{told}; {UNSTATED.format('gpu_memory_limit_gb')}", peak, None, "GB")
    if blind := watched.unread_gpus():
        return Result("not_measured", f"{told}, but not every GPU could be read: {blind[0]}", peak, limit, "GB")
    if unseen := next((f"GPU {gpu.id}: {said}" for gpu in read if (said := _unseen(watched, gpu.used))), None):
        return Result("not_measured", unseen, peak, limit, "GB")
    if evidence.identity.dialect.takes_memory_at_start:
        told += (
            f" (limit {limit:g} GB); {evidence.identity.engine} takes its memory at the start, so load.kv_cache decides"
        )
        return Result("pass", told, peak, limit, "GB")
    if peak <= limit:
        return Result("pass", f"{told}, {limit - peak:.1f} GB below the limit of {limit:g} GB", peak, limit, "GB")
    others = f"; its processes: {', '.join(sorted(fullest.processes))}" if fullest.processes else ""
    told += f", limit {limit:g} GB: lower the concurrency or the context{others}"
    return Result("fail", told, peak, limit, "GB")


@check(Stage.SPEED, OVER_GAUGES)
def kv_cache_usage(evidence: Evidence, _: Limit) -> Result:
    """The KV cache's peak use within production.kv_cache_usage_limit."""
    limit, watched = evidence.profile.production.kv_cache_usage_limit, evidence.watched
    if stop := _unread(watched, watched.kv_cache, "KV-cache use", limit, "kv_cache_usage_limit"):
        return stop
    assert limit is not None
    peak = round(max(value for _, value in watched.kv_cache), 4)
    told = f"the KV cache was {peak:.0%} full at the peak, limit {limit:.0%}"
    if peak > limit:
        told += (
            ": the next request waits or pushes another one out; lower the concurrency or give the cache more memory"
        )
    return Result.of(peak <= limit, told, peak, limit)


@check(Stage.SPEED, OVER_GAUGES)
def queue(evidence: Evidence, _: Limit) -> Result:
    """Requests that waited inside the server at a time, within production.queue_limit."""
    limit, watched = evidence.profile.production.queue_limit, evidence.watched
    if stop := _unread(watched, watched.waiting, "queue length", limit, "queue_limit"):
        return stop
    assert limit is not None
    peak = int(max(value for _, value in watched.waiting))
    told = f"{peak} requests waited in the server at the peak, limit {limit}"
    if peak > limit:
        told += ": it takes fewer at a time than it was sent; compare max_num_seqs with production"
    return Result.of(peak <= limit, told, peak, limit, "requests")


@check(Stage.SPEED, OVER_GAUGES)
def preemptions(evidence: Evidence, _: Limit) -> Result:
    """Requests that the engine preempted or retracted during the load, within production.preemptions_limit."""
    limit, watched = evidence.profile.production.preemptions_limit, evidence.watched
    if stop := _unread(watched, watched.preempted, "count of preemptions", limit, "preemptions_limit"):
        return stop
    assert limit is not None
    count, fell = watched.preemptions()
    if fell:
        told = "the count of preemptions fell during the load: the server started anew"
        return Result("fail", told, count, limit, "requests")
    told = f"{count} preemptions during the load, limit {limit}"
    if count > limit:
        told += ": the KV cache ran out and answers were begun anew; lower max_num_seqs or the context, or give the cache more memory"
    return Result.of(count <= limit, told, count, limit, "requests")


def _unread(watched: Watched, points: Points, what: str, limit: float | None, setting: str) -> Result | None:
    """Why a gauge of the engine cannot be judged."""
    if not points:
        return Result("not_measured", f"the server tells no {what}: {watched.missing('metrics')}", None, limit)
    if limit is None:
        return Result("not_measured", UNSTATED.format(setting), max(value for _, value in points), None)
    if unseen := _unseen(watched, points):
        return Result("not_measured", unseen, None, limit)
    return None


def _unseen(watched: Watched, points: Points) -> str | None:
    """Whether too much of the load went by unread."""
    if not watched.busy:
        return "nothing was asked while the gauges were read, so they show no load"
    if (hole := watched.hole_s(points)) > HOLE_S:
        return f"no reading for {hole:.0f} s while requests were in flight; a peak there would not have been seen"
    return None
