"""`gatebook passed`: what a deployment asks of a bundle, and everything that it must not take for a yes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from gatebook.commands.passed import passed
from gatebook.errors import BrokenRecord
from gatebook.record.run import Run

from tests.conftest import Done, Project, small_project
from tests.faults.proxy import Fault, FaultProxy

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two cases, and deadlines that a busy machine keeps."""
    found = small_project(tmp_path)
    found.choose("model-served", "canary-water")
    found.edit_profile(limits={"request_deadline_s": 60, "ready_deadline_s": 10, "transport_retries": 0})
    return found


def _passed(project: Project, run: Path, suite: str = "smoke", revision: str = DIGEST) -> Done:
    return project.gatebook("passed", run, "--suite", suite, "--revision", revision)


def test_only_the_intact_bundle_of_this_suite_and_digest_has_passed(project: Project, server: str) -> None:
    run = project.ask(server, revision=DIGEST).run
    done = _passed(project, run)
    assert done.code == 0, done
    assert done.out.startswith("passed, PASS")
    assert project.gatebook("passed", run, "--suite", "smoke").code == 0, "no revision asked for"

    other = _passed(project, run, suite="scenario")
    assert (other.code, "asked for is 'scenario'" in other.err) == (2, True), other
    other = _passed(project, run, revision="sha256:" + "b" * 64)
    assert (other.code, "asked for is 'sha256:bbb" in other.err) == (2, True), other
    for blank in ("", " "):
        other = _passed(project, run, revision=blank)
        assert (other.code, "--revision is empty" in other.err) == (2, True), other
        asked = project.run(server, "--revision", blank)
        assert (asked.code, "key 'revision'" in asked.err) == (2, True), asked
    assert _passed(project, project.root / "outputs" / "nothing").code == 2
    assert _passed(project, run, suite="smok").code == 2

    for name, edit in EDITS.items():
        copy = project.root / "outputs" / name
        shutil.copytree(run, copy)
        edit(copy)
        with pytest.raises(BrokenRecord):
            pytest.fail(f"{name}: {passed(copy, 'smoke', revision=DIGEST)}")
    assert _passed(project, copy).code == 75


def _write(run: Path, name: str, old: str, new: str) -> None:
    text = (run / name).read_text()
    assert old in text
    (run / name).write_text(text.replace(old, new, 1))


def _sealed(run: Path) -> None:
    """As one would who edits a bundle and knows of the checksums."""
    Run(run).seal()


def _greener(run: Path) -> None:
    _write(run, "verdict.json", '"reason"', '"reason" ')
    _write(run, "verdict.json", '"partial":', '"partial" :')
    verdict = json.loads((run / "verdict.json").read_text())
    (run / "verdict.json").write_text(json.dumps({**verdict, "reason": "all is well"}))
    _sealed(run)


EDITS = {
    "edited-verdict": lambda run: _write(run, "verdict.json", "PASS", "FAIL"),
    "edited-verdict-sealed-again": _greener,
    "edited-record": lambda run: _write(run, "01_health.exchanges.jsonl", '"status": 200', '"status": 201'),
    "record-gone": lambda run: (run / "01_health.exchanges.jsonl").unlink(),
    "record-gone-sealed-again": lambda run: ((run / "01_health.exchanges.jsonl").unlink(), _sealed(run)),
    "verdict-gone-sealed-again": lambda run: ((run / "verdict.json").unlink(), _sealed(run)),
    "never-sealed": lambda run: (run / "SHA256SUMS").unlink(),
    "plan-torn": lambda run: (run / "manifest.json").write_text("{"),
}


@pytest.mark.parametrize(
    ("fault", "arguments", "code", "word"),
    [
        (Fault("garbage"), (), 1, "NOT PASSED, FAIL"),
        (Fault("unavailable"), (), 75, "NOT PASSED, ERROR"),
        (None, ("01",), 3, "NOT PASSED, PASS PARTIAL"),
    ],
    ids=["red", "error", "partial"],
)
def test_what_is_not_a_whole_green_run_has_not_passed(
    project: Project, server: str, fault: Fault | None, arguments: tuple[str, ...], code: int, word: str
) -> None:
    with FaultProxy(server.removesuffix("/v1"), [fault] if fault else []) as proxy:
        made = project.ask(proxy.base_url, *arguments, revision=DIGEST)
    done = _passed(project, made.run)
    assert done.code == code, done
    assert done.out.startswith(word), done


def test_what_lies_where_runs_should_go_is_neither_deleted_nor_written_into(project: Project, server: str) -> None:
    run = project.ask(server).run
    other = project.root / "thesis" / "latest" / "chapter.txt"
    other.parent.mkdir(parents=True)
    other.write_text("years of work")
    for out in (other.parent.parent, run, run / "deeper", project.root / "outputs" / "latest"):
        asked = project.run(server, "--out", str(out))
        judged = project.gatebook("judge", run, "--profile", project.profile, "--out", out / "new")
        for done in (asked, judged):
            assert (done.code, "choose another --out" in done.err) == (2, True), done
    assert other.read_text() == "years of work" and Run(run).damage() == []
    assert [p.name for p in (project.root / "thesis").iterdir()] == ["latest"]
