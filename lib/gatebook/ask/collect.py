"""Ask every expected case of a notebook and record what comes back; the only code that talks to the target."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gatebook.ask.client import Lane, LoopLag
from gatebook.ask.gauges import glanced, sampled
from gatebook.ask.lengths import Lengths, Unfit, shelves
from gatebook.ask.load import Prepared, Stage, closed_loop, is_broken, stages
from gatebook.ask.spending import Spending
from gatebook.ask.timed import ask_in_turn
from gatebook.engines import HOST_PATHS, SETTINGS_PATHS
from gatebook.errors import CannotMeasure
from gatebook.plan import load, repeats
from gatebook.plan.cases import NONCE, Ask, Case
from gatebook.plan.repeats import filled
from gatebook.plan.settings import Profile
from gatebook.record.answer import counted_tokens, read_answer
from gatebook.record.exchange import Exchange
from gatebook.record.identity import identify
from gatebook.record.run import Against, Run, now
from gatebook.record.served import kept

STARTED = "GATEBOOK_STARTED"
"""When the runner started (UTC): a run resumed the next day has its whole deadline again."""
TOKENIZE = "/tokenize"
PROBES = ("models", *HOST_PATHS, "/health")
PROBE_DEADLINE_S = 10.0
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0}
Progress = Callable[[Exchange], None]


def collect(run: Run, notebook: str, progress: Progress | None = None) -> None:
    """Ask what is not yet in the notebook's record. The target's faults are recorded, not raised.

    Raises CannotMeasure when the record itself cannot be written.
    """
    collector = _Collector(run, notebook, progress or (lambda exchange: None))
    with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a running event loop
        done = pool.submit(asyncio.run, collector.run_all())
        try:
            done.result()
        except KeyboardInterrupt:
            collector.cancel()
            raise


class _Collector:
    def __init__(self, run: Run, notebook: str, progress: Progress) -> None:
        self._run, self._notebook, self._progress = run, notebook, progress
        self._profile: Profile = run.manifest.profile
        self._limits = self._profile.limits
        self._lag = LoopLag()
        self._recorded: list[Exchange] = []
        self._stopped: str | None = None
        self._cancel: Callable[[], object] | None = None
        self._writing = asyncio.Lock()
        self._looks_at = {case.over for case in run.expected(notebook)}
        """Besides groups of cases: `gauges` while the notebook asks, `settings` of the server."""
        self._probes = (*PROBES, *(SETTINGS_PATHS if "settings" in self._looks_at else ()))
        started = time.monotonic()
        left = self._limits.run_deadline_s - _seconds_since(os.environ.get(STARTED, run.manifest.created))
        self._ends = started + min(self._limits.notebook_deadline_s, max(left, 0.0))

    def cancel(self) -> None:
        """Stop asking, from another thread."""
        if self._cancel is not None:
            self._cancel()

    async def run_all(self) -> None:
        self._cancel = partial(asyncio.get_running_loop().call_soon_threadsafe, self._task().cancel)
        with self._run.journal(self._notebook) as journal:
            self._journal = journal
            self._recorded = self._run.exchanges(self._notebook)
            self._keys = {e.key for e in self._recorded}
            todo = [case for case in self._run.expected(self._notebook) if self._missing(case)]
            if not todo and all(f"probe/{path}" in self._keys for path in self._probes):
                return
            self._spending = Spending(self._limits.tokens, self._spent_before())
            ticker = asyncio.create_task(self._lag.run())
            try:
                async with self._sampled():
                    await self._ask_all(todo)
            except* CannotMeasure as group:
                raise group.exceptions[0] from None
            finally:
                ticker.cancel()
                with suppress(asyncio.CancelledError):
                    await ticker

    def _sampled(self) -> AbstractAsyncContextManager[None]:
        """The gauges beside the load, where a case of the notebook looks at them."""
        if "gauges" not in self._looks_at:
            return nullcontext()
        return sampled(self._run, self._notebook, self._profile, self._run.manifest.base_url)

    def _spent_before(self) -> list[Exchange]:
        """What the run has asked so far, in this notebook and in the others."""
        others = [e for name in self._run.notebooks if name != self._notebook for e in self._run.exchanges(name)]
        return [*others, *self._recorded]

    @staticmethod
    def _task() -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None
        return task

    async def _ask_all(self, todo: list[Case]) -> None:
        async with Lane(self._profile.target, self._run.manifest.base_url, self._lag) as lane:
            ready = await self._ready(lane)
            if ready.fault != "connect":
                for path in self._probes:
                    await self._probe(lane, path)
                if "settings" in self._looks_at and "gauges" not in self._looks_at:
                    await glanced(self._run, self._notebook, self._profile, self._run.manifest.base_url)
        if ready.fault is not None:
            await self._stop(f"the server never became ready: {ready.detail}")
            return
        identity = identify(self._recorded, self._profile.target.model)
        self._dialect = identity.dialect
        close = not self._dialect.keeps_connections
        limit = self._limit = identity.context_tokens or self._profile.target.context_tokens
        self._lengths = Lengths(
            self._run.expected(self._notebook), self._limits.document_budget_tokens, limit, self._count, self._tokenize
        )
        open_lane = partial(Lane, self._profile.target, self._run.manifest.base_url, self._lag, close)
        if timed := [case for case in todo if case.samples]:
            await self._timed(timed, open_lane, self._dialect.tells_latency)
        queue = list(reversed(shelves(case for case in todo if not case.samples and case.load is None)))
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for _ in range(min(self._limits.in_flight, len(queue))):
                group.create_task(self._work(await stack.enter_async_context(open_lane()), queue))
        for stage in stages(todo):
            await self._stage(open_lane, stage)

    async def _stage(self, open_lane: Callable[[], Lane], stage: Stage) -> None:
        """What is missing of one level of load, with nothing else in flight; after a break one plain token decides whether to go on."""
        async with open_lane() as lane:
            found = [await self._prepared(lane, case, ask) for case, ask in stage.asks if self._open(case, ask)]
            todo = [prepared for prepared in found if prepared is not None]
            while todo and self._stopped is None and not await self._too_late():
                broken = await closed_loop(
                    open_lane, stage.at_once, todo, self._send, self._record, lambda: self._left() > 0
                )
                if broken is not None and self._stopped is None and self._left() > 0:
                    await self._still_there(lane, broken.key, broken)

    async def _timed(self, cases: list[Case], open_lane: Callable[[], Lane], metrics: bool) -> None:
        """Before anything is asked beside them, on lanes of their own."""
        against = self._run.manifest.against
        async with AsyncExitStack() as stack:
            lane, second = await stack.enter_async_context(open_lane()), None
            if against is not None:
                other = await stack.enter_async_context(Lane(against.target, against.base_url, self._lag))
                second = partial(self._second, other, against)
            for case in cases:
                if metrics:
                    await self._probe(lane, "/metrics", f"metrics/{case.id}/before")
                await ask_in_turn(case, partial(self._first, lane), second)
                if metrics:
                    await self._probe(lane, "/metrics", f"metrics/{case.id}/after")

    async def _first(self, lane: Lane, case: Case, ask: Ask) -> None:
        if self._open(case, ask):
            await self._one(lane, case, ask)

    async def _second(self, lane: Lane, against: Against, case: Case, ask: Ask) -> Exchange:
        """The same request to the second target."""
        key = f"against/{case.id}/{ask.name}"
        if key in self._keys:
            return next(e for e in self._recorded if e.key == key)
        ask = self._written(case, ask, key)
        try:
            self._spending.reserve(key, ask.messages or [], ask.options)
        except Unfit as unfit:
            return await self._skip(key, case, ask, unfit)
        body = {**self._body(key, _chat_body(ask, ask.messages or [])), "model": against.target.model}
        found = await lane.ask(
            kind="against", key=key, body=body, case=case.id, ask=ask.name,
            deadline_s=self._deadline(), retries=self._limits.transport_retries,
        )  # fmt: skip
        found = found.model_copy(update={"target": against.name})
        await self._record(found)
        return found

    async def _work(self, lane: Lane, queue: list[list[Case]]) -> None:
        while queue and self._stopped is None:
            for case in queue.pop():
                await self._case(lane, case)

    def _open(self, case: Case, ask: Ask) -> bool:
        return f"{case.id}/{ask.name}" not in self._keys and self._stopped is None

    async def _case(self, lane: Lane, case: Case) -> None:
        for ask in case.requests():
            await self._first(lane, case, ask)
        if case.canary and f"{case.id}/canary" not in self._keys and self._stopped is None:
            body = {**HELLO, "max_tokens": 8}
            await self._chat(lane, "canary", f"{case.id}/canary", body, case=case.id, ask="canary")

    async def _one(self, lane: Lane, case: Case, ask: Ask) -> None:
        if await self._too_late():
            return
        if ask.path is not None:
            await self._record(await lane.ask(
                kind="ask", key=f"{case.id}/{ask.name}", body=None, path=ask.path, case=case.id, ask=ask.name,
                deadline_s=self._deadline(), retries=self._limits.transport_retries,
            ))  # fmt: skip
            return
        prepared = await self._prepared(lane, case, ask)
        if prepared is None:
            return
        done = await self._send(lane, prepared)
        await self._record(done)
        if is_broken(done) and self._stopped is None and self._left() > 0:
            await self._still_there(lane, done.key, done)

    async def _too_late(self) -> bool:
        """Whether the deadline has passed; then nothing more is asked, and the record says why."""
        if self._left() <= 0:
            limit = f"{self._limits.notebook_deadline_s:g} s"
            await self._stop(f"the notebook's deadline of {limit} (or the run's) passed before it was asked")
        return self._left() <= 0

    async def _prepared(self, lane: Lane, case: Case, ask: Ask) -> Prepared | None:
        """The request as it is sent; None when it cannot be, and then the record says why."""
        key = f"{case.id}/{ask.name}"
        try:
            ask = self._written(case, ask, key)
            messages = await self._messages(lane, case, ask)
            self._spending.reserve(key, messages, ask.options)
        except Unfit as unfit:
            await self._skip(key, case, ask, unfit)
            return None
        body = _chat_body(ask, messages)
        if case.load is not None:
            body = filled(body, load.word(self._run.manifest.run, key), load.PLACE)
        return Prepared(case, ask, key, self._body(key, body))

    async def _skip(self, key: str, case: Case, ask: Ask, why: Unfit) -> Exchange:
        skipped = Exchange(kind="skip", key=key, case=case.id, ask=ask.name, at=now(), detail=str(why))
        await self._record(skipped)
        return skipped

    async def _send(self, lane: Lane, prepared: Prepared) -> Exchange:
        return await lane.ask(
            kind="ask", key=prepared.key, body=prepared.body, case=prepared.case.id, ask=prepared.ask.name,
            deadline_s=self._deadline(), retries=self._limits.transport_retries,
        )  # fmt: skip

    def _written(self, case: Case, ask: Ask, key: str) -> Ask:
        """The ask with its long text and its nonce written out. Raises Unfit when that depends on a context that nobody tells."""
        if case.samples:
            digits = (
                f"{int(self._nonce(key), 16) % 10**8:08d}"  # tokenizers split digits alike, so every prompt is as long
            )
            ask = ask.model_copy(update={"messages": filled(ask.messages, digits, NONCE)})
        if ask.repeat is None:
            return ask
        times = ask.repeat.count(self._limit)
        if times is None:
            raise Unfit("the server does not tell its context limit and target.context_tokens names none")
        text = ask.repeat.text * times
        messages, options = (filled(part, text, repeats.PLACE) for part in (ask.messages, ask.options))
        return ask.model_copy(update={"messages": messages, "options": options})

    async def _messages(self, lane: Lane, case: Case, ask: Ask) -> list[dict[str, Any]]:
        """What is sent: the long document written, the conversation so far with the model's own answer. Raises Unfit."""
        messages = ask.messages or []
        if case.document is not None:
            async with self._writing:
                self._counts_with = lane
                messages = await self._lengths.messages(case, ask)
        if ask.follows is None:
            return messages
        last = next(e for e in self._recorded if e.key == f"{case.id}/{ask.follows}")
        answer = read_answer(last)
        if last.fault is not None or not answer.text:
            raise Unfit(f"{ask.follows}, which it follows, has no answer to go on from")
        return [*(last.body or {})["messages"], {"role": "assistant", "content": answer.text}, *messages]

    async def _count(self, key: str, sample: str) -> int | None:
        """Prompt tokens of a text alone, from the record when it was counted before."""
        done = next((e for e in self._recorded if e.key == key), None)
        if done is None:
            body = {"messages": [{"role": "user", "content": sample}], "temperature": 0, "max_tokens": 1}
            done = await self._chat(self._counts_with, "probe", key, body, case=None, ask="")
        return None if done.fault else read_answer(done).tokens("prompt_tokens")

    async def _tokenize(self, key: str, sample: str) -> int | None:
        """Tokens of a text by the server's own /tokenize, from the record when it was counted before; None where there is none."""
        tried = {e.key: e for e in self._recorded if e.path == TOKENIZE}
        if key not in tried:
            if any(e.fault for e in tried.values()):
                return None
            body: dict[str, Any] = {"model": self._profile.target.model, "prompt": sample, "content": sample}
            body |= {
                "add_special_tokens": False,
                "add_special": False,
            }  # vLLM and SGLang; llama.cpp (prompt and content alike)
            done = await self._counts_with.ask(
                kind="probe", key=key, body=body, path=TOKENIZE, deadline_s=PROBE_DEADLINE_S, retries=0
            )
            await self._record(done)
            tried[key] = done
        return counted_tokens(tried[key])

    async def _still_there(self, lane: Lane, after: str, broken: Exchange) -> None:
        """After a break, one plain token decides whether it is worth asking on."""
        body = {**HELLO, "max_tokens": 1}
        alive = await self._chat(lane, "canary", f"{after}/still-there", body, case=None, ask="still-there")
        if alive.fault is not None:
            await self._stop(
                f"the server stopped answering at {after} ({broken.detail}); a plain request then: {alive.detail}"
            )

    async def _ready(self, lane: Lane) -> Exchange:
        """Ready means that one token was generated. Not streamed, so that a broken stream is seen for what it is."""
        count = sum(e.kind == "ready" for e in self._recorded)
        body = self._body(f"ready/{count}", {**HELLO, "max_tokens": 1})
        deadline = time.monotonic() + min(self._limits.ready_deadline_s, max(self._left(), 1.0))
        for number in range(count, count + 3):
            ready = await lane.ask(
                kind="ready",
                key=f"ready/{number}",
                body=body,
                retries=10_000,
                deadline_s=max(deadline - time.monotonic(), 1.0),
            )
            await self._record(ready)
            if (ready.status or 0) < 500 or ready.fault != "status" or time.monotonic() >= deadline:
                break
        return ready

    async def _probe(self, lane: Lane, path: str, key: str | None = None) -> None:
        """A GET beside the cases; of the long replies that settings are read from, only those are kept."""
        if (key or f"probe/{path}") in self._keys:
            return
        done = await lane.ask(
            kind="probe", key=key or f"probe/{path}", body=None, path=path, deadline_s=PROBE_DEADLINE_S, retries=0
        )
        if key is None and path in SETTINGS_PATHS and done.text is not None:
            done = done.model_copy(update={"text": kept(done.text)})
        await self._record(done)

    async def _chat(
        self, lane: Lane, kind: Any, key: str, body: dict[str, Any], case: str | None, ask: str
    ) -> Exchange:
        exchange = await lane.ask(
            kind=kind, key=key, body=self._body(key, body), case=case, ask=ask,
            deadline_s=self._deadline(), retries=self._limits.transport_retries,
        )  # fmt: skip
        await self._record(exchange)
        return exchange

    def _body(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """Model first, and a `user` that no other request has, so that no exact-match cache can answer."""
        return {"model": self._profile.target.model, "user": f"gatebook-{self._nonce(key)}", **body}

    def _nonce(self, key: str) -> str:
        return hashlib.sha256(f"{self._run.manifest.run}/{self._notebook}/{key}".encode()).hexdigest()[:16]

    async def _record(self, exchange: Exchange) -> None:
        await asyncio.to_thread(self._journal.append, exchange)
        self._recorded.append(exchange)
        self._spending.settle(exchange)
        self._keys.add(exchange.key)
        self._progress(exchange)

    async def _stop(self, why: str) -> None:
        if self._stopped is None:
            self._stopped = why
            count = sum(e.kind == "stop" for e in self._recorded)
            await self._record(Exchange(kind="stop", key=f"stop/{count}", at=now(), detail=why))

    def _missing(self, case: Case) -> bool:
        keys = [f"{case.id}/{ask.name}" for ask in case.requests()] + ([f"{case.id}/canary"] if case.canary else [])
        keys += [f"against/{key}" for key in keys] if case.samples and self._run.manifest.against else []
        return any(key not in self._keys for key in keys)

    def _left(self) -> float:
        return self._ends - time.monotonic()

    def _deadline(self) -> float:
        return max(min(self._limits.request_deadline_s, self._left()), 0.1)


def _chat_body(ask: Ask, messages: list[dict[str, Any]]) -> dict[str, Any]:
    stream = {"stream": True, "stream_options": {"include_usage": True}} if ask.stream else {}
    return {"messages": messages, **ask.options, **stream}


def _seconds_since(created: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()
