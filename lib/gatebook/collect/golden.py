"""Golden answers are given to the server, which tells how likely it finds each of their tokens; it writes nothing of its own.

The tokens are the server's: those of the conversation up to the answer, and those of the answer alone. The record keeps the
ids and the values of the answer's tokens, and the size and the hash of the reply that told them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from gatebook.collect.client import Lane
from gatebook.collect.hanging import GIVEN
from gatebook.collect.lengths import Unfit
from gatebook.collect.session import BRIEFLY, Session
from gatebook.config.cases import Ask, Case
from gatebook.engines import Engine
from gatebook.engines.engine import TOKENIZE, Json, Request, obj, tokenizing
from gatebook.record.exchange import Exchange
from gatebook.record.identity import Identity
from gatebook.record.logprobs import GOLDEN, MOST_TOKENS
from gatebook.record.replies import parse

HEAD_CHARS = 2000
"""Kept of a reply that tells no log probabilities."""


class Golden:
    """Scores the golden answers of one notebook."""

    def __init__(self, session: Session, identity: Identity) -> None:
        self._session, self._engine = session, identity.dialect
        self._limit = identity.context_tokens or session.profile.target.context_tokens or MOST_TOKENS

    async def score(self, lane: Lane, case: Case, ask: Ask, key: str) -> None:
        """One answer, where it is not recorded yet; what cannot be scored is skipped with the reason."""
        session, engine = self._session, self._engine
        try:
            session.hanging.refuse(GIVEN)
            if engine.scoring([], [], []) is None:
                raise Unfit(f"an engine that is {engine.name} tells no log probability of a given answer")
            prompt, answer = await self._tokens(lane, case, ask, key)
            found = engine.scoring(ask.messages or [], prompt, answer)
            assert found is not None
            session.spending.reserve(key, ask.messages or [], {"max_tokens": len(answer)})
        except Unfit as unfit:
            if session.stopped is None:
                await session.skip(key, case, ask, unfit)
            return
        path, body = found
        body = session.body(key, body) if path != "/generate" else body
        done = await session.send(lane, "ask", key, body, path=path, case=case.id, ask=ask.name)
        await session.check(lane, await session.record(kept(done, engine, answer)))

    async def _tokens(self, lane: Lane, case: Case, ask: Ask, key: str) -> tuple[list[int], list[int]]:
        """Ids of the prompt (none where the engine needs none) and of the answer. Raises Unfit."""
        messages, text = ask.messages or [], case.golden[0]
        rendering = self._engine.rendering(messages)
        prompt = await self._ids(lane, f"{key}/prompt", rendering) if rendering else []
        answer = await self._ids(lane, f"{key}/answer", (TOKENIZE, {**tokenizing(text), "with_pieces": True}))
        if (tokens := len(prompt) + len(answer)) > min(MOST_TOKENS, self._limit):
            raise Unfit(f"it has {tokens} tokens with its prompt; at most {min(MOST_TOKENS, self._limit)} are scored")
        return prompt, answer

    async def _ids(self, lane: Lane, key: str, request: Request) -> list[int]:
        session, (path, body) = self._session, request
        if (done := session.done.get(key)) is None:
            if await session.too_late():
                raise Unfit("asking has stopped")
            body = {"model": session.profile.target.model, **body}
            done = await session.ask(lane, "probe", key, body, path=path, **BRIEFLY)
        found = _ids(obj(parse(done.text or "")))
        if any(isinstance(token, str) for token in found):
            raise Unfit(
                f"{self._engine.name} tells no log probability of a token that is a part of a character, and this text has one"
            )
        if not found:
            raise Unfit(
                f"the server does not tell the tokens of a text ({path}: {done.detail or 'no token ids in its reply'})"
            )
        return [int(token) for token in found]


def _ids(reply: Json) -> list[int | str]:
    """The token ids of a reply; of a token that is a part of a character (llama.cpp tells its bytes) a text."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    places: tuple[Json, ...] = (reply, obj(choice), obj(choice, "meta_info"))
    lists = (place.get(name) for place in places for name in ("tokens", "prompt_token_ids"))
    told = next((found for found in lists if isinstance(found, list)), [])
    pieces = [
        t if isinstance(t, int) else "part" if isinstance(obj(t).get("piece"), list) else obj(t).get("id") for t in told
    ]
    return [t for t in pieces if isinstance(t, int | str)] if None not in pieces else []


def kept(done: Exchange, engine: Engine, answer: list[int]) -> Exchange:
    """The exchange with the values of the answer's tokens in the place of the reply, which has some for every token of the prompt."""
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
    return done.model_copy(
        update={"text": json.dumps({**same, GOLDEN: {"answer": answer, "told": told, "reply": whole}})}
    )
