"""The real engines of the tests: what cannot be had is one line, a suite says loudly what it left out, nothing stays behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.engines.install import ENGINES, HERE
from tests.engines.others import FRONTS
from tests.engines.serving import NotStarted, free_port, running
from tests.engines.weights import VARIANTS
from tests.faults.on_vllm import BEFORE, VLLM

PLAIN = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTEST_")) and k != "CI"}
SERVES = "import http.server, subprocess, sys; subprocess.Popen(['sleep', '600']); http.server.test(http.server.SimpleHTTPRequestHandler, port={port}, bind='127.0.0.1')"


def ask(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, env={**PLAIN, **env}, capture_output=True, text=True, timeout=120
    )


def test_every_engine_is_pinned_without_local_versions() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == ENGINES.keys()
    for engine in ENGINES.values():
        pins = [line for line in engine.pins.read_text().splitlines() if not line.startswith("#")]
        assert [p for p in pins if not re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", p)] == [], engine.name
        assert not engine.with_torch or pins[0].startswith("torch=="), "torch goes in first"


def test_what_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    said = ask(
        "tests.engines", "prepare", "vllm", GATEBOOK_ENGINES=str(tmp_path), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(HERE)
    )
    told = [line for line in said.stderr.splitlines() if not line.startswith("installing")]
    assert said.returncode == 1 and len(told) == 1 and "torch==2.13.0" in told[0], said.stderr
    assert not (tmp_path / "vllm" / ".ready").exists(), "what is half done is done anew"


@pytest.mark.parametrize(("ci", "ended", "word"), [("", 0, "SKIPPED"), ("true", 1, "Failed")])
def test_a_suite_without_vllm_says_so_and_is_red_in_ci(tmp_path: Path, ci: str, ended: int, word: str) -> None:
    env = {"GATEBOOK_ENGINES": str(tmp_path), **({"CI": ci} if ci else {})}
    said = ask("pytest", "-q", "-p", "no:cacheprovider", "tests/integration/test_vllm.py", **env)
    assert said.returncode == ended, said.stdout
    assert re.search(rf"{word}.*NOTHING WAS TRIED ON A REAL VLLM", said.stdout), said.stdout


def test_a_server_is_stopped_with_its_children(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", SERVES.format(port=port)]
    url = f"http://127.0.0.1:{port}"
    with running(command, url, PLAIN, tmp_path / "log", lambda client, at: client.get(at).status_code == 200) as server:
        [child] = server.members(r"^sleep 600")
        assert server.members("http.server") != []
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.members("") == []


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('ValueError: no such thing')"]
    with (
        pytest.raises(NotStarted, match="ended with status 1: ValueError: no such thing"),
        running(command, "http://127.0.0.1:9", PLAIN, tmp_path / "log", lambda client, at: client.get(at).is_success),
    ):
        pass


def test_rows_name_weights_and_baselines_that_exist() -> None:
    assert {row.server.weights for row in VLLM} <= {"base", *VARIANTS}
    assert {row.before for row in VLLM} == BEFORE.keys()
    assert len({row.id for row in VLLM}) == len(VLLM)
    assert all((row.code == (0,)) == (row.kind == "harmless") for row in VLLM if not row.first)
    assert all(bool(row.named) == (row.kind == "fault") for row in VLLM if not row.first)


def test_what_is_told_of_the_engines_names_their_pins() -> None:
    for front in FRONTS.values():
        for version in re.findall(r"\d+\.\d+\.\d+", front.told):
            assert any(f"=={version}" in e.pins.read_text() for e in ENGINES.values()), front.told
