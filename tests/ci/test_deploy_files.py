"""Dockerfiles, compose file and scripts of deploy/: linted, and in step with the profile that is gated."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
SCRIPTS = [
    *(DEPLOY / name for name in ("image", "gate", "verdict", "publish", "staging")),
    *sorted((ROOT / ".ci").iterdir()),
]
SOURCED = [DEPLOY / "serving.sh", DEPLOY / "sealing.sh"]
DOCKERFILES = [DEPLOY / "served" / "Dockerfile", DEPLOY / "workbook" / "Dockerfile"]


def _run(*command: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)  # type: ignore[call-overload]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_pass_shellcheck(script: Path) -> None:
    done = _run(BIN / "shellcheck", "--external-sources", script, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("script", SOURCED, ids=lambda p: p.name)
def test_what_scripts_source_passes_shellcheck(script: Path) -> None:
    done = _run(BIN / "shellcheck", script, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_shellcheck_can_fail(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/bash\nrm -rf $1/\n")
    assert _run(BIN / "shellcheck", script).returncode == 1


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda p: p.parent.name)
def test_dockerfiles_pass_hadolint_and_pin_what_they_stand_on(file: Path) -> None:
    done = _run(BIN / "hadolint", file)
    assert done.returncode == 0, done.stdout
    text = file.read_text()
    stages = set(re.findall(r" AS (\w+)$", text, re.MULTILINE))
    bases = [name for name in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if name not in stages]
    assert bases
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", name) for name in bases), bases


def test_hadolint_can_fail(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM python\nRUN apt-get install curl\n")
    assert _run(BIN / "hadolint", file).returncode == 1


def test_the_weights_are_one_commit() -> None:
    assert re.search(r"^ARG MODEL_REVISION=[0-9a-f]{40}$", DOCKERFILES[0].read_text(), re.MULTILINE)


def test_the_workbook_is_no_root() -> None:
    assert re.findall(r"^USER (\S+)$", DOCKERFILES[1].read_text(), re.MULTILINE) == ["1000"]


def test_the_compose_file_fits_its_schema() -> None:
    file = DEPLOY / "compose.yaml"
    done = _run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    assert done.returncode == 0, done.stdout
    served = yaml.safe_load(file.read_text())["services"]["served"]
    assert "@${SERVED_DIGEST" in served["image"], "a tag can be moved"
    assert served["ports"] == ["127.0.0.1:8000:8000"]


def test_the_image_serves_with_the_limits_that_are_gated() -> None:
    served = yaml.safe_load((DEPLOY / "served" / "vllm.yaml").read_text())
    profile = yaml.safe_load((ROOT / "params" / "qwen3-4b.yaml").read_text())
    assert served["served-model-name"] == profile["target"]["model"]
    assert served["max-model-len"] == profile["target"]["context_tokens"]
    assert served["max-num-seqs"] >= profile["limits"]["in_flight"]
    production = profile["production"]
    for name in ("max-model-len", "max-num-batched-tokens", "max-num-seqs", "dtype", "kv-cache-dtype"):
        assert served[name] == production[name.replace("-", "_")], name
    assert served["enable-prefix-caching"] == production["prefix_caching"]
    assert f"CUDA_VISIBLE_DEVICES={production['cuda_visible_devices']} " in DOCKERFILES[0].read_text()
    assert served["gpu-memory-utilization"] * production["gpu_memory_gb"] <= production["gpu_memory_limit_gb"]


def _publish(root: Path, *suites: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Run deploy/publish over sealed bundles of these suites, with a `gatebook` that only writes down what it is asked."""
    for suite in suites:
        bundle = root / "outputs" / "77" / suite / "latest"
        bundle.mkdir(parents=True, exist_ok=True)
        (bundle / "SHA256SUMS").touch()
    calls = root / "calls"
    command = root / ".venv" / "bin" / "gatebook"
    command.parent.mkdir(parents=True, exist_ok=True)
    script = "import json, os, sys; print(json.dumps([*sys.argv[1:], os.environ.get('GATEBOOK_HISTORY_URL', '')]))"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{script}" "$@" >> {calls}\n')
    command.chmod(0o755)
    (root / "deploy").mkdir(exist_ok=True)
    (root / "deploy" / "publish").write_text((DEPLOY / "publish").read_text())
    environment = {**os.environ, "CI_PIPELINE_ID": "77", "KEEP_RUNS": "2", "HISTORY_WRITER_URL": "sqlite:///writer"}
    done = _run("bash", root / "deploy" / "publish", env={**environment, "GATEBOOK_HISTORY_URL": "sqlite:///reader"})
    return done, [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def test_publishing_enters_every_sealed_bundle_as_the_writer_and_keeps_the_newest(tmp_path: Path) -> None:
    kept = tmp_path / "outputs" / "kept"
    for name in ("9-smoke", "70-smoke"):
        (kept / name).mkdir(parents=True)
    torn = tmp_path / "outputs" / "77" / "integration" / "latest"
    torn.mkdir(parents=True)
    done, calls = _publish(tmp_path, "smoke")
    assert done.returncode == 0, done.stderr
    assert calls == [
        ["history", "enter", "outputs/77/smoke/latest", "sqlite:///writer"],
        ["archive", "outputs/kept", "--to", "public/", "sqlite:///writer"],
    ]
    assert sorted(p.name for p in kept.iterdir()) == ["70-smoke", "77-smoke"], "by pipeline, not by alphabet"
    assert _publish(tmp_path, "smoke")[0].returncode == 0, "a retried job publishes the same"
    assert sorted(p.name for p in (kept / "77-smoke").iterdir()) == ["SHA256SUMS"]


@pytest.mark.parametrize("command", [("history", "enter"), ("archive",)], ids=" ".join)
def test_what_publishing_calls_exists(command: tuple[str, ...]) -> None:
    done = _run(sys.executable, "-m", "gatebook", *command, "--help")
    assert done.returncode == 0, done.stderr
