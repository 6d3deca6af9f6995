"""Arguments that several commands take, and how they are read."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from gatebook.errors import BadInput

PATHS = r"--(profile|scheduler|against|out|resume|into|template|to|html|notebooks|cases|log)"
"""Options that name a path: an empty one would mean the current folder."""


def _suite(name: str) -> str:
    from gatebook.config.profile import SUITES

    if name not in SUITES:
        raise BadInput(f"--suite has value {name!r}: must be one of {', '.join(SUITES)}")
    return name


def _names(said: list[str] | None) -> list[str] | None:
    """Return all names of every --only; None where none was given. Raises BadInput."""
    found = [(part.strip(), text) for text in said or () for part in text.split(",")]
    if wrong := next((text for part, text in found if not part), None):
        raise BadInput(f"--only has value {wrong!r}: must be names separated by commas, such as 01,02")
    return [part for part, _ in found] or None


def _shard(text: str) -> Any:
    from gatebook.config.selection import shard_of

    return shard_of(text)


def _effort(name: str) -> str:
    from gatebook.config.selection import EFFORTS

    if name not in EFFORTS:
        raise BadInput(f"--effort has value {name!r}: must be one of {', '.join(EFFORTS)}")
    return name


def outside_of_runs(file: Path | None) -> Path | None:
    """Return a file that is to be written. Raises BadInput where it lies in a run folder, which is sealed."""
    from gatebook.record.folder import run_folder_of

    if file is not None and (inside := run_folder_of(file.resolve().parent)):
        raise BadInput(f"{file}: lies in the run folder {inside}, a sealed bundle; name another file")
    return file


RunArgument = Annotated[Path, Argument(metavar="RUN", help="A run folder in outputs/.")]
AsJson = Annotated[bool, Option("--json", help="Print the verdict as JSON (docs/schema/verdict.schema.json).")]
Only = Annotated[
    list[str] | None, Option(callback=_names, metavar="<str>", help="Notebooks, groups or cases, by commas; PARTIAL.")
]
Suite = Annotated[Any, Option(parser=_suite, metavar="<str>", help="demo, live, smoke, integration, scenario or full.")]
Effort = Annotated[Any, Option(parser=_effort, metavar="<str>", help="quick, normal (default) or deep: docs/power.md.")]
NoTexts = Annotated[bool, Option("--no-texts", help="Verdicts and figures only: no prompt, no answer.")]
YesLoad = Annotated[bool, Option("--yes-load", help="Ask load (08) although others use the server.")]
Html = Annotated[Path | None, Option(callback=outside_of_runs, help="Also write it as a page.")]
Among = Annotated[int, Option(min=1, max=20_000, help="Deployments of a fleet, which share one error budget.")]
SHARD = "Ask this part of the cases only; `gatebook merge` joins all N."
Sharded = Annotated[Any, Option("--shard", parser=_shard, metavar="<K/N>", help=SHARD)]


def refuse_unreadable(arguments: list[str]) -> None:
    """Raises BadInput for bytes that are no text here, and for an empty path, which would mean the current folder."""
    said = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for option, value in zip(["", *said], said, strict=False):
        if any("\ud800" <= char <= "\udfff" for char in value):
            where = option if option.startswith("--") else "an argument"
            raise BadInput(f"{where} is not {sys.getfilesystemencoding()} text; type it in the terminal's own encoding")
        if re.fullmatch(PATHS, option) and not value.strip():
            raise BadInput(f"{option} is empty; name a path, or leave the option out")
        if not option.startswith("--") and not value:
            raise BadInput("an argument is empty; name a run folder or a file")
