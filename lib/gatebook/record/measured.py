"""What a run has to say to later ones: the latencies of every group, as rows of the history."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from gatebook.errors import BrokenRecord
from gatebook.record.answer import Answer, read_answer
from gatebook.record.exchange import Exchange
from gatebook.record.identity import identify
from gatebook.record.measurement import Measurement
from gatebook.record.run import Run
from gatebook.record.samples import samples_of

LAG_LIMIT_MS, LAG_LIMIT_SHARE, CPU_LIMIT_SHARE = 5.0, 0.05, 0.5
"""Past these our own client was late: its event loop by this much and this part of the answer's time, or its CPU share."""
GPU_USED = ("gpu_memory_used_mib", "DCGM_FI_DEV_FB_USED")
GPU_MEMORY = (*GPU_USED, "gpu_memory_total_mib")
"""Gauges of the memory of one GPU, by NVML and by DCGM's exporter."""
COLD_SHARE = 0.01
"""Prompt tokens from a prefix cache, of all; below this the cache was cold."""


def measurements(run: Run, verdict: str, accepted: bool | None = None) -> list[Measurement]:
    """One row a group that has valid samples; `accepted` is that of a PASS unless it is given. Raises BrokenRecord.

    A run that was judged again has the answers, and so the rows, of the run that asked.
    """
    manifest, target = run.manifest, run.manifest.profile.target
    by_notebook = {notebook: run.exchanges(notebook) for notebook in run.notebooks}
    gauges = {notebook: _gauges(run, notebook) for notebook in run.notebooks}
    gpu = _gpu_name(row for rows in gauges.values() for row in rows)
    identity = identify([e for exchanges in by_notebook.values() for e in exchanges], target.model)
    common = {
        "run": manifest.judged_from or manifest.run, "at": manifest.created, "profile": manifest.profile.name,
        "gpu": gpu, "engine": identity.engine, "engine_version": identity.version, "suite": manifest.suite,
        "revision": target.revision, "verdict": verdict, "accepted": verdict == "PASS" if accepted is None else accepted,
    }  # fmt: skip
    return [
        Measurement.model_validate(
            {**common, **_group(run, notebook, group, exchanges), "gpu_peak_mib": _peak_mib(gauges[notebook])}
        )
        for notebook, exchanges in by_notebook.items()
        for group in dict.fromkeys(case.group for case in run.expected(notebook))
        if _counts(run, group, _of(run, group, exchanges))
    ]


def _gauges(run: Run, notebook: str) -> list[dict[str, Any]]:
    """What was read of the GPU while the notebook asked. Raises BrokenRecord."""
    path = run.path / f"{notebook}.gauges.jsonl"
    if not path.exists():
        return []
    try:  # a last line without an end was cut by a crash
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    except ValueError:
        raise BrokenRecord(f"{path}: holds a line that is no JSON; the file was edited") from None


def _gpu_name(gauges: Iterable[dict[str, Any]]) -> str:
    """`NVIDIA L4`, `2 x NVIDIA L4`, or `none` where none could be looked at."""
    names = {
        row["labels"].get("gpu", ""): name
        for row in gauges
        if row["name"] in GPU_MEMORY and (name := row["labels"].get("name") or row["labels"].get("modelName"))
    }
    counted = Counter(names.values())
    return " + ".join(name if n == 1 else f"{n} x {name}" for name, n in sorted(counted.items())) or "none"


def _peak_mib(gauges: Iterable[dict[str, Any]]) -> float | None:
    """Of the fullest GPU."""
    return max((row["value"] for row in gauges if row["name"] in GPU_USED and row["value"] is not None), default=None)


def _of(run: Run, group: str, exchanges: Iterable[Exchange]) -> list[Exchange]:
    return [e for e in exchanges if e.kind == "ask" and e.case and run.cases[e.case].group == group]


