"""A newcomer with a server of his own types what README.md and docs/first-gate.md say, then what the other pages say.

The commands are taken from the pages, in their order, with the exit codes that their comments tell; only addresses and
placeholders are filled in. `make setup` and `make demo` are for a fresh clone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from gatebook.config.cases import load_cases

from tests.conftest import ROOT, SMALL, Project, small_project
from tests.documents import blocks, commands, exit_code
from tests.faults.proxy import Fault, FaultProxy

README, FIRST_GATE = ROOT / "README.md", ROOT / "docs" / "first-gate.md"
OVERVIEW = ROOT / "docs" / "overview.md"
pytestmark = pytest.mark.timeout(900)
LATER = [ROOT / "docs" / name for name in ("verdict.md", "history.md", "archive.md")] + [ROOT / "outputs" / "README.md"]

KEYWORDS = [
    f"keyword-{name}"
    for name in ("type", "enum", "const", "pattern", "max-length", "minimum", "maximum", "required", "any-of", "ref")
]
"""Compared cases that llama.cpp enforces and that take it least; ten are enough to see a drop."""


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A small project with its `.venv/bin/gatebook`, the production profile that `init` follows, and compared cases."""
    project = small_project(tmp_path_factory.mktemp("newcomer"))
    shutil.copy(ROOT / "params" / "qwen3-4b.yaml", project.root / "params")
    (project.root / ".venv").mkdir()
    (project.root / ".venv" / "bin").symlink_to(sysconfig.get_path("scripts"))
    project.choose(*SMALL, *KEYWORDS, suites=("smoke", "full"))
    yield project


def typed(project: Project, line: str, server: str) -> subprocess.CompletedProcess[str]:
    """The line as it stands, by a shell in the project; `outputs/<run>` is the newest run."""
    runs = sorted(p.parent for p in (project.root / "outputs").glob("20*/manifest.json"))
    filled = line.replace("http://gpu-box:8000/v1", server).replace("outputs/<new>", "outputs/new")
    if runs:
        newest, before = runs[-1].relative_to(project.root), runs[max(-2, -len(runs))].relative_to(project.root)
        filled = filled.replace("outputs/<run>", str(newest))
        filled = filled.replace("outputs/<A>", str(before)).replace("outputs/<B>", str(newest))
    path = f"{project.root / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", filled], cwd=project.root, env={**project.environment, "PATH": path}, capture_output=True, text=True, timeout=300
    )  # fmt: skip


def expect(project: Project, line: str, server: str) -> str:
    done = typed(project, line, server)
    assert done.returncode == exit_code(line), f"{line}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_first_gate_is_typed_as_it_stands(newcomer: Project, server: str) -> None:
    lines = [line for line in commands(FIRST_GATE) if not line.startswith("make ")]
    verbs = [re.split(r"gatebook (\w+)", line)[1] for line in lines]
    assert verbs == ["doctor", "init", "run", "run", "accept", "run", "verify", "run"], (
        "the page tells another story now"
    )
    told = [expect(newcomer, line, server) for line in lines if "gatebook doctor" not in line]
    assert "nothing was asked" in told[1] and "INCONCLUSIVE" in told[2].splitlines()[-1]
    assert told[4].splitlines()[-1].startswith("PASS") and told[5].splitlines()[-1].startswith("reproduced, PASS")
    assert told[6].splitlines()[-1].startswith("FAIL") and "no-such-model" in told[6]
    shutil.rmtree(max(newcomer.root.glob("outputs/20*")))  # the red one: what follows is about the green one
    shutil.copytree(max(newcomer.root.glob("outputs/20*")), newcomer.root / "outputs" / "latest", dirs_exist_ok=True)


