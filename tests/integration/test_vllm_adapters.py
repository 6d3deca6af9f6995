"""LoRA adapters on one real vLLM, by the commands of docs/engines.md: the right one becomes green, one that adds nothing is red.

The rest of what is tried with adapters is the fault lab's (`make faults`, the rows LORA-...). Skipped and failed as test_vllm.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from gatebook.collect.embedded import MODEL

from tests.conftest import ROOT, Done, Project, checkout
from tests.documents import commands, exit_code
from tests.engines.adapters import adapter
from tests.engines.serving import vllm
from tests.faults.on_vllm import LORA, QUICK
from tests.integration.test_vllm import vllm_here

__all__ = ["vllm_here"]
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
RIGHT, ZERO = "sql-adapter", "zero"
CASES = ("model-served", "token-counts", "first-token-x", "first-token-capital", "greedy-boat", "adapter-unlike-parent")
PAGE = [line for line in commands(ROOT / "docs" / "engines.md") if "bin/gatebook " in line]


@pytest.fixture(scope="module")
def adapters_server(vllm_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A base with two adapters of it."""
    folder = tmp_path_factory.mktemp("adapters")
    served = [f"{RIGHT}={adapter('right', folder)}", f"{ZERO}={adapter('zero', folder)}"]
    with vllm(*QUICK, *LORA, *served) as url:
        yield url


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One with few cases: adapters are slow on a CPU."""
    made = Project(tmp_path / "project")
    shutil.copytree(ROOT / "notebooks", made.root / "notebooks")
    checkout(made.root)
    made.choose(*CASES)
    shutil.copy(ROOT / "params" / "qwen3-4b.yaml", made.root / "params")
    (made.root / ".venv").mkdir()
    (made.root / ".venv" / "bin").symlink_to(sysconfig.get_path("scripts"))
    return made


def gate(project: Project, name: str) -> Done:
    return project.gatebook("run", "--profile", f"params/{name}.yaml", "--suite", "smoke", timeout=600)


def test_the_right_adapter_becomes_green_and_one_that_adds_nothing_is_red(
    project: Project, adapters_server: str
) -> None:
    for line in PAGE:
        typed = line.replace("http://gpu-box:8000/v1", adapters_server)
        env = {**project.environment, "PATH": f"{project.root}/.venv/bin{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", typed], cwd=project.root, env=env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == exit_code(line), f"{typed}\n{done.stdout}\n{done.stderr}"
    files = {name: project.root / "params" / f"{name}.yaml" for name in ("base", RIGHT, ZERO)}
    targets = {name: yaml.safe_load(file.read_text())["target"] for name, file in files.items()}
    assert {name: t["model"] for name, t in targets.items()} == {"base": MODEL, RIGHT: RIGHT, ZERO: ZERO}
    assert {t["context_tokens"] for t in targets.values()} == {8192}, "an adapter's card tells none"

    again = gate(project, RIGHT)
    assert again.code == 0 and "otherwise than its parent" in again.reasons, again
    red = gate(project, ZERO)
    assert red.code == 1 and f"adapter {ZERO} answers as its base {MODEL}" in red.verdict["reason"], red
