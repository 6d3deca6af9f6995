"""The pipeline file is what GitLab reads, and what the emulator cannot show of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / ".gitlab-ci.yml"
FILES = [PIPELINE, ROOT / "deploy" / "gpu.gitlab-ci.yml", ROOT / "deploy" / "fleet.gitlab-ci.yml"]
TIERS = ("unit", "integration", "scenario", "nightly")


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    """Every job with what it extends and the defaults; hidden jobs are gone."""
    raw: dict[str, Any] = yaml.safe_load(PIPELINE.read_text())
    keywords = ("include", "stages", "workflow", "variables", "default")
    return {name: _whole(raw, name) for name in raw if name not in keywords and not name.startswith(".")}


def _whole(raw: dict[str, Any], name: str) -> dict[str, Any]:
    job = raw[name]
    above = _whole(raw, job["extends"]) if "extends" in job else raw["default"]
    return {**above, **job, "variables": {**above.get("variables", {}), **job.get("variables", {})}}


def _schema_check(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.gitlab-ci"]
    return subprocess.run(
        [*command, "--data-transform", "gitlab-ci", *map(str, files)], capture_output=True, text=True
    )  # fmt: skip


def test_the_pipeline_fits_gitlabs_schema() -> None:
    done = _schema_check(*FILES)
    assert done.returncode == 0, done.stdout


def test_the_schema_check_can_fail(tmp_path: Path) -> None:
    broken = tmp_path / ".gitlab-ci.yml"
    broken.write_text(PIPELINE.read_text().replace("max: 1", "max: 7"))
    assert _schema_check(broken).returncode != 0


def test_yaml_has_no_duplicate_keys() -> None:
    files = [*FILES, *sorted((ROOT / "deploy").rglob("*.yaml")), *sorted((ROOT / "params").rglob("*.yaml"))]
    rules = "{extends: relaxed, rules: {line-length: disable, key-duplicates: enable}}"
    done = subprocess.run(
        [sys.executable, "-m", "yamllint", "-d", rules, *map(str, files)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_stages_are_the_way_from_commit_to_staging(pipeline: dict[str, Any]) -> None:
    stages = yaml.safe_load(PIPELINE.read_text())["stages"]
    assert stages == ["check", "build", "unit", "integration", "scenario", "verdict", "publish", "deploy"]
    assert {job["stage"] for job in pipeline.values()} == set(stages)


def test_jobs_call_only_make(pipeline: dict[str, Any]) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [line for job in pipeline.values() for line in (*job["script"], *job.get("after_script", []))]
    assert lines
    for line in lines:
        command, *words = line.split()
        assert command == "make"
        assert set(words) <= targets, line


def test_needed_jobs_exist_and_come_earlier(pipeline: dict[str, Any]) -> None:
    """The emulator finds a missing one; this finds one that a rule can leave out and no `optional` allows for."""
    stages = yaml.safe_load(PIPELINE.read_text())["stages"]
    always = {name for name, job in pipeline.items() if "rules" not in job}
    for name, job in pipeline.items():
        for need in job.get("needs", []):
            assert stages.index(pipeline[need["job"]]["stage"]) < stages.index(job["stage"]), (name, need)
            same_rules = name == "deploy-staging" and need["job"] in ("scenario", "build-image")
            certain = need["job"] in always or need["job"] in ("verdict", "integration") or same_rules
            assert certain or need.get("optional"), (name, need)


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_holds_the_gpu_alone_is_retried_for_75_only_and_keeps_its_evidence(
    pipeline: dict[str, Any], tier: str
) -> None:
    job = pipeline[tier]
    assert job["resource_group"] == "gpu"
    assert job["retry"]["exit_codes"] == [75]
    assert not {"script_failure", "always", "unknown_failure"} & set(job["retry"]["when"])
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["access"] == "developer", "prompts and answers are in it"
    assert job["after_script"] == ["make stop"], "also when the job is cancelled"
    kept = [c for c in job["cache"] if "$CI_PIPELINE_ID" in str(c["key"])]
    assert [(c["when"], c["paths"]) for c in kept] == [("always", job["artifacts"]["paths"])]
    assert "allow_failure" not in job


def test_only_tiers_are_retried_for_an_exit_code(pipeline: dict[str, Any]) -> None:
    for name, job in pipeline.items():
        retried = isinstance(job["retry"], dict) and "exit_codes" in job["retry"]
        assert retried == (name in TIERS), name
    assert pipeline["deploy-staging"]["retry"] == 0


def test_the_history_has_one_writer(pipeline: dict[str, Any]) -> None:
    caches = {
        name: [c for c in ([job["cache"]] if isinstance(job["cache"], dict) else job["cache"]) if c["key"] == "history"]
        for name, job in pipeline.items()
    }
    writers = [name for name, found in caches.items() if any(c.get("policy") != "pull" for c in found)]
    assert writers == ["pages"]
    assert pipeline["pages"]["resource_group"] == "history"
    assert [rule["if"] for rule in pipeline["pages"]["rules"]] == ["$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"]


def test_the_verdict_runs_after_red_tiers_and_asks_for_every_tier_of_its_pipeline(pipeline: dict[str, Any]) -> None:
    verdict = pipeline["verdict"]
    assert all(rule["when"] == "always" for rule in verdict["rules"])
    suites = {pipeline[tier]["variables"]["SUITE"] for tier in TIERS}
    assert {suite for rule in verdict["rules"] for suite in rule["variables"]["TIERS"].split()} == suites
    assert {need["job"] for need in verdict["needs"]} >= set(TIERS)
    assert "allow_failure" not in verdict


def test_what_gitlab_shows_has_fixed_names_and_is_kept_for_red_runs(pipeline: dict[str, Any]) -> None:
    artifacts = pipeline["verdict"]["artifacts"]
    assert artifacts["when"] == "always"
    assert artifacts["paths"][0] == "outputs/latest/", "expose_as takes no variable and a folder ends in /"
    assert artifacts["paths"][1:] == ["outputs/latest.sig"], "deploy-staging demands the seal again"
    assert artifacts["expose_as"] == "gatebook"
    assert artifacts["reports"] == {"junit": "outputs/latest/junit.xml", "metrics": "outputs/latest/metrics.txt"}


def test_a_person_deploys_one_at_a_time_and_nothing_interrupts_it(pipeline: dict[str, Any]) -> None:
    for name in ("deploy-staging", "rollback-staging"):
        job = pipeline[name]
        assert {rule["when"] for rule in job["rules"]} == {"manual"}
        assert job["resource_group"] == "staging"
        assert job["interruptible"] is False
        assert job["environment"]["name"] == "staging"
    needs = {need["job"]: need for need in pipeline["deploy-staging"]["needs"]}
    assert needs.keys() == {"verdict", "scenario", "build-image"}
    assert not any(need.get("optional") for need in needs.values())
    assert "allow_failure" not in pipeline["deploy-staging"]["rules"][0]


def test_no_secret_is_given_a_value() -> None:
    for file in FILES:
        given = re.findall(
            r"^\s*(\w*(?:KEY|TOKEN|PASSWORD|SECRET|WRITER_URL|HISTORY_URL)\w*):\s*(\S+)", file.read_text(), re.MULTILINE
        )
        assert given == [], "secrets are masked variables of the project"
