"""LoRA adapters on one real vLLM: the right one is green once it was accepted, one that adds nothing is red at once.

The rest of what is tried with adapters is the fault lab's (`make faults`, the rows LORA-...). Skipped and failed as test_vllm.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from gatebook.collect.embedded import MODEL

from tests.conftest import ROOT, Project
from tests.engines.adapters import adapter
from tests.engines.serving import vllm
from tests.faults.on_vllm import LORA, QUICK
from tests.integration.test_vllm import vllm_here

__all__ = ["vllm_here"]
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def adapters_server(vllm_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A base with two adapters of it."""
    folder = tmp_path_factory.mktemp("adapters")
    served = [f"{kind}={adapter(kind, folder)}" for kind in ("right", "zero")]  # type: ignore[arg-type]
    with vllm(*QUICK, *LORA, *served) as url:
        yield url


@pytest.fixture
def introduced(adapters_server: str, tmp_path: Path) -> Project:
    """A project with the shipped cases of 01 and 05 that has met the server."""
    project = Project(tmp_path / "project")
    shutil.copytree(ROOT / "notebooks", project.root / "notebooks")
    (project.root / "params" / "cases").mkdir(parents=True)
    for name in ("qwen3-4b.yaml", "cases/health.yaml", "cases/fingerprint.yaml"):
        shutil.copy(ROOT / "params" / name, project.root / "params" / name)
    done = project.gatebook("init", "--base-url", adapters_server, "--name", "base", "--adapters")
    assert done.code == 0, done
    return project


def test_the_right_adapter_becomes_green_and_one_that_adds_nothing_is_red(
    introduced: Project, adapters_server: str
) -> None:
    profiles = {name: introduced.root / "params" / f"{name}.yaml" for name in ("base", "right", "zero")}
    said = {name: yaml.safe_load(file.read_text())["target"] for name, file in profiles.items()}
    assert {name: target["model"] for name, target in said.items()} == {"base": MODEL, "right": "right", "zero": "zero"}
    assert {target["context_tokens"] for target in said.values()} == {8192}, "an adapter's card tells none"

    codes = []
    for _ in range(3):
        done = introduced.gatebook("run", "--profile", profiles["right"], "--suite", "smoke", timeout=600)
        codes.append(done.code)
        if done.code == 3:
            assert introduced.gatebook("accept", done.run, "--reason", "healthy").code == 0
    assert codes == [3, 0, 0], done
    assert "otherwise than its parent" in done.reasons

    red = introduced.gatebook("run", "--profile", profiles["zero"], "--suite", "smoke", timeout=600)
    assert red.code == 1 and f"adapter zero answers as its base {MODEL}" in red.verdict["reason"], red
