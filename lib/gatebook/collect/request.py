"""The requests of a notebook's cases as they are sent: nonces, long texts and documents written out; and load, a closed loop of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from gatebook.collect.client import Lane
from gatebook.collect.hanging import LONG, kinds_of
from gatebook.collect.lengths import Lengths, Unfit
from gatebook.collect.session import BRIEFLY, Session, is_broken
from gatebook.config import policies as load
from gatebook.config.cases import NONCE, Ask, Case
from gatebook.config.policies import level_of
from gatebook.config.profile import Target
from gatebook.config.rows import filled
from gatebook.config.sending import sent
from gatebook.engines.engine import TOKENIZE, tokenizing
from gatebook.record.exchange import Exchange
from gatebook.record.identity import Identity
from gatebook.record.replies import counted_tokens, read_answer

FIRST_TOKENS = "first_token_logprobs"
"""The check that compares alternatives of one token, so that each needs a name of its own."""


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


class Requests:
    def __init__(self, session: Session, lane: Lane, identity: Identity) -> None:
        """`lane` counts the tokens of long documents."""
        self._session, self._lane, self._engine = session, lane, identity.dialect
        self._limit = identity.context_tokens or session.profile.target.context_tokens
        cases, budget = session.run.expected(session.notebook), session.limits.document_budget_tokens
        self._lengths = Lengths(cases, budget, self._limit, self._count, self._tokenize)
        self._writing = asyncio.Lock()

    async def prepare(self, case: Case, ask: Ask, key: str, target: Target | None = None) -> Prepared | None:
        """The request as it is sent to the target under test, or to the second one; None when it cannot be, and then the record says why."""
        session = self._session
        try:
            ask = ask.model_copy(update={"options": sent(target or session.profile.target, case, ask)})
            ask = self._written(case, ask, key)
            if case.document is not None:
                session.hanging.refuse(LONG)  # before it is cut to length, which asks too
            messages = await self._messages(case, ask)
            session.spending.reserve(key, messages, ask.options)
        except Unfit as unfit:
            if session.stopped is None:  # else the stop says why, and a resumed run may ask it
                await session.skip(key, case, ask, unfit)
            return None
        stream = {"stream": True, "stream_options": {"include_usage": True}} if ask.stream else {}
        body = {"messages": messages, **ask.options, **stream}
        if any(FIRST_TOKENS in item for item in case.expect):
            body |= self._engine.logprob_options
        if session.profile.not_offered("logprobs"):  # the texts alone are compared then
            body = {k: v for k, v in body.items() if k not in ("logprobs", "top_logprobs")}
        if case.load is not None:
            body = filled(body, load.word(session.run.manifest.run, key), load.PLACE)
        return Prepared(case, ask, key, session.body(key, body, target))

    async def hangs(self, request: Prepared) -> bool:
        """Whether its kind has hung too often; then the record says that it was not asked because of it."""
        try:
            self._session.hanging.refuse(*kinds_of(request.body))
        except Unfit as unfit:
            await self._session.skip(request.key, request.case, request.ask, unfit)
            return True
        return False

    def _written(self, case: Case, ask: Ask, key: str) -> Ask:
        """The ask with its long text and its nonce written out. Raises Unfit when that depends on a context that nobody tells."""
        if case.samples:  # tokenizers split digits alike, so every prompt is as long
            digits = f"{int(self._session.nonce(key), 16) % 10**8:08d}"
            ask = ask.model_copy(update={"messages": filled(ask.messages, digits, NONCE)})
        if ask.repeat is None:
            return ask
        times = ask.repeat.count(self._limit)
        if times is None:
            raise Unfit("the server does not tell its context limit and target.context_tokens names none")
        text = ask.repeat.text * times
        messages, options = (filled(part, text) for part in (ask.messages, ask.options))
        return ask.model_copy(update={"messages": messages, "options": options})

    async def _messages(self, case: Case, ask: Ask) -> list[dict[str, Any]]:
        """What is sent: the long document written, the conversation so far with the model's own answer. Raises Unfit."""
        messages = ask.messages or []
        if case.document is not None:
            async with self._writing:
                messages = await self._lengths.messages(case, ask)
        if ask.follows is None:
            return messages
        last = self._session.done[f"{case.id}/{ask.follows}"]
        answer = read_answer(last)
        if last.fault is not None or not answer.text:
            raise Unfit(f"{ask.follows}, which it follows, has no answer to go on from")
        return [*(last.body or {})["messages"], {"role": "assistant", "content": answer.text}, *messages]

    async def _count(self, key: str, sample: str) -> int | None:
        """Prompt tokens of a text alone, from the record when it was counted before."""
        session = self._session
        if (done := session.done.get(key)) is None:
            if await session.too_late():
                return None
            body = {"messages": [{"role": "user", "content": sample}], "temperature": 0, "max_tokens": 1}
            done = await session.ask(self._lane, "probe", key, session.body(key, body))
            await session.check(self._lane, done)
        return None if done.fault else read_answer(done).tokens("prompt_tokens")

    async def _tokenize(self, key: str, sample: str) -> int | None:
        """Tokens of a text by the server's own /tokenize, from the record when it was counted before; None where there is none."""
        session = self._session
        if (done := session.done.get(key)) is None:
            if any(e.fault for e in session.recorded if e.path == TOKENIZE):
                return None
            body = {"model": session.profile.target.model, **tokenizing(sample)}
            done = await session.ask(self._lane, "probe", key, body, path=TOKENIZE, **BRIEFLY)
        return counted_tokens(done)


def stages(cases: Iterable[Case]) -> list[Stage]:
    """Group by group in the order of the cases, the lowest level first."""
    found: dict[str, dict[int, list[tuple[Case, Ask]]]] = {}
    for case in cases:
        for ask in case.requests() if case.load else []:
            found.setdefault(case.group, {}).setdefault(level_of(ask.name), []).append((case, ask))
    return [Stage(group, level, asks) for group, levels in found.items() for level, asks in sorted(levels.items())]


async def closed_loop(
    open_lane: Callable[[], Lane],
    at_once: int,
    todo: list[Prepared],
    send: Callable[[Lane, Prepared], Coroutine[Any, Any, Exchange]],
    record: Callable[[Exchange], Coroutine[Any, Any, object]],
    in_time: Callable[[], bool],
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
