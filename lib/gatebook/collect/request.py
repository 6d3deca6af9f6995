"""The requests of a notebook's cases as they are sent: nonces, long texts and documents written out."""

from __future__ import annotations

import asyncio
from typing import Any

from gatebook.collect.client import Lane
from gatebook.collect.hanging import LONG, kinds_of
from gatebook.collect.lengths import Lengths, Unfit
from gatebook.collect.load import Prepared
from gatebook.collect.session import PROBE_DEADLINE_S, Session
from gatebook.config import policies as load
from gatebook.config import rows as repeats
from gatebook.config.cases import NONCE, Ask, Case
from gatebook.config.profile import Target
from gatebook.config.rows import filled
from gatebook.config.sending import sent
from gatebook.record.identity import Identity
from gatebook.record.replies import counted_tokens, read_answer

TOKENIZE = "/tokenize"
"""POST on the host that counts the tokens of a text: vLLM, SGLang and llama.cpp have it under one path."""
FIRST_TOKENS = "first_token_logprobs"
"""The check that compares alternatives of one token, so that each needs a name of its own."""


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
        messages, options = (filled(part, text, repeats.PLACE) for part in (ask.messages, ask.options))
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
            # vLLM and SGLang read `prompt`, llama.cpp `content`; each ignores the other's fields
            text = {"prompt": sample, "content": sample, "add_special_tokens": False, "add_special": False}
            body, limits = (
                {"model": session.profile.target.model, **text},
                {"deadline_s": PROBE_DEADLINE_S, "retries": 0},
            )
            done = await session.ask(self._lane, "probe", key, body, path=TOKENIZE, **limits)
        return counted_tokens(done)
