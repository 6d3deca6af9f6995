"""Replay the cells of a bundle: only code that is ours, in an empty folder, with few rights.

Ours is the code of the project's notebooks (edited and added ones too), of the package's, and what this version was released with
(released.json); code of another version works with that version's library only, and any other is shown and not executed. Parameters
are not compared: what replays is literal values, and `run_dir` is set here.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from gatebook import __version__
from gatebook.config import project
from gatebook.confined import PART, REPORT, SHARED, TRY, UNSHARED
from gatebook.errors import BadInput

REPLAY_S = 600
"""Wall time of all cells together."""
MANY = 5
"""From so many notebooks on they are replayed in two parts."""
SAME = r"""[a cell's own file, which a warning names]
regex: \S*ipykernel_\d+/
replace: ipykernel/
"""
"""What may differ in an output of the same cell, as nbval reads it."""
NO_OTHER_PLUGINS = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
KEPT = (
    "PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES", "MPLCONFIGDIR",
)  # fmt: skip
"""The environment variables that the replay has, with LC_* and the absolute entries of PYTHONPATH."""
PARAMETERS, INJECTED = "parameters", "injected-parameters"
DIFFERENCE_LINES, DIFFERENCE_CHARS = 24, 200
RELEASED = Path(__file__).parents[1] / "released.json"


class NotReplayed(ValueError):
    """Why there is no report of nbval."""


class Foreign(NotReplayed):
    """Code that is not ours, so nothing was executed."""

    def __init__(self, what: str, difference: str) -> None:
        """`difference`: from ours, as the bundle has it, unescaped; what is kept fits a terminal."""
        super().__init__(f"cells not replayed: {what}")
        most, lines = DIFFERENCE_CHARS, difference.split("\n")
        shown = [line if len(line) <= most else f"{line[:most]} ..." for line in lines[:DIFFERENCE_LINES]]
        more = len(lines) - len(shown)
        self.difference = "\n".join([*shown, *([f"... and {more} more lines"] if more else [])])


class Replayed(NamedTuple):
    """How much was replayed, and nbval's report as JUnit."""

    done: str
    report: ET.Element


@dataclass(frozen=True)
class Cell:
    """One code cell, without what papermill injects."""

    source: str
    tags: tuple[str, ...]
    """Those that say how nbval takes it, and which cell holds the parameters."""
    outputs: Any = ()

    @property
    def parameters(self) -> bool:
        return PARAMETERS in self.tags

    @property
    def code(self) -> tuple[str, tuple[str, ...]]:
        """What is compared; of parameters only that they are some."""
        return ("" if self.parameters else self.source), self.tags

    @property
    def lines(self) -> list[str]:
        return [*self.source.split("\n"), *([f"tags: {', '.join(self.tags)}"] if self.tags else [])]


def cells_of(path: Path) -> list[Cell]:
    """Read the code cells of a notebook file. Raises ValueError, also when it is none."""
    found = []
    try:
        for cell in (c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"):
            tags = [str(tag) for tag in cell.get("metadata", {}).get("tags", [])]
            if INJECTED not in tags:
                kept = sorted(tag for tag in tags if tag == PARAMETERS or tag.startswith("nbval"))
                found.append(Cell("".join(cell["source"]), tuple(kept), cell.get("outputs", [])))
    except (OSError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"is no notebook ({type(error).__name__})") from None
    return found


def code_hash(cells: Sequence[Cell]) -> str:
    """Return SHA-256 over the code of a notebook, without parameters and outputs."""
    return hashlib.sha256(json.dumps([cell.code for cell in cells]).encode("utf-8", "surrogatepass")).hexdigest()


@cache
def released() -> dict[str, dict[str, str]]:
    """Return notebook -> hash of its code -> the version that had it."""
    known: dict[str, dict[str, str]] = json.loads(RELEASED.read_bytes())
    return known


def release(version: str, notebooks: Path) -> None:
    """Add the code of these notebooks as that of a released version, so that its bundles go on being verified."""
    for file in sorted(notebooks.glob("*.ipynb")):
        released().setdefault(file.stem, {}).setdefault(code_hash(cells_of(file)), version)
    RELEASED.write_text(json.dumps(released(), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def ours_of(name: str, cells: Sequence[Cell], folders: Sequence[Path]) -> list[Cell]:
    """Return our own code of a bundle's notebook, with the bundle's outputs; `folders`: our notebooks.

    Raises Foreign, with the difference from the last one, and ValueError when one of ours cannot be read.
    """
    own: list[Cell] | None = None
    for file in (folder / f"{name}.ipynb" for folder in folders):
        own = cells_of(file) if file.is_file() else own
        if own is not None and [c.code for c in cells] == [c.code for c in own]:
            return [replace(its, outputs=cell.outputs) for cell, its in zip(cells, own, strict=True)]
    version = released().get(name, {}).get(code_hash(cells))
    if version not in (None, __version__):
        raise Foreign(f"{name} is that of version {version}, which replays it; this is {__version__}", "")
    if version:
        return [_with_plain_values(name, *numbered) for numbered in enumerate(cells, 1)]
    if own is None:
        places = " or ".join(map(str, folders))
        where = f"no notebook of {places}" if places else "no released notebook, and no project is here"
        raise Foreign(f"{name} is {where}", "\n\n".join(cell.source for cell in cells))
    pairs = enumerate(zip_longest(cells, own), 1)
    number, theirs, ours = next((n, c, i) for n, (c, i) in pairs if c is None or i is None or c.code != i.code)
    what = "added" if ours is None else "missing" if theirs is None else "changed"
    before, after = ours.lines if ours else [], theirs.lines if theirs else []
    difference = difflib.unified_diff(before, after, "ours", "the bundle's", lineterm="")
    raise Foreign(f"{what} cell {number} of {name}", "\n".join(difference))


def _with_plain_values(name: str, number: int, cell: Cell) -> Cell:
    """Return a cell of released code; one of parameters is written anew, since IPython ends lines where Python does not."""
    if not cell.parameters:
        return cell
    values = literal(cell.source)
    if values is None:
        raise Foreign(f"changed cell {number} of {name}", f"its parameters are not plain values:\n{cell.source}")
    return replace(cell, source="\n".join(f"{key} = {value!r}" for key, value in values))


def literal(source: str) -> list[tuple[str, Any]] | None:
    """Return (name, value) of a cell that does nothing but assign plain values to names, else None."""
    found = []
    try:
        for statement in ast.parse(source).body:
            if not isinstance(statement, ast.Assign):
                return None
            value = ast.literal_eval(statement.value)
            for target in statement.targets:
                if not isinstance(target, ast.Name) or target.id.startswith("_"):
                    return None
                found.append((target.id, value))
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
    return found


@contextmanager
def replaying(bundle: Path, names: Sequence[str], ours: Sequence[Path]) -> Iterator[Callable[[], Replayed]]:
    """Begin to run the cells of an intact bundle with no server; what is yielded waits for the end. Both raise NotReplayed."""
    code: dict[str, list[Cell]] = {}
    for file in (bundle / f"{name}.ipynb" for name in names):
        if not file.exists():
            raise NotReplayed(f"{file.name} is missing")
        try:
            code[file.name] = ours_of(file.stem, cells_of(file), ours)
        except NotReplayed:
            raise
        except ValueError as error:
            raise NotReplayed(f"{file.name} {error}") from None
    with tempfile.TemporaryDirectory(prefix="gatebook-replay-") as folder:
        copy, empty, state = (Path(folder) / part for part in ("run", "empty", "state"))
        shutil.copytree(bundle, copy)
        empty.mkdir()
        state.mkdir()
        for name, cells in code.items():
            (empty / name).write_text(json.dumps(_notebook(cells, copy)), encoding="utf-8")
        with _begun(empty, state, list(code)) as ended:
            yield ended


def _notebook(cells: Sequence[Cell], run_dir: Path) -> dict[str, Any]:
    """Build a notebook of our code and the bundle's outputs; nothing else is taken, least of all which kernel runs it."""
    injected = Cell(f"run_dir = {str(run_dir)!r}", (), [])
    ran = {"cell_type": "code", "execution_count": 1}
    made = [
        {**ran, "metadata": {"tags": one.tags}, "source": one.source, "outputs": one.outputs}
        for cell in cells
        for one in ([cell, injected] if cell.parameters else [cell])
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}


@contextmanager
def _begun(empty: Path, state: Path, names: list[str]) -> Iterator[Callable[[], Replayed]]:
    """Start a process that replays the notebooks, many of them in two parts side by side; at the end of the block it has ended."""
    alone = _unshare()
    same = state / "same.cfg"
    same.write_text(SAME, encoding="utf-8")
    parts = [names[::2], names[1::2]] if len(names) >= MANY and len(os.sched_getaffinity(0)) > 1 else [names]
    folders = [state / str(number) for number in range(len(parts))]
    for folder in folders:
        folder.mkdir()
    command = [
        *(alone or []), sys.executable, "-P", "-m", "gatebook.confined", SHARED if alone is None else UNSHARED,
        "-p", "gatebook", "-p", "nbval.plugin", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider", "--noconftest",
        "-c", os.devnull, "--rootdir", str(empty), "-q", "--nbval-sanitize-with", str(same),
        *(word for folder, part in zip(folders, parts, strict=True) for word in (PART, str(folder), *part)),
    ]  # fmt: skip
    told = state / "said"  # a pipe would stay open as long as any kernel that was left behind
    with told.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=empty,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    until = time.monotonic() + REPLAY_S

    def ended() -> Replayed:
        try:
            status = process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            raise NotReplayed(f"the replay took longer than {REPLAY_S} s") from None
        if status not in (0, 1) or not all((folder / REPORT).exists() for folder in folders):
            said = " ".join(told.read_text(encoding="utf-8", errors="replace").split()[-30:])
            raise NotReplayed(f"nbval could not replay (status {status}): {said}")
        whole = ET.Element("testsuites")
        whole.extend(ET.parse(folder / REPORT).getroot() for folder in folders)
        network = (
            "no network" if alone is not None else "the network not cut off: `unshare --net` is not permitted here"
        )
        return Replayed(f"{len(list(whole.iter('testcase')))} cells, {network}", whole)

    try:
        yield ended
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its kernels end when they see that it is gone
        process.wait()


def environment() -> dict[str, str]:
    """Return the few variables that replayed code sees, without any key or token of the caller."""
    kept = {k: v for k, v in os.environ.items() if k in KEPT or k.startswith("LC_")} | project.named()
    if path := [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(p).is_absolute()]:
        kept["PYTHONPATH"] = os.pathsep.join(path)
    return kept | {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", NO_OTHER_PLUGINS: "1"}


@cache
def _unshare() -> list[str] | None:
    """Return the command that starts another without a network; None where this user may not."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        trial = [*command, sys.executable, "-P", "-m", "gatebook.confined", TRY]
        try:
            if subprocess.run(trial, capture_output=True, timeout=30).returncode == 0:
                return command
        except (OSError, subprocess.TimeoutExpired):
            continue
    return None


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise BadInput("usage: python -m gatebook.commands.replay VERSION NOTEBOOKS")
    release(sys.argv[1], Path(sys.argv[2]))
