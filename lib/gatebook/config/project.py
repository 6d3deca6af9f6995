"""Where things are: the project's folder, and what the package brings to it.

A checkout (it has lib/gatebook/) is complete: its notebooks and cases are its own alone. Any other folder is a repository of your own:
a notebook in its notebooks/ goes before the package's of that name, and the cases of its params/cases/ stand beside the package's.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from gatebook.errors import BadInput

PACKAGE = Path(__file__).resolve().parents[1] / "shipped"
"""What a wheel holds: notebooks/, params/, site/, docs/schema/ and the lists of requirements. In a checkout, links to its own."""
CHECKOUT = PACKAGE.parents[2]
"""Where this stands in lib/gatebook/; some other folder for an installed wheel."""


def find() -> Path | None:
    """GATEBOOK_ROOT, else the nearest folder upward whose params/ has a profile or cases, else the checkout that is installed."""
    if named := os.environ.get("GATEBOOK_ROOT"):
        return Path(named).resolve()
    here = Path.cwd()
    installed = [CHECKOUT] if is_checkout(CHECKOUT) else []
    return next((folder for folder in (here, *here.parents, *installed) if _is_project(folder)), None)


def named() -> dict[str, str]:
    """The variable by which another process finds the same project wherever it stands."""
    return {"GATEBOOK_ROOT": str(found)} if (found := find()) else {}


def root() -> Path:
    """The project's folder. Raises BadInput where there is none."""
    if found := find():
        return found
    said = "no params/ with a profile or cases here or above; run `gatebook init` in a folder of your own, or set GATEBOOK_ROOT"
    raise BadInput(f"{Path.cwd()}: {said}")


def _is_project(folder: Path) -> bool:
    params = folder / "params"
    return (params / "cases").is_dir() or any(params.glob("*.yaml"))


def is_checkout(folder: Path) -> bool:
    return (folder / "lib" / "gatebook").is_dir()


def base() -> Path:
    """Where templates come from: the checkout, else the package."""
    found = find()
    return found if found and is_checkout(found) else PACKAGE


def folders(part: str) -> list[Path]:
    """Where `notebooks` or `params/cases` are: the package's, which a checkout does not need, then the project's."""
    found = find()
    return [folder / part for folder in dict.fromkeys([base(), found or base()])]


def from_root(path: Path) -> Path:
    """Return the path if it exists from here, else the same path in the project's folder."""
    return path if path.is_absolute() or path.exists() else root() / path


def outputs() -> Path:
    """Return the default folder of runs."""
    return root() / "outputs"


def cases_dir() -> Path:
    return root() / "params" / "cases"


def case_folders(own: Path | None = None) -> list[Path]:
    """The folders whose cases are asked; `own` stands for params/cases. Raises BadInput where GATEBOOK_ROOT is no project."""
    if not own and not _is_project(root()):
        said = "its params/ has no profile and no cases; correct it, or run `gatebook init`"
        raise BadInput(f"environment variable GATEBOOK_ROOT has value {str(root())!r}: {said}")
    return [*folders("params/cases")[:-1], own or cases_dir()]


def baseline_file(name: str) -> Path:
    return root() / "params" / "baselines" / f"{name}.json"


def notebook_file(name: str) -> Path:
    """The project's own, else the package's. Raises BadInput when a case names a notebook that does not exist."""
    places = folders("notebooks")[::-1]
    for folder in places:
        if (path := folder / f"{name}.ipynb").is_file():
            return path
    known = ", ".join(sorted({path.stem for folder in places for path in folder.glob("*.ipynb")}))
    raise BadInput(f"{places[0] / name}.ipynb: no such notebook; a case's `notebook` is one of: {known}")


def schema_line(name: str, up: str) -> str:
    """Return the comment that names a file's schema for editors; empty in a repository of your own without docs/schema/."""
    file = f"docs/schema/{name}.schema.json"
    known = base() != PACKAGE or (root() / file).is_file()
    return f"# yaml-language-server: $schema={up}{file}\n" if known else ""


def person() -> str | None:
    """GITLAB_USER_LOGIN (who started the pipeline), else git's user of the project, else USER; None when none is known."""
    for found in (os.environ.get("GITLAB_USER_LOGIN"), _git_user(), os.environ.get("USER")):
        if found and found.strip():
            return found.strip().encode("utf-8", "replace").decode()  # bytes of another encoding fit no record
    return None


def _git_user() -> str | None:
    """`Name <address>` as a commit would have it."""
    said = git(find() or Path.cwd(), "config", "--get-regexp", r"^user\.(name|email)$") or ""
    found = dict(line.partition(" ")[::2] for line in said.split("\n"))
    name, address = found.get("user.name", "").strip(), found.get("user.email", "").strip()
    return f"{name} <{address}>" if name and address else name or address


def git(folder: Path, *arguments: str) -> str | None:
    """What a git command prints in a folder, stripped; None where it fails, or there is no git."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