def test_what_else_is_told_works_on_that_run(newcomer: Project, server: str) -> None:
    """Every `gatebook` command of these pages that the first gate does not type on the same run, but two servers side by side
    (tests/integration/test_audit.py)."""
    if not list(newcomer.root.glob("outputs/20*/manifest.json")):
        pytest.skip("the first gate left no run")
    shutil.copy(newcomer.root / "params" / "mine.yaml", newcomer.root / "params" / "stricter.yaml")
    shutil.copy(
        newcomer.root / "params" / "baselines" / "mine.json", newcomer.root / "params" / "baselines" / "stricter.json"
    )
    there = {line.removeprefix(".venv/bin/").split("#")[0].strip() for line in commands(FIRST_GATE)}
    for page in LATER:
        for line in commands(page):
            if line.startswith("gatebook") and "http://a" not in line and line.split("#")[0].strip() not in there:
                expect(newcomer, line, server)
    assert {p.name for p in newcomer.root.glob("rows.*")} == {"rows.parquet"} and (
        newcomer.root / "trend.svg"
    ).is_file()
    assert (newcomer.root / "compare.html").is_file() and (newcomer.root / "public" / "index.html").is_file()


def test_the_readme_leads_to_a_gate_of_ones_own(newcomer: Project, server: str, tmp_path: Path) -> None:
    """Four commands; then a server that is worse; then the three that move and break a bundle."""
    left_out = shutil.ignore_patterns("outputs", "mine*", "stricter*")
    project = Project(shutil.copytree(newcomer.root, tmp_path / "project", symlinks=True, ignore=left_out))
    init, run, accept, again = next(block for block in blocks(README) if any("gatebook init" in line for line in block))
    assert "exists already" not in expect(project, init, server)
    twice = typed(project, init, server)
    assert twice.returncode == 2 and "exists already" in twice.stderr and len(twice.stderr.splitlines()) == 1
    first = expect(project, run, server)
    accepted = max(project.root.glob("outputs/20*"))
    assert f"gatebook accept outputs/{accepted.name}" in first
    expect(project, accept, server)
    baseline = json.loads((project.root / "params" / "baselines" / "mine.json").read_text())
    assert set(baseline["cases"]) == {case.id for case in load_cases(project.root / "params" / "cases")}
    assert expect(project, again, server).splitlines()[-1].startswith("PASS")
    green = json.loads((project.root / "outputs" / "latest" / "verdict.json").read_text())
    assert green["baseline"] == accepted.name
    assert any(
        "could have seen a drop of" in g["reason"] for g in green["groups"] if g["group"] == "structured.keywords"
    )
    _evidence(project, server, tmp_path)

    mine = project.root / "params" / "mine.yaml"
    with FaultProxy(server.removesuffix("/v1"), [Fault("strip_keyword", arg="maxLength")]) as proxy:
        weakened = project.ask(proxy.base_url, profile=mine)
    assert weakened.code == 1, weakened
    assert "constraint enforcement changed: keyword.keyword-max-length was enforced, is ignored" in weakened.reasons
    assert project.gatebook("accept", weakened.run, "--reason", "no").code == 2
    with FaultProxy(server.removesuffix("/v1"), ["strip_format"]) as proxy:
        worse = project.ask(proxy.base_url, profile=mine, revision="new")
    assert worse.code == 1 and "shown worse than the baseline" in worse.reasons, worse


def _evidence(project: Project, server: str, folder: Path) -> None:
    """The blocks of README.md and docs/overview.md about a run that is there already; the bundle is moved and broken last."""
    about = [
        *(block for block in blocks(README) if "make demo" in " ".join(block)),
        *(
            block
            for block in blocks(OVERVIEW)
            if any(w in line for line in block for w in ("dd of=", "gatebook judge"))
        ),
    ]
    assert len(about) == 3
    elsewhere = ("make", "gatebook doctor", "gatebook judge", "gatebook compare", "gatebook archive")
    for line in (line for block in about for line in block if not line.startswith(elsewhere)):
        filled = line.replace("/tmp/bundle", str(folder / "bundle")).replace(
            "--profile P ", "--profile params/mine.yaml "
        )
        expect(project, filled, server)
    assert json.loads((folder / "bundle" / "verdict.json").read_text())["verdict"] == "PASS"