def _group(run: Run, notebook: str, group: str, exchanges: list[Exchange]) -> dict[str, Any]:
    asked = _of(run, group, exchanges)
    pairs = [(e, read_answer(e)) for e in _counts(run, group, asked)]
    timings = [(e.timing, answer.tokens("completion_tokens")) for e, answer in pairs if e.timing]
    spread = [
        (t.last_token_ms - t.first_token_ms) / (tokens - 1)
        for t, tokens in timings
        if t.last_token_ms is not None and t.first_token_ms is not None and tokens and tokens > 1
    ]
    generated = _tokens(pairs, "completion_tokens")
    busy_s = _busy_s(asked)
    complete = [e for e in asked if not e.fault]
    return {
        "group": group, "workload": workload(run, notebook, group, asked), "n": len(pairs),
        "ttft_ms": [t.first_token_ms for t, _ in timings], "itl_ms": [round(ms, 3) for ms in spread],
        "total_ms": [t.last_token_ms for t, _ in timings],
        "prompt_tokens": _tokens(pairs, "prompt_tokens"), "completion_tokens": generated,
        "requests_per_s": round(len(complete) / busy_s, 4) if busy_s else None,
        "tokens_per_s": round(sum(_tokens([(e, read_answer(e)) for e in complete], "completion_tokens")) / busy_s, 2) if busy_s else None,
    }  # fmt: skip


def _counts(run: Run, group: str, asked: list[Exchange]) -> list[Exchange]:
    """The valid samples among what a group was asked."""
    timed = _timed(run, group, asked)
    return [e for e in asked if (_valid(e) if timed is None else e.key in timed)]


def _timed(run: Run, group: str, asked: list[Exchange]) -> set[str] | None:
    """Of a group of timed cases, the keys of the samples that its rules count; None for another group."""
    settings = run.manifest.profile.latency
    cases = [case for case in run.cases.values() if case.samples and case.group == group]
    found = [samples_of(case, asked, settings.lag_ms)[settings.warm_up :] for case in cases]
    return {s.key for samples in found for s in samples if s.invalid is None} if cases else None


def _valid(exchange: Exchange) -> bool:
    """A complete streamed answer at the first attempt, timed by a client that was not late itself."""
    timing, client = exchange.timing, exchange.client
    if exchange.fault or exchange.events is None or timing is None or len(exchange.attempts) != 1:
        return False
    if timing.first_token_ms is None or timing.last_token_ms is None:
        return False
    lag_ms, cpu = (client.loop_lag_ms or 0, client.cpu_share or 0) if client else (0, 0)
    return cpu <= CPU_LIMIT_SHARE and lag_ms <= max(LAG_LIMIT_MS, LAG_LIMIT_SHARE * timing.last_token_ms)


def workload(run: Run, notebook: str, group: str, asked: list[Exchange]) -> str:
    """SHA-256 of what was asked: every case's prompts and options in their order and how many of its requests were
    sent, the concurrency, and whether a prefix cache knew the prompts. What was not asked is not in it."""
    sent = [
        (case.prompt_hash, count)
        for case in run.expected(notebook)
        if case.group == group and (count := sum(e.case == case.id for e in asked))
    ]
    told = {"asked": sent, "in_flight": run.manifest.profile.limits.in_flight, "cache": _cache(asked)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _cache(asked: list[Exchange]) -> str:
    """`cold`, `warm` or `unknown`, by the cached tokens that usage tells."""
    usages = [usage for e in asked if (usage := read_answer(e).usage)]
    details = [usage.get("prompt_tokens_details") for usage in usages]
    cached = [d["cached_tokens"] for d in details if isinstance(d, dict) and isinstance(d.get("cached_tokens"), int)]
    prompts = [u["prompt_tokens"] for u in usages if isinstance(u.get("prompt_tokens"), int)]
    if not cached or not sum(prompts):
        return "unknown"
    return "cold" if sum(cached) < COLD_SHARE * sum(prompts) else "warm"


def _tokens(pairs: Iterable[tuple[Exchange, Answer]], name: str) -> list[int]:
    return [tokens for _, answer in pairs if (tokens := answer.tokens(name)) is not None]


def _busy_s(asked: list[Exchange]) -> float:
    """Seconds in which at least one of the requests was open: pauses, and the day before a resume, are not in it."""
    spans = sorted(
        (start, start + timedelta(milliseconds=e.attempts[-1].elapsed_ms))
        for e in asked
        if e.attempts and (start := datetime.fromisoformat(e.attempts[-1].at))
    )
    total, until = timedelta(), datetime.min.replace(tzinfo=UTC)
    for start, end in spans:
        total += max(end - max(start, until), timedelta())
        until = max(until, end)
    return total.total_seconds()
