"""What a person may take as the measure of later runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gatebook.commands.accept import accept
from gatebook.commands.passed import not_accepted
from gatebook.errors import BadInput, BrokenRecord
from gatebook.record.run import Run
from gatebook.record.shelf import held
from gatebook.verdict.baseline import Baseline, read_baseline
from gatebook.verdict.causes import refusals
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Verdict

from tests.conftest import checkout
from tests.unit.replies import case, chat_body, good_chunks, plain, profile, ready, record, run_folder, streamed, timing

ASKED = [{"role": "user", "content": "Hi"}]
GROUPS = {"g.h": "no_worse", "g.i": "must"}


class Project:
    """A place for baselines, and runs of twelve compared cases and one that must pass."""

    def __init__(self, root: Path) -> None:
        self.root = checkout(root)

    @property
    def baseline(self) -> Baseline:
        file = self.root / "params" / "baselines" / "unnamed.json"
        found = read_baseline(file.read_bytes(), str(file))
        assert found is not None
        return found

    def run(
        self,
        name: str,
        failing: int = 0,
        must: str = "Hello",
        groups: Any = None,
        troubles: list[str] | None = None,
        asked: int = 12,
        **manifest: Any,
    ) -> Path:
        hello = [{"contains_any": ["Hello"]}]
        cases = [case(f"c{n}", expect=hello) for n in range(asked)] + [case("m", group="g.i", expect=hello)]
        old = self.root / "params" / "baselines" / "unnamed.json"
        run = run_folder(
            self.root / name,
            cases,
            profile(groups or GROUPS),
            old.read_bytes() if old.exists() else None,
            run=name,
            **manifest,
        )
        texts = {f"c{n}": "No." if n < failing else "Hello" for n in range(asked)} | {"m": must}
        last_one = f"c{asked - 1}"
        replies = [plain(chat_body(text, id=f"id-{i}"), key=f"{i}/ask") for i, text in texts.items() if i != last_one]
        stream = streamed(
            [{**piece, "id": "id-s"} for piece in good_chunks()],
            key=f"{last_one}/ask",
            timing=timing(first_token_ms=20.0, last_token_ms=60.0, end_ms=61.0),
        )
        last = ready("deadline", status=None, text=None, detail="no answer") if must == "hang" else replies.pop()
        record(run, "01_x", *([last] if must == "hang" else [ready(), *replies, stream, last]))
        (run.path / "verdict.json").write_text(judge(run, troubles=troubles).model_dump_json())
        run.seal()
        return run.path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("GATEBOOK_ROOT", str(tmp_path))
    monkeypatch.setenv("GITLAB_USER_LOGIN", "li")
    return Project(tmp_path)


def test_a_first_run_that_lacks_only_a_baseline_is_accepted_and_then_passes(project: Project) -> None:
    first = project.run("r1", failing=2)
    assert judge(Run(first)).needs_baseline
    said = accept(first, " the model as bought ", None)
    assert "13 cases of r1 accepted as the first baseline" in said
    kept = project.baseline
    assert (kept.run, kept.reason, kept.model) == ("r1", "the model as bought", "m1")
    assert {i: c.outcome for i, c in kept.cases.items()} == {
        f"c{n}": "fail" if n < 2 else "pass" for n in range(12)
    } | {"m": "pass"}
    assert kept.latency_ms["ttft"] == 20.0
    again = judge(Run(project.run("r2", failing=3)))
    assert again.verdict == "PASS" and again.groups[1].comparison and again.groups[1].comparison.worse == ["c2"]


def test_what_a_smaller_suite_does_not_ask_stays_accepted_while_the_project_has_it(project: Project) -> None:
    accept(project.run("r1", failing=2, suite="full"), "first", None)
    told = [
        {"id": i, "notebook": "01_x", "group": "g.h", "suites": ["full"], "why": "w", "messages": ASKED}
        for i in ("c10", "m")
    ]
    (project.root / "params" / "cases" / "x.yaml").write_text(json.dumps(told))
    said = accept(project.run("r2", failing=1, asked=10, suite="smoke"), "smoke alone", None)
    assert "11 cases of r2 accepted" in said and "kept: 1 cases that suite smoke does not ask" in said
    assert "gone: c11" in said, "it is in no case file any more"
    now = project.baseline
    assert set(now.cases) == {*(f"c{n}" for n in range(11)), "m"} and now.suite == "full"
    assert now.cases["c1"].outcome == "pass" and now.log[-1].gone == ["c11"]


def test_a_passing_run_replaces_the_baseline_and_says_what_changed(project: Project) -> None:
    accept(project.run("r1", failing=2), "first", None)
    assert "(1 outcomes changed, 0 cases new, 0 gone since r1)" in accept(project.run("r2", failing=3), "second", None)
    assert project.baseline.run == "r2"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a FAIL": ({"must": "No."}, "is FAIL"),
    "a server that was not reached": ({"must": "hang"}, "is ERROR"),
    "our own trouble": ({"troubles": ["01_x: its kernel died"]}, "is ERROR"),
    "a PARTIAL run": ({"only": ["01"]}, "it is PARTIAL .* without --only"),
    "a group that can never be proven": (
        {"failing": 8, "groups": {"g.h": {"policy": "proven_no_worse", "margin": 0.1}, "g.i": "must"}},
        "g.h: only 4 of 12 pass: too few ever to exclude a drop: add cases, or set the group to no_worse or watch",
    ),
}


@pytest.mark.parametrize(("run", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_may_not_be_accepted(project: Project, run: dict[str, Any], said: str) -> None:
    path = project.run("r1", **run)
    with pytest.raises(BadInput, match=said):
        accept(path, "because", None)
    assert not (project.root / "params" / "baselines").exists()


def test_a_group_in_which_too_few_pass_to_be_compared_is_accepted_and_said_to_be_compared_with_nothing(
    project: Project,
) -> None:
    """A small model fails many business cases, and its gate must come to green all the same."""
    first = judge(Run(project.run("r1", failing=8)))
    assert first.needs_baseline and "nothing of it will be compared" in "\n".join(first.reasons)
    accept(project.root / "r1", "what it can do", None)
    for number, failing in enumerate((8, 7, 12)):
        said = judge(Run(project.run(f"r{number + 2}", failing=failing)))
        assert (said.verdict, [g.group for g in said.groups if g.blind]) == ("PASS", ["g.h"])
        assert (
            "nothing is compared where too few cases passed in the baseline to show a drop: g.h (4 of 12)" in said.notes
        )


def test_all_that_is_in_the_way_is_said_at_once_and_is_what_the_run_said(project: Project) -> None:
    path = project.run("r1", must="No.", only=["01"], troubles=["01_x: its kernel died"])
    with pytest.raises(BadInput) as caught:
        accept(path, "because", None)
    told = refusals(Verdict.model_validate_json((path / "verdict.json").read_bytes()))
    said = "; ".join(f"{one.text}: {one.todo}" for one in told)
    assert len(told) == 3 and str(caught.value).endswith(f"is FAIL PARTIAL and not accepted: {said}")


def test_a_reason_is_required(project: Project) -> None:
    with pytest.raises(BadInput, match="--reason is empty"):
        accept(project.run("r1"), "  ", None)


def test_an_edited_run_is_not_accepted(project: Project) -> None:
    path = project.run("r1")
    file = path / "01_x.exchanges.jsonl"
    file.write_text(file.read_text().replace("No.", "Hello"))
    (path / "verdict.json").write_text((path / "verdict.json").read_text() + " ")
    with pytest.raises(BrokenRecord, match="verdict.json was changed"):
        accept(path, "because", None)


def test_an_unfinished_run_is_not_accepted(project: Project) -> None:
    path = project.run("r1")
    Run(path).unseal()
    with pytest.raises(BrokenRecord, match="SHA256SUMS is missing"):
        accept(path, "because", None)


def test_a_verdict_file_that_says_pass_does_not_help_a_run_that_fails(project: Project) -> None:
    path = project.run("r1", must="No.")
    told = json.loads((path / "verdict.json").read_text())
    (path / "verdict.json").write_text(json.dumps({**told, "verdict": "PASS", "exit_code": 0, "reasons": []}))
    Run(path).seal()
    with pytest.raises(BadInput, match="is FAIL"):
        accept(path, "because", None)


def test_one_group_takes_over_its_cases_only(project: Project) -> None:
    accept(project.run("r1"), "first", None)
    later = project.run("r2", failing=6, must="No.")
    assert judge(Run(later)).verdict == "FAIL"
    accept(later, "smaller model", "g.h")
    kept = project.baseline
    assert (kept.cases["c0"].outcome, kept.cases["m"].outcome) == ("fail", "pass")
    assert kept.reason == "g.h: smaller model (before: first)" and kept.run == "r1"


def test_one_group_needs_a_baseline_and_a_group_of_the_run(project: Project) -> None:
    path = project.run("r1")
    with pytest.raises(BadInput, match="no baseline yet"):
        accept(path, "because", "g.h")
    accept(path, "first", None)
    with pytest.raises(BadInput, match="'g.zz'.*it has g.contract, g.h, g.i"):
        accept(path, "because", "g.zz")
    with pytest.raises(BadInput, match="could not be measured is not accepted|ERROR"):
        accept(project.run("r2", must="hang"), "because", "g.h")


def test_every_acceptance_says_who_why_and_what_changed(project: Project) -> None:
    accept(project.run("r1", failing=2), "first", None)
    told = accept(project.run("r2", failing=3, groups={"g.h": "no_worse", "g.i": "must"}), "second", None, by="wang")
    first, second = project.baseline.log
    assert (first.by, first.run, first.reason, first.newly_failing, first.added) == ("li", "r1", "first", [], [])
    assert (second.by, second.run, second.reason) == ("wang", "r2", "second")
    assert (second.newly_failing, second.newly_passing, second.gone) == (["c2"], [], [])
    assert "by wang: second" in told and "NEWLY FAILING: c2" in told
    accept(project.run("r3", failing=1), "third", "g.h")
    third = project.baseline.log[2]
    assert (third.group, third.newly_passing) == ("g.h", ["c1", "c2"])
    assert project.baseline.log[:2] == [first, second], "what was written stays"


def test_a_new_revision_and_a_new_engine_stand_in_the_log(project: Project) -> None:
    accept(project.run("r1"), "first", None)
    file = project.root / "params" / "baselines" / "unnamed.json"
    old = project.baseline
    changed = old.model_copy(update={"fingerprint": {**old.fingerprint, "engine": "sglang"}, "revision": "r-old"})
    file.write_text(changed.to_json())
    accept(project.run("r2"), "moved to another engine", None)
    assert project.baseline.log[-1].fingerprint[0] == "revision changed: was r-old, is none named"
    assert any("engine changed: engine was sglang" in text for text in project.baseline.log[-1].fingerprint)


def test_a_baseline_from_before_the_log_keeps_what_it_said(project: Project) -> None:
    accept(project.run("r1"), "first", None)
    file = project.root / "params" / "baselines" / "unnamed.json"
    file.write_text(project.baseline.model_copy(update={"log": []}).to_json())
    accept(project.run("r2"), "second", None)
    assert [(e.by, e.run, e.reason) for e in project.baseline.log] == [
        ("not recorded", "r1", "first"),
        ("li", "r2", "second"),
    ]


def test_nobody_accepts_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatebook.commands.accept.person", lambda: None)
    with pytest.raises(BadInput, match="--by is missing"):
        accept(project.run("r1"), "because", None)
    assert "by wang" in accept(project.run("r2"), "because", None, by="wang")


def test_a_moved_run_is_accepted_as_well(project: Project) -> None:
    moved = project.root / "elsewhere"
    shutil.move(project.run("r1"), moved)
    assert "of r1 accepted" in accept(moved, "because", None)


def test_an_older_baseline_in_a_red_bundle_does_not_make_it_pass(project: Project) -> None:
    """It is in the log, and in git; what counts is the accepted one."""
    accept(project.run("r1", failing=8), "the engine was broken", None)
    old = (project.root / "params" / "baselines" / "unnamed.json").read_bytes()
    accept(project.run("r2"), "mended", None)
    red = Run(project.run("r3", failing=8))
    assert judge(red).verdict == "FAIL"
    (red.path / "baseline.json").write_bytes(old)
    rolled = Run(red.path)
    assert judge(rolled).verdict == "PASS"
    said = str(not_accepted(rolled, rolled.manifest.profile))
    assert "is an older entry of the log" in said and "by the accepted one (r2) it is FAIL: g.h: " in said

    before = Run(project.run("r4"))
    accept(project.run("r5"), "another one since", None)
    assert not_accepted(before, before.manifest.profile) is None, "by the newer one it is green too"


def test_of_several_at_once_each_is_in_the_log(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run = project.run("r1")
    command = [sys.executable, "-m", "gatebook", "accept", str(run), "--reason"]
    started = [subprocess.Popen([*command, f"by {n}"]) for n in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert {entry.reason for entry in project.baseline.log} == {"by 0", "by 1", "by 2"}
    assert {file.name for file in (project.root / "params").iterdir()} == {"cases", "baselines"}
    monkeypatch.setattr("gatebook.commands.accept.LOCK_TRIES", 1)
    with (
        held(project.root / "params" / "baselines", "gatebook accept"),
        pytest.raises(BadInput, match=r"baselines: is in use by gatebook accept of li .*wait for it"),
    ):
        accept(run, "late", None)
