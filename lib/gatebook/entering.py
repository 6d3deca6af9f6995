"""What a run reads from the history before anything is asked, and what it stores there when it is judged."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from gatebook.config.profile import Profile, Suite
from gatebook.errors import BadInput, BrokenRecord, HistoryFailed
from gatebook.record.exchange import Measurement
from gatebook.record.run import Run
from gatebook.record.samples import measurements
from gatebook.verdict.judging import judge, run_baseline
from gatebook.verdict.verdict import Verdict


def window(profile: Profile, suite: Suite, groups: Iterable[str], created: str) -> list[Measurement] | str:
    """Return the rows that a run planned at `created` is compared with, or why they cannot be read. Raises BadInput."""
    from gatebook.record.history import open_history

    at, days = datetime.fromisoformat(created), profile.limits.history_days
    try:
        return open_history().window(profile.name, suite, sorted(set(groups)), at, days)
    except HistoryFailed as error:
        return str(error)


def enter(run: Run, verdict: Verdict) -> str:
    """Store the rows of a complete run and say so; a run that enters again changes its own rows only.

    A narrowed run, and one that was judged again, has nothing to enter. Raises BadInput, BrokenRecord, HistoryFailed.
    """
    if not verdict.measures:
        return f"{run.manifest.run}: is {verdict.called}, so nothing of it enters the history"
    if run.manifest.judged_from:
        return f"{run.manifest.run}: its answers are those of {run.manifest.judged_from}, which enters them"
    return _store(run, verdict, measurements(run, verdict.verdict, None))


def enter_accepted(run: Run, verdict: Verdict, group: str | None) -> str:
    """Store a run, or one group, that a person accepted. Raises as `enter`."""
    rows = measurements(run, verdict.verdict, accepted=True)
    return _store(run, verdict, [row for row in rows if group in (None, row.group)])


def _store(run: Run, verdict: Verdict, rows: list[Measurement]) -> str:
    """Store rows; those of a deployment that is not what its revision names go under another revision."""
    from gatebook.record.history import open_history

    named, baseline, history = run.manifest.profile.target.revision, run_baseline(run), open_history()
    if named and verdict.changes and baseline and baseline.revision == named:
        rows = [row.model_copy(update={"revision": f"not {named}"}) for row in rows]
    count = history.enter(rows, judged_again=run.manifest.judged_from is not None)
    return f"{history.place}: {count} groups of {run.manifest.judged_from or run.manifest.run} stored"


def open_intact(path: Path, demand: str) -> Run:
    """Open a finished run that nobody has changed. Raises BadInput, and BrokenRecord with the demand."""
    run = Run(path.resolve())
    if damage := run.damage():
        raise BrokenRecord(f"{path}: {damage[0]}; {demand}")
    return run


def read_verdict(run: Run) -> Verdict:
    """Read a finished run's verdict.json. Raises BadInput."""
    try:
        return Verdict.model_validate_json((run.path / "verdict.json").read_bytes())
    except (OSError, ValueError):
        raise BadInput(f"{run.path}: has no verdict yet; `gatebook run --resume {run.path}` finishes it") from None


def judge_intact(path: Path, demand: str) -> tuple[Run, Verdict]:
    """Open an intact run and compute its verdict from its record. Raises BadInput, BrokenRecord."""
    run = open_intact(path, demand)
    return run, judge(run, troubles=read_verdict(run).troubles)
