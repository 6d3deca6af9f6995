"""Long context for a reader: what it costs before it is asked, length by depth, and how long it is good for."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pandas as pd

from gatebook.judge.checks.context import by_length
from gatebook.judge.evidence import Seen
from gatebook.judge.finding import Finding, Outcome, worst
from gatebook.plan.documents import DEPTHS, FAMILIES, Document
from gatebook.record.answer import read_answer
from gatebook.record.exchange import Exchange
from gatebook.record.run import Run
from gatebook.tell.tables import headed

SHADES: dict[Outcome, str] = {"pass": "#2e7d4f", "fail": "#b3261e", "error": "#8a5a00", "not_measured": "#d1d5db"}


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


def context_table(run: Run, notebook: str, findings: list[Finding]) -> pd.DataFrame:
    """One row a group and length: needles found, rate with its Wilson interval, and the tokens that the server counted."""
    seen = [s for s in _seen(run, notebook, findings) if s.case.document and s.case.document.kind == "needles"]
    counted: dict[int, list[int]] = defaultdict(list)
    for exchange in run.exchanges(notebook):
        case = run.cases.get(exchange.case or "")
        document = case.document if case and exchange.kind == "ask" and not exchange.fault else None
        if document and document.kind == "needles" and document.tokens:
            counted[document.tokens].append(read_answer(exchange).tokens("prompt_tokens") or 0)
    rows = [
        (group, f"{r.tokens:,}", f"{min(counted[r.tokens]):,} to {max(counted[r.tokens]):,}", r.n, r.passed, f"{r.passed / r.n:.0%}",
         f"{r.low:.0%} to {r.high:.0%}")
        for group in dict.fromkeys(one.case.group for one in seen)
        for r in by_length([one for one in seen if one.case.group == group])
    ]  # fmt: skip
    columns = ["group", "tokens asked for", "tokens counted", "questions", "found", "rate", "95 % interval"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("group"))


def grid(
    run: Run, notebook: str, findings: list[Finding]
) -> dict[tuple[str, int, int], dict[tuple[str, int], Outcome]]:
    """(language, tokens, seed) -> (family, depth) -> outcome: a row a document."""
    cells: dict[tuple[str, int, int], dict[tuple[str, int], Outcome]] = defaultdict(dict)
    for one in _seen(run, notebook, findings):
        d = one.case.document
        if d and d.kind == "needles" and d.family and d.depth is not None:
            cells[d.language, d.tokens or 0, d.seed][d.family, d.depth] = one.outcome
    return dict(sorted(cells.items()))


def context_plot(run: Run, notebook: str, findings: list[Finding]) -> Any:
    """A heat map: a row a length, a column a depth, a block a family of needles."""
    from matplotlib.patches import Patch, Rectangle

    from gatebook.tell.plots import canvas

    cells = grid(run, notebook, findings)
    rows = list(cells)
    drawn = canvas(len(rows) * 1.5 + 2)
    for y, row in enumerate(rows):
        for f, family in enumerate(FAMILIES):
            for d, depth in enumerate(DEPTHS):
                if outcome := cells[row].get((family, depth)):
                    drawn.add_patch(Rectangle((f * 6 + d, y), 0.94, 0.9, color=SHADES[outcome]))
    drawn.set_xlim(-0.2, len(FAMILIES) * 6 - 0.8)
    drawn.set_ylim(len(rows), 0)
    drawn.set_yticks(
        [y + 0.45 for y in range(len(rows))],
        [f"{language} {tokens:,} · seed {seed}" for language, tokens, seed in rows],
    )
    ticks = [(f * 6 + d + 0.47, str(depth)) for f in range(len(FAMILIES)) for d, depth in enumerate(DEPTHS)]
    drawn.set_xticks([x for x, _ in ticks], [label for _, label in ticks], fontsize=7)
    for f, family in enumerate(FAMILIES):
        drawn.text(f * 6 + 2.5, -0.15, family, ha="center", va="bottom", fontsize=9)
    drawn.set_xlabel("depth of the needle, % of the document")
    drawn.set_ylabel("language and tokens")
    names: dict[Outcome, str] = {
        "pass": "found",
        "fail": "not found",
        "error": "no answer",
        "not_measured": "not asked",
    }
    handles = [Patch(color=SHADES[o], label=name) for o, name in names.items()]
    drawn.legend(
        handles=handles,
        frameon=False,
        fontsize=8,
        ncols=4,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.28 if len(rows) < 4 else -0.16),
    )
    drawn.spines[["left", "bottom"]].set_visible(False)
    drawn.tick_params(length=0)
    return drawn.figure


def spec_table(run: Run, notebook: str, findings: list[Finding]) -> pd.DataFrame:
    """The clause task: a row a specification, how many implementing modules were named with their clause."""
    rows = []
    for one in _seen(run, notebook, findings):
        d: Document | None = one.case.document
        if d and d.kind == "specification":
            told = next((f for f in findings if f.case == one.case.id and f.check == "clauses_found"), None)
            why = told or next((f for f in findings if f.case == one.case.id and f.outcome != "pass"), None)
            size = f"{d.tokens:,} tokens" if d.tokens else f"{d.chars:,} characters"
            found = f"{told.measured} of {told.limit}" if told else ""
            rows.append((f"{d.language} {size}", one.outcome, found, why.reason if why else ""))
    return headed(
        pd.DataFrame(rows, columns=["specification", "outcome", "modules", "reason"]).set_index("specification")
    )


def _seen(run: Run, notebook: str, findings: list[Finding]) -> list[Seen]:
    found: dict[str, list[Outcome]] = defaultdict(list)
    for finding in findings:
        case = run.cases.get(finding.case)
        if case and finding.group == case.group:
            found[finding.case].append(finding.outcome)
    return [Seen(case, worst(found[case.id]), []) for case in run.expected(notebook)]
