"""What a notebook sends and what comes back: recorded, counted, and stopped when the time is up, the tokens are spent, the
server is gone, or its like hangs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from gatebook.collect.client import Lane
from gatebook.collect.lengths import Unfit
from gatebook.config.cases import Ask, Case
from gatebook.config.profile import Target
from gatebook.config.sending import cap, prompt_tokens, under
from gatebook.engines import SETTINGS_PATHS
from gatebook.errors import CannotMeasure
from gatebook.record.exchange import ELSEWHERE, GONE, HANGING, IN_USE, OUT_OF_TIME, OVER_BUDGET, Exchange, Kind
from gatebook.record.identity import kept
from gatebook.record.journal import Journal
from gatebook.record.replies import is_good, read_answer
from gatebook.record.run import Run, now

STARTED = "GATEBOOK_STARTED"
"""When the runner started (UTC): a run resumed the next day has its whole deadline again."""
BRIEFLY: dict[str, Any] = {"deadline_s": 10.0, "retries": 0}
"""How a probe is asked."""
PATIENCE_S = 5.0
"""For a server that had answered and is gone: a supervisor starts a process again within a second, and loading takes minutes."""
AGAIN_S = 1.0
"""Between two tries of the first request of all, after an error status."""
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0}
TRIES = 2
"""Requests of a kind that hang before it is asked no more: one may be bad luck, and each costs a whole deadline."""
LONG_BYTES = 3000
"""UTF-8 bytes of messages from which on a prompt is long: about 700 tokens, in Latin letters or Chinese."""
LONG, STREAM, GIVEN = "a long prompt", "a stream", "a given answer"
Progress = Callable[[Exchange], None]


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


class Session:
    """One notebook's requests. A run asks one notebook at a time."""

    def __init__(self, run: Run, notebook: str, journal: Journal, progress: Progress) -> None:
        self.run, self.notebook, self.profile = run, notebook, run.manifest.profile
        self.limits = limits = self.profile.limits
        self.recorded = run.exchanges(notebook)
        self.done = {e.key: e for e in self.recorded}
        self.stopped: str | None = None
        self._journal, self._progress = journal, progress
        self._unwritten: list[tuple[Exchange, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._others = [e for n in run.notebooks if n != notebook for e in run.exchanges(n)]
        before = [*self._others, *self.recorded]
        self.spending, self.hanging = Spending(limits.tokens, before), Hanging(limits.request_deadline_s, before)
        self._checking = asyncio.Lock()
        self._alive = 0.0
        """When a plain request was sent, after a break, that was answered."""
        self._since = os.environ.get(STARTED, run.manifest.created)
        begun, (part, whole) = time.monotonic(), OUT_OF_TIME
        left_s = limits.run_deadline_s - (datetime.now(UTC) - datetime.fromisoformat(self._since)).total_seconds()
        self._ends, self._ender = min(
            (begun + max(left_s, 0.0), f"{whole} of {limits.run_deadline_s:g} s"),
            (begun + limits.notebook_deadline_s, f"{part} of {limits.notebook_deadline_s:g} s"),
        )

    async def send(self, lane: Lane, kind: Kind, key: str, body: dict[str, Any] | None, **more: Any) -> Exchange:
        """With the profile's deadline and retries, where `more` names no others."""
        limits = {"deadline_s": self.limits.request_deadline_s, "retries": self.limits.transport_retries}
        return await lane.ask(kind=kind, key=key, body=body, **(limits | more))

    async def ask(self, lane: Lane, kind: Kind, key: str, body: dict[str, Any] | None, **more: Any) -> Exchange:
        """Send one request and record what came back."""
        return await self.record(await self.send(lane, kind, key, body, **more))

    async def hello(self, lane: Lane, kind: Kind, key: str, max_tokens: int, **more: Any) -> Exchange:
        """A plain chat."""
        return await self.ask(lane, kind, key, self.body(key, {**HELLO, "max_tokens": max_tokens}), **more)

    async def probe(self, lane: Lane, path: str, key: str | None = None, replica: str | None = None) -> bool:
        """A GET beside the cases, False when nothing came back. Of the long replies with settings only the settings are kept."""
        key = key or f"probe/{path}"
        if key in self.done:
            return True
        done = await self.send(lane, "replica" if replica else "probe", key, None, path=path, **BRIEFLY)
        text = kept(done.text) if path in SETTINGS_PATHS and done.text is not None else done.text
        await self.record(done.model_copy(update={"text": text, "target": replica}))
        return done.status is not None

    async def skip(self, key: str, case: Case, ask: Ask, why: Unfit) -> None:
        await self.record(Exchange(kind="skip", key=key, case=case.id, ask=ask.name, at=now(), detail=str(why)))

    async def stop(self, why: str) -> None:
        if self.stopped is None:
            self.stopped = why
            await self.note(why, "stop")

    async def note(self, what: str, kind: Kind = "note") -> None:
        key = f"{kind}/{sum(e.kind == kind for e in self.recorded)}"
        await self.record(Exchange(kind=kind, key=key, at=now(), detail=what))

    async def record(self, exchange: Exchange) -> Exchange:
        """Return the exchange once it is on disk. What arrives while the disk is busy is written together, with one sync."""
        done = asyncio.get_running_loop().create_future()
        self._unwritten.append((exchange, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await done
        self.recorded.append(exchange)
        self.done[exchange.key] = exchange
        self.spending.settle(exchange)
        self.hanging.note(exchange)
        self._progress(exchange)
        return exchange

    async def _write(self) -> None:
        while batch := self._unwritten:
            self._unwritten = []
            error: CannotMeasure | None = None
            try:
                await asyncio.to_thread(self._journal.append, *(exchange for exchange, _ in batch))
            except CannotMeasure as failed:
                error = failed
            for _, done in batch:
                if not done.done():
                    done.set_exception(error) if error else done.set_result(None)

    def flush(self) -> None:
        """Write what is left when the asking is broken off."""
        if self._unwritten:
            self._journal.append(*(exchange for exchange, _ in self._unwritten))

    def body(self, key: str, body: dict[str, Any], target: Target | None = None) -> dict[str, Any]:
        """The body with the model, the target's options and a unique `user`, so that no exact-match cache can answer."""
        target = target or self.profile.target
        options = under(target.request_options, body)
        return {"model": target.model, "user": f"gatebook-{self.nonce(key)}", **options}

    def nonce(self, key: str) -> str:
        return hashlib.sha256(f"{self.run.manifest.run}/{self.notebook}/{key}".encode()).hexdigest()[:16]

    def in_time(self) -> bool:
        """Whether a request that is started now can have its full deadline."""
        return self._ends - time.monotonic() >= self.limits.request_deadline_s

    async def too_late(self) -> bool:
        """Whether a request could not have its full deadline any more, or asking has stopped; the record says why."""
        if self.stopped is None and not self.in_time():
            await self.stop(
                f"{self._ender} has less left than one request may take (limits.request_deadline_s, "
                f"{self.limits.request_deadline_s:g} s), so it was not asked; raise the one, lower the other, or choose a smaller suite"
            )
        return self.stopped is not None

    async def check(self, lane: Lane, done: Exchange) -> None:
        """After a break, ask for one plain token, once for requests that broke together, and stop where none comes."""
        broke = time.monotonic()
        if not is_broken(done):
            return
        async with self._checking:
            if self._alive > broke or await self.too_late():
                return
            asked, key = time.monotonic(), f"{done.key}/still-there"
            alive = await self.hello(lane, "canary", key, 1, ask="still-there", patience_s=PATIENCE_S)
            if alive.fault is None:
                self._alive = asked
            elif alive.fault in ("connect", "no_byte"):
                await self.stop(f"{GONE} since {done.key}: {alive.detail}")
            else:
                why = f"the server stopped answering at {done.key} ({done.detail})"
                await self.stop(f"{why}; a plain request then: {alive.detail}")

    async def ready(self, lane: Lane) -> Exchange | None:
        """Ask for one token, not streamed, so that a broken stream is seen for what it is.

        The first notebook waits for ready_deadline_s. Where the server had answered, this is a request like any other, and one
        try where an earlier notebook had to stop. None when no time is left; the first request of all is asked in any case.
        """
        earlier = [e for e in self._others if e.at >= self._since and e.kind not in ELSEWHERE]
        if earlier and await self.too_late():
            return None
        budget_s, tries = self.limits.request_deadline_s, 1
        how: dict[str, Any] = {"retries": 10_000}
        last = next((e for e in reversed(earlier) if is_good(e) or _gave_up(e)), None)
        if last is None:
            budget_s, tries = min(self.limits.ready_deadline_s, max(self._ends - time.monotonic(), budget_s)), 3
        elif last.kind == "stop":
            budget_s, how = min(PATIENCE_S, budget_s), {"retries": 0}
        else:
            how["patience_s"] = PATIENCE_S
        count, ends = sum(e.kind == "ready" for e in self.recorded), time.monotonic() + budget_s
        for number in range(count, count + tries):
            left_s = max(ends - time.monotonic(), 1.0)
            ready = await self.hello(lane, "ready", f"ready/{number}", 1, deadline_s=left_s, **how)
            # seen twice, a refusal is no chance
            again = (ready.status or 0) >= 500 or (ready.refused_for_good and number == count)
            if ready.fault != "status" or not again or time.monotonic() >= ends:
                break
            await asyncio.sleep(AGAIN_S)
        return ready

    def unready(self, ready: Exchange) -> str:
        """Why nothing of the notebook is asked."""
        answered = any(is_good(e) for e in self._others if e.at >= self._since)
        if answered and ready.fault in ("connect", "no_byte"):
            return f"{GONE}: {ready.detail}"
        if ready.refused_for_good:
            return f"the server refuses a plain chat: {ready.detail}"
        return f"the server {'does not answer any more' if answered else 'never became ready'}: {ready.detail}"


def is_broken(done: Exchange) -> bool:
    """Whether it must be asked if the server is still there."""
    return done.fault in ("connect", "no_byte", "deadline", "broken") or (done.status or 0) >= 500


def _gave_up(exchange: Exchange) -> bool:
    """A notebook stopped because of the server, and not of our own deadline or of other users."""
    return exchange.kind == "stop" and not exchange.detail.startswith((*OUT_OF_TIME, IN_USE))
