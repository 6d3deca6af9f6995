"""Which folder is the project, and what of it is its own: a checkout, a repository of one's own, and none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from gatebook.commands.casefiles import add_case
from gatebook.commands.init import begin
from gatebook.commands.lab import laid_out
from gatebook.config import project
from gatebook.config.cases import load_cases
from gatebook.config.profile import load_profile
from gatebook.errors import BadInput

from tests.conftest import ROOT, checkout

CASE = {"id": "ours", "notebook": "01_health", "group": "ours.answers", "why": "ours", "messages": [{"role": "user", "content": "hi"}]}  # fmt: skip
SHIPPED = ROOT / "params" / "cases"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, where this stands."""
    monkeypatch.delenv("GATEBOOK_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATEBOOK_ROOT", str(nowhere))
    (nowhere / "params" / "cases").mkdir(parents=True)
    return nowhere


def write(folder: Path, **more: object) -> Path:
    (folder / "params" / "cases" / "health.yaml").write_text(yaml.safe_dump([CASE | more]))
    return folder / "params" / "cases" / "health.yaml"


def test_the_nearest_folder_with_a_profile_or_cases_is_the_project(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    assert project.root() == ROOT, "the checkout that is installed"
    (nowhere / "params").mkdir()
    assert project.root() == ROOT, "a folder of that name alone is none"
    (nowhere / "params" / "mine.yaml").write_text("name: mine\n")
    deep = nowhere / "a" / "params" / "cases"
    deep.mkdir(parents=True)
    assert project.root() == nowhere
    monkeypatch.chdir(nowhere / "a" / "params")
    assert project.root() == nowhere / "a"
    monkeypatch.setenv("GATEBOOK_ROOT", str(nowhere))
    assert project.root() == nowhere


def test_a_root_that_is_no_project_shrinks_nothing_silently(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEBOOK_ROOT", str(nowhere / "typo"))
    with pytest.raises(BadInput, match="GATEBOOK_ROOT has value .*typo.*run `gatebook init`"):
        project.case_folders()


def test_without_a_project_the_package_still_has_notebooks(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = shutil.copytree(ROOT / "lib" / "gatebook" / "shipped" / "notebooks", nowhere / "shipped" / "notebooks")
    monkeypatch.setattr(project, "PACKAGE", outside.parent)
    monkeypatch.setattr(project, "CHECKOUT", nowhere / "lib" / "python3")  # as in site-packages
    with pytest.raises(BadInput, match="run `gatebook init`"):
        project.root()
    assert project.notebook_file("01_health") == outside / "01_health.ipynb"


def test_own_cases_stand_beside_the_shipped_ones(own: Path) -> None:
    assert len(load_cases(*project.case_folders())) == len(load_cases(SHIPPED))
    write(own)  # a file of the same name replaces nothing
    found = load_cases(*project.case_folders())
    assert [case.id for case in found] == [*(case.id for case in load_cases(SHIPPED)), "ours"]
    file = write(own, id="canary-water")
    with pytest.raises(BadInput, match=f"health.yaml, {file}: .*'canary-water' 2 times; a case of the package is not"):
        load_cases(*project.case_folders())


def test_a_case_that_is_added_makes_its_file_and_names_no_schema_that_is_not_there(own: Path) -> None:
    (own / "params" / "cases").rmdir()
    (own / "params" / "mine.yaml").touch()
    entry = CASE | {"expect": [{"length_chars": {"max": 9}}]}
    file = add_case(entry, Path("params/cases/health.yaml"))
    assert file == own / "params" / "cases" / "health.yaml" and file.read_text().startswith("- id: ours\n")
    with pytest.raises(BadInput, match="another case has this id"):
        add_case(entry | {"id": "canary-water"}, file)
    shutil.copytree(ROOT / "docs" / "schema", own / "docs" / "schema")
    second = add_case(entry | {"id": "second"}, Path("params/cases/more.yaml"))
    assert second.read_text().startswith("# yaml-language-server: $schema=../../docs/schema/case.schema.json\n\n- id")


def test_one_notebook_of_ones_own_goes_before_the_packages(own: Path) -> None:
    (own / "notebooks").mkdir()
    mine = own / "notebooks" / "01_health.ipynb"
    mine.write_text("{}")
    assert project.notebook_file("01_health") == mine
    assert project.notebook_file("90_verdict").samefile(ROOT / "notebooks" / "90_verdict.ipynb")
    with pytest.raises(BadInput, match="no such notebook; .*01_health, 02_structured_output"):
        project.notebook_file("09_none")


def test_a_checkout_takes_nothing_of_the_package(own: Path) -> None:
    checkout(own)
    assert project.case_folders() == [own / "params" / "cases"] and project.folders("notebooks") == [own / "notebooks"]
    with pytest.raises(BadInput, match="no such notebook"):
        project.notebook_file("01_health")
    with pytest.raises(BadInput, match="no case files"):
        load_cases(*project.case_folders())


def test_init_without_a_server_begins_with_the_embedded_model(own: Path) -> None:
    assert "gatebook run --profile" in begin()
    file = own / "params" / "smollm2.yaml"
    assert load_profile(file) == load_profile(ROOT / "params" / "smollm2.yaml") and "$schema" not in file.read_text()
    with pytest.raises(BadInput, match="exists already"):
        begin()


def test_lab_copies_what_is_not_there_and_nothing_over_an_edit(own: Path) -> None:
    (own / "notebooks").mkdir()
    (own / "notebooks" / "08_load.ipynb").write_text("{}")
    copies = laid_out(own)
    (copies / "01_health.ipynb").write_text("edited")
    (copies / "02_structured_output.ipynb").unlink()
    assert laid_out(own) == copies and (copies / "01_health.ipynb").read_text() == "edited"
    assert (copies / "02_structured_output.ipynb").exists() and not (copies / "08_load.ipynb").exists()
    assert laid_out(checkout(own)) == own / "notebooks"
