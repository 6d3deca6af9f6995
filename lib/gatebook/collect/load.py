"""Load on the wire: which requests are in flight together, and the closed loop that keeps them there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from gatebook.collect.client import Lane
from gatebook.config.cases import Ask, Case
from gatebook.config.policies import level_of
from gatebook.record.exchange import Exchange


@dataclass(frozen=True)
class Stage:
    """The requests of one group at one level: a closed loop of `at_once` lanes takes one after the other."""

    group: str
    at_once: int
    asks: list[tuple[Case, Ask]]


@dataclass(frozen=True)
class Prepared:
    """One request of a stage, ready to be sent, so that nothing is written or counted while others are timed."""

    case: Case
    ask: Ask
    key: str
    body: dict[str, Any]


def stages(cases: Iterable[Case]) -> list[Stage]:
    """Group by group in the order of the cases, the lowest level first."""
    found: dict[str, dict[int, list[tuple[Case, Ask]]]] = {}
    for case in cases:
        for ask in case.requests() if case.load else []:
            found.setdefault(case.group, {}).setdefault(level_of(ask.name), []).append((case, ask))
    return [Stage(group, level, asks) for group, levels in found.items() for level, asks in sorted(levels.items())]


Open = Callable[[], Lane]
Send = Callable[[Lane, Prepared], Coroutine[Any, Any, Exchange]]
Record = Callable[[Exchange], Coroutine[Any, Any, object]]


async def closed_loop(
    open_lane: Open, at_once: int, todo: list[Prepared], send: Send, record: Record, in_time: Callable[[], bool]
) -> Exchange | None:
    """Keep `at_once` requests in flight until `todo` is empty, the time is up, or one breaks: then the lanes finish and it is returned.

    Each lane has a client of its own and goes on before its exchange is on disk, so that a slow disk does not thin the load.
    """
    broken: list[Exchange] = []

    async def work(lane: Lane) -> None:
        while todo and not broken and in_time():
            done = await send(lane, todo.pop(0))
            writing.create_task(record(done))
            if is_broken(done):
                broken.append(done)

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as writing, asyncio.TaskGroup() as lanes:
        for _ in range(min(at_once, len(todo))):
            lanes.create_task(work(await stack.enter_async_context(open_lane())))
    return broken[0] if broken else None


def is_broken(done: Exchange) -> bool:
    """Whether it must be asked if the server is still there."""
    return done.fault in ("connect", "no_byte", "deadline", "broken") or (done.status or 0) >= 500
