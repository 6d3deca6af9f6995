"""The history, by the real command on a real server: entered, taken along, shared by runners, and away."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from gatebook.record.run import Run

from tests.conftest import Done, Project, small_project
from tests.postgresql import PASSWORD, new_database

WORD = "geheim-of-the-history"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One notebook with one streamed group."""
    found = small_project(tmp_path)
    cases = yaml.safe_load((found.root / "params" / "cases" / "small.yaml").read_text())
    found.write_cases([case for case in cases if case["id"] in ("model-served", "canary-water")])
    return found


def rows_of(project: Project, env: dict[str, str] | None = None) -> list[dict[str, str]]:
    done = project.gatebook("history", "export", project.root / "rows.csv", env=env)
    assert done.code == 0, done
    lines = (project.root / "rows.csv").read_text().splitlines()
    return [dict(zip(lines[0].split(","), line.split(","), strict=False)) for line in lines[1:]]


def test_a_green_run_is_what_the_next_one_is_compared_with(project: Project, server: str) -> None:
    done = project.run(server)
    first = done.run
    assert done.code == 0, done
    assert json.loads((first / "history.json").read_text()) == []
    entered = rows_of(project)
    assert [(row["run"], row["group"], row["accepted"]) for row in entered] == [(first.name, "health.canaries", "True")]

    narrowed = project.run(server, "--only", "health.canaries")
    assert narrowed.code == 0 and narrowed.run != first, narrowed
    [kept] = json.loads((narrowed.run / "history.json").read_text())
    assert (kept["run"], kept["group"], kept["revision"]) == (first.name, "health.canaries", "q4_1-2025-02")
    assert rows_of(project) == entered

    (project.root / "outputs" / "history.sqlite").unlink()
    verified = project.gatebook("verify", narrowed.run)
    assert verified.code == 0, verified
    (narrowed.run / "history.json").write_text("[]")
    assert Run(narrowed.run).damage() == ["history.json was changed"]
    again = project.gatebook("history", "enter", first)
    assert again.code == 0 and rows_of(project) == entered, again


def test_a_history_that_is_away_costs_neither_the_run_nor_its_rows(project: Project, server: str) -> None:
    away = {"GATEBOOK_HISTORY_URL": f"postgresql://someone:{WORD}@127.0.0.1:1/gatebook"}
    done = project.run(server, env=away)
    assert done.verdict["verdict"] == "PASS" and done.code == 0, done  # nothing here is judged by the past
    warnings = [line for line in done.err.splitlines() if line.startswith("gatebook: warning: ")]
    assert len(warnings) == 2, done.err
    assert "history could not be read: history postgresql://127.0.0.1:1/gatebook" in warnings[0]
    assert warnings[0].endswith("what is compared with past runs is not measured")
    assert f"when that is mended: gatebook history enter {done.run}" in warnings[1]
    assert "connection failed" in json.loads((done.run / "history.json").read_text())["could_not_be_read"]
    assert not [p for p in done.run.rglob("*") if p.is_file() and WORD.encode() in p.read_bytes()]
    assert WORD not in done.out + done.err

    asked = project.gatebook("history", "list", env=away)
    assert asked.code == 75 and WORD not in asked.err and len(asked.err.splitlines()) == 1, asked
    assert project.gatebook("history", "enter", done.run).code == 0
    assert {row["run"] for row in rows_of(project)} == {done.run.name}


def test_a_wrong_url_is_bad_input_before_anything_is_asked(project: Project) -> None:
    done = project.run("http://127.0.0.1:9/v1", env={"GATEBOOK_HISTORY_URL": f"mysql://u:{WORD}@h/d"})
    assert done.code == 2 and "GATEBOOK_HISTORY_URL" in done.err and WORD not in done.err, done
    assert not list((project.root / "outputs").glob("20*"))


def test_two_runners_at_once_share_one_postgresql(project: Project, server: str, postgresql: str) -> None:
    shared = {"GATEBOOK_HISTORY_URL": new_database(postgresql, "shared-by-runners")}
    command = project.command("run", "--profile", project.profile, "--base-url", server, "--out")
    folders = [project.root / "outputs" / name for name in ("one", "two")]
    started = [
        subprocess.Popen([*command, folder], cwd=project.root, env={**project.environment, **shared}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for folder in folders
    ]  # fmt: skip
    said = [process.communicate(timeout=240) for process in started]
    done = [Done(p.returncode, out, err, f) for p, (out, err), f in zip(started, said, folders, strict=True)]
    rows = rows_of(project, shared)
    for one in done:
        assert "warning" not in one.err and PASSWORD not in one.out + one.err, one
        groups = sorted(row["group"] for row in rows if row["run"] == one.run.name)
        assert groups and len(groups) == len(set(groups)), one
    assert not _holding(PASSWORD, project.root / "outputs")


def _holding(word: str, folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and word.encode() in p.read_bytes()]
