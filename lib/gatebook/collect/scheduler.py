"""Ask every expected case of a notebook and record what comes back: in which order, and what beside what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain

from gatebook.collect.client import Lane, LoopLag
from gatebook.collect.gauges import glanced, others, sampled
from gatebook.collect.lengths import shelves
from gatebook.collect.request import Prepared, Requests, Stage, closed_loop, kept, stages
from gatebook.collect.session import Progress, Session
from gatebook.config.cases import Ask, Case
from gatebook.config.profile import Target
from gatebook.engines import HOST_PATHS, SETTINGS_PATHS
from gatebook.errors import CannotMeasure
from gatebook.record.exchange import IN_USE, Exchange, Kind
from gatebook.record.identity import Identity, asked_of_parent, identify
from gatebook.record.logprobs import AT_ONCE
from gatebook.record.run import Run

PROBES = ("models", *HOST_PATHS, "/health")
TIMED = ("ttft_ms", "total_ms")
"""Checks of one reply's own time: it is asked with nothing beside it."""


@dataclass(frozen=True)
class Side:
    """Who is asked the requests of a case, and how the record tells them apart."""

    kind: Kind = "ask"
    prefix: str = ""
    """Of the keys."""
    place: str | None = None
    """`target` of the exchanges where another address than the one under test is asked."""
    target: Target | None = None
    """Whose options are sent."""
    model: str | None = None


TESTED = Side()


def collect(run: Run, notebook: str, progress: Progress | None = None) -> None:
    """Ask what is not yet in the notebook's record. The target's faults are recorded, not raised. Raises CannotMeasure when
    the record itself cannot be written."""
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
        recorded = run.exchanges(notebook)
        done = {e.key for e in recorded}
        todo = [case for case in expected if profile.not_offered(*case.needs) is None and _keys(run, case) - done]
        beside = asked_of_parent(expected, profile) if identify(recorded, profile.target.model).parent else ()
        wanted = {f"probe/{path}" for path in probes} | {f"{case.id}/{ask.name}" for case, ask in beside}
        if not todo and done >= wanted:
            return
        session = Session(run, notebook, journal, progress)
        schedule = _Schedule(session, todo)
        gauges = "gauges" in looks_at
        try:
            async with sampled(run, notebook, profile, base_url) if gauges else nullcontext():
                identity = await schedule.meet(probes, glance="settings" in looks_at and not gauges)
                if identity is not None and await schedule.may_load(identity):
                    await schedule.ask_all(identity)
        except* CannotMeasure as group:
            raise group.exceptions[0] from None
        finally:
            session.flush()


def _keys(run: Run, case: Case) -> set[str]:
    """Of everything that is asked of a case."""
    keys = {f"{case.id}/{ask.name}" for ask in case.requests()} | ({f"{case.id}/canary"} if case.canary else set())
    replicas = range(len(run.manifest.profile.replicas(run.manifest.suite)) if case.fingerprints else 0)
    second = {f"against/{key}" for key in keys if case.samples and run.manifest.against}
    return keys | second | {f"replica/{number}/{key}" for number in replicas for key in keys}


