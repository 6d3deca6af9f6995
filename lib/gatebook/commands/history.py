"""`gatebook history`: what past runs measured (docs/history.md)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer

from gatebook.commands.arguments import outside_of_runs
from gatebook.errors import BadInput, one_line

app = Typer(
    help="What past runs measured: outputs/history.sqlite, or the database in GATEBOOK_HISTORY_URL (docs/history.md).",
    no_args_is_help=True,
)
ProfileName = Annotated[str | None, Option("--profile", help="Only runs of this profile (its name).")]
GroupName = Annotated[str | None, Option("--group", help="Only this group of cases.")]
Days = Annotated[float | None, Option("--days", help="Only runs of the last so many days.")]


@app.command("list")
def list_rows(profile: ProfileName = None, group: GroupName = None, days: Days = None) -> None:
    """One line a group of a run: medians in ms, verdict, and whether later runs are compared with it."""
    from gatebook.report.history import history_table

    place, rows = _rows(profile, group, days)
    if rows:
        print(history_table(rows).to_string())
    print(f"{len(rows)} rows of {len({row.run for row in rows})} runs in {place}")


@app.command()
def export(
    file: Annotated[Path, Argument(metavar="FILE", callback=outside_of_runs, help="FILE.csv or FILE.parquet.")],
    profile: ProfileName = None,
    group: GroupName = None,
    days: Days = None,
) -> None:
    """Write the rows with every sample to a file for other tools."""
    from gatebook.report.history import export as write

    place, rows = _rows(profile, group, days)
    write(rows, file)
    print(f"{file}: {len(rows)} rows of {place}")


@app.command()
def plot(
    file: Annotated[Path, Argument(metavar="FILE", callback=outside_of_runs, help="FILE.png or FILE.svg.")],
    profile: ProfileName = None,
    group: GroupName = None,
    days: Days = None,
) -> None:
    """Draw medians and P10 to P90 of TTFT, ITL and total over the runs, coloured by verdict."""
    from gatebook.report.history import plot_trend

    print(plot_trend(_rows(profile, group, days)[1], file))


@app.command()
def prune(
    before: Annotated[str | None, Option(help="Delete runs made before this day or time (UTC): 2026-11-01.")] = None,
    days: Annotated[float | None, Option(help="Delete runs older than so many days.")] = None,
) -> None:
    """Delete old rows. Run folders stay, and `gatebook history enter RUN` brings the rows of one back."""
    from gatebook.record.history import open_history

    limit = _since(days) if before is None else _instant(before)
    if limit is None or None not in (before, days):
        raise BadInput("prune takes one of --before 2026-11-01 and --days 90: it says which runs are deleted")
    history = open_history()
    gone, left = history.prune(limit)
    print(f"{history.place}: {gone} rows of runs before {limit:%Y-%m-%d %H:%M} UTC deleted, {left} left")


@app.command()
def enter(path: Annotated[Path, Argument(metavar="RUN", help="A run folder in outputs/.")]) -> None:
    """Store what a finished run measured, as `gatebook run` does itself: for one made elsewhere, or when the database was away."""
    from gatebook.entering import enter as store
    from gatebook.entering import judge_intact

    print(one_line(store(*judge_intact(path, "only an intact run enters the history"))))


def _rows(profile: str | None, group: str | None, days: float | None) -> tuple[str, list[Any]]:
    from gatebook.record.history import open_history

    history = open_history()
    return history.place, history.rows(profile, group, _since(days))


def _since(days: float | None) -> datetime | None:
    if days is None:
        return None
    if not 0 < days < 36_500:
        raise BadInput(f"--days has value {days:g}: must be a number of days above 0, such as 7")
    return datetime.now(UTC) - timedelta(days=days)


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        said = "must be a day or a time, such as 2026-11-01 or 2026-11-01T06:00"
        raise BadInput(f"--before has value {text!r}: {said}") from None
    return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
