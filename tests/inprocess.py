"""`gatebook run` in this process: its plan, its questions, its cells, its verdict and its reports, without a kernel."""

from __future__ import annotations

import ast
import contextlib
import io
import warnings
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import pandas as pd
from gatebook.config import project
from gatebook.config.profile import Suite, load_profile, with_target
from gatebook.config.selection import Shard
from gatebook.opening import OVERALL, open_run
from gatebook.record.executed import unfinished
from gatebook.record.run import Run
from gatebook.report.terminal import show
from gatebook.runner import report
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Verdict
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from nbformat import NotebookNode
from nbformat.v4 import new_output
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

matplotlib.use("agg")
_formatter = cache(DisplayFormatter)
_drawn: set[str] = set()
"""The cells whose figures this process has drawn once: to draw them is a fifth of a run."""


def run(
    profile: Path, base_url: str, only: list[str] | None, revision: str | None, suite: Suite | None, shard: Shard | None
) -> tuple[Verdict, Path, str]:
    """(verdict, the run's folder, what the command prints). Raises BadInput as the command does."""
    chosen = with_target(load_profile(profile), base_url=base_url, revision=revision)
    suite = suite or chosen.target.default_suite
    made = open_run(chosen, base_url, suite, only, out=project.outputs(), shard=shard, yes_load=True)
    troubles = [cut for notebook in made.notebooks if (cut := execute(made, notebook))]
    made.note_troubles(troubles)
    troubles += [cut for cut in [execute(made, OVERALL)] if cut]
    verdict = judge(made, troubles=troubles)
    report(made, verdict)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        show(verdict, made)
    return verdict, made.path, said.getvalue()


def execute(run: Run, notebook: str) -> str | None:
    """Run the notebook's cells here as papermill does in a kernel, and keep it in the run; why it did not run to its end."""
    book = parameterize_notebook(load_notebook_node(str(project.notebook_file(notebook))), {"run_dir": "."})
    began = datetime.now(UTC)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    for number, (cell, outputs) in enumerate(
        zip(cells, run_cells(cells, run, notebook, to_the_end=False), strict=False), 1
    ):
        cell.execution_count, cell.outputs = number, outputs
    seconds = (datetime.now(UTC) - began).total_seconds()
    book.metadata.papermill = {"start_time": began.isoformat(), "duration": seconds}
    made = run.path / f"{notebook}.ipynb"
    nbformat.write(book, made)
    return unfinished(made)


def run_cells(cells: list[NotebookNode], run: Run, notebook: str, to_the_end: bool = True) -> list[list[NotebookNode]]:
    """The outputs of each cell, run in the folder of the run; unless `to_the_end`, the one that raises is the last."""
    known: dict[str, Any] = {"__name__": notebook, "run_dir": "."}
    outputs: list[list[NotebookNode]] = []
    with (
        contextlib.chdir(run.path),
        warnings.catch_warnings(),
        pd.option_context("display.max_columns", 20, "display.html.use_mathjax", True),
    ):  # a kernel's, whatever a test before this one has set
        warnings.simplefilter("ignore")  # as the runner has it
        for number, cell in enumerate(cells, 1):
            outputs.append(run_cell(cell.source, known, number))
            known["run_dir"] = "."  # the cell of parameters is that of the notebook
            if not to_the_end and any(output.output_type == "error" for output in outputs[-1]):
                break
    return outputs


def run_cell(source: str, known: dict[str, Any], number: int) -> list[NotebookNode]:
    """What it prints, and its last value in every way that JupyterLab shows one."""
    said, found = io.StringIO(), []
    try:
        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        with contextlib.redirect_stdout(said):
            exec(compile(tree, "<cell>", "exec"), known)
            value = None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), known)
        figures = [plt.figure(figure) for figure in plt.get_fignums()]
        if isinstance(value, Figure):
            figures.append(value)
        elif value is not None:
            data, metadata = _formatter().format(value)
            found = [new_output("execute_result", data=data, metadata=metadata, execution_count=number)]
        for figure in () if source in _drawn else figures:
            figure.canvas.draw()
            _drawn.add(source)
    except Exception as error:
        found = [new_output("error", ename=type(error).__name__, evalue=str(error), traceback=[])]
    plt.close("all")  # a kernel shows the figures of a cell once, and closes them
    return [*([new_output("stream", name="stdout", text=said.getvalue())] if said.getvalue() else []), *found]