class _Schedule:
    """What is left to be asked of one notebook."""

    def __init__(self, session: Session, todo: list[Case]) -> None:
        self._session, self._todo, self._lag = session, todo, LoopLag()
        self._ticker = asyncio.create_task(self._lag.run())
        self._run, self._notebook, self._target = session.run, session.notebook, session.profile.target
        self._base_url, self._expected = self._run.manifest.base_url, self._run.expected(self._notebook)

    def _lane(self, url: str, close: bool = True) -> Lane:
        others = [against.target] if (against := self._run.manifest.against) else []
        return Lane(self._target, url, self._lag, close, *others)

    async def meet(self, probes: Iterable[str], glance: bool) -> Identity | None:
        """Wait for the server's first token, and read what it says of itself. None when nothing can be asked."""
        session = self._session
        async with self._lane(self._base_url) as lane:
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

    async def may_load(self, identity: Identity) -> bool:
        """Whether load, if any is left, may be asked: nobody else is served, or the run says that it may all the same."""
        if self._target.server == "embedded" or not any(case.load for case in self._todo):
            return True
        found = await asyncio.to_thread(others, self._target, self._base_url, identity.dialect.gauges_settle_s)
        if isinstance(found, str):
            await self._session.note(f"load was asked, and whether others use the server is not known: {found}")
            return True
        count, told = found
        theirs = f"{count} request{'s' if count > 1 else ''} that {'are' if count > 1 else 'is'} not ours ({told})"
        if count and self._run.manifest.yes_load:
            await self._session.note(f"load was asked beside {theirs}, by --yes-load: its times are those of both")
        elif count:
            todo = "allow it with --yes-load, or resume the run when they are done"
            await self._session.stop(f"{IN_USE}: {theirs} in flight, so no load was asked; {todo}")
        return not count or self._run.manifest.yes_load

    async def ask_all(self, identity: Identity) -> None:
        """What is timed, with nothing beside it; then everything else; then golden answers; then the levels of load."""
        todo, self._engine = self._todo, identity.dialect
        self._open = partial(self._lane, self._base_url, not self._engine.keeps_connections)
        async with self._open() as lane:
            self._requests = Requests(self._session, lane, identity)
            if timed := [case for case in todo if case.samples]:
                await self._timed(timed, metrics=bool(self._engine.ttft_histograms))
            alone = [case for case in todo if any(check in TIMED for item in case.expect for check in item)]
            schemas = {case.over for case in self._expected if any("schema_ms" in item for item in case.expect)}
            constrained = [case for case in todo if case.group in schemas]
            alone += constrained[:1]  # while it is alone the engine loads its grammars, once (vLLM: 3 s)
            await self._work(lane, iter([alone]))
            apart = [c for c in todo if c.samples or c.load or c.scored or c in alone]
            in_flight = self._session.profile.in_flight(self._run.manifest.suite)
            await self._beside([c for c in todo if c not in apart], in_flight)
            if identity.parent in identity.models:
                parent = Side("parent", model=identity.parent)
                for case, ask in asked_of_parent(self._expected, self._session.profile):
                    await self._ask(lane, case, ask, parent)
            await self._replicas()
            await self._beside([c for c in todo if c.scored], min(in_flight, AT_ONCE))
            for stage in stages(todo):
                await self._stage(lane, stage)

    async def _beside(self, cases: list[Case], at_once: int) -> None:
        """Ask `at_once` cases at a time, each on a lane of its own."""
        todo = shelves(cases)
        queue = iter(todo)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(todo))):
                group.create_task(self._work(await stack.enter_async_context(self._open()), queue))

    async def _work(self, lane: Lane, queue: Iterator[list[Case]]) -> None:
        session = self._session
        for case in chain.from_iterable(queue):
            for ask in case.requests():
                await self._ask(lane, case, ask)
            if case.canary and (key := f"{case.id}/canary") not in session.done and not await session.too_late():
                await session.check(lane, await session.hello(lane, "canary", key, 8, case=case.id, ask="canary"))

    async def _ask(self, lane: Lane, case: Case, ask: Ask, side: Side = TESTED) -> bool:
        """One request, where it is not recorded yet; False when this side is to be asked no more."""
        session, key = self._session, f"{side.prefix}{case.id}/{ask.name}"
        if (recorded := session.done.get(key)) is not None:
            return recorded.fault is None
        if await session.too_late():
            return False
        here = side.place is None
        if ask.path is not None and here:
            return (await session.ask(lane, "ask", key, None, path=ask.path, case=case.id, ask=ask.name)).fault is None
        request = await self._requests.prepare(case, ask, key, side.target)
        if request is None:
            return side.kind != "replica"
        if here and (await self._requests.hangs(request) or await session.too_late()):
            return False
        done = await session.record(await self._send(lane, request, side))
        if here:
            await session.check(lane, done)
        return done.fault is None

    async def _send(self, lane: Lane, request: Prepared, side: Side = TESTED) -> Exchange:
        body = {**request.body, "model": side.model} if side.model else request.body
        names = {"case": request.case.id, "ask": request.ask.name, "path": request.path}
        done = await self._session.send(lane, side.kind, request.key, body, **names)
        done = kept(done, self._engine, request.answer) if request.answer else done
        return done if side.place is None else done.model_copy(update={"target": side.place})

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

    async def _replicas(self) -> None:
        """Ask each of target.replicas the fingerprint's cases by itself. One that breaks is asked no more: the record names it."""
        offered = (c for c in self._expected if self._session.profile.not_offered(*c.needs) is None)
        asks = [(case, ask) for case in offered if case.fingerprints for ask in case.requests()]
        for number, url in enumerate(self._session.profile.replicas(self._run.manifest.suite) if asks else ()):
            replica = Side("replica", f"replica/{number}/", url)
            async with self._lane(url) as lane:
                for path in PROBES:
                    await self._session.probe(lane, path, f"{replica.prefix}{path}", replica=url)
                for case, ask in asks:
                    if not await self._ask(lane, case, ask, replica):
                        break

    async def _timed(self, cases: list[Case], metrics: bool) -> None:
        """Before anything is asked beside them, on lanes of their own. Every request goes to the second target too: A B, B A,
        A B ..., so that a drift strikes both alike. A second target that breaks, or for which no time is left, is asked no
        more of the case."""
        against, second, side = self._run.manifest.against, None, TESTED
        async with AsyncExitStack() as stack:
            lane = await stack.enter_async_context(self._open())
            if against is not None:
                second = await stack.enter_async_context(
                    Lane(against.target, against.base_url, self._lag, True, self._target)
                )
                side = Side("against", "against/", against.name, against.target)
            for case in cases:
                if metrics:
                    await self._session.probe(lane, "/metrics", f"metrics/{case.id}/before")
                other = second
                for number, ask in enumerate(case.requests()):
                    for at in (lane, other) if number % 2 == 0 else (other, lane):
                        if at is lane:
                            await self._ask(lane, case, ask)
                        elif at is not None and not await self._ask(at, case, ask, side):
                            other = None
                if metrics:
                    await self._session.probe(lane, "/metrics", f"metrics/{case.id}/after")
