"""Where things are: the project root, and the folders in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from gatebook.errors import BadInput


def root() -> Path:
    """The project: GATEBOOK_ROOT, else the nearest folder upward with notebooks/ and params/, else the editable install."""
    named = os.environ.get("GATEBOOK_ROOT")
    if named:
        return Path(named).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents, *Path(__file__).resolve().parents):
        if (folder / "notebooks").is_dir() and (folder / "params" / "cases").is_dir():
            return folder
    raise BadInput(
        f"{here}: no folder with notebooks/ and params/cases/ here or above; run inside the project or set GATEBOOK_ROOT"
    )


def outputs() -> Path:
    """Where runs go that say nothing else."""
    return root() / "outputs"


def cases_dir() -> Path:
    return root() / "params" / "cases"


def baseline_file(name: str) -> Path:
    return root() / "params" / "baselines" / f"{name}.json"


def notebook_file(name: str) -> Path:
    """Raises BadInput when a case names a notebook that does not exist."""
    path = root() / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.ipynb")))
        raise BadInput(f"{path}: no such notebook; a case's `notebook` is one of: {known}")
    return path


def person() -> str | None:
    """GITLAB_USER_LOGIN (who started the pipeline), else git's user of the project, else USER; None when none is known."""
    for found in (os.environ.get("GITLAB_USER_LOGIN"), _git_user(), os.environ.get("USER")):
        if found and found.strip():
            return found.strip().encode("utf-8", "replace").decode()  # bytes of another encoding fit no record
    return None


def _git_user() -> str | None:
    """`Name <address>` as a commit would have it."""
    command = ["git", "-C", str(root()), "config", "--get-regexp", r"^user\.(name|email)$"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = dict(line.partition(" ")[::2] for line in done.stdout.split("\n"))
    name, address = found.get("user.name", "").strip(), found.get("user.email", "").strip()
    return f"{name} <{address}>" if name and address else name or address
