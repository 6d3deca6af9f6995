"""Ask every expected case of a notebook and record what comes back: in which order, and what beside what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from functools import partial
from itertools import chain

from gatebook.collect.client import Lane, LoopLag
from gatebook.collect.gauges import glanced, sampled
from gatebook.collect.lengths import shelves
from gatebook.collect.load import Prepared, Stage, closed_loop, stages
from gatebook.collect.request import Requests
from gatebook.collect.session import HELLO, PROBE_DEADLINE_S, STARTED, Progress, Session
from gatebook.config.cases import Ask, Case
from gatebook.engines import HOST_PATHS, SETTINGS_PATHS
from gatebook.errors import CannotMeasure
from gatebook.record.exchange import Exchange
from gatebook.record.identity import Identity, identify
from gatebook.record.run import Run

__all__ = ["HELLO", "PROBE_DEADLINE_S", "STARTED", "collect"]

PROBES = ("models", *HOST_PATHS, "/health")
TIMED = ("ttft_ms", "total_ms")
"""Checks of one reply's own time: it is asked with nothing beside it."""


def collect(run: Run, notebook: str, progress: Progress | None = None) -> None:
    """Ask what is not yet in the notebook's record. The target's faults are recorded, not raised.

    Raises CannotMeasure when the record itself cannot be written.
    """
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        tasks.append(asyncio.create_task(_collect(run, notebook, progress or (lambda exchange: None))))
        await tasks[0]

    with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a running event loop
        done = pool.submit(asyncio.run, main())
        try:
            done.result()
        except KeyboardInterrupt:
            for task in tasks:
                task.get_loop().call_soon_threadsafe(task.cancel)
            raise


async def _collect(run: Run, notebook: str, progress: Progress) -> None:
    expected, profile, base_url = run.expected(notebook), run.manifest.profile, run.manifest.base_url
    looks_at = {case.over for case in expected}
    """Besides groups of cases: `gauges` while the notebook asks, `settings` of the server."""
    probes = (*PROBES, *(SETTINGS_PATHS if "settings" in looks_at else ()))
    with run.journal(notebook) as journal:
        done = {e.key for e in run.exchanges(notebook)}
        todo = [case for case in expected if profile.not_offered(*case.needs) is None and _keys(run, case) - done]
        if not todo and done >= {f"probe/{path}" for path in probes}:
            return
        session = Session(run, notebook, journal, progress)
        schedule = _Schedule(session, todo)
        beside: AbstractAsyncContextManager[None] = nullcontext()
        if "gauges" in looks_at:
            beside = sampled(run, notebook, profile, base_url)
        try:
            async with beside:
                identity = await schedule.meet(probes, glance="settings" in looks_at and "gauges" not in looks_at)
                if identity is not None:
                    await schedule.ask_all(identity)
        except* CannotMeasure as group:
            raise group.exceptions[0] from None
        finally:
            session.flush()


def _keys(run: Run, case: Case) -> set[str]:
    """Of everything that is asked of a case."""
    keys = {f"{case.id}/{ask.name}" for ask in case.requests()} | ({f"{case.id}/canary"} if case.canary else set())
    return keys | {f"against/{key}" for key in keys if case.samples and run.manifest.against}


