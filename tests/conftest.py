"""Shared by all tests: the real command, a small project of its own, and one real model server."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from gatebook.collect.server import embedded_server
from gatebook.config.cases import Case, load_cases
from gatebook.config.profile import Suite
from gatebook.config.selection import Shard
from gatebook.forks import Forker, forker
from gatebook.verdict.baseline import Baseline, read_baseline
from gatebook.verdict.fingerprint import case_of
from hypothesis import settings

from tests.postgresql import postgresql
from tests.remembering import Remembering

__all__ = ["postgresql"]
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # under nohup; what the tests start is to hear it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.pop("GATEBOOK_HISTORY_URL", None)  # nothing that a test measures enters the history of whoever runs it
settings.register_profile("gatebook", deadline=None)  # machines are shared; no test asserts a time
settings.load_profile("gatebook")
ROOT = Path(__file__).resolve().parents[1]
PATIENT = {"request_deadline_s": 120, "ready_deadline_s": 30}
"""Limits that a busy machine keeps."""
IMPATIENT = {"ready_deadline_s": 3}
"""Where nobody answers, and all of it would be waited for."""
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

LONGEST = (
    "fleet", "emulated", "interrupts", "documents", "context", "not_green", "replicas", "journey", "forged", "effort", "own_repository", "merge",
    "languages", "beside_users", "fault_lab", "thinking", "latency", "golden", "scenarios", "history", "load", "explore", "hostile", "escapes", "secrets",
    "boundaries", "key_information", "multilingual", "other_machines", "upgrade",
)  # fmt: skip
"""tests/*/test_X.py that take a minute and more, the longest first."""


@cache
def shipped_cases() -> dict[str, Case]:
    """The cases of params/cases by id; reading them takes a second."""
    return {case.id: case for case in load_cases(ROOT / "params" / "cases")}


@dataclass
class Done:
    """What the command did."""

    code: int
    out: str
    err: str
    folder: Path
    made: Path | None = None

    @property
    def run(self) -> Path:
        """The run that was made, else the newest run folder."""
        return self.made or sorted(p.parent for p in self.folder.glob("20*/manifest.json"))[-1]

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

    def choose(self, *ids: str, suites: tuple[str, ...] = ("smoke",)) -> None:
        """Ask these shipped cases alone, in these suites."""
        chosen = [shipped_cases()[i].model_dump(mode="json", exclude_defaults=True) for i in ids]
        self.write_cases([{**case, "suites": [*suites]} for case in chosen])

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "gatebook", *map(str, arguments)]

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "GATEBOOK_", "PYTEST_"))}
        return {**kept, "GATEBOOK_ROOT": str(self.root)}

    def gatebook(
        self, *arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 240, encoding: str = "utf-8"
    ) -> Done:
        """The command, forked from a process that has imported it; a Python of its own where it is another one, or `env` is for it."""
        words, told = [*map(str, arguments)], {**self.environment, **(env or {})}
        ours = self.command()[0] == sys.executable and encoding == "utf-8"
        if ours and not any(name.startswith(("LANG", "LC_", "PYTHON")) for name in env or {}):
            code, out, err = _forked(words, self.root, told, timeout)
            return Done(code, out, err, self.root / "outputs")
        done = subprocess.run(
            self.command(*words), cwd=self.root, env=told, capture_output=True, encoding=encoding, timeout=timeout
        )
        return Done(done.returncode, done.stdout, done.stderr, self.root / "outputs")

    def run(self, base_url: str, *arguments: str, env: dict[str, str] | None = None) -> Done:
        return self.gatebook("run", "--profile", self.profile, "--base-url", base_url, *arguments, env=env)

    def ask(
        self,
        base_url: str,
        *only: str,
        profile: Path | None = None,
        revision: str | None = None,
        suite: Suite | None = None,
        shard: Shard | None = None,
    ) -> Done:
        """What `gatebook run` does, without its kernels: planned, asked, judged and told, every cell of every notebook run
        in this process. Ten times cheaper; the command itself, its exit codes and its kernels have tests of their own.
        """
        from tests.inprocess import run

        with self.inside():
            verdict, made, said = run(profile or self.profile, base_url, list(only) or None, revision, suite, shard)
        return Done(verdict.exit_code, said, "\n".join(verdict.troubles), self.root / "outputs", made)

    def accept(self, run: Path) -> None:
        """`gatebook accept`, in this process."""

        from gatebook.commands.accept import accept

        with self.inside():
            accept(run, "healthy", None, "tests")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This process where the command would run, with its environment."""
        with mock.patch.dict(os.environ, self.environment, clear=True), contextlib.chdir(self.root):
            yield


@cache
def _forker() -> Forker:
    """What forks the commands of this process, until it ends."""
    kept = contextlib.ExitStack()
    atexit.register(kept.close)
    return kept.enter_context(forker("commands"))


def _forked(words: list[str], cwd: Path, env: dict[str, str], timeout: float) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a command. Raises TimeoutExpired."""
    until = time.monotonic() + timeout

    def tick() -> None:
        if time.monotonic() > until:
            raise subprocess.TimeoutExpired(words, timeout)

    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        code = _forker().command(words, cwd, env, out, err, tick)
        return code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a worker has a whole file, and none is to be left alone with a long one at the end."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (item.path.parent.name == "unit", ranks.get(item.path.stem, len(ranks))))


