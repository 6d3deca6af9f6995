"""What a run has to say to later ones: the latencies of every group, as rows of the history."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from gatebook.record.answer import Answer, read_answer
from gatebook.record.exchange import Exchange
from gatebook.record.gauges import Gauge
from gatebook.record.identity import identify
from gatebook.record.measurement import Measurement
from gatebook.record.run import Run
from gatebook.record.samples import samples_of, why_invalid

GPU_USED = ("gpu_memory_used_mib", "DCGM_FI_DEV_FB_USED")
GPU_MEMORY = (*GPU_USED, "gpu_memory_total_mib")
"""Gauges of the memory of one GPU, by NVML and by DCGM's exporter."""
HEAD_TOKENS, HEAD_SHARE = 64, 0.1
"""Cached prompt tokens up to this many, or this part of the prompt, are the chat template's head."""


def measurements(run: Run, verdict: str, accepted: bool | None = None) -> list[Measurement]:
    """One row a group that has valid samples; `accepted` is that of a PASS unless it is given. Raises BrokenRecord.

    A run that was judged again has the answers, and so the rows, of the run that asked.
    """
    said = verdict == "PASS" if accepted is None else accepted
    return [row for notebook in run.notebooks for row in _rows(run, notebook, verdict, said)]


def comparable(run: Run, notebook: str) -> list[Measurement]:
    """The rows of the run's window that a notebook's groups may be compared with: those of the same key. None of them
    when the window could not be read (`run.history_trouble`). Raises BrokenRecord."""
    own = {row.key for row in _rows(run, notebook, "", False)} if run.history else set()
    return [row for row in run.history if row.key in own]


def _rows(run: Run, notebook: str, verdict: str, accepted: bool) -> list[Measurement]:
    manifest, target = run.manifest, run.manifest.profile.target
    exchanges, gauges = run.exchanges(notebook), run.gauges(notebook)
    groups = {case.group: _of(run, case.group, exchanges) for case in run.expected(notebook)}
    counted = {group: _counted(run, group, asked) for group, asked in groups.items()}
    identity = identify(exchanges, target.model)
    common = {
        "run": manifest.judged_from or manifest.run, "at": manifest.created, "profile": manifest.profile.name,
        "gpu": _gpu_name(gauges), "engine": identity.engine, "engine_version": identity.version, "suite": manifest.suite,
        "revision": target.revision, "verdict": verdict, "accepted": accepted, "gpu_peak_mib": _peak_mib(gauges),
    }  # fmt: skip
    return [
        Measurement.model_validate({**common, **_group(run, notebook, group, asked, counted[group])})
        for group, asked in groups.items()
        if counted[group]
    ]


def _gpu_name(gauges: Iterable[Gauge]) -> str:
    """`NVIDIA L4`, `2 x NVIDIA L4`, or `none` where none could be looked at."""
    names = {
        row.labels.get("gpu", ""): name
        for row in gauges
        if row.name in GPU_MEMORY and (name := row.labels.get("name") or row.labels.get("modelName"))
    }
    counted = Counter(names.values())
    return " + ".join(name if n == 1 else f"{n} x {name}" for name, n in sorted(counted.items())) or "none"


def _peak_mib(gauges: Iterable[Gauge]) -> float | None:
    """Of the fullest GPU."""
    return max((row.value for row in gauges if row.name in GPU_USED and row.value is not None), default=None)


def _of(run: Run, group: str, exchanges: Iterable[Exchange]) -> list[Exchange]:
    known = {case.id for case in run.cases.values() if case.group == group}
    return [e for e in exchanges if e.kind == "ask" and e.case in known]


def _group(run: Run, notebook: str, group: str, asked: list[Exchange], counted: list[Exchange]) -> dict[str, Any]:
    pairs = [(e, read_answer(e)) for e in counted]
    timings = [(e.timing, answer.tokens("completion_tokens")) for e, answer in pairs if e.timing]
    spread = [itl_ms for t, tokens in timings if (itl_ms := t.itl_ms(tokens)) is not None]
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


def _counted(run: Run, group: str, asked: list[Exchange]) -> list[Exchange]:
    """The valid samples; of timed cases neither the warm-up nor what measures something else than was asked."""
    settings = run.manifest.profile.latency
    timed = [samples_of(c, asked, settings.lag_ms) for c in run.cases.values() if c.samples and c.group == group]
    first = {s.key for samples in timed for s in samples[: settings.warm_up]}
    return [e for e in asked if e.key not in first and not why_invalid(run.cases[str(e.case)], e, settings.lag_ms)]


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
    """`cold`, `warm` or `unknown`: whether most prompts were known to a prefix cache, by the cached tokens that usage
    tells; the chat template's own head is always known."""
    warm = [
        cached > max(HEAD_TOKENS, HEAD_SHARE * (answer.tokens("prompt_tokens") or 0))
        for answer in (read_answer(e) for e in asked)
        if isinstance(details := (answer.usage or {}).get("prompt_tokens_details"), dict)
        and isinstance(cached := details.get("cached_tokens"), int)
    ]
    return "unknown" if not warm else "warm" if sum(warm) * 2 > len(warm) else "cold"


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
