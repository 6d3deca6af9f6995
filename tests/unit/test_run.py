"""The run folder: never written over, sealed, and honest about damage."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from gatebook.errors import BadInput, BrokenRecord
from gatebook.record.run import Run
from gatebook.record.shelf import check_latest, copy_to_latest, drop_latest, new_name
from gatebook.verdict.judging import judge
from hypothesis import given
from hypothesis import strategies as st

from tests.forging import edit
from tests.unit.replies import case, plain, profile, record, run_folder
from tests.unit.runs import bundle

CASES = [case("a"), case("b"), case("c", notebook="02_y")]


def sealed(folder: Path) -> Run:
    run = run_folder(folder, CASES, profile(), b'{"a": 1}')
    record(run, "01_x", plain("hi", key="a/ask"))
    (run.path / "texts").mkdir()
    (run.path / "texts" / "deep name.txt").write_text("x")
    run.seal()
    return run


def test_a_run_is_read_as_it_was_planned(tmp_path: Path) -> None:
    run_folder(tmp_path / "r", CASES, profile(), b'{"a": 1}')
    run = Run(tmp_path / "r")
    assert run.notebooks == ["01_x", "02_y"]
    assert [c.id for c in run.expected("01_x")] == ["a", "b"] and run.expected("03_z") == []
    assert run.cases == {c.id: c for c in CASES}
    assert (run.path / "baseline.json").read_text() == '{"a": 1}'
    assert run.exchanges("01_x") == [] and not run.manifest.partial


def test_an_existing_folder_is_never_written_over(tmp_path: Path) -> None:
    run = sealed(tmp_path / "r")
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    with pytest.raises(BadInput, match="exists already.*choose another --out"):
        run_folder(run.path, CASES[:1], profile())
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be made"):
        run_folder(tmp_path / "file" / "r", CASES, profile())


@pytest.mark.parametrize("name", ["empty", "none", "file"])
def test_what_is_no_run_folder_is_bad_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="not a run folder"):
        Run(tmp_path / name)


DAMAGED_PLANS: dict[str, Callable[[Path], object]] = {
    "manifest cut": lambda p: (p / "manifest.json").write_text((p / "manifest.json").read_text()[:50]),
    "manifest empty": lambda p: (p / "manifest.json").write_text(""),
    "manifest no mapping": lambda p: (p / "manifest.json").write_text("[]"),
    "manifest not UTF-8": lambda p: (p / "manifest.json").write_bytes(b"\xff\xfe"),
    "manifest with another key": lambda p: (p / "manifest.json").write_text('{"x": 1, ' + (p / "manifest.json").read_text()[1:]),
    "judged from a run without a name": lambda p: (p / "manifest.json").write_text(json.dumps({**json.loads((p / "manifest.json").read_text()), "judged_from": ""})),
    "a look in effort normal": lambda p: (p / "manifest.json").write_text(json.dumps({**json.loads((p / "manifest.json").read_text()), "look": {"later": ["a"]}})),
    "effort quick without a look": lambda p: (p / "manifest.json").write_text(json.dumps({**json.loads((p / "manifest.json").read_text()), "effort": "quick"})),
    "cases missing": lambda p: (p / "cases.json").unlink(),
    "cases cut": lambda p: (p / "cases.json").write_text("[{"),
    "cases no list": lambda p: (p / "cases.json").write_text("null"),
    "cases a number": lambda p: (p / "cases.json").write_text("5"),
    "cases of numbers": lambda p: (p / "cases.json").write_text("[5]"),
    "an expected case gone": lambda p: (p / "cases.json").write_text(json.dumps(json.loads((p / "cases.json").read_text())[:1])),
    "cases not UTF-8": lambda p: (p / "cases.json").write_bytes(b"[\xff]"),
}  # fmt: skip


@pytest.mark.parametrize("harm", DAMAGED_PLANS.values(), ids=DAMAGED_PLANS.keys())
def test_a_damaged_plan_is_a_broken_record(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    harm(sealed(tmp_path / "r").path)
    with pytest.raises(BrokenRecord):
        Run(tmp_path / "r")


def test_edited_cases_no_longer_fit_their_record(tmp_path: Path) -> None:
    run = sealed(tmp_path / "r")
    file = run.path / "cases.json"
    file.write_text(file.read_text().replace("a test", "another test"))
    with pytest.raises(BrokenRecord, match="line 1"):
        Run(run.path).exchanges("01_x")


def test_an_intact_bundle_has_no_damage_and_fits_sha256sum(tmp_path: Path) -> None:
    run = sealed(tmp_path / "r")
    assert run.sealed and run.damage() == []
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=run.path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": OK") == sum(p.is_file() for p in run.path.rglob("*")) - 1


def test_a_moved_bundle_stays_intact(tmp_path: Path) -> None:
    run = sealed(tmp_path / "r")
    shutil.move(run.path, tmp_path / "elsewhere")
    assert Run(tmp_path / "elsewhere").damage() == []


DAMAGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "one byte": (lambda p: (p / "texts/deep name.txt").write_text("y"), ["texts/deep name.txt was changed"]),
    "a file gone": (lambda p: (p / "baseline.json").unlink(), ["baseline.json is missing"]),
    "a file more": (lambda p: (p / "texts/new.txt").write_text(""), ["texts/new.txt was added"]),
    "renamed": (lambda p: (p / "baseline.json").rename(p / "b.json"), ["baseline.json is missing", "b.json was added"]),
    "no sums": (lambda p: (p / "SHA256SUMS").unlink(), ["SHA256SUMS is missing: the run did not finish, or someone took it away"]),
    "scratch files": (lambda p: ((p / ".ipynb_checkpoints").mkdir(), (p / ".ipynb_checkpoints/x").write_text("")), []),
}  # fmt: skip


@pytest.mark.parametrize(("harm", "said"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_named(tmp_path: Path, harm: Callable[[Path], object], said: list[str]) -> None:
    run = sealed(tmp_path / "r")
    harm(run.path)
    assert run.damage() == said


@given(st.data())
def test_no_changed_byte_of_a_sealed_bundle_passes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("bundle") / "r"
    run = sealed(folder)
    file = data.draw(st.sampled_from(sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())))
    raw = bytearray((folder / file).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1), label="byte")] ^= data.draw(st.integers(1, 255), label="bits")
    (folder / file).write_bytes(raw)
    assert run.damage() != []


@pytest.mark.parametrize(
    ("at", "byte"), [(-1, b"\x0b"), (-1, b"\r"), (10, b"\xff")], ids=["line end to VT", "line end to CR", "no UTF-8"]
)
def test_the_sums_themselves_are_guarded(tmp_path: Path, at: int, byte: bytes) -> None:
    run = sealed(tmp_path / "r")
    raw = bytearray((run.path / "SHA256SUMS").read_bytes())
    raw[at : at + 1 or None] = byte
    (run.path / "SHA256SUMS").write_bytes(raw)
    assert run.damage() != []


def test_an_unsealed_run_can_be_sealed_again(tmp_path: Path) -> None:
    run = sealed(tmp_path / "r")
    run.unseal()
    run.unseal()
    assert not run.sealed
    record(run, "02_y", plain("hi", key="c/ask"))
    run.seal()
    assert run.damage() == [] and len(run.exchanges("02_y")) == 1


def test_latest_is_a_copy_of_the_newest_run_and_nothing_else(tmp_path: Path) -> None:
    first, second = sealed(tmp_path / "r1"), sealed(tmp_path / "r2")
    (first.path / "only-in-first.txt").write_text("")
    first.seal()
    for run in (first, second):
        latest = copy_to_latest(run)
        assert latest == tmp_path / "latest" and Run(latest).damage() == []
    assert {p.relative_to(tmp_path / "latest") for p in (tmp_path / "latest").rglob("*")} == {
        p.relative_to(second.path) for p in second.path.rglob("*")
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "r1", "r2"]


def test_without_records_nothing_is_left_to_judge_and_the_run_is_unharmed(tmp_path: Path) -> None:
    run = sealed(tmp_path / "r")
    assert run.without_records().exchanges("01_x") == []
    assert len(run.exchanges("01_x")) == 1


def test_names_are_sortable_and_safe() -> None:
    assert new_name("Qwen/Qwen3 4B…").split("Z-")[1].startswith("qwen-qwen3-4b-")
    assert new_name("中文").split("Z-")[1].startswith("profile-")
    assert new_name("p") != new_name("p")


@pytest.mark.parametrize("where", ["r", "r/texts", "r/not/there/yet", "latest"])
def test_no_run_is_made_in_a_run_or_in_its_copy(tmp_path: Path, where: str) -> None:
    run = sealed(tmp_path / "r")
    with pytest.raises(BadInput, match="choose another --out"):
        Run.create(tmp_path / where / "new", run.manifest, CASES, None)
    with pytest.raises(BadInput, match="choose another --out"):
        Run.create(tmp_path / "latest", run.manifest, CASES, None)
    assert run.damage() == [] and not (tmp_path / "latest").exists()


def test_the_copy_of_the_last_run_is_replaced(tmp_path: Path) -> None:
    for name in ("r", "s"):
        run = sealed(tmp_path / name)
        assert copy_to_latest(run) == tmp_path / "latest"
        assert Run(tmp_path / "latest").manifest.run == run.manifest.run
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "r", "s"]


def test_a_link_named_latest_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    run, kept = sealed(tmp_path / "r"), tmp_path / "kept"
    kept.mkdir()
    (kept / "thesis.txt").write_text("years of work")
    (tmp_path / "latest").symlink_to(kept)
    copy_to_latest(run)
    assert (kept / "thesis.txt").exists() and not (tmp_path / "latest").is_symlink()
    assert Run(tmp_path / "latest").damage() == []


@pytest.mark.parametrize("folder", [True, False])
def test_something_else_named_latest_is_never_deleted(tmp_path: Path, folder: bool) -> None:
    run, other = sealed(tmp_path / "r"), tmp_path / "latest"
    if folder:
        other.mkdir()
        (other / "manifest.json").write_text("{}")  # of a web page
        other = other / "thesis.txt"
    other.write_text("years of work")
    for act in (lambda: check_latest(tmp_path), lambda: drop_latest(tmp_path), lambda: copy_to_latest(run)):
        with pytest.raises(BadInput, match="is no copy of a run"):
            act()
    assert other.read_text() == "years of work"


def test_an_empty_folder_named_latest_is_taken(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    copy_to_latest(sealed(tmp_path / "r"))
    assert Run(tmp_path / "latest").damage() == []


@pytest.mark.parametrize(
    ("name", "mib"), [("manifest.json", 129), ("01_x.exchanges.jsonl", 257), ("01_x.ipynb", 129), ("texts/a.txt", 129)]
)
def test_a_bundle_that_holds_more_than_is_read_is_refused_unread(tmp_path: Path, name: str, mib: int) -> None:
    run = sealed(tmp_path / "r")
    (run.path / name).parent.mkdir(exist_ok=True)
    with (run.path / name).open("ab") as file:
        file.truncate(mib << 20)
    with pytest.raises(BrokenRecord, match=rf"{name}: has {mib << 20:,} bytes; {mib - 1} MiB at most are read"):
        Run(run.path)


def test_a_pipe_in_a_bundle_is_not_waited_for(tmp_path: Path) -> None:
    run = sealed(tmp_path / "r")
    os.mkfifo(run.path / "troubles.json")
    with pytest.raises(BrokenRecord, match=r"troubles\.json is a link or no file at all"):
        Run(run.path)


def test_names_of_damage_are_one_visible_line(tmp_path: Path) -> None:
    run = sealed(tmp_path / "r")
    (run.path / "a\x1b[2K\npassed, PASS").write_text("")
    assert run.damage() == ["a\\x1b[2K\\npassed, PASS was added"]
    assert str(BadInput("a\r\nb\u202e")) == "a\\x0d\\nb\\u202e"


FORGED_PLANS: dict[str, tuple[Callable[[dict], object], str]] = {
    "another model": (lambda m: m["profile"]["target"].update(model="cheap"), "asked for model 'm1', and the manifest names 'cheap'"),
    "a case not expected": (lambda m: m["expected"]["01_x"].remove("c3"), "was asked case 'c3', and the manifest does not expect it"),
    "an early look at a run that asked everything": (
        lambda m: m["expected"]["01_x"].remove("c3") or m.update(effort="quick", look={"later": ["c3"]}), "was asked case 'c3', and the manifest does not expect it"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("forge", "said"), FORGED_PLANS.values(), ids=FORGED_PLANS.keys())
def test_a_record_of_another_plan_is_no_evidence(tmp_path: Path, forge: Callable[[dict], object], said: str) -> None:
    run = bundle(tmp_path / "r", {"c3": "No."})
    edit(run.path / "manifest.json", forge)
    with pytest.raises(BrokenRecord, match=re.escape(said)):
        judge(Run(run.path))
