"""Every cell of every notebook runs on any record: narrowed to one group, answered alike, cut off, or empty."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest
from gatebook.config.cases import Case
from gatebook.config.profile import load_profile, with_target
from gatebook.config.selection import in_steps
from gatebook.record.exchange import Exchange
from gatebook.record.run import Run

from tests.conftest import ROOT, shipped_cases
from tests.inprocess import run_cells
from tests.unit.replies import MODEL, chat_body, exchange, plain, ready, record, run_folder

BY_GROUP: dict[tuple[str, str], list[Case]] = defaultdict(list)
PROFILE = with_target(load_profile(ROOT / "params" / "smollm2.yaml"), model=MODEL)
for one in in_steps(shipped_cases().values(), PROFILE.load):
    BY_GROUP[one.notebook, one.group].append(one)
ANSWER = "Paris: 42, 是的。\n- a\n- b"


def made(folder: Path, notebook: str, cases: list[Case], answered: bool) -> Run:
    run = run_folder(folder / "run", cases, PROFILE, baseline=None)
    record(run, notebook, *([ready(), *(reply(c, a.name) for c in cases for a in c.requests())] if answered else []))
    return run


def reply(case: Case, ask: str) -> Exchange:
    key = f"{case.id}/{ask}"
    of = {"case": case.id, "ask": ask, "body": {"model": MODEL, "messages": case.messages or []}}
    if len(key) % 5 == 0:
        return exchange(key=key, status=None, fault="broken", detail="the connection broke", **of)
    return plain(chat_body(ANSWER, id=f"id-{key}"), key=key).model_copy(update=of)


def raised(run: Run, notebook: str) -> list[str]:
    """The cells that raised, and what; collect is left out, and the gate may."""
    book = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    cells = [c for c in book.cells if c.cell_type == "code" and c.id not in ("collect", "gate")]
    outputs = run_cells(cells, run, notebook)
    return [
        f"{cell.id}: {output.ename}: {output.evalue}"
        for cell, found in zip(cells, outputs, strict=True)
        for output in found
        if output.output_type == "error"
    ]


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "empty"])
@pytest.mark.parametrize(("notebook", "group"), sorted(BY_GROUP))
def test_a_run_of_one_group_shows_what_it_has(tmp_path: Path, notebook: str, group: str, answered: bool) -> None:
    cases = BY_GROUP[notebook, group][:4]
    assert raised(made(tmp_path, notebook, cases, answered), notebook) == []


@pytest.mark.parametrize(("notebook", "group"), sorted(dict(sorted(BY_GROUP)).items()))
def test_cases_without_tags_are_shown_too(tmp_path: Path, notebook: str, group: str) -> None:
    cases = [case.model_copy(update={"tags": {}}) for case in BY_GROUP[notebook, group][:3]]
    assert raised(made(tmp_path, notebook, cases, answered=True), notebook) == []


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "empty"])
def test_the_last_notebook_shows_what_there_is(tmp_path: Path, answered: bool) -> None:
    cases = BY_GROUP[next(key for key in sorted(BY_GROUP) if key[0] == "01_health")][:3]
    run = made(tmp_path, "01_health", cases, answered)
    assert raised(run, "90_verdict") == []
    assert json.loads((run.path / "manifest.json").read_text())["expected"]
