"""What a run takes from the history and leaves in it, with folders on disk and a real SQLite file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from gatebook.commands.accept import accept
from gatebook.commands.again import judge_again
from gatebook.entering import enter, window
from gatebook.errors import BrokenRecord, HistoryFailed
from gatebook.record.history import VARIABLE, open_history
from gatebook.record.run import Run
from gatebook.verdict.judging import judge

from tests.conftest import checkout
from tests.unit.measured import NOW, measurement
from tests.unit.replies import case, chat_body, plain, profile, ready, record, run_folder
from tests.unit.test_measured import answer

CREATED = NOW.isoformat()
UNREACHABLE = "postgresql://someone:geheim@127.0.0.1:1/gatebook"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of its own, so that no test writes into another history."""
    monkeypatch.setenv("GATEBOOK_ROOT", str(checkout(tmp_path)))
    monkeypatch.delenv(VARIABLE, raising=False)
    yield tmp_path


def made(folder: Path, text: str = "Hello there, you.", history: Any = None, **fields: Any) -> Run:
    """A finished run of one streamed group that must say Hello, and one plain one."""
    cases = [case("a", expect=[{"contains_any": ["Hello"]}]), case("b", group="g.plain")]
    by = profile({"g.h": "must", "g.plain": "watch"}, revision="rev-1")
    run = run_folder(folder, cases, by, run=folder.name, created=CREATED, **fields)
    if history is not None:
        (run.path / "history.json").write_text(json.dumps(history))
    said = answer("a/ask") if text.startswith("Hello") else plain(chat_body(text, id="a"), key="a/ask")
    record(run, "01_x", ready(), said, plain(chat_body(id="b"), key="b/ask"))
    (run.path / "verdict.json").write_text(judge(run).model_dump_json())
    run.seal()
    return run


def stored() -> list[tuple[str, str, str, bool]]:
    return [(r.run, r.group, r.verdict, r.accepted) for r in open_history().rows()]


def test_a_complete_run_enters_once(tmp_path: Path, project: Path) -> None:
    run = made(tmp_path / "r1")
    for _ in range(2):
        assert enter(run, judge(run)) == f"{project}/outputs/history.sqlite: 1 groups of r1 stored"
    assert stored() == [("r1", "g.h", "PASS", True)]


def test_a_narrowed_run_enters_nothing(tmp_path: Path) -> None:
    run = made(tmp_path / "r1", only=["01"])
    assert "is PASS PARTIAL" in enter(run, judge(run))
    assert stored() == []


def test_a_run_that_was_judged_again_does_not_count_twice(tmp_path: Path) -> None:
    run = made(tmp_path / "r1", judged_from="r0")
    assert "are those of r0" in enter(run, judge(run))
    assert stored() == []


def test_something_else_under_the_same_revision_is_not_that_revision(tmp_path: Path) -> None:
    run = made(tmp_path / "r1")
    accept(run.path, "first", None)
    old = json.loads((tmp_path / "params" / "baselines" / "unnamed.json").read_text())
    for name, revision in {"same": "rev-1", "new": "rev-0"}.items():
        accepted = {**old, "revision": revision, "fingerprint": {**old["fingerprint"], "model": "another"}}
        later = run_folder(tmp_path / name, list(run.cases.values()), run.manifest.profile, json.dumps(accepted).encode(), run=name, created=CREATED)  # fmt: skip
        record(later, "01_x", *run.exchanges("01_x"))
        assert judge(later).changes
        enter(later, judge(later))
    assert {r.run: r.revision for r in open_history().rows()} == {"r1": "rev-1", "same": "not rev-1", "new": "rev-1"}


def test_accepting_a_run_or_a_group_marks_its_rows(tmp_path: Path) -> None:
    good, other = made(tmp_path / "r1"), made(tmp_path / "r2")
    red = judge(other).model_copy(update={"verdict": "FAIL"})
    enter(other, red)
    assert stored() == [("r2", "g.h", "FAIL", False)]
    accept(good.path, "first", None)
    accept(other.path, "only the plain ones", "g.plain")
    assert stored() == [("r1", "g.h", "PASS", True), ("r2", "g.h", "FAIL", False)]
    accept(other.path, "as slow as it is", "g.h")
    assert stored()[1] == ("r2", "g.h", "PASS", True)


