"""00_explore and docs/cases.md as people use them: on a real run, with the real command and the real server."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from gatebook.commands.explore import Explorer
from gatebook.commands.verify import verify
from gatebook.record.journal import read_journal

from tests.conftest import PATIENT, ROOT, Project

GUIDE = (ROOT / "docs" / "cases.md").read_text(encoding="utf-8")
FILES = re.findall(r"^`([\w./]+)`:\n\n```(?:yaml|csv)\n(.*?)```", GUIDE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]


def test_the_notebook_for_people_runs_after_a_run_and_saves_nothing(project: Project) -> None:
    """With the embedded server that it starts itself, as the run had it."""
    empty = _papermill(project)
    assert empty.returncode == 1 and "outputs/ holds no run yet; make one with `make demo`" in empty.stderr
    project.edit_profile(limits={"request_deadline_s": 30, "ready_deadline_s": 30})
    done = project.gatebook("run", "--profile", project.profile, "--only", "greeting-nihao")
    assert done.code == 0, done
    before = {path: path.read_bytes() for path in (project.root / "params").rglob("*.yaml")}
    ran = _papermill(project)
    assert ran.returncode == 0, ran.stderr
    cells = nbformat.read(project.root / "out.ipynb", as_version=4).cells
    shown = {cell.id: str(cell.outputs) for cell in cells if cell.cell_type == "code"}
    assert (
        "greeting-nihao" in shown["cases"] and "finish_reason" in shown["ask"] and "- id: my-greeting" in shown["draft"]
    )
    assert verify(done.run, replay=False).reproduced, "the run is as it was"
    assert before == {path: path.read_bytes() for path in (project.root / "params").rglob("*.yaml")}
    [record] = (project.root / "outputs" / "explore").glob("*.jsonl")
    assert len(read_journal(record, done.run.name)) == 1


def test_asked_again_saved_checked_and_run(project: Project, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project.edit_profile(limits=PATIENT)
    done = project.ask(server, "greeting-nihao", "token-counts")
    assert done.code == 0, done
    monkeypatch.setenv("GATEBOOK_ROOT", str(project.root))
    explore = Explorer()
    again = explore.ask("greeting-nihao", user="Say the word blue.", max_tokens=16, temperature=None)
    sent = again.exchange.body or {}
    assert (sent["messages"][-1]["content"], sent["max_tokens"], "temperature" in sent) == (
        "Say the word blue.",
        16,
        False,
    )
    assert again.text and again.findings[0].check == "length_chars" and again.exchange.events is not None
    plain = explore.ask(user="Say hello.", system="Be brief.", stream=False, max_tokens=8)
    assert plain.text and [m["role"] for m in plain.messages] == ["system", "user"] and plain.findings == []
    assert len(read_journal(next((project.root / "outputs" / "explore").glob("*.jsonl")), done.run.name)) == 2
    assert verify(done.run, replay=False).reproduced
    saved = explore.save(
        "say-blue", why="it can repeat a word", answered=again, good=["Blue."], bad=[""], suites=["smoke"]
    )
    assert "params/cases/small.yaml" in saved, "the file of the case that it came from"
    assert project.gatebook("cases", "check", "--allow-missing").code == 0
    assert project.ask(server, "say-blue").code in (0, 1)
    down = _down(project, explore)
    assert "cannot connect" in repr(down)


def _down(project: Project, explore: Explorer) -> object:
    explore._base_url = "http://127.0.0.1:9/v1"
    return explore.ask("greeting-nihao")


@pytest.mark.parametrize("name", [name for name, _ in FILES if name.startswith("params/cases/")])
def test_every_case_file_of_the_guide_is_right(project: Project, name: str) -> None:
    (project.root / name).write_text(dict(FILES)[name], encoding="utf-8")
    done = project.gatebook("cases", "check", "--every-check", name)
    assert done.code in (0, 1) and not done.err, done
    assert [
        line for line in done.out.splitlines() if "answer" in line and "fails no bad" not in line and "case '" in line
    ] == []


def test_the_commands_of_the_guide_do_what_it_says(project: Project) -> None:
    root = project.root
    shutil.copytree(ROOT / "params", root / "params", dirs_exist_ok=True)
    (root / "params" / "cases" / "small.yaml").unlink()
    shutil.copytree(ROOT / "docs" / "schema", root / "docs" / "schema")
    for name, text in FILES:
        (root / name).write_text(text, encoding="utf-8")
    profile = root / "params" / "smollm2.yaml"
    data = yaml.safe_load(profile.read_text())
    [policy] = re.findall(r"under `groups`:\n\n```yaml\n(.*?)```", GUIDE, re.DOTALL)
    data["groups"] |= yaml.safe_load(policy)
    profile.write_text(yaml.safe_dump(data, allow_unicode=True))
    assert len(COMMANDS) >= 8
    for line in COMMANDS:
        program, *arguments = shlex.split(line, comments=True)
        if program == "check-jsonschema":
            done = subprocess.run([sys.executable, "-m", "check_jsonschema", *arguments], cwd=root, capture_output=True)
            assert done.returncode == 0, (line, done)
            continue
        assert program == "gatebook"
        ran = project.gatebook(*arguments)
        if arguments[0] == "accept":
            assert ran.code == 2 and "PARTIAL" in ran.err, "what was run here is one case; a complete run is accepted"
        else:
            assert ran.code in ((0, 1) if arguments[0] == "run" else (0,)), (line, str(ran))
    assert "params/cases/shop.yaml: 1 case, 2 good and 2 bad answers tried\n" in GUIDE


def _papermill(project: Project) -> subprocess.CompletedProcess[str]:
    notebook = Path("notebooks") / "00_explore.ipynb"
    return subprocess.run(
        [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "-k", "python3"],
        cwd=project.root, env=project.environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
