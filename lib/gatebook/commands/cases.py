"""`gatebook cases`: check case files, and make them from tables (docs/cases.md)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from gatebook.errors import ExitCode, one_line

app = Typer(help="Write cases: check them, import them in bulk (docs/cases.md).", no_args_is_help=True)


@app.command()
def check(
    files: Annotated[list[Path] | None, Argument(help="Case files; default: all of params/cases.")] = None,
    allow_missing: Annotated[bool, Option("--allow-missing", help="A case may have no example answers.")] = False,
    every_check: Annotated[bool, Option("--every-check", help="Every check must fail a bad example.")] = False,
) -> None:
    """Read case files as a run would and try every good and bad example by its case's own checks.

    Exit codes: 0 all agree · 1 an example disagrees or is missing · 2 bad input.
    """
    from gatebook.commands.casefiles import check_files

    found = check_files(files or [], allow_missing, every_check)
    problems = [problem for one in found for problem in one.problems]
    refused = [one.refused for one in found if one.refused]
    for line in (*found, *problems):
        print(one_line(line))
    for line in refused:
        print(f"gatebook: {line}", file=sys.stderr)
    if refused:
        print(f"{len(refused)} of {len(found)} files cannot be read")
    elif problems:
        print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}")
    elif tried := sum(one.good + one.bad for one in found):
        print(f"no problem: {tried} answers tried")
    else:
        print("no problem, but nothing was tried: no case here has an example answer")
    raise SystemExit(ExitCode.BAD_INPUT if refused else ExitCode.FAIL if problems else ExitCode.PASS)


@app.command("import")
def import_table(
    file: Annotated[Path, Argument(metavar="FILE", help="CSV (UTF-8) or JSONL: one case a row.")],
    into: Annotated[Path, Option(help="The new case file, such as params/cases/tickets.yaml.")],
    columns: Annotated[str | None, Option("--map", help="target=column: id=no,user=question,good=answer")] = None,
    template: Annotated[Path | None, Option(help="A YAML with one case and {{column}} placeholders.")] = None,
    notebook: Annotated[str | None, Option(help="Without a template: the notebook, 06_scenarios.")] = None,
    group: Annotated[str | None, Option(help="Without a template: the group, scenarios.tickets.")] = None,
    why: Annotated[str | None, Option(help="Without a template: why these cases exist.")] = None,
) -> str:
    """Make a case file from a table; nothing is written when any row is bad (docs/cases.md)."""
    from gatebook.commands.importing import import_cases

    return import_cases(file, into, columns, template, notebook=notebook, group=group, why=why)
