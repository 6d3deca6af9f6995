"""What the archive takes in, keeps, and never shows as green."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gatebook.commands.verify import verify
from gatebook.errors import BadInput
from gatebook.record.folder import MAX_JSON_MIB
from gatebook.record.run import Run
from gatebook.report.archive import archive

from tests.unit.runs import answered, bundle


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs; tests copy what they change."""
    outputs = tmp_path_factory.mktemp("finished") / "outputs"
    bundle(outputs / "run-1", created="2026-03-01T10:00:00+00:00")
    bundle(outputs / "run-2", {"m": "No."}, created="2026-03-02T10:00:00+00:00")
    return outputs


@pytest.fixture
def outputs(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "outputs")
    return tmp_path / "outputs"


def rows(site: Path) -> dict[str, dict[str, Any]]:
    call = (site / "runs.js").read_text()
    listed = json.loads(json.loads(call[call.index(", ") + 2 : call.rindex(")")]))
    return {row["key"]: row for row in listed}


def states(site: Path) -> dict[str, str]:
    return {key: row["state"] for key, row in rows(site).items()}


def test_every_bundle_is_copied_whole_and_once(outputs: Path, tmp_path: Path) -> None:
    site = tmp_path / "public"
    assert archive(outputs, site) == ["added run-2", "added run-1", f"{site / 'index.html'}: 2 runs"]
    assert states(site) == {"run-2": "FAIL", "run-1": "INCONCLUSIVE"}
    assert Run(site / "runs" / "run-1").damage() == [], "latest/ is a copy of run-2 and no run of its own"
    before = {p: p.stat().st_mtime_ns for p in (site / "runs").rglob("*")}
    told = {p: p.stat().st_mtime_ns for p in (site / "data").glob("run-*")}
    bundle(outputs / "run-3", created="2026-03-03T10:00:00+00:00")
    assert archive(outputs, site)[0] == "added run-3"
    assert {p: p.stat().st_mtime_ns for p in before} == before, "what is there is not touched"
    assert {p: p.stat().st_mtime_ns for p in told} == told
    shutil.rmtree(outputs)
    assert list(states(site)) == ["run-3", "run-2", "run-1"]


def test_one_run_can_be_added_and_older_ones_stay(outputs: Path, tmp_path: Path) -> None:
    site = tmp_path / "public"
    archive(outputs / "run-1", site)
    assert archive(outputs / "latest", site)[0] == "added run-2", "by its own name"
    assert set(states(site)) == {"run-1", "run-2"}


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the record": (lambda p: edit(p / "01_x.exchanges.jsonl", "Hello", "HELLO"), "01_x.exchanges.jsonl was changed"),
    "the verdict made green": (lambda p: edit(p / "verdict.json", '"FAIL"', '"PASS"'), "verdict.json was changed"),
    "a file more": (lambda p: (p / "new.txt").write_text(""), "new.txt was added"),
    "no manifest to read": (lambda p: (p / "manifest.json").write_text("{"), "cannot be read"),
}  # fmt: skip


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(("harm", "said"), HARM.values(), ids=HARM.keys())
def test_a_damaged_bundle_is_shown_as_damaged(
    outputs: Path, tmp_path: Path, harm: Callable[[Path], object], said: str
) -> None:
    shutil.rmtree(outputs / "latest")
    harm(outputs / "run-2")
    site = tmp_path / "public"
    lines = archive(outputs, site)
    assert any(line.startswith("DAMAGED: run-2: ") and said in line for line in lines)
    row = rows(site)["run-2"]
    assert row["state"] == "DAMAGED" and "groups" not in row and not (site / "data" / "run-2.js").exists()
    shown = (site / "index.html").read_text()
    assert "runs/run-2/index.html" not in shown and "PASS" not in shown.split('data-key="run-2"')[1].split("</tr>")[0]


def test_a_green_verdict_that_the_record_does_not_carry_is_damage_too(outputs: Path, tmp_path: Path) -> None:
    shutil.rmtree(outputs / "latest")
    for old, new in (('"verdict": "FAIL"', '"verdict": "PASS"'), ('"exit_code": 1', '"exit_code": 0')):
        edit(outputs / "run-2" / "verdict.json", old, new)
    Run(outputs / "run-2").seal()
    archive(outputs, tmp_path / "public")
    row = rows(tmp_path / "public")["run-2"]
    assert row["state"] == "DAMAGED" and row["reason"].startswith("verdict.json says PASS, the record says FAIL")


def test_damage_in_the_archive_itself_is_seen_and_mended_from_an_intact_source(outputs: Path, tmp_path: Path) -> None:
    site = tmp_path / "public"
    archive(outputs, site)
    edit(site / "runs" / "run-1" / "junit.xml", "testsuites", "testSuites")
    empty = tmp_path / "empty"
    empty.mkdir()
    archive(empty, site)
    assert states(site)["run-1"] == "DAMAGED"
    assert any(line.startswith("mended from the intact") for line in archive(outputs, site))
    assert states(site)["run-1"] == "INCONCLUSIVE"
    edit(outputs / "run-1" / "junit.xml", "testsuites", "testSuites")
    assert "the archive keeps the intact run-1" in archive(outputs, site)[0]
    assert Run(site / "runs" / "run-1").damage() == []


