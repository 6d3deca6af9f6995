"""The latency samples of a run: what each answer took, what the server says it took, and whether it counts."""

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
from gatebook.engines.engine import Json, obj, whole_number
from gatebook.record.exchange import Exchange, Measurement, Timing
from gatebook.record.gauges import gpu_names, gpus
from gatebook.record.identity import identify
from gatebook.record.replies import parse, read_answer
from gatebook.record.run import Run

CPU_SHARE = 0.5
"""Of a core, past which our own client may be what is slow."""
COLUMNS = ("ttft_ms", "itl_ms", "total_ms", "prompt_tokens", "completion_tokens")
"""Of a sample that a measurement keeps."""
HEAD_TOKENS, HEAD_SHARE = 64, 0.1
"""Cached prompt tokens up to this many, or this part of the prompt, are the chat template's own head."""


@dataclass(frozen=True)
class Sample:
    """One answer, in ms; missing is None."""

    key: str
    ttft_ms: float | None
    itl_ms: float | None
    total_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    server_ttft_ms: float | None
    """The server's own time to read the prompt (llama.cpp's `timings`)."""
    server_itl_ms: float | None
    invalid: str | None
    """Why it is no measurement."""

    def of(self, metric: Metric) -> float | None:
        return {"ttft": self.ttft_ms, "itl": self.itl_ms, "total": self.total_ms}[metric]


def read_sample(case: Case, exchange: Exchange, lag_ms: float) -> Sample:
    """One reply as a sample. It is valid as a complete streamed answer at the first attempt, timed by a client that was not
    late; of a timed case also with as many tokens as were asked for, and a cold prompt where each is a new one."""
    answer, times = read_answer(exchange), exchange.timing or Timing(queued_ms=0)
    prompt, tokens = answer.tokens("prompt_tokens"), answer.tokens("completion_tokens")
    told = _timings(exchange) if case.samples else {}
    cached = answer.cached_tokens if answer.cached_tokens is not None else whole_number(told.get("cache_n"))
    invalid = _incomplete(case, exchange, tokens) or _client_busy(exchange, lag_ms)
    if not invalid and case.samples and cached and _is_warm(cached, prompt) and is_cold(case):
        invalid = f"{cached} of {prompt or 0} prompt tokens came from a prefix cache"
    return Sample(
        key=exchange.key, ttft_ms=times.first_token_ms, itl_ms=times.itl_ms(tokens), total_ms=times.last_token_ms,
        prompt_tokens=prompt, completion_tokens=tokens, server_ttft_ms=_number(told.get("prompt_ms")),
        server_itl_ms=_number(told.get("predicted_per_token_ms")), invalid=invalid,
    )  # fmt: skip


def samples_of(case: Case, exchanges: Iterable[Exchange], lag_ms: float, against: bool = False) -> list[Sample]:
    """The samples of a timed case in the order of asking, warm-up and invalid ones included."""
    kind = "against" if against else "ask"
    found = [e for e in exchanges if e.case == case.id and e.kind == kind and e.fault is None]
    return [read_sample(case, exchange, lag_ms) for exchange in found]


def streamed_times(exchanges: Iterable[Exchange]) -> dict[str, list[float]]:
    """`ttft_ms`, `tpot_ms` and `total_ms` of all complete streamed answers to cases; missing values are left out."""
    asked = [e for e in exchanges if e.kind == "ask" and not e.fault and e.events is not None]
    times = [(e.timing, read_answer(e).tokens("completion_tokens")) for e in asked if e.timing]
    columns = {
        "ttft_ms": [t.first_token_ms for t, _ in times],
        "tpot_ms": [t.itl_ms(tokens) for t, tokens in times],
        "total_ms": [t.last_token_ms for t, _ in times],
    }
    return {name: [ms for ms in column if ms is not None] for name, column in columns.items()}


def is_cold(case: Case) -> bool:
    """Whether each prompt is a new one, so that a prefix cache knows nothing but the chat template's head."""
    return any(NONCE in str(ask.messages) for ask in case.requests()[:1])


def _incomplete(case: Case, exchange: Exchange, tokens: int | None) -> str | None:
    times = exchange.timing or Timing(queued_ms=0)
    if case.samples and not exchange.fault and (times.first_token_ms is None or tokens is None):
        return "no token or no usage"
    if exchange.fault or exchange.events is None or None in (times.first_token_ms, times.last_token_ms):
        return "no complete streamed answer"
    asked = case.requests()[0].options.get("max_tokens") if case.samples else None
    if isinstance(asked, int) and tokens != asked:
        return f"{tokens} tokens answered where {asked} are timed"
    return "sent more than once" if len(exchange.attempts) != 1 else None


def _client_busy(exchange: Exchange, lag_ms: float) -> str | None:
    client, last_ms = exchange.client, exchange.timing.last_token_ms if exchange.timing else None
    lag, cpu = (client.loop_lag_ms or 0, client.cpu_share or 0) if client else (0, 0)
    if lag > max(lag_ms, (last_ms or 0) / 20) or cpu > CPU_SHARE:
        return f"our own client was busy ({lag:g} ms late, {cpu:.0%} of a core)"
    return None


