"""The latency samples of a timed case: what each answer took, what the server says it took, and whether it counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gatebook.plan.cases import NONCE, Case
from gatebook.plan.latency import Metric
from gatebook.record.answer import Answer, parse, read_answer
from gatebook.record.exchange import Exchange, Timing

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
