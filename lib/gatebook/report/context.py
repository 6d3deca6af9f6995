"""What the documents of a notebook will cost, before they are asked."""

from __future__ import annotations

from collections import defaultdict

from gatebook.record.exchange import Exchange
from gatebook.record.replies import read_answer
from gatebook.record.run import Run


def cost(run: Run, notebook: str, ruled: list[Exchange]) -> str:
    """What the documents of a notebook will cost, in prompt tokens and in seconds at the speed of the ruler."""
    documents: dict[str, int] = {}
    questions: dict[str, int] = defaultdict(int)
    for case in run.expected(notebook):
        if case.document:
            documents[case.document.name] = case.document.tokens or case.document.chars or 0
            questions[case.document.name] += 1
    once, every = sum(documents.values()), sum(documents[name] * n for name, n in questions.items())
    speed = _speed(ruled)
    seconds = (
        f"about {once / speed:,.0f} s at {speed:,.0f} prompt tokens/s"
        if speed
        else "at a speed that the ruler does not tell"
    )
    budget = run.manifest.profile.limits.document_budget_tokens
    told = "no budget is set" if budget is None else f"the budget is {budget:,}"
    return (
        f"{len(documents)} documents of {once:,} tokens in all for {sum(questions.values())} questions: {seconds} where a prefix cache reads each "
        f"once, {every:,} tokens without one; {told}"
    )


def _speed(ruled: list[Exchange]) -> float | None:
    """Prompt tokens a second, from the longest sample that was counted."""
    found = [(read_answer(e).tokens("prompt_tokens") or 0, e.attempts[-1].elapsed_ms) for e in ruled if not e.fault]
    tokens, ms = max(found, default=(0, 0.0))
    return tokens / ms * 1000 if tokens > 50 and ms > 0 else None
