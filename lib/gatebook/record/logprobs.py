"""Log probabilities of a reply as OpenAI's chat API has them (`choices[0].logprobs.content`), read from the recorded bytes."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from gatebook.record.exchange import Exchange

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

    @property
    def shortfall(self) -> float:
        """How much less likely this token is than the best at its place; 0 for the best itself."""
        return max(self.logprob, *self.top.values()) - self.logprob


def read_logprobs(exchange: Exchange) -> list[TokenLogprobs]:
    """Every token of a reply that is not streamed; empty where the server tells none, or tells what is no number."""
    try:
        content = json.loads(exchange.text or "")["choices"][0]["logprobs"]["content"]
        found = [_token(entry) for entry in content]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
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
    return sum(t.shortfall for t in tokens) / len(tokens) if tokens and all(t.top for t in tokens) else None


def _token(entry: dict[str, Any]) -> TokenLogprobs:
    """One place of a text. Alternatives that have no name of their own are kept apart by their rank."""
    top: dict[str, float] = {}
    told = [e for e in entry.get("top_logprobs") or [] if float(e["logprob"]) > UNTOLD]
    for e in told:
        top[_name(e) or f"<part of a character {sum(name.startswith('<part') for name in top) + 1}>"] = float(
            e["logprob"]
        )
    chosen = float(entry["logprob"])
    if chosen <= UNTOLD:
        raise ValueError("no log probability is told")
    nameless = next(
        (name for name, value in top.items() if name.startswith("<part") and value == chosen), "<part of a character>"
    )
    return TokenLogprobs(_name(entry) or nameless, chosen, top)


def _name(entry: dict[str, Any]) -> str:
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
    except (UnicodeDecodeError, ValueError):
        return f"<{packed.hex()}>"
