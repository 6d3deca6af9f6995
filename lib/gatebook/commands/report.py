"""`gatebook report`: what a run said, once more."""

from __future__ import annotations

from pathlib import Path

from gatebook.commands.verify import cut_short, evidenced
from gatebook.errors import BadInput, one_line
from gatebook.record.run import Run
from gatebook.record.shelf import check_latest, held
from gatebook.report.figures import bare, check_apart, publish
from gatebook.runner import judged, report
from gatebook.verdict.verdict import Verdict


def report_again(path: Path) -> tuple[Run, Verdict]:
    """What a run said, judged again from its record; nothing is asked. One that was killed gets its reports first, and is
    not green until it is resumed. Raises BadInput, BrokenRecord."""
    run = Run(path.resolve())
    if run.sealed:
        return run, evidenced(path)
    check_latest(run.path.parent)
    with held(run.path, "gatebook report"):
        go_on = f"the run did not finish; go on with: gatebook run --resume {run.path}"
        verdict = judged(run, [*cut_short(run), go_on])
        report(run, verdict)
    return run, verdict


def figures_again(path: Path, no_texts: bool, out: Path | None) -> tuple[str, Verdict]:
    """The same without a prompt or an answer, into a folder of its own: (the last line, the verdict in figures).
    Raises BadInput, BrokenRecord."""
    if out is None or not no_texts:
        raise BadInput("--no-texts and --out go together, such as: gatebook report RUN --no-texts --out public/run")
    check_apart(out)
    run, verdict = report_again(path)
    page, told = publish(run, verdict, out), bare(verdict)
    return one_line(f"{told.verdict}  {told.reason}  {page}"), told
