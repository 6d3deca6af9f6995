"""A notebook's record as tidy pandas frames: one row a case, a reply, a reading. Numbers stay numbers; what is missing is null."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from gatebook.config.cases import Case
from gatebook.record.exchange import Exchange
from gatebook.record.gauges import Gauge
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.record.samples import read_sample

REPLIES = {
    "case": "string", "group": "string", "ask": "string", "prompt": "string", "text": "string", "finish_reason": "string",
    "tool_calls": "string", "status": "Int64", "fault": "string", "detail": "string", "streamed": "boolean", "attempts": "Int64",
    "prompt_tokens": "Int64", "completion_tokens": "Int64", "ttft_ms": "Float64", "itl_ms": "Float64", "total_ms": "Float64",
    "in_flight": "Int64", "client_lag_ms": "Float64", "valid": "boolean", "why_invalid": "string",
}  # fmt: skip
"""Column -> dtype. `total_ms` is the time to the last token, `itl_ms` (last token - first token) / (completion tokens - 1)."""


def cases_frame(run: Run, notebook: str, *tags: str) -> pd.DataFrame:
    """One row a case, by its id: group, policy, tags as columns (`tags` even where no case has them), and why it exists."""
    cases, policy = run.expected(notebook), run.manifest.profile.policy
    rows = [{"case": c.id, "group": c.group, "policy": policy(c.group).policy, **c.tags, "why": c.why} for c in cases]
    columns = dict.fromkeys(["case", "group", "policy", *tags, *(tag for c in cases for tag in c.tags), "why"])
    return pd.DataFrame(rows, columns=list(columns)).set_index("case")


def replies_frame(run: Run, notebook: str) -> pd.DataFrame:
    """One row a request of a case, in the order of the record, by its key `<case>/<ask>`; the columns are REPLIES.

    Probes, warm-ups and requests to a second target or to one replica are left out; the plain request after a hard one has the ask `canary`.
    Raises BrokenRecord.
    """
    asked = [e for e in run.exchanges(notebook) if e.kind in ("ask", "canary") and e.case in run.cases]
    rows = [_row(run.cases[str(e.case)], e, run.manifest.profile.latency.lag_ms) for e in asked]
    frame = pd.DataFrame(rows, columns=list(REPLIES), index=pd.Index([e.key for e in asked], name="key"))
    return frame.astype(REPLIES)


def _row(case: Case, exchange: Exchange, lag_ms: float) -> dict[str, Any]:
    """The columns of REPLIES, and others of the sample, which the frame leaves out."""
    answer, sample, client = read_answer(exchange), read_sample(case, exchange, lag_ms), exchange.client
    return {
        **vars(sample), "valid": sample.invalid is None, "why_invalid": sample.invalid,
        "case": case.id, "group": case.group, "ask": exchange.ask or exchange.kind,
        "prompt": str(exchange.messages[-1].get("content")) if exchange.messages else None,
        "text": answer.text or None, "finish_reason": answer.finish_reason,
        "tool_calls": ", ".join(f"{call.name}({call.arguments})" for call in answer.tool_calls) or None,
        "status": exchange.status, "fault": exchange.fault, "detail": exchange.detail or None,
        "streamed": exchange.events is not None, "attempts": len(exchange.attempts),
        "in_flight": client and client.in_flight, "client_lag_ms": client and client.loop_lag_ms,
    }  # fmt: skip


def gauges_frame(rows: Iterable[Gauge]) -> pd.DataFrame:
    """One row a reading: seconds since the first one, source, name, labels as text, value."""
    read = [(g.ms, g.source, g.name, " ".join(f"{k}={v}" for k, v in sorted(g.labels.items())), g.value) for g in rows]
    frame = pd.DataFrame(read, columns=["at_s", "source", "name", "labels", "value"])
    frame["at_s"] = (frame["at_s"] - frame["at_s"].min()) / 1000
    return frame
