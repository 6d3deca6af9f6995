"""An executed notebook that did not run to its end says so, whatever papermill and nbval think."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gatebook.record.executed import unfinished

GATE = "book.gate()"


def code(source: str | list[str], count: int | None, error: str | None = None) -> dict[str, Any]:
    name, _, value = (error or "").partition(": ")
    outputs = [{"output_type": "error", "ename": name, "evalue": value, "traceback": []}] if error else []
    return {"cell_type": "code", "source": source, "execution_count": count, "metadata": {}, "outputs": outputs}


PROSE = {"cell_type": "markdown", "source": "# words", "metadata": {}}
SAID: dict[str, tuple[list[dict[str, Any]], str | None]] = {
    "all cells ran": ([PROSE, code("a = 1", 1), PROSE, code(GATE, 2)], None),
    "the gate raised": ([code("a = 1", 1), code(GATE, 2, "NotGreen: FAIL: 2 of 3 fail")], None),
    "empty cells are no cells": ([code("a = 1", 1), code("", None), code(" \n", None), code([GATE], 2)], None),
    "source as a list of lines": ([code(["a = 1\n", "b = 2"], 1), code(["# the end\n", "book.gate()"], 2)], None),
    "an unrun cell": ([code("a = 1", 1), code("b = 2", None), code(GATE, 3)], "nb: cell 2 of 3 did not run"),
    "an unrun gate": ([code("a = 1", 1), code(GATE, None)], "nb: cell 2 of 2 did not run"),
    "an error in the middle": ([code("1/0", 1, "ZeroDivisionError: division\n by zero"), code(GATE, None)], "nb: cell 1 of 2 raised ZeroDivisionError: division by zero"),
    "a gate in the middle": ([code(GATE, 1, "NotGreen: FAIL"), code(GATE, 2)], "nb: cell 1 of 2 raised NotGreen: FAIL"),
    "SystemExit half way": ([code("a = 1", 1), code("sys.exit(0)", 2, "SystemExit: 0"), code(GATE, None)], "nb: cell 2 of 3 raised SystemExit: 0"),
    "SystemExit in the gate": ([code("a = 1", 1), code(GATE, 2, "SystemExit: 0")], "nb: cell 2 of 2 raised SystemExit: 0"),
    "another error in the gate": ([code(GATE, 1, "BrokenRecord: edited")], "nb: cell 1 of 1 raised BrokenRecord: edited"),
    "no gate": ([code("a = 1", 1), code("print(1)", 2)], "nb: its last cell is not the gate"),
    "something that only sounds like the gate": ([code("a = 1", 1), code("aggregate(a)", 2)], "nb: its last cell is not the gate"),
    "a gate in a comment": ([code("a = 1", 1), code("# book.gate()", 2)], "nb: its last cell is not the gate"),
    "a last cell that is no Python": ([code("a = 1", 1), code("'\ud800'\nbook.gate()", 2)], "nb: its last cell is not the gate"),
    "no cells": ([], "nb: the notebook has no code cells"),
    "prose alone": ([PROSE], "nb: the notebook has no code cells"),
}  # fmt: skip


@pytest.mark.parametrize(("cells", "said"), SAID.values(), ids=SAID.keys())
def test_how_far_a_notebook_ran(tmp_path: Path, cells: list[dict[str, Any]], said: str | None) -> None:
    file = tmp_path / "nb.ipynb"
    file.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    assert unfinished(file) == said


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"cells": 5}', b'{"cells": [5]}', b'{"cells": [{}]}', b"\xff\xfe", b'{"cells": null}',
     b'{"cells": [{"cell_type": "code", "source": "book.gate()", "execution_count": 1, "outputs": null}]}',
     b'{"cells": [{"cell_type": "code", "source": "book.gate()", "execution_count": 1, "outputs": [5]}]}'],
)  # fmt: skip
def test_what_is_no_notebook_is_not_finished(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "nb.ipynb").write_bytes(content)
    assert unfinished(tmp_path / "nb.ipynb") == "nb: the executed notebook cannot be read"


def test_a_missing_notebook_is_not_finished(tmp_path: Path) -> None:
    assert unfinished(tmp_path / "nb.ipynb") == "nb: there is no executed notebook"
