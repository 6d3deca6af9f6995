"""The log probabilities of a reply, or of a golden answer that was given to the server, token by token."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

from gatebook.engines.engine import Json, obj, whole_number
from gatebook.record.exchange import Exchange
from gatebook.record.replies import parse, read_answer

UNTOLD = -9999.0
"""What vLLM writes where it has no log probability."""
GOLDEN = "golden"
"""The key under which a recorded reply keeps the ids and values of a golden answer."""
MOST_TOKENS, AT_ONCE = 512, 2
"""Of a golden answer with its prompt, and answers scored at a time: engines keep a vocabulary of logits for each prompt token."""
ROUNDED = 0.001
"""What rounding may make of the log probability 0."""
VOCABULARY = (
    "an engine keeps the logits of its whole vocabulary for every token of a golden answer and its prompt: give it memory for "
    "them (`gatebook run --plan` says how much), or excuse the group"
)
"""Told where a server dies of it."""
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
    """Nats a token by which a text is less likely than the best token at each place: 0 at temperature 0. None for no tokens,
    or no alternatives. How open the places of a text are moves the mean logprob, not this: temperature shows in fewer samples."""
    if not tokens or not all(t.top for t in tokens):
        return None
    return sum(max(t.logprob, *t.top.values()) - t.logprob for t in tokens) / len(tokens)


@dataclass(frozen=True)
class Scored:
    """How likely a golden answer is to the server."""

    tokens: int
    mean_nats: float
    """Mean log probability of its tokens."""
    ids: str
    """Of the token ids, in 8 hex digits: an answer that is split otherwise is not compared."""


def read_scored(exchange: Exchange) -> Scored | str:
    """The score of a golden answer, or why there is none."""
    said = obj(parse(exchange.text or ""), GOLDEN)
    wanted, told = said.get("answer"), said.get("told")
    if exchange.fault or not isinstance(wanted, list) or not isinstance(told, list) or not wanted:
        return exchange.detail or "the server told no log probabilities of the given answer"
    if len(told) != len(wanted):
        return f"the server told {len(told)} log probabilities for {len(wanted)} tokens of the given answer"
    ids, values = zip(*told, strict=True)
    if list(ids) != wanted or any(whole_number(token) is None for token in wanted):
        return "the server told the log probabilities of other tokens than those of the given answer"
    if bad := [value for value in values if not isinstance(value, float | int) or not UNTOLD < value < ROUNDED]:
        return f"{len(bad)} of {len(values)} log probabilities are none, such as {bad[0]}"
    digest = hashlib.sha256(repr(wanted).encode()).hexdigest()[:8]
    return Scored(len(values), sum(values) / len(values), digest)


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
    """What tells a token from every other: the engine's id where the request asked for it, the bytes, the text. "" for a part
    of a character where neither is sent (vLLM 0.32), or no bytes (llama-cpp-python 0.3.36)."""
    token, raw = str(entry["token"]), entry.get("bytes")
    if TOKEN_ID.fullmatch(token):  # its `bytes` are those of this very text
        return token
    packed = bytes(raw) if isinstance(raw, list) else b""
    try:
        return packed.decode() if packed else token
    except UnicodeDecodeError:
        return f"<{packed.hex()}>"
