"""Tables and a picture of 07_boundaries: what was refused and how, and an early rule turn by turn."""

from __future__ import annotations

from typing import Any

import pandas as pd

from gatebook.judge.checks import parameters
from gatebook.judge.checks.scenario import kept
from gatebook.judge.finding import Finding
from gatebook.plan.cases import Case
from gatebook.record.answer import read_answer
from gatebook.record.run import Run
from gatebook.tell.plots import canvas
from gatebook.tell.tables import headed

EDGES = ("refused", "survives", "not_truncated", "answered")


def refusals_table(run: Run, notebook: str, findings: list[Finding]) -> pd.DataFrame:
    """One row a request at the edge: how this server took it. A clean refusal is a pass."""
    negative = {case.id for case in run.expected(notebook) if case.negative}
    rows = [(f.case, f.outcome, f.measured, f.reason) for f in findings if f.case in negative and f.check in EDGES]
    frame = pd.DataFrame(rows, columns=["request", "outcome", "measured", "how it was taken"]).set_index("request")
    return headed(frame.astype(str))


def memory_table(run: Run, notebook: str) -> pd.DataFrame:
    """One row a conversation: how many turns keep the early rule, in all and in each half, and where it was lost first."""
    rows = []
    for name, turns in _turns(run, notebook).items():
        half = (len(turns) + 1) // 2
        lost = next((str(n) for n, ok in enumerate(turns, 1) if not ok), "never")
        rows.append((name, len(turns), _rate(turns), _rate(turns[:half]), _rate(turns[half:]), lost))
    columns = ["conversation", "turns", "kept", "first half", "second half", "first lost in turn"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("conversation"))


def memory_plot(run: Run, notebook: str) -> Any:
    """A row a conversation, a square a turn: green where the rule is kept."""
    turns = _turns(run, notebook)
    drawn = canvas(1.5 * len(turns))
    for row, kept_by_turn in enumerate(turns.values()):
        for number, ok in enumerate(kept_by_turn, 1):
            colour = "#2e7d4f" if ok else "#b3261e"
            drawn.barh(row, 0.9, left=number - 0.45, height=0.7, color=colour, alpha=1 if ok else 0.35)
        drawn.text(len(kept_by_turn) + 0.7, row, _rate(kept_by_turn), va="center", fontsize=8)
    drawn.set_yticks(range(len(turns)), list(turns))
    drawn.invert_yaxis()
    drawn.set_xlim(0.3, max((len(found) for found in turns.values()), default=1) + 2)
    drawn.set_xlabel("turn (green: the early rule is kept)")
    return drawn.figure


def _turns(run: Run, notebook: str) -> dict[str, list[bool]]:
    """Case id -> whether each answered turn keeps the rule."""
    answers = {e.key: read_answer(e).text for e in run.exchanges(notebook) if e.kind == "ask"}
    found = {}
    for case in run.expected(notebook):
        rule = _rule(case)
        keys = [f"{case.id}/{ask.name}" for ask in case.requests()]
        if rule is not None and any(key in answers for key in keys):
            found[case.id] = [kept(answers[key], **rule) for key in keys if key in answers]
    return found


def _rule(case: Case) -> dict[str, Any] | None:
    raw = next((item["rule_kept"] for item in case.expect if "rule_kept" in item), None)
    given = {} if raw is None else parameters(case, "rule_kept", raw)
    return {key: value for key, value in given.items() if key != "min_rate"} or None


def _rate(turns: list[bool]) -> str:
    return f"{sum(turns)}/{len(turns)}"
