"""JupyterLab on the project: its own notebooks, and copies of the package's that a person may edit."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from typer import Context, Option

from gatebook import __version__
from gatebook.config import project
from gatebook.errors import BadInput

EMBEDDED = Path("params", "smollm2.yaml")


def laid_out(root: Path) -> Path:
    """Return the folder to open. What only the package has is copied once a version, never over an edit."""
    *package, own = project.folders("notebooks")
    copies = root / "outputs" / f"lab-{__version__}"
    for file in (file for folder in package for file in sorted(folder.glob("*.ipynb"))):
        copy = copies / file.name
        if not copy.exists() and not (own / file.name).exists():
            copies.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    return copies if package and copies.is_dir() else own


def jupyter_path() -> str:
    """Return JUPYTER_PATH with this environment first, so that its kernel is used."""
    return os.pathsep.join(filter(None, [f"{sys.prefix}/share/jupyter", os.environ.get("JUPYTER_PATH")]))


def lab(
    ctx: Context, profile: Annotated[Path | None, Option(help="Whom the notebooks ask; or GATEBOOK_PROFILE.")] = None
) -> None:
    """JupyterLab on the notebooks; all other options are its own: gatebook lab --no-browser --port 8899."""
    from gatebook.config.profile import load_profile

    root = project.root()
    said = profile or os.environ.get("GATEBOOK_PROFILE") or (root / EMBEDDED if (root / EMBEDDED).is_file() else None)
    if said is None:
        todo = "Name a YAML of params/, such as params/mine.yaml"
        raise BadInput(f"--profile is missing: whom do the notebooks ask? {todo}")
    chosen = project.from_root(Path(said)).resolve()
    load_profile(chosen)
    if find_spec("jupyterlab") is None:
        raise BadInput("JupyterLab is not installed; run `pip install jupyterlab`")
    folder = laid_out(root).relative_to(root)
    said = f"notebooks ask by {chosen}; look into {folder}/"
    print(f"{said}; what stands in notebooks/ is what a run executes", flush=True)
    environment = {**os.environ, "JUPYTER_PATH": jupyter_path(), "GATEBOOK_PROFILE": str(chosen)}
    options = [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{folder.as_posix()}", *ctx.args]
    os.execve(sys.executable, [sys.executable, "-P", "-m", "jupyterlab", *options], environment)
