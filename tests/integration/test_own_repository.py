"""A wheel in an empty folder: gate there with cases and a notebook of one's own, verify there, look at it in JupyterLab."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from gatebook.config.selection import in_suite

from tests import forging
from tests.conftest import PATIENT, ROOT, SMALL, Done, Project, checkout, shipped_cases
from tests.documents import commands, exit_code
from tests.faults.proxy import FaultProxy

PAGE = ROOT / "docs" / "own-repository.md"
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

    def type(self, line: str, server: str) -> Done:
        """A line of the page, as it stands, by a shell."""
        env = self.environment | {"PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"}
        filled = line.replace("http://gpu-box:8000/v1", server)
        done = subprocess.run(["bash", "-c", filled], cwd=self.root, env=env, capture_output=True, text=True)
        assert done.returncode == exit_code(line), (line, done.stdout, done.stderr)
        return Done(done.returncode, done.stdout, done.stderr, self.root / "outputs")

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
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "parent.pth").write_text("\n".join(ours) + "\n")
    wheels, target = folder / "wheelhouse", made / "bin" / "python"
    build = (*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", wheels, folder / "tree")
    subprocess.run(build, check=True)
    [wheel] = wheels.glob("gatebook-*.whl")  # by its file: the name alone is there already, as the checkout's own
    install = (*pip, "--python", target, "install", "--quiet", "--no-index", "--find-links", wheels, wheel)
    subprocess.run(install, check=True)  # with all that it needs, which is there as pinned
    return target


@pytest.fixture
def repository(python: Path, tmp_path: Path) -> Repository:
    (tmp_path / "repository").mkdir()
    return Repository(tmp_path / "repository", python)


def packaged(python: Path) -> Path:
    [found] = python.parents[1].glob("lib/python3*/site-packages/gatebook/shipped")
    return found


@pytest.fixture
def few(python: Path) -> Iterator[None]:
    """The package with few of its cases: asking all of them takes minutes."""
    cases = packaged(python) / "params" / "cases"
    every = cases.rename(cases.with_name("every"))
    cases.mkdir()
    wanted = [shipped_cases()[i].model_dump(mode="json", exclude_defaults=True) for i in SMALL]
    (cases / "few.yaml").write_text(yaml.safe_dump(wanted, allow_unicode=True))
    yield
    shutil.rmtree(cases)
    every.rename(cases)


def test_the_wheel_has_what_the_checkout_has_and_names_what_it_needs(repository: Repository) -> None:
    shipped = packaged(repository.python)
    for part in ("notebooks/*.ipynb", "params/cases/*.yaml", "site/*", "docs/schema/*.json"):
        own = {path.name: path.read_bytes() for path in ROOT.glob(part)}
        assert {path.name: path.read_bytes() for path in shipped.glob(part)} == own, part
    [metadata] = shipped.parents[1].glob("gatebook-*.dist-info/METADATA")
    needs = [line.split(": ")[1] for line in metadata.read_text().splitlines() if line.startswith("Requires-Dist")]
    pins = (ROOT / "requirements.txt").read_text().splitlines()
    assert needs == [line for line in pins if "==" in line and not line.startswith(" ")]
    assert repository.gatebook("init").code == 0
    plan = repository.gatebook("run", "--profile", "params/smollm2.yaml", "--suite", "smoke", "--plan").out
    smoke = [case for case in shipped_cases().values() if in_suite(case, "smoke")]
    assert plan.split("total")[1].split()[0] == str(len(smoke)), plan


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("few")
def test_an_empty_repository_gates(repository: Repository, server: str, tmp_path: Path) -> None:
    nowhere = repository.gatebook("run", "--profile", repository.profile, "--base-url", server)
    assert nowhere.code == 2 and "run `gatebook init`" in nowhere.err and len(nowhere.err.splitlines()) == 1, nowhere
    init, run, accept, again, lab = (line for line in commands(PAGE) if line.startswith("gatebook"))
    assert lab == "gatebook lab --profile params/mine.yaml", "the page tells another story now"
    repository.type(init, server)
    assert (repository.root / "outputs").is_dir()
    repository.edit_profile(limits=PATIENT, groups={"ours.contract": "must", "ours.canaries": "must"})
    ours = shipped_cases()["canary-water"].model_dump(mode="json", exclude_defaults=True) | {"id": "our-canary", "group": "ours.canaries"}  # fmt: skip
    own = repository.root / "params" / "cases" / "few.yaml"
    own.write_text(yaml.safe_dump([ours], allow_unicode=True))
    (repository.root / "notebooks").mkdir()
    edited = repository.root / "notebooks" / "01_health.ipynb"
    shutil.copy(packaged(repository.python) / "notebooks" / edited.name, edited)
    forging.edit(edited, lambda book: code_cells(book)[-2].update(source="print('the health of ours')"))

    first = repository.type(run, server)
    assert "INCONCLUSIVE" in first.out.splitlines()[-1], first
    manifest = json.loads((first.run / "manifest.json").read_text())
    assert {i for ids in manifest["expected"].values() for i in ids} == {*SMALL, "our-canary"}
    assert "the health of ours" in (first.run / "01_health.ipynb").read_text()
    repository.type(accept, server)
    second = repository.type(again, server)
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
