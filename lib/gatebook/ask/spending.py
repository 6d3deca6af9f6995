"""The run's token budget while it asks: a request that would not fit is not sent, and says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gatebook.ask.lengths import Unfit
from gatebook.plan.costs import cap, prompt_tokens
from gatebook.record.answer import read_answer
from gatebook.record.exchange import OVER_BUDGET, Exchange


class Spending:
    """Counts what usage tells, plus what requests in flight may still cost. One run asks one notebook at a time."""

    def __init__(self, limit_tokens: int | None, before: Iterable[Exchange]) -> None:
        self._limit = limit_tokens
        self._open: dict[str, float] = {}
        self._spent = 0.0
        for exchange in before:
            self.settle(exchange)

    def reserve(self, key: str, messages: list[dict[str, Any]], options: dict[str, Any]) -> None:
        """Set aside what the request may cost. Raises Unfit when the budget has no room for it."""
        needed = prompt_tokens(messages, options) + cap(options)
        taken = self._spent + sum(cost for other, cost in self._open.items() if other != key)
        if self._limit is not None and taken + needed > self._limit:
            raise Unfit(
                f"{OVER_BUDGET} of {self._limit:,} has no room for it: {taken:,.0f} are spent or in flight and it may cost "
                f"{needed:,.0f}; raise the limit, or choose a smaller suite"
            )
        self._open[key] = needed

    def settle(self, exchange: Exchange) -> None:
        """Replace what was set aside by what usage tells; a request without usage has cost what it might have."""
        reserved = self._open.pop(exchange.key, 0.0)
        if not exchange.attempts or exchange.method != "POST":
            return
        answer = read_answer(exchange)
        counts = [answer.tokens("prompt_tokens"), answer.tokens("completion_tokens")]
        self._spent += reserved if None in counts and exchange.status == 200 else sum(count or 0 for count in counts)