def test_nothing_is_accepted_when_the_history_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path / "r1")
    monkeypatch.setenv(VARIABLE, UNREACHABLE)
    with pytest.raises(HistoryFailed, match="postgresql://127.0.0.1:1/gatebook") as caught:
        accept(run.path, "first", None)
    assert "geheim" not in str(caught.value) and not (tmp_path / "params" / "baselines").exists()


def test_the_window_of_a_run_is_that_of_its_profile_suite_and_groups(tmp_path: Path) -> None:
    rows = [measurement(6, run="r1"), measurement(8, run="old"), measurement(1, run="r2", group="g.other"), measurement(1, run="r3", suite="demo")]  # fmt: skip
    open_history().enter([row.model_copy(update={"profile": "unnamed"}) for row in rows])
    by = profile({"g.h": "watch"})
    found = window(by, "full", ["g.h", "g.h"], CREATED)
    assert isinstance(found, list) and [row.run for row in found] == ["r1"]
    longer = by.model_copy(update={"limits": by.limits.model_copy(update={"history_days": 9.0})})
    found = window(longer, "full", ["g.h"], CREATED)
    assert isinstance(found, list) and [row.run for row in found] == ["old", "r1"]


def test_a_run_keeps_the_window_that_it_was_planned_with(tmp_path: Path) -> None:
    rows = [measurement(1), measurement(0.5, run="r2", revision=None)]
    cases, by = [case("a")], profile({"g.h": "watch"})
    plan = made(tmp_path / "plan").manifest
    with_rows = Run.create(tmp_path / "x", plan, cases + [case("b")], None, rows)
    assert Run(with_rows.path).history == rows and with_rows.history_trouble is None
    none_yet = Run.create(tmp_path / "y", plan, cases + [case("b")], None, [])
    assert none_yet.history == [] and (none_yet.path / "history.json").read_text() == "[]"
    assert run_folder(tmp_path / "z", cases, by).history == []


def test_a_history_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, UNREACHABLE)
    said = window(profile({"g.h": "watch"}), "full", ["g.h"], CREATED)
    assert isinstance(said, str) and "geheim" not in said
    run = Run.create(tmp_path / "x", made(tmp_path / "plan").manifest, [case("a"), case("b")], None, said)
    assert run.history == []
    assert run.history_trouble and run.history_trouble.startswith("history could not be read: history postgresql://127.0.0.1:1/gatebook: connection failed")  # fmt: skip


@pytest.mark.parametrize("content", ["{", '{"x": 1}', "3", '[{"run": "r"}]', "[1]"])
def test_a_damaged_snapshot_is_a_broken_record(tmp_path: Path, content: str) -> None:
    run = made(tmp_path / "r1")
    (run.path / "history.json").write_text(content)
    with pytest.raises(BrokenRecord, match=r"history\.json: is no snapshot of a history"):
        _ = Run(run.path).history


def test_the_snapshot_is_sealed_and_goes_along_when_a_run_is_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "gatebook.runner._execute", lambda run, notebook, kernels: []
    )  # kernels have nothing to do with it
    rows = [measurement().model_dump(mode="json")]
    run = made(tmp_path / "r1", history=rows)
    assert "history.json" in (run.path / "SHA256SUMS").read_text()
    (run.path / "history.json").write_text(json.dumps(rows) + " ")
    assert run.damage() == ["history.json was changed"]
    run.seal()
    again, _ = judge_again(run.path, run.manifest.profile, tmp_path / "again")
    assert again.history == run.history == [measurement()]
    twice, _ = judge_again(again.path, run.manifest.profile, tmp_path / "twice")
    assert twice.manifest.judged_from == "r1"
    assert stored() == []


def test_the_window_reaches_back_from_the_run_and_not_from_today(tmp_path: Path) -> None:
    open_history().enter([measurement(400, run="long-ago", profile="unnamed")])
    found = window(profile({"g.h": "watch"}), "full", ["g.h"], (NOW - timedelta(days=399)).isoformat())
    assert isinstance(found, list) and [row.run for row in found] == ["long-ago"]