def test_a_run_that_was_sealed_again_stands_beside_the_older_one(outputs: Path, tmp_path: Path) -> None:
    site = tmp_path / "public"
    archive(outputs, site)
    (outputs / "run-1" / "server.log").write_text("resumed\n")
    Run(outputs / "run-1").seal()
    archive(outputs, site)
    archive(outputs, site)
    assert len(states(site)) == 3 and sum(key.startswith("run-1~") for key in states(site)) == 1
    assert not (site / "runs" / "run-1" / "server.log").exists()


def test_an_unfinished_run_is_not_green_and_is_replaced_when_it_is_finished(tmp_path: Path) -> None:
    site, outputs = tmp_path / "public", tmp_path / "outputs"
    answered(outputs / "run-1", {})
    archive(outputs, site)
    assert states(site) == {"run-1": "UNFINISHED"}
    shutil.rmtree(outputs)
    bundle(outputs / "run-1")
    archive(outputs, site)
    assert states(site) == {"run-1": "INCONCLUSIVE"}


def test_names_from_outside_stay_inside(outputs: Path, tmp_path: Path) -> None:
    shutil.rmtree(outputs / "latest")
    edit(outputs / "run-1" / "manifest.json", '"run": "run-1"', '"run": "../../evil"')
    (outputs / "run-2").rename(outputs / "<b>hé")
    edit(outputs / "<b>hé" / "manifest.json", '"run": "run-2"', '"run": ["x"]')
    site = tmp_path / "public"
    archive(outputs, site)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outputs", "public"]
    assert len(states(site)) == 2 and "run-1" in states(site)
    assert "<b>h" not in (site / "index.html").read_text()


def test_links_of_a_bundle_are_not_followed(outputs: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (outputs / "run-1" / "link.txt").symlink_to(secret)
    archive(outputs, tmp_path / "public")
    assert not (tmp_path / "public" / "runs" / "run-1" / "link.txt").exists()


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("hostile", ["pipe", "large"])
def test_a_bundle_that_cannot_be_read_leaves_out_no_other(
    outputs: Path, tmp_path: Path, hostile: str, texts: bool
) -> None:
    if hostile == "pipe":
        os.mkfifo(outputs / "run-1" / "pipe")
    else:
        with (outputs / "run-1" / "SHA256SUMS").open("r+b") as file:
            file.truncate((MAX_JSON_MIB << 20) + 1)
    said = archive(outputs, tmp_path / "public", texts)
    assert states(tmp_path / "public") == {"run-2": "FAIL", "run-1": "DAMAGED"}
    assert any("run-1" in line for line in said) and not (tmp_path / "public" / "runs" / "run-1").exists()
    assert not list((tmp_path / "public" / "runs").glob(".new-*"))


def test_a_data_file_cannot_leave_its_string(tmp_path: Path) -> None:
    hostile = "No. </script><script>alert(1)</script>'\"\\ \u2028 ${x} `"
    bundle(tmp_path / "outputs" / "run-1", {"m": hostile})
    archive(tmp_path / "outputs", tmp_path / "public")
    for file in (tmp_path / "public" / "runs.js", tmp_path / "public" / "data" / "run-1.js"):
        text = file.read_text()
        assert "<" not in text and "\u2028" not in text and len(text.splitlines()) == 1
    assert "<script>alert" not in (tmp_path / "public" / "index.html").read_text()


def test_what_is_no_place_for_an_archive(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("another site")
    for to in (outputs, tmp_path / "site"):
        with pytest.raises(BadInput, match="holds something else already"):
            archive(outputs, to)
    assert (tmp_path / "site" / "index.html").read_text() == "another site"
    with pytest.raises(BadInput, match="no such folder"):
        archive(tmp_path / "nothing", tmp_path / "public")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no run"):
        archive(tmp_path / "empty", tmp_path / "public")


def test_a_bundle_of_the_archive_can_be_checked_there(outputs: Path, tmp_path: Path) -> None:
    archive(outputs, tmp_path / "public")
    steps = {step.what: step.wrong for step in verify(tmp_path / "public" / "runs" / "run-2").steps}
    assert steps["checksums: every file is what SHA256SUMS says, none missing, none added"] is None
    assert steps["verdicts: computed again from the record, equal to the files"] is None


@pytest.mark.parametrize("to", ["run-1", "run-1/site", "run-1/a/b"])
def test_no_site_is_made_in_a_run(outputs: Path, to: str) -> None:
    for source in (outputs, outputs / "run-1"):
        with pytest.raises(BadInput, match="holds something else|lies in the run folder"):
            archive(source, outputs / to)
    assert Run(outputs / "run-1").damage() == []
