"""Kernels are forked from one process that has imported everything: nothing that a notebook does may reach the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import nbformat
import papermill
import pytest
from gatebook.kernels import Kernel, kernels
from nbformat.v4 import new_code_cell, new_notebook

LEAVES = """
import builtins, gc, locale, os, random, signal, sys, threading, time, warnings
import matplotlib, numpy, pandas, gatebook.checks, gatebook.workbook

variable = builtins.in_builtins = "left"
os.environ["LEFT_BEHIND"] = "left"
os.environ.pop("PYTHONUTF8")
os.chdir("/")
sys.path.insert(0, "/left")
sys.modules["left_behind"] = sys
pandas.set_option("display.max_columns", 3)
matplotlib.rcParams["font.size"] = 3
gatebook.workbook.SECTIONS = "left"
gatebook.checks.CHECKS.clear()
random.seed(1), numpy.random.seed(1)
warnings.simplefilter("error")
signal.signal(signal.SIGUSR1, signal.SIG_IGN)

def beat():
    while True:
        with open(FOLDER + "/beats", "a") as file:
            file.write(".")
        time.sleep(0.01)

threading.Thread(target=beat, name="left-behind", daemon=True).start()
threading.Thread(target=beat, name="left-behind-too").start()
print(os.getpid(), random.random(), numpy.random.random())
"""
FINDS = """
import builtins, os, random, signal, sys, threading, warnings
import matplotlib, numpy, pandas, gatebook.checks, gatebook.workbook

found = {
    "variable": "variable" in globals(), "builtins": hasattr(builtins, "in_builtins"), "environment": "LEFT_BEHIND" in os.environ,
    "environment that was taken away": "PYTHONUTF8" not in os.environ, "folder": os.getcwd() == "/", "path": "/left" in sys.path,
    "module": "left_behind" in sys.modules, "pandas": pandas.get_option("display.max_columns") == 3,
    "matplotlib": matplotlib.rcParams["font.size"] == 3, "library": gatebook.workbook.SECTIONS == "left",
    "checks": not gatebook.checks.CHECKS, "warnings": ("error", None, Warning, None, 0) in warnings.filters,
    "signal": signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN,
    "thread": any(thread.name.startswith("left-behind") for thread in threading.enumerate()),
}
print([name for name, left in found.items() if left])
print(os.getpid(), random.random(), numpy.random.random())
"""

ORPHAN = """
import os, time
from gatebook import forks

parent, fork = os.getpid(), os.fork

def late():
    if not (pid := fork()):
        while os.getppid() == parent:
            time.sleep(0.01)
    return pid

os.fork = late
if not forks._fork(parent):
    time.sleep(600)
"""


def execute(kernel: Kernel, folder: Path, name: str, source: str) -> list[str]:
    """The lines that one cell prints, run as the runner runs a notebook."""
    book = new_notebook(
        cells=[new_code_cell(source)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(book, folder / f"{name}.in.ipynb")
    with warnings.catch_warnings(), kernel(name) as manager:
        warnings.simplefilter("ignore")
        made = papermill.execute_notebook(
            str(folder / f"{name}.in.ipynb"), str(folder / f"{name}.ipynb"), cwd=str(folder), kernel_name="python3", km=manager, progress_bar=False
        )  # fmt: skip
    return "".join(output.get("text", "") for output in made.cells[-1].outputs).splitlines()


@pytest.fixture
def lines(tmp_path: Path) -> tuple[list[str], list[str], list[str]]:
    """What the notebook says that leaves everything behind, and what the two after it find."""
    with kernels(tmp_path) as kernel:
        first = execute(kernel, tmp_path, "leaves", LEAVES.replace("FOLDER", repr(str(tmp_path))))
        return first, execute(kernel, tmp_path, "finds", FINDS), execute(kernel, tmp_path, "again", FINDS)


def test_nothing_of_a_notebook_reaches_the_next_one(lines: tuple[list[str], ...], tmp_path: Path) -> None:
    (first,), *others = lines
    assert [found[0] for found in others] == ["[]", "[]"], lines
    processes = [line.split()[0] for line in (first, *(found[1] for found in others))]
    assert len(set(processes)) == 3, "a process of its own for each"
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)
    beats = (tmp_path / "beats").stat().st_size
    assert beats, "the thread did run"
    time.sleep(0.2)
    assert (tmp_path / "beats").stat().st_size == beats, "a thread goes on after its notebook"


def test_chance_is_not_the_same_in_every_notebook(lines: tuple[list[str], ...]) -> None:
    """Forks of one process would all draw what it would have drawn next."""
    drawn = [found[-1].split()[1:] for found in lines]
    assert len({value for pair in drawn for value in pair}) == 6, lines


def test_the_caller_keeps_its_environment(tmp_path: Path) -> None:
    before, folder = dict(os.environ), Path.cwd()
    with kernels(tmp_path) as kernel:
        execute(kernel, tmp_path, "leaves", LEAVES.replace("FOLDER", repr(str(tmp_path))))
    assert (dict(os.environ), Path.cwd()) == (before, folder)


def test_what_is_forked_ends_where_its_parent_is_gone_before_it_runs(tmp_path: Path) -> None:
    """The pipe that it inherits stays open as long as it lives: its caller would wait for ever."""
    subprocess.run([sys.executable, "-c", ORPHAN], cwd=tmp_path, capture_output=True, timeout=60, check=True)
