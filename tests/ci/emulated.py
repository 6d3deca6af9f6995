"""The pipeline run without GitLab: a small project in a repository of its own, gitlab-ci-local's shell executor, a stand-in for Docker."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, shipped_cases, small_project

EMULATOR = ROOT / ".venv" / "emulator" / "node_modules" / ".bin" / "gitlab-ci-local"
PIPELINE_ID = "77"
CASES = ("model-served", "canary-water")
IMAGE = "registry.example/group/project/served"
STOPPED = "gitlab-ci-local is missing: run .ci/emulator (it needs npm and rsync)"


def need_emulator() -> None:
    """Missing in CI is a failure: a pipeline that nobody ran would look proved."""
    if EMULATOR.exists() and shutil.which("rsync"):
        return
    if os.environ.get("CI"):
        pytest.fail(STOPPED)
    pytest.skip(STOPPED)


@dataclass
class Done:
    code: int
    out: str

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.out[-8000:]}"


@dataclass
class Pipeline:
    """One clone of the small project, with the pipeline's variables."""

    root: Path
    variables: dict[str, str]

    def run(self, *arguments: str, timeout: float = 1400, **variables: str) -> Done:
        """`gitlab-ci-local ARGUMENTS`: no argument for the whole pipeline, a job's name for that job alone (a retry)."""
        done = subprocess.run(
            self.command(*arguments, **variables), cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=timeout
        )  # fmt: skip
        return Done(done.returncode, done.stdout + done.stderr)

    def command(self, *arguments: str, **variables: str) -> list[str]:
        given = {**self.variables, **variables}
        # With isolation every job starts from the tracked files, its cache and what it needs, as on a runner.
        return [
            str(EMULATOR), "--shell-isolation", "--force-shell-executor", "--concurrency", "1", "--no-color",
            *(part for name, value in given.items() for part in ("--variable", f"{name}={value}")), *arguments,
        ]  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "GATEBOOK_", "PYTEST_", "CI_", "GIT_"))
        }
        here = self.root.parent
        return {
            **kept,
            "PATH": f"{ROOT / 'tests' / 'ci' / 'standin'}:{kept['PATH']}",
            "PYTHONPATH": str(ROOT / "lib"),
            "STANDIN": str(here / "docker"),
            "STANDIN_PYTHON": sys.executable,
            "STANDIN_ROOT": str(ROOT),
            "GCL_IGNORE_PREDEFINED_VARS": ",".join(self.variables.keys()),
        }

    def jobs(self, **variables: str) -> dict[str, str]:
        """Job -> when, of the pipeline that these variables make."""
        done = subprocess.run(
            [*self.command("--list-csv", **variables)], cwd=self.root, env=self.environment, capture_output=True, text=True
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [line.split(";") for line in done.stdout.splitlines() if ";" in line]
        name, when = rows[0].index("name"), rows[0].index("when")
        return {row[name]: row[when] for row in rows[1:]}

    def artifact(self, job: str, path: str) -> Path:
        """What a job left for later ones."""
        return self.root / ".gitlab-ci-local" / "artifacts" / job / path

    def faults(self, *faults: tuple[str, str, str]) -> None:
        """(container, part of its image's name, fault): what ails the containers that start from now on."""
        (self.root.parent / "docker" / "faults.json").write_text(json.dumps(faults))

    def docker(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments], env=self.environment, capture_output=True, text=True, cwd=self.root
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def calls(self) -> list[list[str]]:
        file = self.root.parent / "docker" / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def containers(self) -> dict[str, str]:
        """Name -> image, of those that exist."""
        folder = self.root.parent / "docker" / "containers"
        return {file.stem: json.loads(file.read_text())["image"] for file in sorted(folder.glob("*.json"))}

    def remove_containers(self) -> None:
        for name in self.containers:
            self.docker("rm", "--force", name)


def new_pipeline(folder: Path, server: str) -> Pipeline:
    """The project's own pipeline, scripts and Makefile over a project of two cases; the checks of the code are stubs."""
    project = small_project(folder)
    root = project.root
    tiers = ["smoke", "integration", "scenario"]
    project.write_cases(
        [{**shipped_cases()[i].model_dump(mode="json", exclude_defaults=True), "suites": tiers} for i in CASES]
    )  # fmt: skip
    project.edit_profile(
        target={"context_tokens": None}, limits={"request_deadline_s": 60, "ready_deadline_s": 15, "transport_retries": 0}
    )  # fmt: skip
    for name in ("deploy", ".gitlab-ci.yml", "Makefile", ".gitignore", "pyproject.toml"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
    _without_after_script(root / ".gitlab-ci.yml")
    _stubs(root)
    _commit(root)
    (folder / "docker").mkdir()
    (folder / "docker" / "upstream").write_text(server.removesuffix("/v1"))
    port, staging = _free_ports()
    return Pipeline(
        root,
        {
            "CI_PIPELINE_ID": PIPELINE_ID, "CI_REGISTRY_IMAGE": IMAGE.removesuffix("/served"), "GPU_TAG": "gpu",
            "PROFILE": "params/small.yaml", "SERVER_ADDRESS": f"127.0.0.1:{port}", "STAGING_ADDRESS": f"127.0.0.1:{staging}",
            "STAGING_URL": f"http://127.0.0.1:{staging}/v1",
        },
    )  # fmt: skip


def _without_after_script(file: Path) -> None:
    """gitlab-ci-local 4.65.1 loses a job's files when it has an after_script and a folder of its own."""
    pipeline: dict[str, Any] = yaml.safe_load(file.read_text())
    for job in pipeline.values():
        if isinstance(job, dict):
            job.pop("after_script", None)
    file.write_text(yaml.safe_dump(pipeline, sort_keys=False))


def _stubs(root: Path) -> None:
    """An environment that is set up already, and checks of code that is not here."""
    commands = {
        "gatebook": f'exec {sys.executable} -m gatebook "$@"',
        "python": f'exec {sys.executable} "$@"',
        **dict.fromkeys(("ruff", "mypy", "nbqa", "lint-imports"), "exit 0"),
    }
    scripts = {root / ".venv" / "bin" / name: text for name, text in commands.items()}
    scripts |= {root / ".ci" / file.name: "exit 0" for file in (ROOT / ".ci").iterdir()}
    for path, text in scripts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    (root / "tests").mkdir()
    (root / "tests" / "test_small.py").write_text("def test_small() -> None:\n    pass\n")
    for name in (
        "requirements.txt",
        "requirements-dev.txt",
        "requirements-fleet.txt",
        "requirements-nodeps.txt",
        "pyproject.toml",
    ):
        (root / name).touch()
        os.utime(root / name, (1, 1))
    for name in (".ready", ".ready-dev"):
        (root / ".venv" / "bin" / name).touch()


def _commit(root: Path) -> None:
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.invalid", "-C", str(root)]
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["remote", "add", "origin", "git@gitlab.example:group/project.git"],
        ["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"],
        ["add", "--all"],
        ["add", "--force", ".venv"],
        ["commit", "--quiet", "--message=small"],
    ):
        subprocess.run([*git, *words], check=True, capture_output=True)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]
