"""The runs that stand in outputs/: which there are, which is meant, and what each ended in."""

from __future__ import annotations

import json
from pathlib import Path

from gatebook.config.files import read_file
from gatebook.errors import BadInput, GatebookError
from gatebook.record.run import LATEST, MAX_JSON_MIB, Run

NO_RUN = "outputs/ holds no run yet; make one with `make demo` or `gatebook run --profile params/smollm2.yaml`"


def run_folders(outputs: Path) -> list[Path]:
    """Every run, oldest first; `latest` is only a copy of one."""
    found = [file.parent for file in outputs.glob("*/manifest.json") if file.parent.name != LATEST]
    return sorted(found, key=lambda path: _said(path, "manifest.json", "created"))


def find_run(outputs: Path, name: str = "") -> Run:
    """The run with this path, name or part of a name that only one has; without a name the newest. Raises BadInput."""
    folders = run_folders(outputs)
    if not name:
        if not folders:
            raise BadInput(NO_RUN)
        return Run(folders[-1])
    for path in (Path(name), outputs / name):
        if (path / "manifest.json").is_file():
            return Run(path)
    near = [path for path in folders if name in path.name]
    if len(near) != 1:
        known = ", ".join(path.name for path in near or folders[-5:])
        raise BadInput(
            f"run {name!r}: {len(near) or 'no'} runs in outputs/ have this in their name; name one of: {known}"
        )
    return Run(near[0])


def run_row(path: Path) -> dict[str, str]:
    """What a person chooses a run by."""
    row = {"run": path.name, "created": _said(path, "manifest.json", "created")[:19]}
    try:
        manifest = Run(path).manifest
    except GatebookError as error:
        return {**row, "verdict": "unreadable", "suite": "", "model": "", "reason": str(error)}
    suite = f"{manifest.suite}{' PARTIAL' if manifest.partial else ''}"
    reason = _said(path, "verdict.json", "reason")
    return {
        **row,
        "verdict": verdict_word(path),
        "suite": suite,
        "model": manifest.profile.target.model,
        "reason": reason,
    }


def verdict_word(path: Path) -> str:
    return _said(path, "verdict.json", "verdict") or "unfinished"


def _said(path: Path, file: str, key: str) -> str:
    try:
        return str(json.loads(read_file(path / file, MAX_JSON_MIB))[key])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, BadInput):
        return ""
