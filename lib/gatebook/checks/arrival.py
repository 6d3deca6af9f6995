"""Do streamed replies arrive as they are written, and end? A proxy that buffers keeps a stream and hands it over in one piece."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from gatebook.record.exchange import Exchange
from gatebook.record.replies import is_token, read_answer

TOKENS, TOTAL_MS = 30, 800.0
"""A stream with fewer tokens, or one that is over sooner, tells nothing: a fast server answers at once."""
PIECE_TOKENS = 15
"""A silence for so many tokens is allowed: buffers of 4 KiB fill after that many, speculative decoding writes fewer at a time."""
WRITTEN_SHARE, WRITTEN_MS = 0.1, 1.0
"""What is left of a buffered stream without these silences: under this share of the whole, and under so many ms a token, which
no model writes. The second tells it from a wait in a queue, or for a long prompt, before tokens that come one by one."""
STREAMS = 2
"""One alone may be chance."""
OPEN_SHARE = 0.1
"""A busy server, or a busy machine of ours, closes a connection late now and then."""


def pieces(exchange: Exchange) -> str | None:
    """In words, how a stream arrived that something kept; empty where it came as it was written, None where it tells nothing."""
    body, timing, client = exchange.body or {}, exchange.timing, exchange.client
    if exchange.events is None or exchange.fault or body.get("tools") or timing is None or timing.last_token_ms is None:
        return None
    total_ms, came = timing.last_token_ms, [at for at, data in exchange.events if is_token(data)]
    tokens = read_answer(exchange).tokens("completion_tokens") or len(came)
    late = client is not None and (client.loop_lag_ms or 0.0) > WRITTEN_SHARE * total_ms
    if tokens < TOKENS or total_ms < TOTAL_MS or late:
        return None
    silences = sorted((b - a for a, b in pairwise([0.0, *came])), reverse=True)[: tokens // PIECE_TOKENS]
    written_ms = total_ms - sum(silences)
    if written_ms >= WRITTEN_SHARE * total_ms or written_ms >= WRITTEN_MS * tokens:
        return ""
    count = 1 + sum(silence >= WRITTEN_SHARE * total_ms for silence in silences[1:])
    return f"{tokens} tokens in {count} {'piece' if count == 1 else 'pieces'}, the first after {came[0]:,.0f} of {total_ms:,.0f} ms"


def kept_back(exchanges: Iterable[Exchange]) -> dict[str, str]:
    """Key of each stream that something kept -> how it arrived; none unless all streams that tell are so, STREAMS at least."""
    found = {e.key: said for e in exchanges if e.kind == "ask" and (said := pieces(e)) is not None}
    return found if len(found) >= STREAMS and all(found.values()) else {}


def leaves_open(exchanges: Iterable[Exchange]) -> bool:
    """Whether the server leaves connections open behind whole answers, and not one among many that it was late to close."""
    ended = [e.after_done == "open" for e in exchanges if e.status == 200 and e.events is not None and not e.fault]
    return sum(ended) >= STREAMS and sum(ended) > OPEN_SHARE * len(ended) or all(ended)
