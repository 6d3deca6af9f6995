"""What a run takes from the history before anything is asked, and what it leaves there when it is judged."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from gatebook.config.profile import Profile, Suite
from gatebook.errors import BadInput, HistoryFailed
from gatebook.record.measurement import Measurement
from gatebook.record.run import Run
from gatebook.record.samples import measurements
from gatebook.verdict.judging import run_baseline
from gatebook.verdict.verdict import Verdict


def window(profile: Profile, suite: Suite, groups: Iterable[str], created: str) -> list[Measurement] | str:
    """The rows that a run planned at `created` is compared with, or why they cannot be read. Raises BadInput."""
    from gatebook.record.history import open_history

    try:
        return open_history().window(
            profile.name, suite, sorted(set(groups)), datetime.fromisoformat(created), profile.limits.history_days
        )
    except HistoryFailed as error:
        return str(error)


def enter(run: Run, verdict: Verdict) -> str:
    """Store the rows of a complete run and say so; a run that enters again changes its own rows only.

    A narrowed run, and one that was judged again, has nothing to enter. Raises BadInput, BrokenRecord, HistoryFailed.
    """
    if verdict.partial:
        return f"{run.manifest.run}: is PARTIAL, so nothing of it enters the history"
    if run.manifest.judged_from:
        return f"{run.manifest.run}: its answers are those of {run.manifest.judged_from}, which enters them"
    return _store(run, _rows(run, verdict))


def enter_accepted(run: Run, verdict: Verdict, group: str | None) -> str:
    """A person took the run (or one group of it) as the measure of later ones. Raises as `enter`."""
    return _store(run, [r for r in _rows(run, verdict, accepted=True) if group in (None, r.group)])


def _store(run: Run, rows: list[Measurement]) -> str:
    from gatebook.record.history import open_history

    history = open_history()
    return f"{history.place}: {history.enter(rows)} groups of {run.manifest.judged_from or run.manifest.run} stored"


def _rows(run: Run, verdict: Verdict, accepted: bool | None = None) -> list[Measurement]:
    rows, baseline = measurements(run, verdict.verdict, accepted), run_baseline(run)
    named = run.manifest.profile.target.revision
    if named and verdict.changes and baseline and baseline.revision == named:
        return [row.model_copy(update={"revision": f"not {named}"}) for row in rows]
    return rows


def read_verdict(run: Run) -> Verdict:
    """What a finished run says of itself. Raises BadInput."""
    try:
        return Verdict.model_validate_json((run.path / "verdict.json").read_bytes())
    except (OSError, ValueError):
        raise BadInput(f"{run.path}: has no verdict yet; `gatebook run --resume {run.path}` finishes it") from None
