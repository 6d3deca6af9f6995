"""Ask every expected case of a notebook and record what comes back; the only code that talks to the target."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gatebook.collect.client import Lane, LoopLag
from gatebook.collect.gauges import glanced, sampled
from gatebook.collect.hanging import LONG, Hanging, Spending, kinds_of
from gatebook.collect.lengths import Lengths, Unfit, shelves
from gatebook.collect.load import Prepared, Stage, closed_loop, is_broken, stages
from gatebook.config import policies as load
from gatebook.config import rows as repeats
from gatebook.config.cases import NONCE, Ask, Case
from gatebook.config.profile import Profile
from gatebook.config.rows import filled
from gatebook.engines import HOST_PATHS, SETTINGS_PATHS
from gatebook.errors import CannotMeasure
from gatebook.record.exchange import GONE, OUT_OF_TIME, Exchange
from gatebook.record.identity import identify, kept
from gatebook.record.replies import counted_tokens, is_good, read_answer
from gatebook.record.run import Against, Run, now

STARTED = "GATEBOOK_STARTED"
"""When the runner started (UTC): a run resumed the next day has its whole deadline again."""
PROBES = ("models", *HOST_PATHS, "/health")
PROBE_DEADLINE_S = 10.0
PATIENCE_S = 5.0
"""For a server that had answered and is gone: a supervisor starts a process again within a second, and loading takes minutes."""
AGAIN_S = 1.0
"""Between two tries of the first request of all, after an error status."""
FIRST_TOKENS = "first_token_logprobs"
"""The check that compares alternatives of one token, so that each needs a name of its own."""
TIMED = ("ttft_ms", "total_ms")
"""Checks of one reply's own time: it is asked with nothing beside it."""
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0}
Progress = Callable[[Exchange], None]


