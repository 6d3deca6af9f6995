"""The requests of a notebook's cases as they are sent: nonces, long texts and documents written out, golden answers in tokens.

Load is a closed loop of such requests. Of a golden answer the record keeps the ids and the values of its tokens, and the size
and the hash of the reply that told them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from gatebook.collect.client import Lane
from gatebook.collect.lengths import Lengths, Unfit
from gatebook.collect.session import BRIEFLY, GIVEN, LONG, Session, is_broken, kinds_of
from gatebook.config import policies as load
from gatebook.config.cases import NONCE, Ask, Case
from gatebook.config.policies import level_of
from gatebook.config.profile import Target
from gatebook.config.rows import filled
from gatebook.config.sending import sent
from gatebook.engines import Engine
from gatebook.engines.engine import TOKENIZE, Json, obj, tokenizing
from gatebook.record.exchange import Exchange
from gatebook.record.identity import Identity
from gatebook.record.logprobs import GOLDEN, MOST_TOKENS
from gatebook.record.replies import counted_tokens, parse, read_answer

FIRST_TOKENS = "first_token_logprobs"
"""The check that compares alternatives of one token, so that each needs a name of its own."""
COMPARED = frozenset({FIRST_TOKENS, "greedy_logprobs"})
"""Checks of log probabilities that are compared with those of another day or server."""
HEAD_CHARS = 2000
"""Kept of a reply that tells no log probabilities."""


@dataclass(frozen=True)
class Stage:
    """The requests of one group at one level: a closed loop of `at_once` lanes takes one after the other."""

    group: str
    at_once: int
    asks: list[tuple[Case, Ask]]


@dataclass(frozen=True)
class Prepared:
    """One request, ready to be sent, so that nothing is written or counted while others are timed."""

    case: Case
    ask: Ask
    key: str
    body: Json
    path: str = "chat/completions"
    answer: list[int] = field(default_factory=list)
    """The tokens of a golden answer that is given."""


class Requests:
    def __init__(self, session: Session, lane: Lane, identity: Identity) -> None:
        """`lane` asks for the tokens of texts."""
        self._session, self._lane, self._engine = session, lane, identity.dialect
        self._limit = identity.context_tokens or session.profile.target.context_tokens
        cases, budget = session.run.expected(session.notebook), session.limits.document_budget_tokens
        self._lengths = Lengths(cases, budget, self._limit, self._count, self._tokenize)
        self._writing = asyncio.Lock()

    async def prepare(self, case: Case, ask: Ask, key: str, target: Target | None = None) -> Prepared | None:
        """The request as it is sent to the target under test, or to the second one; None when it cannot be, and then the record says why."""
        session = self._session
        try:
            if case.scored:
                return await self._given(case, ask, key)
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
        fresh = {} if COMPARED.isdisjoint(case.checks) else self._engine.whole_prompt
        body = {"messages": messages, **fresh, **ask.options, **stream}
        if FIRST_TOKENS in case.checks:
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
        """Tokens of a text by the server's own /tokenize; None where there is none."""
        recorded = self._session.recorded
        if key not in self._session.done and any(e.fault for e in recorded if e.path == TOKENIZE):
            return None
        done = await self._probe(key, TOKENIZE, tokenizing(sample))
        return None if done is None else counted_tokens(done)

    async def _probe(self, key: str, path: str, body: Json) -> Exchange | None:
        """A question about tokens, from the record where it was asked before; None when there is no time for it."""
        session = self._session
        if (done := session.done.get(key)) is None and not await session.too_late():
            body = {"model": session.profile.target.model, **body}
            done = await session.ask(self._lane, "probe", key, body, path=path, **BRIEFLY)
        return done

    async def _given(self, case: Case, ask: Ask, key: str) -> Prepared:
        """The request that tells how likely the server finds each token of a golden answer; it writes nothing of its own.
        Raises Unfit."""
        session, engine, messages = self._session, self._engine, ask.messages or []
        session.hanging.refuse(GIVEN)
        if engine.scoring(messages, [], []) is None:
            raise Unfit(f"an engine that is {engine.name} tells no log probability of a given answer")
        rendering, most = engine.rendering(messages), min(MOST_TOKENS, self._limit or MOST_TOKENS)
        prompt = await self._ids(f"{key}/prompt", *rendering) if rendering else []
        answer = await self._ids(f"{key}/answer", TOKENIZE, {**tokenizing(case.golden[0]), "with_pieces": True})
        if (tokens := len(prompt) + len(answer)) > most:
            raise Unfit(f"it has {tokens} tokens with its prompt; at most {most} are scored")
        found = engine.scoring(messages, prompt, answer)
        assert found is not None
        session.spending.reserve(key, messages, {"max_tokens": len(answer)})
        path, body = found
        return Prepared(case, ask, key, body if path == "/generate" else session.body(key, body), path, answer)

    async def _ids(self, key: str, path: str, body: Json) -> list[int]:
        """The server's own tokens of a text. Raises Unfit."""
        if (done := await self._probe(key, path, body)) is None:
            raise Unfit("asking has stopped")
        found = token_ids(obj(parse(done.text or "")))
        if any(isinstance(token, str) for token in found):
            name, what = self._engine.name, "a token that is a part of a character"
            raise Unfit(f"{name} tells no log probability of {what}, and this text has one")
        if not found:
            said = done.detail or "no token ids in its reply"
            raise Unfit(f"the server does not tell the tokens of a text ({path}: {said})")
        return [int(token) for token in found]


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


def token_ids(reply: Json) -> list[int | str]:
    """The token ids of a reply; of a token that is a part of a character (llama.cpp tells its bytes) a text."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    places: tuple[Json, ...] = (reply, obj(choice), obj(choice, "meta_info"))
    lists = (place.get(name) for place in places for name in ("tokens", "prompt_token_ids"))
    told = next((found for found in lists if isinstance(found, list)), [])
    whole = (t if isinstance(t, int) else obj(t) for t in told)
    pieces = [t if isinstance(t, int) else "part" if isinstance(t.get("piece"), list) else t.get("id") for t in whole]
    return [t for t in pieces if isinstance(t, int | str)] if None not in pieces else []


def kept(done: Exchange, engine: Engine, answer: list[int]) -> Exchange:
    """The exchange with the values of the answer's tokens instead of the reply, which has some for every token of the prompt."""
    if done.fault is not None or done.text is None:
        return done
    raw, reply = done.text.encode("utf-8", "replace"), obj(parse(done.text))
    try:
        told: list[Any] = [list(score) for score in engine.scores(reply)[-len(answer) :]]
        rest: Json = {}
    except (LookupError, TypeError, ValueError, AttributeError):
        told, rest = [], {"text": done.text[:HEAD_CHARS]}
    whole = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), **rest}
    same = {name: reply[name] for name in ("id", "model", "created", "usage", "error") if name in reply}
    text = json.dumps({**same, GOLDEN: {"answer": answer, "told": told, "reply": whole}})
    return done.model_copy(update={"text": text})
