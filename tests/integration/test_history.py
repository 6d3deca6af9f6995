"""The history, by the real command on a real server: entered, taken along, shared by runners, and away."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gatebook.config.profile import load_profile, with_target
from gatebook.opening import open_run
from gatebook.record.exchange import Measurement
from gatebook.record.history import History, database_url
from gatebook.record.run import Run

from tests.conftest import Done, Project
from tests.integration.test_latency import CASE, CHAT, LATENCY, steady_server
from tests.postgresql import PASSWORD, new_database

WORD = "geheim-of-the-history"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server with a fixed schedule: what is measured does not hang on the machine."""
    with steady_server() as url:
        yield url


@pytest.fixture
def project(project: Project) -> Project:
    """One notebook with one timed group, which is judged by the week before."""
    project.write_cases([{**CASE, "notebook": "01_health"}])
    project.edit_profile(
        target={"server": "external", "model": "steady", "revision": "rev-1", "context_tokens": None},
        groups={CHAT: "must", "latency.contract": "must"}, latency=LATENCY, limits={"request_deadline_s": 20, "ready_deadline_s": 20},
    )  # fmt: skip
    return project


def rows_of(project: Project, url: str | None = None) -> list[Measurement]:
    file = project.root / "outputs" / "history.sqlite"
    return History(database_url(url or f"sqlite:///{file}")).rows()


def test_a_green_run_is_what_the_next_one_is_compared_with(
    project: Project, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = project.run(server)
    first = done.run
    assert done.code == 0, done
    assert json.loads((first / "history.json").read_text()) == []
    [entered] = rows_of(project)
    assert (entered.run, entered.group, entered.verdict, entered.accepted) == (first.name, CHAT, "PASS", True)
    assert entered.revision == "rev-1" and entered.n == len(entered.ttft_ms) == 30  # of 32, two are the warm-up

    monkeypatch.setenv("GATEBOOK_ROOT", str(project.root))
    profile = with_target(load_profile(project.profile), base_url=server, revision="rev-2")
    assert open_run(profile, server, "smoke", None, out=project.root / "outputs").history == [entered]

    (project.root / "outputs" / "history.sqlite").unlink()
    verified = project.gatebook("verify", first)
    assert verified.code == 0, verified
    (first / "history.json").write_text("[ ]")
    assert Run(first).damage() == ["history.json was changed"]


def test_a_history_that_is_away_is_not_green_and_costs_neither_the_run_nor_its_rows(
    project: Project, server: str
) -> None:
    away = {"GATEBOOK_HISTORY_URL": f"postgresql://someone:{WORD}@127.0.0.1:1/gatebook"}
    done = project.run(server, env=away)
    assert done.verdict["verdict"] == "INCONCLUSIVE" and done.code == 3, done  # without a history it would be green
    assert "history could not be read: history postgresql://127.0.0.1:1/gatebook" in done.verdict["reason"]
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
    assert [(row.run, row.verdict) for row in rows_of(project)] == [(done.run.name, "INCONCLUSIVE")]


def test_a_wrong_url_is_bad_input_before_anything_is_asked(project: Project) -> None:
    done = project.run("http://127.0.0.1:9/v1", env={"GATEBOOK_HISTORY_URL": f"mysql://u:{WORD}@h/d"})
    assert done.code == 2 and "GATEBOOK_HISTORY_URL" in done.err and WORD not in done.err, done
    assert not list((project.root / "outputs").glob("20*"))


def test_two_runners_at_once_share_one_postgresql(project: Project, server: str, postgresql: str) -> None:
    url = new_database(postgresql, "shared-by-runners")
    shared = {"GATEBOOK_HISTORY_URL": url}
    command = project.command("run", "--profile", project.profile, "--base-url", server, "--out")
    folders = [project.root / "outputs" / name for name in ("one", "two")]
    started = [
        subprocess.Popen([*command, folder], cwd=project.root, env={**project.environment, **shared}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for folder in folders
    ]  # fmt: skip
    said = [process.communicate(timeout=240) for process in started]
    done = [Done(p.returncode, out, err, f) for p, (out, err), f in zip(started, said, folders, strict=True)]
    rows = rows_of(project, url)
    for one in done:
        assert "warning" not in one.err and PASSWORD not in one.out + one.err, one
        assert [row.group for row in rows if row.run == one.run.name] == [CHAT], one
    assert not _holding(PASSWORD, project.root / "outputs")


def _holding(word: str, folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and word.encode() in p.read_bytes()]
