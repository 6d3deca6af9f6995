"""The latency samples of a timed case: what each answer took, what the server says it took, and whether it counts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gatebook.config.cases import NONCE, Case
from gatebook.config.policies import Metric
from gatebook.record.exchange import Exchange, Timing
from gatebook.record.gauges import Gauge
from gatebook.record.identity import identify
from gatebook.record.measurement import Measurement
from gatebook.record.replies import Answer, parse, read_answer
from gatebook.record.run import Run

CPU_SHARE = 0.5
"""Of a core, past which our own client may be what is slow."""
CACHED_SHARE = 0.1
"""Of the prompt, past which an answer that should have been read anew came from a prefix cache."""
CACHED_TOKENS = 64
"""Fewer cached tokens are the chat template's own head."""


@dataclass(frozen=True)
class Sample:
    """One answer, in ms; missing is None."""

    key: str
    ttft_ms: float | None
    itl_ms: float | None
    total_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    """Prompt tokens that a prefix cache answered for, where the server tells."""
    server_ttft_ms: float | None
    """What the server says that reading the prompt took (llama.cpp's `timings`)."""
    server_itl_ms: float | None
    invalid: str | None
    """Why it is no measurement."""

    def of(self, metric: Metric) -> float | None:
        return {"ttft": self.ttft_ms, "itl": self.itl_ms, "total": self.total_ms}[metric]


def samples_of(case: Case, exchanges: Iterable[Exchange], lag_ms: float, against: bool = False) -> list[Sample]:
    """The samples of a timed case in the order in which they were asked, warm-up and invalid ones too."""
    kind = "against" if against else "ask"
    found = [e for e in exchanges if e.case == case.id and e.kind == kind and e.fault is None]
    return [_sample(case, exchange, lag_ms) for exchange in found]


def valid(samples: list[Sample], warm_up: int, metric: Metric) -> list[float]:
    """What counts: the first `warm_up` samples and the invalid ones are left out."""
    return [ms for s in samples[warm_up:] if s.invalid is None and (ms := s.of(metric)) is not None]


def _sample(case: Case, exchange: Exchange, lag_ms: float) -> Sample:
    answer, times = read_answer(exchange), exchange.timing or Timing(queued_ms=0)
    tokens = answer.tokens("completion_tokens")
    told, cached = _timings(exchange), _cached_tokens(exchange, answer)
    return Sample(
        key=exchange.key, ttft_ms=times.first_token_ms, itl_ms=times.itl_ms(tokens), total_ms=times.last_token_ms,
        prompt_tokens=answer.tokens("prompt_tokens"), completion_tokens=tokens, cached_tokens=cached,
        server_ttft_ms=_number(told.get("prompt_ms")), server_itl_ms=_number(told.get("predicted_per_token_ms")),
        invalid=_invalid(case, exchange, answer, cached, lag_ms),
    )  # fmt: skip


def streamed_times(exchanges: Iterable[Exchange]) -> dict[str, list[float]]:
    """`ttft_ms`, `tpot_ms` and `total_ms` of all complete streamed answers to cases, in ms; what was not told is left out."""
    asked = [e for e in exchanges if e.kind == "ask" and not e.fault and e.timing and e.events is not None]
    times = [(e.timing, read_answer(e).tokens("completion_tokens")) for e in asked if e.timing]
    return {
        "ttft_ms": [ms for t, _ in times if (ms := t.first_token_ms) is not None],
        "tpot_ms": [ms for t, tokens in times if (ms := t.itl_ms(tokens)) is not None],
        "total_ms": [ms for t, _ in times if (ms := t.last_token_ms) is not None],
    }


def _cached_tokens(exchange: Exchange, answer: Answer) -> int | None:
    details = _dict((answer.usage or {}).get("prompt_tokens_details"))
    return _whole(details.get("cached_tokens", _timings(exchange).get("cache_n")))


def why_invalid(case: Case, exchange: Exchange, lag_ms: float) -> str | None:
    """Why the times of a reply are no measurement; None when they are one.

    A complete streamed answer at the first attempt, timed by a client that was not late itself; of a timed case also with as
    many tokens as were asked for, and a prompt that no prefix cache knew where each is a new one.
    """
    timing = exchange.timing
    if (
        exchange.fault
        or exchange.events is None
        or timing is None
        or None in (timing.first_token_ms, timing.last_token_ms)
    ):
        return "no complete streamed answer"
    if case.samples:
        answer = read_answer(exchange)
        return _invalid(case, exchange, answer, _cached_tokens(exchange, answer), lag_ms)
    return "sent more than once" if len(exchange.attempts) != 1 else _client_busy(exchange, lag_ms)


def _client_busy(exchange: Exchange, lag_ms: float) -> str | None:
    lag, cpu = ((exchange.client.loop_lag_ms or 0), (exchange.client.cpu_share or 0)) if exchange.client else (0, 0)
    last_ms = exchange.timing.last_token_ms if exchange.timing else None
    if lag > max(lag_ms, (last_ms or 0) / 20) or cpu > CPU_SHARE:
        return f"our own client was busy ({lag:g} ms late, {cpu:.0%} of a core)"
    return None


def _invalid(case: Case, exchange: Exchange, answer: Answer, cached: int | None, lag_ms: float) -> str | None:
    asked, got = case.requests()[0].options.get("max_tokens"), answer.tokens("completion_tokens")
    if exchange.timing is None or exchange.timing.first_token_ms is None or got is None:
        return "no token or no usage"
    if isinstance(asked, int) and got != asked:
        return f"{got} tokens answered where {asked} are timed"
    if len(exchange.attempts) > 1:
        return "sent more than once"
    if said := _client_busy(exchange, lag_ms):
        return said
    prompt = answer.tokens("prompt_tokens") or 0
    if is_cold(case) and cached and cached > max(CACHED_TOKENS, CACHED_SHARE * prompt):
        return f"{cached} of {prompt} prompt tokens came from a prefix cache"
    return None


def is_cold(case: Case) -> bool:
    """Whether each prompt is a new one, so that a prefix cache knows nothing but the chat template's head."""
    return any(NONCE in str(ask.messages) for ask in case.requests()[:1])


def _timings(exchange: Exchange) -> dict[str, Any]:
    """llama.cpp's `timings`, which its last chunk carries."""
    for _, data in reversed(exchange.events or []):
        if isinstance(piece := parse(data), dict) and isinstance(piece.get("timings"), dict):
            return dict(piece["timings"])
    return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


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
