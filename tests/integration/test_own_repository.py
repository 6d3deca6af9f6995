"""A wheel in an empty folder: gate there with cases and a notebook of one's own, verify there, look at it in JupyterLab."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from gatebook.config.cases import in_suite

from tests import forging
from tests.conftest import PATIENT, ROOT, SMALL, Project, checkout, shipped_cases
from tests.faults.proxy import FaultProxy

PARTS = ("pyproject.toml", "README.md", "lib", "notebooks", "params", "site", "docs/schema", "requirements.in", "requirements.txt", "requirements-nodeps.txt")  # fmt: skip


@dataclass
class Repository(Project):
    """An empty folder, in which the installed `gatebook` runs."""

    python: Path

    @property
    def profile(self) -> Path:
        return self.root / "params" / "mine.yaml"

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(self.python.with_name("gatebook")), *map(str, arguments)]

    @property
    def environment(self) -> dict[str, str]:
        return {k: v for k, v in super().environment.items() if k not in ("GATEBOOK_ROOT", "PYTHONPATH")}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with the wheel of this checkout, and with the packages of this one."""
    folder = tmp_path_factory.mktemp("own")
    for part in PARTS:
        source, copy = ROOT / part, folder / "tree" / part
        copy.parent.mkdir(parents=True, exist_ok=True)
        left_out = shutil.ignore_patterns("*.egg-info", "__pycache__")
        shutil.copytree(source, copy, symlinks=True, ignore=left_out) if source.is_dir() else shutil.copy(source, copy)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    made = folder / "venv"
    venv.create(made, symlinks=True)
    [packages] = made.glob("lib/python3*/site-packages")
    (packages / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wheels, offline = folder / "wheels", ("--no-deps", "--quiet")
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "-w", wheels, folder / "tree"], check=True)
    target = made / "bin" / "python"
    subprocess.run([*pip, "--python", target, "install", *offline, "--no-index", *wheels.glob("*.whl")], check=True)
    return target


@pytest.fixture
def repository(python: Path, tmp_path: Path) -> Repository:
    (tmp_path / "repository").mkdir()
    return Repository(tmp_path / "repository", python)


def packaged(python: Path) -> Path:
    [found] = python.parents[1].glob("lib/python3*/site-packages/gatebook/shipped")
    return found


def test_the_wheel_has_what_the_checkout_has_and_names_what_it_needs(python: Path) -> None:
    shipped = packaged(python)
    for part in ("notebooks/*.ipynb", "params/cases/*.yaml", "site/*", "docs/schema/*.json"):
        own = {path.name: path.read_bytes() for path in ROOT.glob(part)}
        assert {path.name: path.read_bytes() for path in shipped.glob(part)} == own, part
    [metadata] = shipped.parents[1].glob("gatebook-*.dist-info/METADATA")
    needs = [line.split(": ")[1] for line in metadata.read_text().splitlines() if line.startswith("Requires-Dist")]
    pins = (ROOT / "requirements.txt").read_text().splitlines()
    assert needs == [line for line in pins if "==" in line and not line.startswith(" ")]


