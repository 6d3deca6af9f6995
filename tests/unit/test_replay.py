"""What of a bundle's notebook is replayed: our code, with plain values as its parameters."""

from __future__ import annotations

import pytest
from gatebook.commands.replay import PARAMETERS, Cell, Foreign, _with_plain_values, literal


@pytest.mark.parametrize(
    "source",
    [
        "a = 1\nb = [1, {'x': None}]",
        "# a note\na = 'two\\nlines'",
        "a = 1  # ends here\u2028b = 2",
        "a = 1\x0c\nb = '\u2028'",
        "",
    ],
)
def test_parameters_of_released_code_are_written_anew_as_what_python_reads(source: str) -> None:
    """IPython ends lines where Python does not: what is a comment here is code there."""
    cell = _with_plain_values("01_health", 1, Cell(source, (PARAMETERS,)))
    read: dict[str, object] = {}
    exec(source, {}, read)
    assert dict(literal(cell.source) or []) == read
    assert len(cell.source.splitlines()) == len(read), "a line for each value"


@pytest.mark.parametrize(
    "source", ["import os", "a = open('x')", "_a = 1", "a.b = 1", "a += 1", "a = b", "%time", "a, b = 1, 2"]
)
def test_parameters_that_do_anything_else_are_not_replayed(source: str) -> None:
    assert literal(source) is None
    with pytest.raises(Foreign, match="changed cell 3 of 01_health"):
        _with_plain_values("01_health", 3, Cell(source, (PARAMETERS,)))


def test_a_cell_that_holds_no_parameters_stays() -> None:
    cell = Cell("import os", ())
    assert _with_plain_values("01_health", 1, cell) is cell
