"""A run in numbers and texts that a browser can read: for the archive's list, its trends and its differences."""

from __future__ import annotations

import hashlib
import json
from statistics import median
from typing import Any

from gatebook.judge.comparing import NOT_RULES
from gatebook.judge.verdict import Verdict
from gatebook.record.run import Run
from gatebook.record.samples import streamed_times
from gatebook.tell.standing import CaseStanding, recorded, standings
from gatebook.tell.text import excerpt, visible
from gatebook.tell.turns import Turn, conversation

TEXT_CHARS = 2000
REASON_CHARS = 600
MEMORY_CHECK = "gpu_memory"


def portrait(run: Run, verdict: Verdict) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(one row of the list, every case with what was said). Every text is made visible; rates are counts, latencies in ms."""
    manifest, served = run.manifest, verdict.served
    stands = [c for notebook in run.notebooks for c in standings(run, verdict, notebook) if c.case]
    summary = {
        "run": verdict.run, "created": manifest.created, "reason": _short(verdict.reason), "partial": verdict.partial,
        "profile": verdict.profile, "suite": verdict.suite, "model": served.model, "revision": served.revision or "",
        "base_url": served.base_url, "engine": f"{served.engine} {served.version or ''}".strip(), "commit": manifest.commit or "",
        "asked_by": manifest.asked_by or "", "judged_from": manifest.judged_from or "",
        "passed": sum(c.outcome == "pass" for c in stands), "cases": len(stands),
        "groups": {g.group: [g.passed, g.cases] for g in verdict.groups},
        "waived": sum(len(w.cases) for w in verdict.waivers),
        **_latencies(run), "memory_gb": _memory_gb(verdict),
    }  # fmt: skip
    made = {name: visible(value) if isinstance(value, str) else value for name, value in summary.items()}
    return made, [_case(c) for c in stands]


def _latencies(run: Run) -> dict[str, float | None]:
    """Medians over all streamed answers of the run."""
    times = streamed_times(e for notebook in run.notebooks for e in recorded(run, notebook))
    return {name: round(median(values), 2) if values else None for name, values in times.items()}


def _memory_gb(verdict: Verdict) -> float | None:
    """The highest peak that a check measured."""
    values = [f.measured for f in verdict.findings if f.check == MEMORY_CHECK]
    return max((v for v in values if isinstance(v, int | float)), default=None)


def _case(stands: CaseStanding) -> dict[str, Any]:
    assert stands.case is not None
    rules = stands.case.model_dump(mode="json", exclude=NOT_RULES)
    return {
        "id": stands.id, "notebook": stands.notebook, "group": stands.group, "why": _short(stands.case.why),
        "outcome": stands.outcome, "reason": _short(stands.reason), "asked": stands.case.prompt_hash,
        "expected": hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:12],
        "requests": [
            {
                "name": visible(request.name), "facts": visible(" · ".join(request.facts)),
                "prompt": [_turn(t) for t in request.turns if t.kind == "prompt"],
                "answer": [_turn(t) for t in request.turns if t.kind != "prompt"],
            }
            for request in conversation(stands, TEXT_CHARS)
        ],
    }  # fmt: skip


def _turn(turn: Turn) -> dict[str, Any]:
    return {"who": visible(turn.who), "text": visible(turn.text), "more": turn.more, "lang": turn.lang}


def _short(text: str) -> str:
    short, more = excerpt(text, REASON_CHARS)
    return visible(f"{short} …" if more else short)
