"""The first gate on a real vLLM 0.32, by the commands of docs/first-gate.md; then two faults of that server.

The rest of what is tried on it is the fault lab's second half (`make faults`). Without `make engines` it is skipped, in
continuous integration (CI is set) it fails.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, checkout
from tests.documents import commands, exit_code
from tests.engines.install import ENGINES, CannotHave, weights
from tests.engines.serving import Running, vllm, vllm_process
from tests.faults.on_vllm import CORE, GONE_S, QUICK, VLLM_ROWS, Introduced, killer

FIRST_GATE = ROOT / "docs" / "first-gate.md"
NAMED = {row.id: row.named for row in VLLM_ROWS}
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


class Mine(Introduced):
    """The project of somebody who follows the page."""

    @property
    def profile(self) -> Path:
        return self.root / "params" / "mine.yaml"


@pytest.fixture(scope="session")
def vllm_here() -> None:
    """Skips, loudly, where there is no vLLM; fails where CI is set."""
    try:
        if not ENGINES["vllm"].ready:
            raise CannotHave("`make engines` has not been run, or could not install it")
        weights()
    except CannotHave as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"NOTHING WAS TRIED ON A REAL VLLM: {error}")


@pytest.fixture(scope="session")
def vllm_server(vllm_here: None) -> Iterator[Running]:
    """vLLM as it starts by its defaults, but for QUICK."""
    with vllm_process(*QUICK) as running:
        yield running


@pytest.fixture(scope="session")
def first_gate(vllm_here: None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Mine:
    """A copy of the project in which the page was typed; one for all processes of the suite."""
    shared = (
        tmp_path_factory.getbasetemp().parent if os.environ.get("PYTEST_XDIST_WORKER") else tmp_path_factory.mktemp("v")
    )
    mine = Mine(shared / "first-gate-on-vllm")
    with (shared / "first-gate-on-vllm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mine.root.exists():
            for part in ("notebooks", "params"):
                shutil.copytree(ROOT / part, mine.root / part)
            (checkout(mine.root) / ".venv").mkdir()
            (mine.root / ".venv" / "bin").symlink_to(sysconfig.get_path("scripts"))
            _type_the_page(mine, request.getfixturevalue("vllm_server").base_url)
    return mine


def _type_the_page(mine: Mine, server: str) -> None:
    """Every command in its order; (mine.root)/typed keeps what each said."""
    path = f"{mine.root / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    said = []
    for line in commands(FIRST_GATE):
        if line.startswith("make ") or "gatebook doctor" in line:
            continue
        done = subprocess.run(
            ["bash", "-c", line.replace("http://gpu-box:8000/v1", server)], cwd=mine.root,
            env={**mine.environment, "PATH": path}, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        said.append(f"$ {line}\n{done.stdout}{done.stderr}exit {done.returncode}, {exit_code(line)} told by the page\n")
        (mine.root / "typed").write_text("\n".join(said))
        if done.returncode != exit_code(line):
            return


def _copy(mine: Mine, folder: Path) -> Mine:
    assert (mine.root / "params" / "baselines" / "mine.json").exists(), "the first gate accepted nothing"
    copy = Mine(folder / "project")
    shutil.copytree(mine.root, copy.root, symlinks=True, ignore=shutil.ignore_patterns("outputs"))
    return copy


def test_the_first_gate_is_typed_as_it_stands(first_gate: Mine) -> None:
    said = (first_gate.root / "typed").read_text()
    ended = [(int(code), int(told)) for code, told in re.findall(r"exit (\d+), (\d+) told", said)]
    assert all(code == told for code, told in ended), said
    assert [code for code, _ in ended if code] == [3, 1], "first run, wrong model"


def test_another_default_temperature_is_the_first_line(first_gate: Mine, tmp_path: Path) -> None:
    mine = _copy(first_gate, tmp_path)
    with vllm(*QUICK, "--override-generation-config", '{"temperature": 2.0}') as url:
        done = mine.ask(url, "smoke")
    assert done.code == 1, done
    assert re.search(NAMED["V01"], done.verdict["reason"]), done.reasons


def test_a_dead_engine_core_is_red_within_seconds(first_gate: Mine, vllm_server: Running, tmp_path: Path) -> None:
    """The last test: it ends the server of the others."""
    mine, running = _copy(first_gate, tmp_path), vllm_server
    with killer(running) as killed:
        done = mine.ask(running.base_url, "smoke")
        ended = time.monotonic()
        assert running.members(CORE) == []
    assert killed, f"the run ended before the engine core could be killed: {done}"
    assert done.code == 1, done
    assert ended - killed[0] <= GONE_S, f"{ended - killed[0]:.0f} s after the server was gone"
    assert re.search(NAMED["V17"], done.verdict["reason"]), done.reasons