def _is_warm(cached: int, prompt: int | None) -> bool:
    return cached > max(HEAD_TOKENS, HEAD_SHARE * (prompt or 0))


def _timings(exchange: Exchange) -> Json:
    """llama.cpp's `timings`, which its last chunk carries."""
    pieces = (obj(parse(data)).get("timings") for _, data in reversed(exchange.events or []))
    return next((told for told in pieces if isinstance(told, dict)), {})


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def measurements(run: Run, verdict: str, accepted: bool | None = None) -> list[Measurement]:
    """One row a group that has valid samples, accepted where the verdict is PASS unless `accepted` is given. A run that was
    judged again has the rows of the run that asked. Raises BrokenRecord."""
    said = verdict == "PASS" if accepted is None else accepted
    return [row for notebook in run.notebooks for row in _rows(run, notebook, verdict, said)]


def comparable(run: Run, notebook: str) -> list[Measurement]:
    """The rows of the run's window with the keys of a notebook's groups; none where the window could not be read
    (`run.history_trouble`). Raises BrokenRecord."""
    own = {row.key for row in _rows(run, notebook, "", False)} if run.history else set()
    return [row for row in run.history if row.key in own]


def _rows(run: Run, notebook: str, verdict: str, accepted: bool) -> list[Measurement]:
    manifest, target = run.manifest, run.manifest.profile.target
    exchanges, gauges = run.exchanges(notebook), run.gauges(notebook)
    identity = identify(exchanges, target.model)
    common = {
        "run": manifest.judged_from or manifest.run, "at": manifest.created, "profile": manifest.profile.name,
        "gpu": gpu_names(gauges), "engine": identity.engine, "engine_version": identity.version, "suite": manifest.suite,
        "revision": target.revision, "verdict": verdict, "accepted": accepted,
        "gpu_peak_mib": max((mib for gpu in gpus(gauges) for _, mib in gpu.used), default=None),
    }  # fmt: skip
    rows = []
    for group in dict.fromkeys(case.group for case in run.expected(notebook)):
        of_group = {case.id for case in run.cases.values() if case.group == group}
        asked = [e for e in exchanges if e.kind == "ask" and e.case in of_group]
        if counted := _counted(run, group, asked):
            own = {"group": group, "workload": _workload(run, notebook, group, asked), **_measured(asked, counted)}
            rows.append(Measurement.model_validate({**common, **own}))
    return rows


def _counted(run: Run, group: str, asked: list[Exchange]) -> list[Sample]:
    """The valid samples; of timed cases neither the warm-up nor what measures something else than was asked."""
    settings = run.manifest.profile.latency
    timed = [samples_of(c, asked, settings.lag_ms) for c in run.cases.values() if c.samples and c.group == group]
    first = {s.key for samples in timed for s in samples[: settings.warm_up]}
    found = [read_sample(run.cases[str(e.case)], e, settings.lag_ms) for e in asked if e.key not in first]
    return [sample for sample in found if not sample.invalid]


def _measured(asked: list[Exchange], counted: list[Sample]) -> dict[str, Any]:
    complete, busy_s = [e for e in asked if not e.fault], _busy_s(asked)
    tokens = sum(read_answer(e).tokens("completion_tokens") or 0 for e in complete)
    columns = {name: [value for s in counted if (value := getattr(s, name)) is not None] for name in COLUMNS}
    return {
        **columns,
        "n": len(counted),
        "itl_ms": [round(ms, 3) for ms in columns["itl_ms"]],
        "requests_per_s": round(len(complete) / busy_s, 4) if busy_s else None,
        "tokens_per_s": round(tokens / busy_s, 2) if busy_s else None,
    }


def _workload(run: Run, notebook: str, group: str, asked: list[Exchange]) -> str:
    """SHA-256 of what was asked: prompts and options of every case with its number of requests, the concurrency, and whether
    a prefix cache knew the prompts."""
    counts = Counter(e.case for e in asked)
    cases = [case.id for case in run.expected(notebook) if case.group == group and counts[case.id]]
    sent = [(run.asked(case), counts[case]) for case in cases]
    told = {"asked": sent, "in_flight": run.manifest.profile.in_flight(run.manifest.suite), "cache": _cache(asked)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _cache(asked: list[Exchange]) -> str:
    """Whether most prompts were known to a prefix cache, by usage: `cold`, `warm` or `unknown`."""
    answers = [a for e in asked if (a := read_answer(e)).cached_tokens is not None]
    warm = [_is_warm(a.cached_tokens or 0, a.tokens("prompt_tokens")) for a in answers]
    return "unknown" if not warm else "warm" if sum(warm) * 2 > len(warm) else "cold"


def _busy_s(asked: list[Exchange]) -> float:
    """Seconds in which at least one of the requests was open, without pauses and the time before a resume."""
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
