"""Long documents of a length in the server's own tokens: a short ruler is counted first, and each document cut by its rate.

Where the server has /tokenize (vLLM, SGLang, llama.cpp, LiteLLM), a draft of each document is counted whole and corrected;
elsewhere the length is met to a few per cent only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from itertools import accumulate
from typing import Any

from gatebook.config.cases import Ask, Case
from gatebook.config.documents import PLACE, QUESTION, Document, question, ruler, text
from gatebook.config.rows import filled

Count = Callable[[str, str], Awaitable[int | None]]
"""(key, text) -> tokens as the server counts them; None when it does not tell."""
RESERVE_TOKENS = 32
"""Between prompt, answer and the context limit: the length is met to 2 %, not to the token."""
LEAST_TOKENS_A_CHAR = 0.05
"""No tokenizer has tokens of 20 characters on average."""
Role = list[dict[str, Any]]


class Unfit(Exception):
    """This document is not asked; the message says why."""


class Lengths:
    """Writes the documents of one notebook; the same text for all cases that share it."""

    def __init__(
        self, cases: Iterable[Case], budget_tokens: int | None, limit_tokens: int | None, chat: Count, tokenize: Count
    ) -> None:
        """`chat` counts a whole prompt with this text alone (`usage`), `tokenize` the text itself."""
        self._limit, self._chat, self._tokenize = limit_tokens, chat, tokenize
        self._texts: dict[str, str] = {}
        self._rates: dict[str, tuple[float, float, int]] = {}
        self._cut, self._budget = _beyond(cases, budget_tokens), budget_tokens

    async def messages(self, case: Case, ask: Ask) -> Role:
        """The ask's messages with document and question in them. Raises Unfit."""
        document = case.document
        assert document is not None
        if document.name not in self._texts:
            self._texts[document.name] = await self._write(ask, document)
        asked: Role = filled(ask.messages or [], question(document).text, QUESTION)
        whole: Role = filled(asked, self._texts[document.name], PLACE)
        return whole

    async def _write(self, ask: Ask, document: Document) -> str:
        cap = ask.options.get("max_tokens", 0)
        if document.name in self._cut:
            raise Unfit(
                f"cut by limits.document_budget_tokens ({self._budget:,}): {document.name} does not fit any more"
            )
        self._refuse_beyond(document, document.tokens or 0, cap)
        per_char, needles, overhead = await self._rate(document)
        around = "".join(m["content"] for m in ask.messages or [])
        around = around.replace(PLACE, "").replace(QUESTION, question(document).text)
        room = (document.tokens or 0) - overhead - len(around) * per_char
        chars = document.chars or round((room - needles) / per_char)
        draft = text(document, chars)
        whole = await self._tokenize(document.counted_key, draft)
        if document.tokens is None:
            self._refuse_beyond(document, whole or round(chars * per_char), cap)
            return draft
        return text(document, chars + round((room - whole) * len(draft) / whole)) if whole else draft

    def _refuse_beyond(self, document: Document, tokens: int, cap: int) -> None:
        if self._limit is not None and tokens + cap + RESERVE_TOKENS > self._limit:
            raise Unfit(
                f"{document.name} takes {tokens + cap:,} tokens with its answer, the server serves {self._limit:,}"
            )

    async def _rate(self, document: Document) -> tuple[float, float, int]:
        """(tokens a character, tokens of all needles, tokens of the chat template)."""
        kind = f"{document.kind}-{document.language}"
        if kind not in self._rates:
            made = ruler(document)
            overhead = await self._asked("ruler/template", ".") - 1
            per_char = await self._counted(kind, made.entries, overhead) / len(made.entries)
            if per_char < LEAST_TOKENS_A_CHAR:
                raise Unfit(
                    f"the server counts {per_char * len(made.entries):.0f} tokens for {len(made.entries):,} characters: too few to be the "
                    "whole text, so no length can be met"
                )
            needles = await self._counted(f"{kind}-needles", made.needles, overhead) if made.needles else 0
            self._rates[kind] = per_char, needles * made.times, overhead
        return self._rates[kind]

    async def _counted(self, name: str, sample: str, overhead: int) -> int:
        """Tokens of a text alone. The first one is asked as a chat in any case: it tells the speed."""
        tokens = await self._tokenize(f"tokens/{name}", sample) if self._rates else None
        return await self._asked(f"ruler/{name}", sample) - overhead if tokens is None else tokens

    async def _asked(self, key: str, sample: str) -> int:
        tokens = await self._chat(key, sample)
        if tokens is None:
            raise Unfit(f"the server did not tell how many tokens a sample has ({key}), so no length can be met")
        return tokens


def _beyond(cases: Iterable[Case], budget_tokens: int | None) -> set[str]:
    """Names of the documents that the budget cuts: the longest first, each counted once."""
    sizes = {c.document.name: c.document.size for c in cases if c.document}
    names = sorted(sizes, key=lambda name: (sizes[name], name))
    spent = accumulate(sizes[name] for name in names)
    return {n for n, tokens in zip(names, spent, strict=True) if budget_tokens is not None and tokens > budget_tokens}


def shelves(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases in the order in which they are asked; those that share a document stay together, so that one lane has them all."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.document.name if case.document else case.id, []).append(case)
    return list(found.values())
