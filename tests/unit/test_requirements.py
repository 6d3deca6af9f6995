"""The pinned lists install from plain PyPI: no local version, no address, no option, and pip with an empty configuration finds each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT

LISTS = ("requirements.txt", "requirements-dev.txt", "requirements-fleet.txt", "requirements-nodeps.txt")
PIP = "26.3"
"""One pip on every machine: what is asked of it below is not its public face."""
PROCESSES = 2
CUDA = re.compile(r"(nvidia-(?!ml-py)|cuda-|triton)")


def pins(name: str) -> list[str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def plain(line: str) -> bool:
    """One name and one public version, and nothing that only some machine has."""
    return re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) is not None


@pytest.mark.parametrize("name", LISTS)
def test_every_line_is_a_name_and_a_public_version(name: str) -> None:
    assert pins(name)
    assert [line for line in pins(name) if not plain(line)] == []
    assert [line for line in pins(name) if CUDA.match(line)] == [], (
        "these would be downloaded beside a torch without CUDA"
    )


@pytest.mark.parametrize(
    "line", ["torch==2.13.0+cpu", "x @ https://host/x.whl", "--index-url https://host/simple", "--find-links x", "x>=1", "-e ."]
)  # fmt: skip
def test_a_line_that_only_some_machines_can_install_is_none(line: str) -> None:
    assert not plain(line)


def test_all_lists_pin_one_version() -> None:
    versions: dict[str, set[str]] = {}
    for line in (line for name in LISTS for line in pins(name)):
        versions.setdefault(line.split("==")[0], set()).add(line.split("==")[1])
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def _make(*words: str) -> list[str]:
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--always-make", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_smaller_torch_is_an_option_of_set_up_and_never_needed() -> None:
    without, index = _make("setup"), "https://index.example/cpu"
    [first, *more] = [line for line in _make("setup", f"TORCH_INDEX={index}") if line not in without]
    assert more == [] and "--index-url" not in " ".join(without)
    wanted = first.split("pip install ")[1].replace("$(grep '^torch==' requirements.txt)", _torch())
    assert wanted.endswith(f"--no-deps --index-url {index} {_torch()}")


def _torch() -> str:
    return next(line for line in pins("requirements.txt") if line.startswith("torch=="))


def test_new_pins_lose_their_local_versions(tmp_path: Path) -> None:
    """pip-compile writes the version that it found, and a machine with a CPU build of torch finds 2.13.0+cpu."""
    compiled = "six==1.17.0\n    # via a==1+b\ntorch==2.13.0+cpu\n    # via -r requirements.in\nyarl==1.25.1\n"
    (tmp_path / "requirements.txt").write_text(compiled, encoding="utf-8")
    [cut] = [line for line in _make("pins") if line.startswith("sed")]
    assert subprocess.run(cut, shell=True, cwd=tmp_path).returncode == 0
    assert (tmp_path / "requirements.txt").read_text(encoding="utf-8") == compiled.replace("2.13.0+cpu", "2.13.0")


FIND = """
import sys
sys.path.insert(0, sys.argv[1])
from pip._internal.commands import create_command
from pip._internal.req.constructors import install_req_from_line
command = create_command("download", isolated=True)
options, _ = command.parse_args(sys.argv[2:3])
with command.main_context():
    finder = command._build_package_finder(options, command.get_default_session(options))
    for line in sys.stdin.read().split():
        print(line, finder.find_requirement(install_req_from_line(line), upgrade=True).link.filename)
"""
"""What `pip download --isolated --no-deps` does before it downloads: 10 s of one core for all lines, where 3 GB would take minutes."""


@pytest.mark.timeout(600)
def test_plain_pypi_has_every_line(tmp_path: Path) -> None:
    """`pip --isolated` with no configuration and no variable of pip's own finds a file for this Python for each line."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")} | {"PIP_CONFIG_FILE": os.devnull}
    trusted = [f"--cert={cert}"] if (cert := os.environ.get("PIP_CERT")) else []

    def python(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words, *trusted]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, input=given, capture_output=True, text=True, encoding="utf-8"
        )

    got = python("-m", "pip", "download", "--isolated", "--no-deps", "--quiet", f"pip=={PIP}")
    if got.returncode and "CI" not in os.environ:
        pytest.skip(f"NOT PROVEN that the requirements install: PyPI cannot be reached from here: {got.stderr[-200:]}")
    assert got.returncode == 0, got.stderr
    [pip] = tmp_path.glob("pip-*.whl")
    every = sorted({line for name in LISTS for line in pins(name)})

    def found(number: int) -> list[str]:
        done = python("-c", FIND, str(pip), given="\n".join(every[number::PROCESSES]))
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    with ThreadPoolExecutor(PROCESSES) as pool:
        files = dict(line.split(" ", 1) for part in pool.map(found, range(PROCESSES)) for line in part)
    assert sorted(files) == every
    assert [f"{line}: {file}" for line, file in files.items() if "+" in file] == []
