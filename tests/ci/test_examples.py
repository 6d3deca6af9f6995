"""The examples of deploy/examples: they name commands and options that exist, obey the exit code, and publish summary.md."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from gatebook.cli import app
from gatebook.config.profile import SUITES

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "deploy" / "examples"
FILES = sorted(EXAMPLES.iterdir())
PODS = [EXAMPLES / "kubernetes-job.yaml", EXAMPLES / "argo-analysis.yaml"]
PROOF = "**PASS**: may"
LAST_WORDS = "/dev/termination-log"


def commands(file: Path) -> list[list[str]]:
    """Every call of gatebook in a file, wherever it stands."""
    lines = [line.split(" #")[0].strip() for line in file.read_text().splitlines()]
    found = [
        re.search(r"(?:\.venv/bin/)?\bgatebook (run|report|archive|passed|verify)\b.*", line)
        for line in lines
        if not line.startswith("#")
    ]
    return [shlex.split(one[0].split(";")[0]) for one in found if one]


def script(file: Path) -> str:
    """The shell script of the only container."""
    data = yaml.safe_load(file.read_text())
    spec = data["spec"] if data["kind"] == "Job" else data["spec"]["metrics"][0]["provider"]["job"]["spec"]
    container = spec["template"]["spec"]["containers"][0]
    assert container["command"] == ["sh", "-c"] and len(container["args"]) == 1
    return container["args"][0]


def test_all_of_them_are_looked_at() -> None:
    assert [file.name for file in FILES] == ["argo-analysis.yaml", "github-actions.yml", "kubernetes-job.yaml"]


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.name)
def test_commands_options_suites_and_profiles_exist(file: Path) -> None:
    called = commands(file)
    assert called and yaml.safe_load(file.read_text())
    for _, name, *words in called:
        known = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
        options = {option for parameter in known.params for option in parameter.opts}
        given = dict(zip(words[::2], words[1::2], strict=True))
        assert given.keys() <= options, file.name
        assert given["--suite"] in SUITES and (ROOT / given["--profile"]).is_file()
        assert "--only" not in given, "a narrowed run exits 0 too"


def test_the_workflow_fits_githubs_schema_and_publishes_whatever_happened() -> None:
    file = EXAMPLES / "github-actions.yml"
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    steps = yaml.safe_load(file.read_text())["jobs"]["gate"]["steps"]
    gate = next(n for n, step in enumerate(steps) if "gatebook run" in step.get("run", ""))
    assert (
        not any("continue-on-error" in step for step in steps)
        and "||" not in steps[gate]["run"]
        and "if" not in steps[gate]
    )
    proof, *after = steps[gate + 1 :]
    assert set(proof) == {"run"} and proof["run"] == f"head -1 outputs/latest/summary.md | grep -F '{PROOF}'"
    assert all(step["if"] == "always()" for step in after)
    assert (
        after[0]["run"] == 'cat outputs/latest/summary.md >> "$GITHUB_STEP_SUMMARY"'
        and after[1]["with"]["path"] == "outputs/latest/"
    )


def test_a_job_is_complete_only_when_the_verdict_is_pass_and_is_tried_again_only_for_75() -> None:
    spec = yaml.safe_load(PODS[0].read_text())["spec"]
    assert spec["podFailurePolicy"]["rules"] == [
        {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [75]}}
    ]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    metric: dict[str, Any] = yaml.safe_load(PODS[1].read_text())["spec"]["metrics"][0]
    assert not {"failureLimit", "inconclusiveLimit", "consecutiveErrorLimit"} & metric.keys(), (
        "the first failure aborts"
    )
    assert metric["provider"]["job"]["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize("code", [0, 1, 2, 3, 75, 130])
@pytest.mark.parametrize("file", PODS, ids=lambda p: p.name)
def test_the_shell_ends_as_gatebook_does_and_says_this_runs_summary(file: Path, code: int, tmp_path: Path) -> None:
    """A command of that name ends with each status; an older summary never speaks for a run that left none."""
    old = tmp_path / "outputs" / "latest"
    old.mkdir(parents=True)
    (old / "summary.md").write_text("old PASS")
    new = f"{PROOF} x ship?" if code == 0 else "new"
    writes = f"mkdir -p outputs/latest; echo '{new}' > outputs/latest/summary.md" if code not in (2, 130) else "true"
    assert ended(file, tmp_path, writes, code) == (code, f"{new}\n" if code not in (2, 130) else "")


@pytest.mark.parametrize(
    "writes", ["true", "mkdir -p outputs/latest; echo '**FAIL**: may x ship?' > outputs/latest/summary.md"]
)
@pytest.mark.parametrize("file", PODS, ids=lambda p: p.name)
def test_a_status_of_0_without_a_green_summary_is_not_green(file: Path, writes: str, tmp_path: Path) -> None:
    assert ended(file, tmp_path, writes, 0)[0] == 75


def ended(file: Path, tmp_path: Path, writes: str, code: int) -> tuple[int, str]:
    """(its status, the pod's last words) where gatebook writes that and ends so."""
    (tmp_path / "gatebook").write_text(f"#!/bin/sh\n{writes}\nexit {code}\n")
    (tmp_path / "gatebook").chmod(0o755)
    words = tmp_path / "last words"
    words.write_text("")
    text = script(file).replace(LAST_WORDS, shlex.quote(str(words)))
    assert LAST_WORDS in script(file)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "BASE_URL": "http://x/v1", "REVISION": "r"}
    done = subprocess.run(["sh", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True)
    return done.returncode, words.read_text()


@pytest.mark.parametrize("file", PODS, ids=lambda p: p.name)
def test_what_it_mounts_and_runs_is_the_workbooks_image(file: Path) -> None:
    image = (ROOT / "deploy" / "workbook" / "Dockerfile").read_text()
    assert "WORKDIR /opt/gatebook\n" in image and "USER 1000\n" in image
    assert "mountPath: /opt/gatebook/outputs" in file.read_text() and "fsGroup: 1000" in file.read_text()
