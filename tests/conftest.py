"""Shared by all tests: the real command, a small project of its own, and one real model server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from gatebook.ask.server import embedded_server
from gatebook.judge.baseline import Baseline, read_baseline
from gatebook.judge.fingerprint import case_of
from gatebook.plan.cases import load_cases
from hypothesis import settings

from tests.postgresql import postgresql

__all__ = ["postgresql"]
os.environ.pop("GATEBOOK_HISTORY_URL", None)  # nothing that a test measures enters the history of whoever runs it
settings.register_profile("gatebook", deadline=None)  # machines are shared; no test asserts a time
settings.load_profile("gatebook")
ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "model-served",
    "token-counts",
    "greeting-nihao",
    "stream-equals-plain-english",
    "max-tokens-5",
    "fresh-answers",
    "canary-water",
    "enforced-nonsense-capital",
    "enforced-nonsense-colour",
)
"""Cases of must groups that the embedded model passes: a small run that is green on a healthy server."""


@dataclass
class Done:
    """What the command did."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def run(self) -> Path:
        """The newest run folder."""
        return sorted(p.parent for p in self.folder.glob("20*/manifest.json"))[-1]

    @property
    def verdict(self) -> dict[str, Any]:
        return json.loads((self.run / "verdict.json").read_text())

    @property
    def reasons(self) -> str:
        return "\n".join(
            [self.verdict["reason"], *self.verdict["reasons"], *(f["reason"] for f in self.verdict["findings"])]
        )

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


@dataclass
class Project:
    """A copy of the project with few cases and short deadlines; `gatebook` runs in it."""

    root: Path

    @property
    def profile(self) -> Path:
        return self.root / "params" / "small.yaml"

    def edit_profile(self, **sections: dict[str, Any]) -> None:
        data = yaml.safe_load(self.profile.read_text())
        for section, values in sections.items():
            data[section] = {**data.get(section, {}), **values}
        self.profile.write_text(yaml.safe_dump(data, allow_unicode=True))

    def write_cases(self, cases: list[dict[str, Any]]) -> None:
        file = self.root / "params" / "cases" / "small.yaml"
        file.write_text(yaml.safe_dump(cases, allow_unicode=True, sort_keys=False))

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "gatebook.cli", *map(str, arguments)]

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "GATEBOOK_", "PYTEST_"))}
        return {**kept, "GATEBOOK_ROOT": str(self.root)}

    def gatebook(
        self, *arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 240, encoding: str = "utf-8"
    ) -> Done:
        done = subprocess.run(
            self.command(*arguments), cwd=self.root, env={**self.environment, **(env or {})}, capture_output=True, encoding=encoding, timeout=timeout
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr, self.root / "outputs")

    def run(self, base_url: str, *arguments: str, env: dict[str, str] | None = None) -> Done:
        return self.gatebook("run", "--profile", self.profile, "--base-url", base_url, *arguments, env=env)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a real llama.cpp server with the embedded model."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with embedded_server(log, prompt_threads=1) as base_url:  # tests run side by side
        yield base_url


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return small_project(tmp_path)


def small_project(folder: Path) -> Project:
    """A project under `folder` with the SMALL cases and short deadlines."""
    root = folder / "project"
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    (root / "params" / "cases").mkdir(parents=True)
    found = Project(root)
    cases = {case.id: case for case in load_cases(ROOT / "params" / "cases")}
    found.write_cases([{**cases[i].model_dump(mode="json", exclude_defaults=True), "suites": ["smoke"]} for i in SMALL])
    shipped = yaml.safe_load((ROOT / "params" / "smollm2.yaml").read_text())
    shipped["target"]["default_suite"] = "smoke"
    shipped["excused"] = {}  # they name cases that are not here
    shipped["limits"] |= {"request_deadline_s": 4, "ready_deadline_s": 3, "transport_retries": 1}
    found.profile.write_text(yaml.safe_dump(shipped, allow_unicode=True))
    file = root / "params" / "baselines" / "small.json"
    file.parent.mkdir()
    file.write_text(small_baseline().to_json(), encoding="utf-8")
    return found


def small_baseline() -> Baseline:
    """What the shipped baseline holds of the SMALL cases: without one no complete run is green."""
    file = ROOT / "params" / "baselines" / "smollm2.json"
    shipped = read_baseline(file.read_bytes(), str(file))
    assert shipped is not None
    prints = {n: v for n, v in shipped.fingerprint.items() if case_of(n) in (None, *SMALL)}
    return shipped.model_copy(
        update={
            "fingerprint": prints,
            "cases": {i: case for i, case in shipped.cases.items() if i in SMALL},
            "keywords": {},
            "log": [],
        }
    )
