"""`gatebook fleet`: many deployments, one verdict (docs/fleet.md)."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer
from typer.core import TyperGroup

from gatebook.errors import BadInput, ExitCode, one_line


class _Gate(TyperGroup):
    """What is no command of the group is the fleet file, or an option, of `gate`; its help is that of `gate`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands:
            args = ["gate", *args]
        return super().parse_args(ctx, args)


fleet_app = Typer(
    cls=_Gate,
    help="Gate many deployments with one verdict: gatebook fleet params/fleet.yaml (docs/fleet.md).",
    no_args_is_help=True,
)


@fleet_app.command(hidden=True)
def gate(
    file: Annotated[Path | None, Argument(metavar="FILE", help="A fleet file, such as params/fleet.yaml.")] = None,
    scheduler: Annotated[str | None, Option(help="A Dask scheduler, tcp://host:8786; default: processes here.")] = None,
    plan: Annotated[bool, Option("--plan", help="Print jobs, cost and what it could see; ask nothing.")] = False,
    resume: Annotated[
        str | None, Option(metavar="RUN", help="Go on with this fleet run; with FILE it must be its run.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Gate all deployments of a fleet file; the verdict is the worst of theirs. Exit codes as of `gatebook run`.

    `gatebook fleet accept RUN --reason ...` then makes each deployment's run its baseline. docs/fleet.md
    """
    from gatebook.fleet.conduct import begin, gate_fleet, reopen
    from gatebook.fleet.plan import check_same, load_fleet
    from gatebook.fleet.reports import planned, show

    if (file is None and resume is None) or (plan and resume is not None):
        raise BadInput("name a fleet file, such as params/fleet.yaml, or a run to go on with: --resume RUN")
    fleet = load_fleet(file) if file is not None else None
    if plan and fleet is not None:
        print(planned(fleet, str(file)))
        return
    if resume is not None:
        store, made = reopen(resume)
        if fleet is not None:
            check_same(made, fleet, str(file))
    elif fleet is not None:
        store, made = begin(fleet, str(file))
    with store.held("gatebook fleet"):
        verdict = gate_fleet(store, made, scheduler, watch=not as_json)
    if as_json:
        print(verdict.model_dump_json(indent=1))
    else:
        show(verdict, store)
    raise SystemExit(verdict.exit_code)


@fleet_app.command()
def accept(
    run: Annotated[str, Argument(metavar="RUN", help="A fleet run: its folder, or its URL in the store.")],
    reason: Annotated[str, Option(help="Why this run may be the measure of later ones.")],
    by: Annotated[str | None, Option(help="Who accepts; or GITLAB_USER_LOGIN, else git's user, else USER.")] = None,
) -> None:
    """Make every deployment's run its baseline where that can be, and list the rest. Exit code 3 where something is refused."""
    from gatebook.fleet.conduct import accept_fleet

    lines, refused = accept_fleet(run, reason, by)
    print("\n".join(map(one_line, lines)))
    raise SystemExit(ExitCode.INCONCLUSIVE if refused else 0)


def _fetched(text: str) -> Path:
    """The run folder of a path; of a URL a copy in a scratch folder, which goes with this process."""
    from gatebook.fleet.store import fetched

    kept = ExitStack()
    atexit.register(kept.close)
    return kept.enter_context(fetched(text))


StoredRun = Annotated[
    Any, Argument(parser=_fetched, metavar="RUN", help="A run folder in outputs/, or its URL in a store: s3://...")
]