class _Schedule:
    """What is left to be asked of one notebook."""

    def __init__(self, session: Session, todo: list[Case]) -> None:
        self._session, self._todo, self._lag = session, todo, LoopLag()
        self._ticker = asyncio.create_task(self._lag.run())
        self._run, self._notebook, self._target = session.run, session.notebook, session.profile.target
        self._base_url = self._run.manifest.base_url

    async def meet(self, probes: Iterable[str], glance: bool) -> Identity | None:
        """Wait for the server's first token, and read what it says of itself. None when nothing can be asked."""
        session = self._session
        async with Lane(self._target, self._base_url, self._lag) as lane:
            ready = await session.ready(lane)
            if ready is None:
                return None
            if ready.fault != "connect":
                for path in probes:
                    if not await session.probe(lane, path) and ready.fault is not None:
                        break  # it hangs: one path tells it
                if glance:
                    await glanced(self._run, self._notebook, session.profile, self._base_url)
        if ready.fault is not None:
            await session.stop(session.unready(ready))
            return None
        return identify(session.recorded, self._target.model)

    async def ask_all(self, identity: Identity) -> None:
        """What is timed, with nothing beside it; then everything else; then the levels of load."""
        engine, todo = identity.dialect, self._todo
        self._open = partial(Lane, self._target, self._base_url, self._lag, not engine.keeps_connections)
        async with self._open() as lane:
            self._requests = Requests(self._session, lane, identity)
            if timed := [case for case in todo if case.samples]:
                await self._timed(timed, metrics=bool(engine.ttft_histograms))
            alone = [case for case in todo if any(check in TIMED for item in case.expect for check in item)]
            alone += self._first_constrained()
            await self._work(lane, iter([alone]))
            beside = shelves(c for c in todo if not c.samples and c.load is None and c not in alone)
            queue = iter(beside)
            async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                for _ in range(min(self._session.limits.in_flight, len(beside))):
                    group.create_task(self._work(await stack.enter_async_context(self._open()), queue))
            for stage in stages(todo):
                await self._stage(lane, stage)

    def _first_constrained(self) -> list[Case]:
        """The first case of a group whose schemas' time is judged: while it is alone the engine loads its grammars, once (vLLM: 3 s)."""
        expected = self._run.expected(self._notebook)
        over = {case.over for case in expected if any("schema_ms" in item for item in case.expect)}
        return [case for case in self._todo if case.group in over][:1]

    async def _work(self, lane: Lane, queue: Iterator[list[Case]]) -> None:
        session = self._session
        for case in chain.from_iterable(queue):
            for ask in case.requests():
                await self._ask(lane, case, ask)
            if case.canary and (key := f"{case.id}/canary") not in session.done and not await session.too_late():
                await session.check(lane, await session.hello(lane, "canary", key, 8, case=case.id, ask="canary"))

    async def _ask(self, lane: Lane, case: Case, ask: Ask) -> None:
        """One request, where it is not recorded yet."""
        session, key = self._session, f"{case.id}/{ask.name}"
        if key in session.done or await session.too_late():
            return
        if ask.path is not None:
            await session.ask(lane, "ask", key, None, path=ask.path, case=case.id, ask=ask.name)
            return
        request = await self._requests.prepare(case, ask, key)
        if request is None or await self._requests.hangs(request) or await session.too_late():
            return
        await session.check(lane, await session.record(await self._send(lane, request)))

    async def _send(self, lane: Lane, request: Prepared) -> Exchange:
        names = {"case": request.case.id, "ask": request.ask.name}
        return await self._session.send(lane, "ask", request.key, request.body, **names)

    async def _stage(self, lane: Lane, stage: Stage) -> None:
        """What is missing of one level of load, with nothing else in flight; after a break one plain token decides whether to go on."""
        session, hangs = self._session, self._requests.hangs
        todo: list[Prepared] = []
        for case, ask in stage.asks:
            if (key := f"{case.id}/{ask.name}") not in session.done and session.stopped is None:
                todo += filter(None, [await self._requests.prepare(case, ask, key)])
        while todo and not await session.too_late():
            broken = await closed_loop(self._open, stage.at_once, todo, self._send, session.record, session.in_time)
            if broken is not None and session.stopped is None:
                await session.check(lane, broken)
                todo = [request for request in todo if not await hangs(request)]

    async def _timed(self, cases: list[Case], metrics: bool) -> None:
        """Before anything is asked beside them, on lanes of their own. Every request goes to the second target too: A B, B A,
        A B ..., so that a drift strikes both alike. A second target that breaks, or for which no time is left, is asked no
        more of the case: it is told, not waited for."""
        against = self._run.manifest.against
        async with AsyncExitStack() as stack:
            lane = await stack.enter_async_context(self._open())
            second = None
            if against is not None:
                second = await stack.enter_async_context(Lane(against.target, against.base_url, self._lag))
            for case in cases:
                if metrics:
                    await self._session.probe(lane, "/metrics", f"metrics/{case.id}/before")
                other = second
                for number, ask in enumerate(case.requests()):
                    for at in (lane, other) if number % 2 == 0 else (other, lane):
                        if at is lane:
                            await self._ask(lane, case, ask)
                        elif at is not None and not await self._ask_second(at, case, ask):
                            other = None
                if metrics:
                    await self._session.probe(lane, "/metrics", f"metrics/{case.id}/after")

    async def _ask_second(self, lane: Lane, case: Case, ask: Ask) -> bool:
        """The same request to the second target; False when it broke or there is no time for it."""
        session, key, against = self._session, f"against/{case.id}/{ask.name}", self._run.manifest.against
        assert against is not None
        if (done := session.done.get(key)) is not None:
            return done.fault is None
        if await session.too_late():
            return False
        request = await self._requests.prepare(case, ask, key)
        if request is None:
            return True
        body = {**request.body, "model": against.target.model}
        found = await session.send(lane, "against", key, body, case=case.id, ask=ask.name)
        await session.record(found.model_copy(update={"target": against.name}))
        return found.fault is None
