"""metrics.txt in OpenMetrics, shaped for GitLab's metrics report: no space in labels, rounded values, few lines.

Every sample says whose it is (profile, model, suite), so that several deployments fit into one Prometheus; what is another
one in each run (revision, run) stands in gatebook_run_info alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

import numpy as np

from gatebook.checks.finding import WORST_FIRST
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.record.samples import streamed_times
from gatebook.report.standing import altogether, recorded, standings
from gatebook.verdict.verdict import Verdict

FEWEST_FOR_P90 = 10
DIGITS = {"ttft_ms": 0, "total_ms": 0, "tpot_ms": 1}


def metrics(run: Run, verdict: Verdict) -> str:
    """What can be plotted over runs. What was not measured is left out, never 0 or NaN."""
    exchanges = recorded(run)
    asked = [e for e in exchanges if e.attempts]
    cases = [case.outcome for case in standings(run, verdict) if case.case]
    answers = [read_answer(e) for e in asked if e.kind != "probe"]
    waived = {case for waiver in verdict.waivers for case in waiver.cases}
    tokens = {k: [n for a in answers if (n := a.tokens(f"{k}_tokens")) is not None] for k in ("prompt", "completion")}
    judged = [(g.group, g.passed, g.passed + g.failed) for g in verdict.groups]
    cost, times = altogether(run), streamed_times(exchanges)
    seconds = {"server": cost.server_s, "waiting": cost.waiting_s, "harness": cost.harness_s}
    whose = {"profile": verdict.profile, "model": verdict.served.model, "suite": verdict.suite}
    info = {**whose, "revision": verdict.served.revision or "none_named", "run": verdict.run}
    gauges: list[tuple[str, str, Mapping[str, object]]] = [
        ("run_started_seconds", "", _started(run.manifest.created)),
        ("verdict", "verdict", {verdict.verdict: 1}),
        ("exit_code", "", {"": verdict.exit_code}),
        ("cases", "outcome", {name: cases.count(name) for name in WORST_FIRST}),
        ("waived_cases", "", {"": len(waived)} if verdict.waivers else {}),
        ("group_pass_ratio", "group", {g: f"{n / of:.3f}" for g, n, of in judged if of}),
        *((name, "quantile", _quantiles(times[name], digits)) for name, digits in DIGITS.items()),
        ("requests", "", {"": len(asked)}),
        ("transport_retries", "", {"": sum(len(e.attempts) - 1 for e in asked)}),
        ("tokens", "kind", {kind: sum(found) for kind, found in tokens.items() if found}),
        ("spent_seconds", "on", {on: f"{s:.1f}" for on, s in seconds.items() if s is not None}),
    ]
    lines = ["# TYPE gatebook_run_info gauge", f"gatebook_run_info{labelled(info)} 1"]
    for name, label, samples in gauges:
        if samples:
            lines.append(f"# TYPE gatebook_{name} {'summary' if label == 'quantile' else 'gauge'}")
        for of, value in samples.items():
            lines.append(f"gatebook_{name}{labelled(whose | ({label: of} if label else {}))} {value}")
        if samples and label == "quantile":
            lines.append(f"gatebook_{name}_count{labelled(whose)} {len(times[name])}")
    return "\n".join([*lines, "# EOF"]) + "\n"


def _quantiles(values: list[float], digits: int) -> dict[str, str]:
    """The median; P90 only where enough values carry it."""
    wanted = (0.5, 0.9) if len(values) >= FEWEST_FOR_P90 else (0.5,)
    return {str(q): f"{np.quantile(values, q):.{digits}f}" for q in wanted} if values else {}


def _started(created: str) -> dict[str, str]:
    """Unix time; none where a foreign manifest says no time."""
    try:
        return {"": f"{datetime.fromisoformat(created).timestamp():.0f}"}
    except (ValueError, OverflowError, OSError):
        return {}


def labelled(labels: Mapping[str, str]) -> str:
    """The labels of a sample, in braces; what a name or a value cannot hold is `_`."""
    safe = {re.sub(r"\W", "_", n, flags=re.A): re.sub(r"""[\s#"'\\{},]""", "_", v) for n, v in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in safe.items()) + "}"
