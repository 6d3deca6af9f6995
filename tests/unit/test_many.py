"""A run of very many cases: what a notebook does not show, it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from gatebook.checks.finding import Finding
from gatebook.report.summary import FEW_FINDINGS, MOST_FINDINGS, _printed
from gatebook.workbook import FEW_ROWS, MOST_ROWS, open_run

from tests.unit.test_collect import chat, planned


def findings(count: int, red: int) -> list[Finding]:
    common: dict[str, Any] = {"notebook": "01_x", "group": "g", "check": "c", "reason": "r"}
    return [
        Finding(id=f"{n:06}.c", case=f"{n:06}", outcome="fail" if n < red else "pass", **common) for n in range(count)
    ]


def test_as_many_findings_as_a_full_run_has_are_all_printed() -> None:
    found = findings(MOST_FINDINGS, 9)
    assert _printed(found) == (found, [])


@pytest.mark.parametrize("red", [0, 3, FEW_FINDINGS + 20])
def test_of_more_what_is_red_is_printed_and_the_rest_is_counted(red: int) -> None:
    found = findings(MOST_FINDINGS + 1, red)
    shown, (left,) = _printed(found)
    assert shown == found[: min(red, FEW_FINDINGS)]
    assert f"{len(found) - red:,} pass" in left and f"all {len(found):,} findings stand in verdict.json" in left
    assert ("20 fail" in left) == (red > FEW_FINDINGS)


@pytest.fixture
def options() -> Iterator[None]:
    with pd.option_context("display.max_rows", 60, "display.min_rows", 10, "display.width", 80):
        yield
    for name in ("display.max_colwidth", "display.max_columns"):
        pd.reset_option(name)


@pytest.mark.usefixtures("options")
def test_a_long_table_shows_its_ends_and_says_how_long_it_is(tmp_path: Path) -> None:
    planned(tmp_path / "run", "http://127.0.0.1:9", [chat("case")])
    open_run("01_x", {"run_dir": str(tmp_path / "run")})
    whole, long = (pd.DataFrame({"n": range(count)}) for count in (MOST_ROWS, MOST_ROWS + 1))
    assert len(repr(whole).splitlines()) == MOST_ROWS + 1
    assert repr(long).count("\n") < FEW_ROWS + 6 and f"[{MOST_ROWS + 1} rows x 1 columns]" in repr(long)
    assert f"{MOST_ROWS + 1} rows" in long._repr_html_()  # type: ignore[operator]
