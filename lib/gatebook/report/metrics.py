"""metrics.txt in OpenMetrics, shaped for GitLab's metrics report: no space in labels, rounded values, few lines."""

from __future__ import annotations

import re

import pandas as pd

from gatebook.checks.finding import WORST_FIRST
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.record.samples import streamed_times
from gatebook.report.spending import altogether
from gatebook.report.standing import recorded, standings
from gatebook.verdict.verdict import Verdict

FEWEST_FOR_P90 = 10
LATENCIES = (("ttft_ms", 0), ("total_ms", 0), ("tpot_ms", 1))
"""Column of the latency table, digits."""


def metrics(run: Run, verdict: Verdict) -> str:
    """What can be plotted over runs. What was not measured is left out, never 0 or NaN."""
    exchanges = [e for notebook in run.notebooks for e in recorded(run, notebook)]
    asked = [e for e in exchanges if e.attempts]
    cases = [case.outcome for notebook in run.notebooks for case in standings(run, verdict, notebook) if case.case]
    usages = [read_answer(e) for e in asked if e.kind != "probe"]
    lines = _gauge("verdict", [(f'{{verdict="{verdict.verdict}"}}', "1")])
    lines += _gauge("exit_code", [("", str(verdict.exit_code))])
    lines += _gauge("cases", [(f'{{outcome="{name}"}}', str(cases.count(name))) for name in WORST_FIRST])
    waived = {case for waiver in verdict.waivers for case in waiver.cases}
    lines += _gauge("waived_cases", [("", str(len(waived)))] if verdict.waivers else [])
    ratios = [(g.group, g.passed, g.passed + g.failed) for g in verdict.groups]
    lines += _gauge("group_pass_ratio", [(f'{{group="{_label(g)}"}}', f"{n / of:.3f}") for g, n, of in ratios if of])
    times = streamed_times(exchanges)
    for column, digits in LATENCIES:
        lines += _quantiles(column, pd.Series(times[column], dtype=float), digits)
    lines += _gauge("requests", [("", str(len(asked)))])
    lines += _gauge("transport_retries", [("", str(sum(len(e.attempts) - 1 for e in asked)))])
    tokens = {
        kind: [n for u in usages if (n := u.tokens(f"{kind}_tokens")) is not None] for kind in ("prompt", "completion")
    }
    lines += _gauge("tokens", [(f'{{kind="{kind}"}}', str(sum(found))) for kind, found in tokens.items() if found])
    cost = altogether(run)
    seconds = {"server": cost.server_s, "waiting": cost.waiting_s, "harness": cost.harness_s}
    lines += _gauge("spent_seconds", [(f'{{on="{k}"}}', f"{s:.1f}") for k, s in seconds.items() if s is not None])
    return "\n".join([*lines, "# EOF"]) + "\n"


def _gauge(name: str, samples: list[tuple[str, str]]) -> list[str]:
    return (
        [f"# TYPE gatebook_{name} gauge", *(f"gatebook_{name}{labels} {value}" for labels, value in samples)]
        if samples
        else []
    )


def _quantiles(name: str, values: pd.Series[float], digits: int) -> list[str]:
    """A summary with its median; P90 only where enough values carry it."""
    if values.empty:
        return []
    wanted = (0.5, 0.9) if len(values) >= FEWEST_FOR_P90 else (0.5,)
    lines = [f'gatebook_{name}{{quantile="{q}"}} {values.quantile(q):.{digits}f}' for q in wanted]
    return [f"# TYPE gatebook_{name} summary", *lines, f"gatebook_{name}_count {len(values)}"]


def _label(text: str) -> str:
    return re.sub(r"""[\s#"'\\{}]""", "_", text)
