"""The log probabilities of a reply, token by token."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gatebook.engines.engine import Json
from gatebook.record.exchange import Exchange
from gatebook.record.replies import read_answer

UNTOLD = -9999.0
"""What vLLM writes where it has no log probability."""
TOKEN_ID = re.compile(r"token_id:\d+")


@dataclass(frozen=True)
class TokenLogprobs:
    """One generated token, in nats."""

    token: str
    logprob: float
    top: dict[str, float]
    """The most likely tokens at this place, the chosen one among them or not."""

    @property
    def gap(self) -> float:
        """How far the best token is ahead of the second; infinite when only one is told. A small gap flips by rounding."""
        best = sorted(self.top.values(), reverse=True)
        return best[0] - best[1] if len(best) > 1 else math.inf


def read_logprobs(exchange: Exchange) -> list[TokenLogprobs]:
    """Every token of a reply that is not streamed; empty where the server tells none, or tells what is no number."""
    try:
        found = [_token(entry) for entry in read_answer(exchange).logprobs] if exchange.events is None else []
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return found if all(math.isfinite(v) for t in found for v in (t.logprob, *t.top.values())) else []


def mean_logprob(tokens: list[TokenLogprobs]) -> float | None:
    """Nats a token; None for no tokens."""
    return sum(t.logprob for t in tokens) / len(tokens) if tokens else None


def mean_shortfall(tokens: list[TokenLogprobs]) -> float | None:
    """Nats a token by which a text is less likely, at each of its places, than the best: 0 at temperature 0.

    None for no tokens and where the server tells no likely tokens. Unlike the mean logprob it does not grow with how
    open the places are that a text happens to pass, so that a temperature shows in fewer samples.
    """
    if not tokens or not all(t.top for t in tokens):
        return None
    return sum(max(t.logprob, *t.top.values()) - t.logprob for t in tokens) / len(tokens)


def _token(entry: Json) -> TokenLogprobs:
    """One place of a text. Alternatives that have no name of their own are kept apart by their rank."""
    top: dict[str, float] = {}
    for told in entry.get("top_logprobs") or []:
        if (value := float(told["logprob"])) > UNTOLD:
            top[_name(told) or f"<part of a character {sum(name.startswith('<part') for name in top) + 1}>"] = value
    chosen = float(entry["logprob"])
    if chosen <= UNTOLD:
        raise ValueError("no log probability is told")
    parts = [name for name, value in top.items() if name.startswith("<part") and value == chosen]
    return TokenLogprobs(_name(entry) or next(iter(parts), "<part of a character>"), chosen, top)


def _name(entry: Json) -> str:
    """What tells a token from every other: the engine's id where the request asked for it, the bytes, the text.

    A part of a character has no text of its own; vLLM sends neither text nor bytes then (0.32), llama-cpp-python no
    bytes (0.3.36): "" for such a one.
    """
    token, raw = str(entry["token"]), entry.get("bytes")
    if TOKEN_ID.fullmatch(token):  # its `bytes` are those of this very text
        return token
    packed = bytes(raw) if isinstance(raw, list) else b""
    try:
        return packed.decode() if packed else token
    except UnicodeDecodeError:
        return f"<{packed.hex()}>"