def _first_constrained(todo: list[Case], expected: list[Case]) -> list[Case]:
    """The first case of a group whose schemas' time is judged: while it is alone the engine loads its grammars, once (vLLM: 3 s)."""
    over = {case.over for case in expected if any("schema_ms" in item for item in case.expect)}
    return [case for case in todo if case.group in over][:1]


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
        self._checking = asyncio.Lock()
        self._alive = 0.0
        """When a plain request was sent, after a break, that was answered."""
        self._since = os.environ.get(STARTED, run.manifest.created)
        started, (notebook, whole) = time.monotonic(), OUT_OF_TIME
        left = self._limits.run_deadline_s - _seconds_since(self._since)
        self._ends, self._ender = min(
            (started + max(left, 0.0), f"{whole} of {self._limits.run_deadline_s:g} s"),
            (started + self._limits.notebook_deadline_s, f"{notebook} of {self._limits.notebook_deadline_s:g} s"),
        )

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
            todo = [case for case in self._run.expected(self._notebook) if self._offered(case) and self._missing(case)]
            if not todo and all(f"probe/{path}" in self._keys for path in self._probes):
                return
            self._others = [e for n in self._run.notebooks if n != self._notebook for e in self._run.exchanges(n)]
            self._spending = Spending(self._limits.tokens, [*self._others, *self._recorded])
            self._hanging = Hanging(self._limits.request_deadline_s, [*self._others, *self._recorded])
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

    @staticmethod
    def _task() -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None
        return task

    async def _ask_all(self, todo: list[Case]) -> None:
        async with Lane(self._profile.target, self._run.manifest.base_url, self._lag) as lane:
            ready = await self._ready(lane)
            if ready is None:
                return
            if ready.fault != "connect":
                for path in self._probes:
                    if not await self._probe(lane, path) and ready.fault is not None:
                        break  # it hangs: one path tells it
                if "settings" in self._looks_at and "gauges" not in self._looks_at:
                    await glanced(self._run, self._notebook, self._profile, self._run.manifest.base_url)
        if ready.fault is not None:
            await self._stop(self._unready(ready))
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
        alone = [case for case in todo if any(check in TIMED for item in case.expect for check in item)]
        alone += _first_constrained(todo, self._run.expected(self._notebook))
        async with open_lane() as single:
            await self._work(single, [[case] for case in reversed(alone)])
        beside = [case for case in todo if not case.samples and case.load is None and case not in alone]
        queue = list(reversed(shelves(beside)))
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
            while todo and not await self._too_late():
                broken = await closed_loop(open_lane, stage.at_once, todo, self._send, self._record, self._in_time)
                if broken is not None and self._stopped is None:
                    await self._still_there(lane, broken)
                    todo = [prepared for prepared in todo if not await self._hangs(prepared)]

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

    async def _second(self, lane: Lane, against: Against, case: Case, ask: Ask) -> Exchange | None:
        """The same request to the second target; None when there is no time for it."""
        key = f"against/{case.id}/{ask.name}"
        if key in self._keys:
            return next(e for e in self._recorded if e.key == key)
        if await self._too_late():
            return None
        ask = self._written(case, ask, key)
        try:
            self._spending.reserve(key, ask.messages or [], ask.options)
        except Unfit as unfit:
            return await self._skip(key, case, ask, unfit)
        body = {**self._body(key, _chat_body(ask, ask.messages or [])), "model": against.target.model}
        found = await lane.ask(
            kind="against", key=key, body=body, case=case.id, ask=ask.name,
            deadline_s=self._limits.request_deadline_s, retries=self._limits.transport_retries,
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
        if case.canary and f"{case.id}/canary" not in self._keys and not await self._too_late():
            body = {**HELLO, "max_tokens": 8}
            done = await self._chat(lane, "canary", f"{case.id}/canary", body, case=case.id, ask="canary")
            if is_broken(done):
                await self._still_there(lane, done)

    async def _one(self, lane: Lane, case: Case, ask: Ask) -> None:
        if await self._too_late():
            return
        if ask.path is not None:
            await self._record(await lane.ask(
                kind="ask", key=f"{case.id}/{ask.name}", body=None, path=ask.path, case=case.id, ask=ask.name,
                deadline_s=self._limits.request_deadline_s, retries=self._limits.transport_retries,
            ))  # fmt: skip
            return
        prepared = await self._prepared(lane, case, ask)
        if prepared is None or await self._hangs(prepared) or await self._too_late():
            return
        done = await self._send(lane, prepared)
        await self._record(done)
        if is_broken(done) and self._stopped is None:
            await self._still_there(lane, done)

    async def _too_late(self) -> bool:
        """Whether a request could not have its full deadline any more, or asking has stopped; the record says why."""
        if self._stopped is None and not self._in_time():
            await self._stop(
                f"{self._ender} has less left than one request may take (limits.request_deadline_s, "
                f"{self._limits.request_deadline_s:g} s), so it was not asked; raise the one, lower the other, or choose a smaller suite"
            )
        return self._stopped is not None

    async def _hangs(self, prepared: Prepared) -> bool:
        """Whether its kind has hung too often; then the record says that it was not asked because of it."""
        try:
            self._hanging.refuse(*kinds_of(prepared.body))
        except Unfit as unfit:
            await self._skip(prepared.key, prepared.case, prepared.ask, unfit)
            return True
        return False

    async def _prepared(self, lane: Lane, case: Case, ask: Ask) -> Prepared | None:
        """The request as it is sent; None when it cannot be, and then the record says why."""
        key = f"{case.id}/{ask.name}"
        try:
            ask = self._written(case, ask, key)
            if case.document is not None:
                self._hanging.refuse(LONG)  # before it is cut to length, which asks too
            messages = await self._messages(lane, case, ask)
            self._spending.reserve(key, messages, ask.options)
        except Unfit as unfit:
            if self._stopped is None:  # else the stop says why, and a resumed run may ask it
                await self._skip(key, case, ask, unfit)
            return None
        body = _chat_body(ask, messages)
        if any(FIRST_TOKENS in item for item in case.expect):
            body |= self._dialect.logprob_options
        if self._profile.not_offered("logprobs"):  # the texts alone are compared then
            body = {k: v for k, v in body.items() if k not in ("logprobs", "top_logprobs")}
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
            deadline_s=self._limits.request_deadline_s, retries=self._limits.transport_retries,
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
            if await self._too_late():
                return None
            body = {"messages": [{"role": "user", "content": sample}], "temperature": 0, "max_tokens": 1}
            done = await self._chat(self._counts_with, "probe", key, body, case=None, ask="")
            if is_broken(done):
                await self._still_there(self._counts_with, done)
        return None if done.fault else read_answer(done).tokens("prompt_tokens")

    async def _tokenize(self, key: str, sample: str) -> int | None:
        """Tokens of a text by the server's own /tokenize, from the record when it was counted before; None where there is none."""
        path = self._dialect.tokenize_path
        tried = {e.key: e for e in self._recorded if e.path == path}
        if key not in tried:
            if any(e.fault for e in tried.values()):
                return None
            body = self._dialect.tokenize(self._profile.target.model, sample)
            done = await self._counts_with.ask(
                kind="probe", key=key, body=body, path=path, deadline_s=PROBE_DEADLINE_S, retries=0
            )
            await self._record(done)
            tried[key] = done
        return counted_tokens(tried[key])

    async def _still_there(self, lane: Lane, broken: Exchange) -> None:
        """After a break, one plain token decides whether it is worth asking on; for requests that broke together it is asked once."""
        broke = time.monotonic()
        async with self._checking:
            if self._alive > broke or await self._too_late():
                return
            asked, body = time.monotonic(), {**HELLO, "max_tokens": 1}
            alive = await self._chat(
                lane, "canary", f"{broken.key}/still-there", body, case=None, ask="still-there", patience_s=PATIENCE_S
            )
            if alive.fault is None:
                self._alive = asked
            elif alive.fault in ("connect", "no_byte"):
                await self._stop(f"{GONE} since {broken.key}: {alive.detail}")
            else:
                await self._stop(
                    f"the server stopped answering at {broken.key} ({broken.detail}); a plain request then: {alive.detail}"
                )

    async def _ready(self, lane: Lane) -> Exchange | None:
        """Ready means that one token was generated. Not streamed, so that a broken stream is seen for what it is.

        The first notebook has ready_deadline_s for it. Where the server had answered it is a request like any other, and where
        an earlier notebook had to stop it is one try. None when no time is left; the first request of all is asked in any case.
        """
        earlier = [e for e in self._others if e.at >= self._since and e.kind != "against"]
        if earlier and await self._too_late():
            return None
        limits, tries, retries, patience_s = self._limits, 1, 10_000, None
        last = next((e for e in reversed(earlier) if is_good(e) or _gave_up(e)), None)
        if last is None:
            budget_s = min(limits.ready_deadline_s, max(self._left(), limits.request_deadline_s))
            tries = 3
        elif last.kind == "stop":
            budget_s, retries = min(PATIENCE_S, limits.request_deadline_s), 0
        else:
            budget_s, patience_s = limits.request_deadline_s, PATIENCE_S
        count, ends = sum(e.kind == "ready" for e in self._recorded), time.monotonic() + budget_s
        body = self._body(f"ready/{count}", {**HELLO, "max_tokens": 1})
        for number in range(count, count + tries):
            ready = await lane.ask(
                kind="ready", key=f"ready/{number}", body=body, retries=retries, patience_s=patience_s,
                deadline_s=max(ends - time.monotonic(), 1.0),
            )  # fmt: skip
            await self._record(ready)
            again = (ready.status or 0) >= 500 or (
                ready.refused_for_good and number == count
            )  # seen twice, a refusal is no chance
            if ready.fault != "status" or not again or time.monotonic() >= ends:
                break
            await asyncio.sleep(AGAIN_S)
        return ready

    def _unready(self, ready: Exchange) -> str:
        """Why nothing of the notebook is asked."""
        answered = any(is_good(e) for e in self._others if e.at >= self._since)
        if answered and ready.fault in ("connect", "no_byte"):
            return f"{GONE}: {ready.detail}"
        if ready.refused_for_good:
            return f"the server refuses a plain chat: {ready.detail}"
        return f"the server {'does not answer any more' if answered else 'never became ready'}: {ready.detail}"

    async def _probe(self, lane: Lane, path: str, key: str | None = None) -> bool:
        """A GET beside the cases; of the long replies that settings are read from, only those are kept. False when nothing came back."""
        if (key or f"probe/{path}") in self._keys:
            return True
        done = await lane.ask(
            kind="probe", key=key or f"probe/{path}", body=None, path=path, deadline_s=PROBE_DEADLINE_S, retries=0
        )
        if key is None and path in SETTINGS_PATHS and done.text is not None:
            done = done.model_copy(update={"text": kept(done.text)})
        await self._record(done)
        return done.status is not None

    async def _chat(
        self,
        lane: Lane,
        kind: Any,
        key: str,
        body: dict[str, Any],
        case: str | None,
        ask: str,
        patience_s: float | None = None,
    ) -> Exchange:
        exchange = await lane.ask(
            kind=kind, key=key, body=self._body(key, body), case=case, ask=ask, patience_s=patience_s,
            deadline_s=self._limits.request_deadline_s, retries=self._limits.transport_retries,
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
        self._hanging.note(exchange)
        self._keys.add(exchange.key)
        self._progress(exchange)

    async def _stop(self, why: str) -> None:
        if self._stopped is None:
            self._stopped = why
            count = sum(e.kind == "stop" for e in self._recorded)
            await self._record(Exchange(kind="stop", key=f"stop/{count}", at=now(), detail=why))

    def _offered(self, case: Case) -> bool:
        return self._profile.not_offered(*case.needs) is None

    def _missing(self, case: Case) -> bool:
        keys = [f"{case.id}/{ask.name}" for ask in case.requests()] + ([f"{case.id}/canary"] if case.canary else [])
        keys += [f"against/{key}" for key in keys] if case.samples and self._run.manifest.against else []
        return any(key not in self._keys for key in keys)

    def _left(self) -> float:
        return self._ends - time.monotonic()

    def _in_time(self) -> bool:
        """Whether a request that is started now can have its full deadline."""
        return self._left() >= self._limits.request_deadline_s


def _gave_up(exchange: Exchange) -> bool:
    """A notebook stopped because of the server, and not of our own deadline."""
    return exchange.kind == "stop" and not exchange.detail.startswith(OUT_OF_TIME)


def _chat_body(ask: Ask, messages: list[dict[str, Any]]) -> dict[str, Any]:
    stream = {"stream": True, "stream_options": {"include_usage": True}} if ask.stream else {}
    return {"messages": messages, **ask.options, **stream}


def _seconds_since(created: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()


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
