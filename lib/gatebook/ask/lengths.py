"""Long documents in the server's own tokens: a short ruler is counted first, then each document is cut to its length."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from gatebook.plan.cases import Ask, Case
from gatebook.plan.documents import PLACE, QUESTION, Document, question, ruler, text

Count = Callable[[str, str], Awaitable[int | None]]
"""(name, text) -> tokens of a prompt with this text alone, as the server counts them; None when it does not answer."""
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
        self, cases: Iterable[Case], budget_tokens: int | None, limit_tokens: int | None, count: Count
    ) -> None:
        self._limit, self._count = limit_tokens, count
        self._texts: dict[str, str] = {}
        self._rates: dict[str, tuple[float, float, int]] = {}
        self._cut = _beyond(cases, budget_tokens)
        self._budget = budget_tokens

    async def messages(self, case: Case, ask: Ask) -> Role:
        """The ask's messages with document and question in them. Raises Unfit."""
        document = case.document
        assert document is not None
        if document.name not in self._texts:
            self._texts[document.name] = await self._write(case, ask, document)
        asked = question(document).text
        return [
            {**m, "content": m["content"].replace(QUESTION, asked).replace(PLACE, self._texts[document.name])}
            for m in ask.messages or []
        ]

    async def _write(self, case: Case, ask: Ask, document: Document) -> str:
        cap = ask.options.get("max_tokens", 0)
        if document.name in self._cut:
            raise Unfit(
                f"cut by limits.document_budget_tokens ({self._budget:,}): {document.name} does not fit any more"
            )
        self._refuse_beyond(document, document.tokens or 0, cap)
        per_char, needles, overhead = await self._rate(document)
        around = "".join(m["content"] for m in ask.messages or []).replace(PLACE, "")
        around = around.replace(QUESTION, question(document).text)
        if document.tokens is None:
            assert document.chars is not None
            self._refuse_beyond(document, round(document.chars * per_char), cap)
            return text(document, document.chars)
        room = document.tokens - overhead - needles - len(around) * per_char
        return text(document, round(room / per_char))

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
            overhead = await self._counted("ruler/template", ".") - 1
            per_char = (await self._counted(f"ruler/{kind}", made.entries) - overhead) / len(made.entries)
            needles = 0
            if made.needles:
                needles = (await self._counted(f"ruler/{kind}-needles", made.needles) - overhead) * made.times
            if per_char < LEAST_TOKENS_A_CHAR:
                raise Unfit(
                    f"the server counts {per_char * len(made.entries):.0f} tokens for {len(made.entries):,} characters: too few to be the "
                    "whole text, so no length can be met"
                )
            self._rates[kind] = per_char, needles, overhead
        return self._rates[kind]

    async def _counted(self, name: str, sample: str) -> int:
        tokens = await self._count(name, sample)
        if tokens is None:
            raise Unfit(f"the server did not tell how many tokens a sample has ({name}), so no length can be met")
        return tokens


def _beyond(cases: Iterable[Case], budget_tokens: int | None) -> set[str]:
    """Names of the documents that the budget cuts: the longest first, each counted once."""
    sizes = {c.document.name: c.document.tokens or c.document.chars or 0 for c in cases if c.document}
    cut, spent = set(), 0
    for name, tokens in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
        spent += tokens
        if budget_tokens is not None and spent > budget_tokens:
            cut.add(name)
    return cut


def shelves(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases in the order in which they are asked; those that share a document stay together, so that one lane has them all."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.document.name if case.document else case.id, []).append(case)
    return list(found.values())
