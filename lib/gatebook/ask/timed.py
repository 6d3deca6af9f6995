"""Timed cases: one request at a time with nothing beside it, in turn with the second target where there is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gatebook.plan.cases import Ask, Case
from gatebook.record.exchange import Exchange


async def ask_in_turn(
    case: Case,
    first: Callable[[Case, Ask], Awaitable[None]],
    second: Callable[[Case, Ask], Awaitable[Exchange | None]] | None,
) -> None:
    """Every request of a case, to the second target too: A B, B A, A B ..., so that a drift strikes both alike.

    A second target that breaks, or for which no time is left (None), is asked no further: it is told, not waited for.
    """

    async def goes_on(ask: Ask) -> bool:
        found = await second(case, ask) if second else None
        return found is not None and found.fault is None

    for number, ask in enumerate(case.requests()):
        if number % 2:
            second = second if await goes_on(ask) else None
            await first(case, ask)
        else:
            await first(case, ask)
            second = second if await goes_on(ask) else None