@pytest.fixture(scope="session")
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a real llama.cpp server with the embedded model, which all tests of a worker share.

    One for each worker: it answers one request after another, and a long document of one test must not be what another waits
    for."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with embedded_server(log, threads=1, prompt_threads=1) as base_url:  # tests run side by side
        yield base_url


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of remembered answers, which all workers share."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "answers"


@pytest.fixture(scope="session")
def server(bare_server: str, answers: Path) -> Iterator[str]:
    """The same behind a front that remembers greedy answers."""
    with Remembering(bare_server, answers) as front:
        yield front.base_url


@pytest.fixture(scope="session")
def green_outputs(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of one `gatebook run` of the small project on the healthy server."""
    project = small_project(tmp_path_factory.mktemp("green"))
    project.edit_profile(limits=PATIENT)
    done = project.run(server)
    assert done.code == 0, done
    (project.root.parent / "said").write_text(done.out)
    return project.root / "outputs"


@pytest.fixture
def green(project: Project, green_outputs: Path) -> Done:
    """That run, copied into the project: it can be resumed, judged again, verified and forged."""
    project.edit_profile(limits=PATIENT)
    said = (green_outputs.parents[1] / "said").read_text()
    return Done(0, said, "", Path(shutil.copytree(green_outputs, project.root / "outputs")))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return small_project(tmp_path)


def greeting(name: str, group: str, notebook: str, asks: str) -> dict[str, Any]:
    """A compared case that any server passes which answers in words."""
    return {
        "id": name, "notebook": notebook, "group": group, "suites": ["smoke"], "why": "answers in words", "tags": {"task": "questions", "language": "en"},
        "finish": "any", "options": {"max_tokens": 4, "temperature": 0}, "messages": [{"role": "user", "content": asks}], "expect": [{"regex": "[A-Za-z]{2}"}],
    }  # fmt: skip


def small_project(folder: Path) -> Project:
    """A project under `folder` with the SMALL cases; anybody is waited for 30 s, at first too."""
    root = folder / "project"
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    checkout(root)
    found = Project(root)
    found.choose(*SMALL)
    shipped = yaml.safe_load((ROOT / "params" / "smollm2.yaml").read_text())
    shipped["name"], shipped["target"]["default_suite"] = "small", "smoke"
    shipped["excused"] = {}  # they name cases that are not here
    shipped["limits"] |= {"request_deadline_s": 30, "ready_deadline_s": 30, "transport_retries": 1}
    found.profile.write_text(yaml.safe_dump(shipped, allow_unicode=True))
    file = root / "params" / "baselines" / "small.json"
    file.parent.mkdir()
    file.write_text(small_baseline().to_json(), encoding="utf-8")
    return found


def checkout(root: Path) -> Path:
    """A project whose notebooks and cases are its own alone."""
    for part in ("lib/gatebook", "notebooks", "params/cases"):
        (root / part).mkdir(parents=True, exist_ok=True)
    (root / "lib" / "gatebook" / "kept").touch()  # git keeps no empty folder
    return root


def small_baseline() -> Baseline:
    """What the shipped baseline holds of the SMALL cases: without one no complete run is green."""
    file = ROOT / "params" / "baselines" / "smollm2.json"
    shipped = read_baseline(file.read_bytes(), str(file))
    assert shipped is not None
    prints = {n: v for n, v in shipped.fingerprint.items() if case_of(n) in SMALL}  # another server may be asked
    return shipped.model_copy(
        update={
            "fingerprint": prints,
            "cases": {i: case for i, case in shipped.cases.items() if i in SMALL},
            "keywords": {},
            "log": [],
        }
    )
