"""Golden answers on the real llama.cpp: green against itself, red by name with coarser weights, and no pass where values are broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from gatebook.record.logprobs import Scored, read_scored
from gatebook.record.run import Run

from tests.conftest import PATIENT, Project, shipped_cases, small_project
from tests.faults.degraded import degraded_server

GROUP = "fingerprint.golden"
CASES = [
    case.id
    for case in shipped_cases().values()
    if case.scored and "demo" in case.suites and case.tags["language"] != "zh"
][:14]
CHINESE = "golden-zh-tea"
pytestmark = pytest.mark.timeout(600)


def compared(project: Project, *ids: str) -> Project:
    project.choose("model-served", *ids)
    project.edit_profile(groups={GROUP: "no_worse"}, limits=PATIENT)
    return project


@pytest.fixture(scope="module")
def accepted(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose baseline has golden answers; the first run lacked them, and accepting it mended that."""
    project = compared(small_project(tmp_path_factory.mktemp("golden")), *CASES)
    first = project.ask(server)
    assert (first.code, first.verdict["needs_baseline"]) == (3, True), first.reasons
    assert "gatebook accept" in first.out, first
    project.accept(first.run)
    yield project


def test_the_same_server_is_green_and_its_values_are_the_same(accepted: Project, server: str) -> None:
    done = accepted.ask(server)
    assert done.code == 0, done.reasons
    [told] = [note for note in done.verdict["notes"] if note.startswith(GROUP)]
    assert f"over {len(CASES)} texts" in told and "not shown worse" in told


def test_coarser_weights_know_less(accepted: Project, tmp_path: Path) -> None:
    with degraded_server({"weights": "coarser"}, tmp_path) as url:
        done = accepted.ask(url, revision="coarser")
    assert done.code == 1, done.reasons
    assert done.verdict["reason"].startswith(f"{GROUP}: knows less: golden answers -"), done.verdict["reason"]


def test_the_record_holds_the_tokens_and_what_they_were_read_from(accepted: Project) -> None:
    run = Run(sorted(p.parent for p in (accepted.root / "outputs").glob("20*/manifest.json"))[0])
    asked = [e for e in run.exchanges("05_fingerprint") if e.kind == "ask" and e.case in CASES]
    assert len(asked) == len(CASES) and all(isinstance(read_scored(e), Scored) for e in asked)
    assert all("sha256" in (e.text or "") for e in asked)


def test_parts_of_characters_are_left_out_by_name(project: Project, server: str) -> None:
    done = compared(project, *CASES[:8], CHINESE).ask(server)
    assert done.code == 3, done.reasons
    [finding] = [f for f in done.verdict["findings"] if f["case"] == CHINESE]
    assert (finding["outcome"], finding["check"]) == ("not_measured", "asked")
    assert "part of a character" in finding["reason"]


def test_a_profile_that_does_not_name_the_group_is_not_judged_by_it(project: Project, server: str) -> None:
    project.choose("model-served", *CASES[:8])
    project.edit_profile(limits=PATIENT)
    data: dict[str, Any] = {**yaml.safe_load(project.profile.read_text())}
    del data["groups"][GROUP]
    project.profile.write_text(yaml.safe_dump(data, allow_unicode=True))
    done = project.ask(server)
    assert done.code == 0, done.reasons
