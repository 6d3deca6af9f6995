"""The table of tool calls in 02_structured_output."""

from __future__ import annotations

import pandas as pd

from gatebook.judge.finding import Finding
from gatebook.record.answer import read_answer
from gatebook.record.run import Run
from gatebook.tell.tables import headed

CHECKS = ("tool_called", "no_tool_call", "answered")


def tools_table(run: Run, notebook: str, findings: list[Finding]) -> pd.DataFrame:
    """One row a case that offers tools: what was called, plain and streamed, and the judgement."""
    answers = {e.key: read_answer(e) for e in run.exchanges(notebook) if e.kind == "ask"}
    offering = {case.id for case in run.expected(notebook) if case.options.get("tools")}
    rows = [
        (
            f.case,
            _called(answers.get(f"{f.case}/plain")),
            _called(answers.get(f"{f.case}/streamed")),
            f.outcome,
            f.reason,
        )
        for f in findings
        if f.case in offering and f.check in CHECKS
    ]
    return headed(pd.DataFrame(rows, columns=["case", "plain", "streamed", "outcome", "reason"]).set_index("case"))


def _called(answer: object) -> str:
    calls = getattr(answer, "tool_calls", [])
    return ", ".join(f"{call.name}({call.arguments[:60]})" for call in calls) or "no call"
