"""How the runner has papermill write a notebook: seldom while it runs, whole at its end, also where a cell raises."""

from __future__ import annotations

import warnings
from pathlib import Path

import nbformat
import papermill
import pytest
from gatebook.kernels import engine, kernels
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import papermill_io

CELLS = 30


class Counting:
    """Keeps what papermill writes to counted://."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, text: str, _: str) -> None:
        self.written.append(text)

    def pretty_path(self, path: str) -> str:
        return path


@pytest.mark.parametrize("last", ["print('last')", "raise ValueError('last')"])
def test_it_is_written_seldom_and_whole_at_its_end(tmp_path: Path, last: str) -> None:
    cells = [make(f"{number}") for number in range(CELLS // 2) for make in (new_markdown_cell, new_code_cell)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = new_notebook(cells=[*cells, new_code_cell(last)], metadata={"kernelspec": kernel})
    nbformat.write(book, tmp_path / "in.ipynb")
    counting = Counting()
    papermill_io.register("counted://", counting)
    raised = False
    with warnings.catch_warnings(), kernels(tmp_path) as started, started("in") as manager:
        warnings.simplefilter("ignore")
        try:
            papermill.execute_notebook(
                str(tmp_path / "in.ipynb"), "counted://out.ipynb", cwd=str(tmp_path), kernel_name="python3", km=manager,
                engine_name=engine(), progress_bar=False,
            )  # fmt: skip
        except PapermillExecutionError:
            raised = True
    made = nbformat.reads(counting.written[-1], as_version=4)
    ran = [cell for cell in made.cells if cell.cell_type == "code" and cell.execution_count]
    assert raised == last.startswith("raise")
    assert len(ran) == CELLS // 2 + 1 and "last" in str(ran[-1].outputs), "what is written last has every output"
    assert len(counting.written) < CELLS, "papermill alone writes it twice a cell"
