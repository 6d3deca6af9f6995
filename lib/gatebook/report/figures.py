"""A run without its texts: verdict and figures, for readers who may not see prompts and answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeVar

from gatebook.checks.finding import Finding, Measure
from gatebook.config.files import replace_text
from gatebook.errors import BadInput, CannotMeasure, os_reason
from gatebook.record.folder import run_folder_of
from gatebook.record.run import Run
from gatebook.report.junit import junit
from gatebook.report.metrics import metrics
from gatebook.report.pages import index_page
from gatebook.report.summary import summary
from gatebook.verdict.verdict import GroupVerdict, Reason, Verdict

R = TypeVar("R", bound=Reason)
MARK = "NO_TEXTS"
"""Names the file that a folder without texts holds, so that none is mixed with one that has them."""
SAID = "Verdicts and figures of Gatebook runs, without a prompt or an answer. The evidence is elsewhere.\n"


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
            replace_text(to / name, text)
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
