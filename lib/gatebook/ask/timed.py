"""Timed cases: one request at a time with nothing beside it, in turn with the second target where there is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gatebook.plan.cases import Ask, Case
from gatebook.record.exchange import Exchange


async def ask_in_turn(
    case: Case, first: Callable[[Case, Ask], Awaitable[None]], second: Callable[[Case, Ask], Awaitable[Exchange]] | None
) -> None:
    """Every request of a case, to the second target too: A B, B A, A B ..., so that a drift strikes both alike.

    A second target that breaks is asked no further: it is told, not waited for.
    """
    for number, ask in enumerate(case.requests()):
        if second and number % 2:
            second = second if (await second(case, ask)).fault is None else None
            await first(case, ask)
        else:
            await first(case, ask)
            if second and (await second(case, ask)).fault is not None:
                second = None
