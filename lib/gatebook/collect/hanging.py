"""What is no longer asked: kinds of request that hang, and what the token budget has no room for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from gatebook.collect.lengths import Unfit
from gatebook.config.sending import cap, prompt_tokens
from gatebook.record.exchange import ELSEWHERE, HANGING, OVER_BUDGET, Exchange
from gatebook.record.replies import read_answer

TRIES = 2
"""One may be bad luck, and more than two cost a deadline each and tell nothing new."""
LONG_BYTES = 3000
"""UTF-8 bytes of messages from which on a prompt is long: about 700 tokens, in Latin letters or Chinese."""
LONG, STREAM, GIVEN = "a long prompt", "a stream", "a given answer"


class Hanging:
    """Counts the requests of a run that had their full deadline and did not end, by kind."""

    def __init__(self, deadline_s: float, before: Iterable[Exchange]) -> None:
        self._deadline_s = deadline_s
        self._hung: dict[str, list[str]] = {}
        self._streams_end = False
        for exchange in before:
            self.note(exchange)

    def note(self, exchange: Exchange) -> None:
        if exchange.method != "POST" or exchange.kind in ELSEWHERE:
            return
        body = exchange.body or {}
        self._streams_end = self._streams_end or (bool(body.get("stream")) and exchange.fault is None)
        if exchange.fault == "deadline" and exchange.had(self._deadline_s):
            for kind in kinds_of(body):
                self._hung.setdefault(kind, []).append(exchange.key)

    def refuse(self, *kinds: str) -> None:
        """Raises Unfit where one of the kinds has hung too often. Streams count only as long as none has ended."""
        for kind in kinds:
            hung = self._hung.get(kind, [])
            if len(hung) >= TRIES and not (kind == STREAM and self._streams_end):
                raise Unfit(
                    f"{HANGING}: {len(hung)} requests with {kind} did not end in {self._deadline_s:g} s each "
                    f"({', '.join(hung)}) while a plain one was answered, so it was not asked"
                )


def kinds_of(body: dict[str, Any]) -> list[str]:
    """What may make a request hang where a plain one does not; the first that holds, and whether it is streamed."""
    messages = json.dumps(body.get("messages"), ensure_ascii=False, default=str).encode(errors="replace")
    match body:
        case {"prompt_logprobs": _} | {"return_logprob": _} | {"grammar": _}:
            found = [GIVEN]
        case _ if len(messages) >= LONG_BYTES:
            found = [LONG]
        case {"response_format": {"type": "json_schema" | "json_object"}}:
            found = ["a schema"]
        case _:
            found = [name for name in ("tools", "logprobs") if body.get(name)][:1]
    return [*found, STREAM] if body.get("stream") else found


class Spending:
    """Counts tokens: those that usage reports, and those that requests in flight may still cost."""

    def __init__(self, limit_tokens: int | None, before: Iterable[Exchange]) -> None:
        self._limit = limit_tokens
        self._open: dict[str, float] = {}
        self._spent = 0.0
        for exchange in before:
            self.settle(exchange)

    def reserve(self, key: str, messages: list[dict[str, Any]], options: dict[str, Any]) -> None:
        """Set aside what the request may cost. Raises Unfit when the budget has no room for it."""
        if self._limit is None:
            return
        needed = prompt_tokens(messages, options) + cap(options)
        taken = self._spent + sum(cost for other, cost in self._open.items() if other != key)
        if taken + needed > self._limit:
            raise Unfit(
                f"{OVER_BUDGET} of {self._limit:,} has no room for it: {taken:,.0f} are spent or in flight and it may cost "
                f"{needed:,.0f}; raise the limit, or choose a smaller suite"
            )
        self._open[key] = needed

    def settle(self, exchange: Exchange) -> None:
        """Replace what was set aside by what usage tells; a request without usage has cost what it might have."""
        reserved = self._open.pop(exchange.key, 0.0)
        if self._limit is None or not exchange.attempts or exchange.method != "POST":
            return
        answer = read_answer(exchange)
        counts = [answer.tokens("prompt_tokens"), answer.tokens("completion_tokens")]
        self._spent += reserved if None in counts and exchange.status == 200 else sum(count or 0 for count in counts)
