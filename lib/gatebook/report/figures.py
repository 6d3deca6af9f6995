"""A run in figures: metrics.txt, and the verdict without texts for readers who may not see prompts and answers.

metrics.txt is OpenMetrics, shaped for GitLab's metrics report: no space in labels, rounded values, few lines. Every sample says
whose it is (profile, model, suite), so that several deployments fit into one Prometheus; what is another one in each run
(revision, run) stands in gatebook_run_info alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import numpy as np

from gatebook.checks.finding import WORST_FIRST, Finding, Measure
from gatebook.config.files import replace_own
from gatebook.errors import BadInput, CannotMeasure, os_reason
from gatebook.record.folder import run_folder_of
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.record.samples import streamed_times
from gatebook.report.junit import junit
from gatebook.report.pages import index_page
from gatebook.report.standing import altogether, recorded, standings
from gatebook.report.summary import summary
from gatebook.verdict.verdict import GroupVerdict, Reason, Verdict

R = TypeVar("R", bound=Reason)
MARK = "NO_TEXTS"
"""Names the file that a folder without texts holds, so that none is mixed with one that has them."""
SAID = "Verdicts and figures of Gatebook runs, without a prompt or an answer. The evidence is elsewhere.\n"
FEWEST_FOR_P90 = 10
DIGITS = {"ttft_ms": 0, "total_ms": 0, "tpot_ms": 1}


def bare(verdict: Verdict) -> Verdict:
    """The verdict with every reason cut to names and numbers: a reason quotes answers, and the fingerprint is made of them."""
    groups = [g.model_copy(update={"reason": _counts(g)}) for g in verdict.groups]
    figures = {g.group: g.reason for g in groups}

    def told(reason: R, **more: list[Reason]) -> R:
        """What it is about, with the group's figures, how many values moved, or what to do."""
        moved = f"{len(reason.moved)} values moved" if reason.moved else ""
        text = f"{reason.about}: {figures.get(reason.about) or moved or reason.todo}"
        return reason.model_copy(update={"text": text, **more})

    causes = [told(cause, explains=[told(r) for r in cause.explains]) for cause in verdict.causes]
    lines = [line for c in causes for line in (c.text, *(f"explained by it: {r.text}" for r in c.explains))]
    return verdict.model_copy(
        update={
            "reason": lines[0] if lines else verdict.reason, "reasons": lines, "causes": causes, "notes": [], "groups": groups,
            "findings": [_finding(f) for f in verdict.findings], "fingerprint": {}, "changes": [],
            "troubles": ["something broke on our side; the bundle says what"] if verdict.troubles else [],
        }
    )  # fmt: skip


def publish(run: Run, verdict: Verdict, to: Path) -> Path:
    """Write page, summary, JUnit, metrics and verdict without texts into a folder of their own; the bundle stays as it is.
    Returns the page. Raises BadInput for a folder that holds something else or lies in a bundle."""
    check_apart(to)
    told = bare(verdict)
    files = {
        "index.html": index_page(run, told, {}, texts=False),
        "summary.md": summary(run, told, texts=False),
        "junit.xml": junit(run, told),
        "metrics.txt": metrics(run, told),
        "verdict.json": told.model_dump_json(indent=1),
        MARK: SAID,
    }
    try:
        to.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            replace_own(to / name, text)
    except OSError as error:
        raise CannotMeasure(
            f"{to}: cannot be written ({os_reason(error)}); free space or choose another folder"
        ) from None
    return to / "index.html"


def check_apart(to: Path) -> None:
    """Raises BadInput where a folder may hold texts: only a new one, an empty one and one of our own are written into."""
    if inside := run_folder_of(to):
        raise BadInput(f"{to}: lies in the run folder {inside}, which has the texts; name a folder outside of it")
    if to.exists() and not (to.is_dir() and ((to / MARK).is_file() or not any(to.iterdir()))):
        raise BadInput(f"{to}: holds something else, which may have texts; name a new folder")


def _counts(group: GroupVerdict) -> str:
    counts = {"fail": group.failed, "error": group.error, "not measured": group.not_measured}
    told = ", ".join([f"{group.passed} of {group.cases} pass", *(f"{n} {name}" for name, n in counts.items() if n)])
    return f"{told}; {group.comparison}" if group.comparison else told


def _finding(found: Finding) -> Finding:
    numbers = {name: _number(value) for name, value in (("measured", found.measured), ("limit", found.limit))}
    told = [found.outcome.replace("_", " "), *(f"{name} {n}" for name, n in numbers.items() if n is not None)]
    return found.model_copy(update={**numbers, "reason": f"{found.check}: {', '.join(told)}"})


def _number(value: Measure) -> Measure:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


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
