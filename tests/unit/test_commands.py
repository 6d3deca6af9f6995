"""Every command that a document tells people to type exists, and it is known what types it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT, commands

TYPED = {
    "README.md": "tests/integration/test_documents.py",
    "README.zh.md": "tests/unit/test_readme.py",  # the same blocks as README.md
    "docs/overview.md": "tests/integration/test_documents.py",
    "docs/overview.zh.md": "tests/unit/test_readme.py",
    "outputs/README.md": "tests/integration/test_documents.py",
    "docs/first-gate.md": "tests/integration/test_documents.py",
    "docs/archive.md": "tests/integration/test_documents.py",
    "docs/history.md": "tests/integration/test_documents.py",
    "docs/verdict.md": "tests/integration/test_documents.py",
    "docs/engines.md": "tests/integration/test_vllm_adapters.py",
    "docs/cases.md": "tests/integration/test_explore.py",
    "docs/audit.md": "tests/unit/test_audit_page.py",
    "docs/latency.md": "tests/integration/test_latency.py",
    "docs/own-repository.md": "tests/integration/test_own_repository.py",
    "docs/fleet.md": "tests/integration/test_fleet.py",
}
"""Page -> what types its `gatebook` commands."""
NOT_RUN = ("docker", "cosign")
"""Need what no machine of the tests has: their page says so beside them."""
LINES = [(page, line) for page in PAGES if page.exists() for line in commands(page)]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def words(line: str) -> list[str]:
    """The first command of the line."""
    said = shlex.split(re.split(r" && |; | \| |\\$", line)[0].replace("<(", "("), comments=True)
    return [said[0].removeprefix(".venv/bin/"), *said[1:]]


@cache
def told_by_help(*command: str) -> str:
    said = subprocess.run([sys.executable, "-m", *command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return said.stdout


@pytest.mark.parametrize(("page", "line"), LINES, ids=lambda v: v if isinstance(v, str) else v.name)
def test_it_exists_and_takes_these_options(page: Path, line: str) -> None:
    program, *rest = words(line)
    if program == "make":
        targets = [word for word in rest if "=" not in word]
        assert targets and all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets), line
    elif program == "gatebook":
        two = rest[0] in ("cases", "history") or rest[:2] == ["fleet", "accept"]
        said = told_by_help("gatebook", *rest[: 2 if two else 1])
        assert [o for o in rest if o.startswith("--") and o.split("=")[0] not in said] == [], line
    elif program == "python" and rest[:2] == ["-m", "tests.faults"]:
        assert [o for o in rest[2:] if o.startswith("--") and o not in told_by_help("tests.faults")] == [], line
    elif program == "python" and rest[:2] == ["-m", "tests.engines"]:
        assert rest[2] in told_by_help("tests.engines"), line
    elif program == "python" and rest[:2] == ["-m", "benchmarks"]:
        assert rest[2] in told_by_help("benchmarks"), line
    elif program == "python" and rest[:2] == ["-m", "pytest"]:
        assert [p for p in rest[2:] if p.startswith("tests") and not (ROOT / p).exists()] == [], line
    elif program in NOT_RUN:
        assert "not run" in page.read_text(encoding="utf-8").lower(), f"{page} does not say that it was not run: {line}"


def test_every_page_with_commands_of_ours_is_typed_by_a_test() -> None:
    pages = {str(page.relative_to(ROOT)) for page, line in LINES if words(line)[0] == "gatebook"}
    ours = {p for p in pages if p != "CONTRIBUTING.md"}
    assert ours <= TYPED.keys()
    for page, test in TYPED.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8"), f"{test} does not read {page}"


def test_there_are_commands() -> None:
    assert len(LINES) > 50


def test_every_only_counts() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-m", "gatebook", "run", "--plan", "--profile", "params/smollm2.yaml", *only], cwd=ROOT, capture_output=True, text=True
        )
        for only in (["--only", "first-token-x,greeting-nihao"], ["--only", "first-token-x", "--only", "greeting-nihao"])
    ]  # fmt: skip
    assert told[0].stdout == told[1].stdout and {"01_health", "05_fingerprint"} <= set(told[1].stdout.split()), told
