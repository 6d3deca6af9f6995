"""The pipeline file is what GitLab reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / ".gitlab-ci.yml"


def _schema_check(file: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.gitlab-ci",
        "--data-transform",
        "gitlab-ci",
        str(file),
    ]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_pipeline_fits_gitlabs_schema() -> None:
    done = _schema_check(PIPELINE)
    assert done.returncode == 0, done.stdout


def test_the_schema_check_can_fail(tmp_path: Path) -> None:
    pipeline = yaml.safe_load(PIPELINE.read_text())
    pipeline["run"]["retry"]["max"] = 7
    broken = tmp_path / ".gitlab-ci.yml"
    broken.write_text(yaml.safe_dump(pipeline))
    assert _schema_check(broken).returncode != 0


def test_yaml_has_no_duplicate_keys() -> None:
    files = [PIPELINE, *sorted((ROOT / "params").rglob("*.yaml"))]
    rules = "{extends: relaxed, rules: {line-length: disable, key-duplicates: enable}}"
    done = subprocess.run(
        [sys.executable, "-m", "yamllint", "-d", rules, *map(str, files)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_jobs_call_only_make_and_gatebook() -> None:
    pipeline = yaml.safe_load(PIPELINE.read_text())
    lines = [line for job in ("check", "run", "verdict") for line in pipeline[job]["script"]]
    assert all(line.startswith(("make ", ".venv/bin/gatebook ", "apt-get update")) for line in lines)


def test_what_gitlab_shows_has_fixed_names_and_is_kept_for_red_runs() -> None:
    artifacts = yaml.safe_load(PIPELINE.read_text())["run"]["artifacts"]
    assert artifacts["when"] == "always"
    assert artifacts["paths"] == ["outputs/latest/"]
    assert artifacts["reports"]["junit"] == "outputs/latest/junit.xml"


def test_needed_jobs_exist_and_only_exit_75_is_retried() -> None:
    pipeline = yaml.safe_load(PIPELINE.read_text())
    assert {need["job"] for need in pipeline["verdict"]["needs"]} <= pipeline.keys()
    assert pipeline["run"]["retry"]["exit_codes"] == [75]
    assert pipeline["verdict"]["when"] == "always"