@pytest.mark.timeout(600)
def test_an_empty_repository_gates(repository: Repository, server: str, tmp_path: Path) -> None:
    nowhere = repository.gatebook("run", "--profile", repository.profile, "--base-url", server)
    assert nowhere.code == 2 and "run `gatebook init`" in nowhere.err and len(nowhere.err.splitlines()) == 1, nowhere
    assert repository.gatebook("init").code == 0
    plan = repository.gatebook("run", "--profile", "params/smollm2.yaml", "--suite", "smoke", "--plan").out
    smoke = [case for case in shipped_cases().values() if in_suite(case, "smoke")]
    assert plan.split("total")[1].split()[0] == str(len(smoke)), plan

    cases, health = packaged(repository.python) / "params" / "cases", packaged(repository.python) / "notebooks" / "01_health.ipynb"  # fmt: skip
    for file in cases.glob("*.yaml"):
        file.unlink()  # what follows asks a few of them
    few = [shipped_cases()[i].model_dump(mode="json", exclude_defaults=True) for i in SMALL]
    (cases / "few.yaml").write_text(yaml.safe_dump(few, allow_unicode=True))
    begun = repository.gatebook("init", "--base-url", server, "--name", "mine")
    assert begun.code == 0 and (repository.root / "outputs").is_dir(), begun
    repository.edit_profile(limits=PATIENT, groups={"ours.contract": "must", "ours.canaries": "must"})
    ours = shipped_cases()["canary-water"].model_dump(mode="json", exclude_defaults=True) | {"id": "our-canary", "group": "ours.canaries"}  # fmt: skip
    own = repository.root / "params" / "cases" / "few.yaml"
    own.write_text(yaml.safe_dump([ours], allow_unicode=True))
    (repository.root / "notebooks").mkdir()
    edited = repository.root / "notebooks" / "01_health.ipynb"
    shutil.copy(health, edited)
    forging.edit(edited, lambda book: code_cells(book)[-2].update(source="print('the health of ours')"))

    first = repository.run(server, "--suite", "smoke")
    assert first.code == 3, first
    manifest = json.loads((first.run / "manifest.json").read_text())
    assert {i for ids in manifest["expected"].values() for i in ids} == {*SMALL, "our-canary"}
    assert "the health of ours" in (first.run / "01_health.ipynb").read_text()
    assert repository.gatebook("accept", first.run, "--reason", "first").code == 0
    second = repository.run(server, "--suite", "smoke")
    assert second.code == 0, second
    asked = ("passed", second.run, "--suite", "smoke", "--profile", repository.profile)
    assert repository.gatebook(*asked).code == repository.gatebook(*asked, "--cases", "params/cases").code == 0
    assert repository.gatebook("verify", second.run).code == 0
    moved = Path(shutil.copytree(second.run, tmp_path / "elsewhere" / "run"))
    stranger = Repository(moved.parent, repository.python).gatebook("verify", moved)
    assert stranger.code == 75 and "changed cell" in stranger.out, stranger
    told = repository.gatebook("doctor").out
    assert f"project {repository.root}\n" in told and "your own: 01_health.ipynb, few.yaml\n" in told

    with FaultProxy(server.removesuffix("/v1"), ["empty"]) as proxy:
        assert repository.run(proxy.base_url, "--suite", "smoke").code == 1
    own.write_text(yaml.safe_dump([{**ours, "id": "canary-water"}], allow_unicode=True))
    twins = repository.run(server, "--suite", "smoke")
    assert twins.code == 2 and str(own) in twins.err and "a case of the package is not replaced" in twins.err, twins


def code_cells(book: Any) -> list[Any]:
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def test_a_checkout_is_its_own_package_for_an_installed_gatebook_too(repository: Repository) -> None:
    checkout(repository.root)
    (repository.root / "params" / "mine.yaml").write_text((ROOT / "params" / "smollm2.yaml").read_text())
    done = repository.gatebook("run", "--profile", repository.profile, "--plan")
    assert done.code == 2 and "params/cases: no case files" in done.err, done


def test_lab_serves_the_packages_notebooks_to_be_edited(repository: Repository) -> None:
    assert repository.gatebook("lab").code == 2
    assert repository.gatebook("init").code == 0
    unknown = repository.gatebook("lab", "--profile", "params/none.yaml")
    assert unknown.code == 2 and "params/none.yaml: no such file" in unknown.err, unknown
    options = ("--no-browser", "--allow-root", "--port=0", "--ServerApp.token=t")
    with subprocess.Popen(
        repository.command("lab", *options), cwd=repository.root, env=repository.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as lab:  # fmt: skip
        try:
            assert lab.stdout is not None
            url = next(word for line in lab.stdout for word in line.split() if word.startswith("http://127.0.0.1:"))
            base, folder = url.split("/lab")[0], next(repository.root.glob("outputs/lab-*"))
            assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in (ROOT / "notebooks").glob("*.ipynb"))  # fmt: skip
            with httpx.Client(trust_env=False, timeout=60, params={"token": "t"}) as client:
                copy = f"{base}/api/contents/{folder.relative_to(repository.root)}/01_health.ipynb"
                book = client.get(copy).raise_for_status().json()
                assert book["writable"] and book["content"]["cells"]
                assert client.get(f"{base}/lab", follow_redirects=True).status_code == 200
                made = client.post(f"{base}/api/kernels", json={"name": "python3"}).raise_for_status().json()
                [process] = kernels_of(lab.pid)
                started = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
                assert started[0] == str(repository.python), "the kernel of the environment that has the wheel"
                seen = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
                assert f"GATEBOOK_PROFILE={repository.root / 'params' / 'smollm2.yaml'}" in seen
                assert client.delete(f"{base}/api/kernels/{made['id']}").status_code == 204
        finally:
            lab.terminate()
            lab.communicate(timeout=60)


def kernels_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
