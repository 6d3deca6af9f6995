"""A bundle that somebody else sent: it is verified and told without running what it brings, and without leaving its folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gatebook.commands import replay
from gatebook.commands.accept import accept
from gatebook.commands.again import report_again
from gatebook.commands.passed import passed
from gatebook.errors import BrokenRecord
from gatebook.record.run import Run
from gatebook.runner import resume

from tests import forging
from tests.conftest import PATIENT, Done, Project, checkout, shipped_cases
from tests.unit import runs

pytestmark = pytest.mark.timeout(600)


def leave(mark: Path) -> str:
    """Code that leaves a mark with what it could read of the environment."""
    return f"import os\nopen({str(mark)!r}, 'a').write(repr(sorted(os.environ)) + '\\n')\n"


def cells(book: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def _changed_cell(bundle: Path, code: str) -> None:
    def change(book: Any) -> None:
        cell = cells(book)[-2]
        cell["source"] = code + "print('\\x1b[2J')\n" + "".join(cell["source"])

    forging.edit(bundle / "01_health.ipynb", change)


def _changed_parameters(bundle: Path, code: str) -> None:
    def change(book: Any) -> None:
        for cell in cells(book):
            if {"parameters", "injected-parameters"} & set(cell["metadata"]["tags"]):
                cell["source"] = code + "".join(cell["source"])

    forging.edit(bundle / "01_health.ipynb", change)


def _collected_again(bundle: Path, code: str) -> None:
    """The cell that asks the server is skipped by its tag alone."""

    def change(book: Any) -> None:
        for cell in cells(book):
            cell["metadata"]["tags"] = [t for t in cell["metadata"]["tags"] if t != "nbval-skip"]

    forging.edit(bundle / "01_health.ipynb", change)


def _modules(bundle: Path, code: str) -> None:
    """What pytest, nbval, a kernel or Python itself would import from where they run."""
    for name in ("conftest", "pytest", "pandas", "sitecustomize", "usercustomize", "gatebook", "nbval", "matplotlib"):
        (bundle / f"{name}.py").write_text(code)
    (bundle / "pytest.ini").write_text("[pytest]\npython_files = *.py\n")


def _kernel(bundle: Path, code: str) -> None:
    """A kernel of the bundle's own."""
    spec = {"argv": [sys.executable, "-c", code], "display_name": "x", "language": "python"}
    (bundle / "kernels" / "mine").mkdir(parents=True)
    (bundle / "kernels" / "mine" / "kernel.json").write_text(json.dumps(spec))
    forging.edit(bundle / "01_health.ipynb", lambda book: book["metadata"]["kernelspec"].update(name="mine"))


def _everything_else(bundle: Path, code: str) -> None:
    for bring in (_changed_parameters, _modules, _kernel):
        bring(bundle, code)


VECTORS: dict[str, tuple[Callable[[Path, str], None], int, str]] = {
    "changed cell": (_changed_cell, 75, "cells not replayed: changed cell 10 of 01_health"),
    "tags": (_collected_again, 75, "cells not replayed: changed cell 3 of 01_health"),
    "parameters, modules, a kernel": (_everything_else, 0, "reproduced, PASS"),
}


@pytest.mark.parametrize("name", VECTORS)
def test_what_a_bundle_brings_is_not_run(green: Done, project: Project, tmp_path: Path, name: str) -> None:
    bring, code, said = VECTORS[name]
    mark, bundle = tmp_path / "mark", green.run
    bring(bundle, leave(mark))
    forging.seal(bundle)
    page = tmp_path / "verify.html"
    command = [*project.command("verify", "."), "--html", str(page)]
    command[1:1] = ["-P"]  # as the installed command is: not `python -m` in a folder of somebody else's
    environment = {**project.environment, "CI_JOB_TOKEN": "secret", "JUPYTER_PATH": str(bundle)}
    done = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True, timeout=500)
    assert (done.returncode, said in done.stdout.splitlines()[-1]) == (code, True), done
    assert not mark.exists()
    assert "ok    verdicts" in done.stdout, "everything else is computed"
    assert "\x1b" not in done.stdout
    if name == "changed cell":
        assert "        | +print('\\x1b[2J')" in done.stdout and "| +import os" in done.stdout
        assert "+print(" in page.read_text() and "\x1b" not in page.read_text()


def test_nothing_runs_when_checksums_or_records_are_wrong(green: Done, project: Project, tmp_path: Path) -> None:
    """Our own edited notebook would leave a mark."""
    mark = tmp_path / "mark"
    for folder in (green.run, project.root / "notebooks"):
        forging.edit(
            folder / "01_health.ipynb",
            lambda book: cells(book)[-2].update(source=[leave(mark), *cells(book)[-2]["source"]]),
        )
    forging.seal(green.run)
    with (green.run / "index.html").open("a") as file:
        file.write(" ")
    done = project.gatebook("verify", green.run)
    assert done.code == 75 and "index.html was changed" in done.out, done
    assert "so nothing of it is replayed" in done.out and not mark.exists()

    Run(green.run).seal()
    record = green.run / "01_health.exchanges.jsonl"
    record.write_text(record.read_text().replace('"status": 200', '"status": 201', 1))
    Run(green.run).seal()
    done = project.gatebook("verify", green.run)
    assert done.code == 75 and "its hash does not fit" in done.out and not mark.exists(), done


def test_resuming_a_run_imports_nothing_out_of_its_folder(green: Done, project: Project, tmp_path: Path) -> None:
    """A gate job goes on with a folder that its cache kept, with the job's tokens in the environment."""
    mark = tmp_path / "mark"
    (green.run / "SHA256SUMS").unlink()
    _modules(green.run, leave(mark))
    done = project.gatebook("run", "--resume", green.run, env={"CI_JOB_TOKEN": "secret"})
    assert done.code == 0 and not mark.exists(), done


def test_a_teams_own_notebooks_verify_in_their_checkout(project: Project, server: str, tmp_path: Path) -> None:
    """Edited by the team before it asked; the cell tells whether it sees the token of whoever verifies, and where it stands.
    It warns too, with the name of a file that no two kernels have alike."""
    shipped = tmp_path / "shipped"
    shutil.copytree(project.root / "notebooks", shipped)
    own = "import os, warnings\nprint('token', 'CI_JOB_TOKEN' in os.environ)\nwarnings.warn('ours')\n"

    def change(book: Any) -> None:
        cell = cells(book)[-2]
        cell["source"] = own + "".join(cell["source"])

    health = project.root / "notebooks" / "01_health.ipynb"
    forging.edit(health, change)
    added = health.with_name("09_ours.ipynb")
    added.write_text(health.read_text(encoding="utf-8").replace("01_health", "09_ours"), encoding="utf-8")
    canary = shipped_cases()["canary-water"].model_dump(mode="json", exclude_defaults=True) | {"suites": ["smoke"]}
    ours = {**canary, "id": "our-canary", "notebook": "09_ours", "group": "ours.canaries"}
    project.write_cases([canary, ours])
    project.edit_profile(limits=PATIENT, groups={"ours.contract": "must", "ours.canaries": "must"})
    made = project.run(server)
    assert made.code == 0 and (made.run / "09_ours.ipynb").exists(), made
    verified = project.gatebook("verify", made.run, env={"CI_JOB_TOKEN": "secret"})
    assert verified.code == 0, verified
    again = project.gatebook("verify", made.run, "--notebooks", shipped)
    assert again.code == 75 and "cells not replayed: changed cell 10 of 01_health" in again.out, again
    assert "        | +print('token', 'CI_JOB_TOKEN' in os.environ)" in again.out
    shutil.copy2(health, shipped)
    unknown = project.gatebook("verify", made.run, "--notebooks", shipped)
    assert unknown.code == 75 and "09_ours" in unknown.out.splitlines()[-1], unknown
    nowhere = project.gatebook("verify", made.run, "--notebooks", tmp_path / "none")
    assert nowhere.code == 2 and "no such folder" in nowhere.err

    brought = made.run / "notebooks"
    shutil.copytree(project.root / "notebooks", brought)
    (made.run / "params" / "cases").mkdir(parents=True)
    Run(made.run).seal()
    environment = {k: v for k, v in project.environment.items() if k != "GATEBOOK_ROOT"}
    command = project.command("verify", ".")
    inside = subprocess.run(command, cwd=made.run, env=environment, capture_output=True, text=True, timeout=300)
    assert inside.returncode == 75 and "cells not replayed: " in inside.stdout, inside


def test_replayed_code_has_no_network_where_the_system_offers_it() -> None:
    alone = replay._unshare()
    if alone is None:
        pytest.skip("`unshare --net` is not permitted here")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        reach = f"import socket; socket.create_connection(('127.0.0.1', {listening.getsockname()[1]}), 5)"
        assert subprocess.run([sys.executable, "-c", reach]).returncode == 0
        cut = subprocess.run([*alone, sys.executable, "-c", reach], capture_output=True, text=True)
    assert cut.returncode == 1 and "Error" in cut.stderr


def test_limits_stand_before_a_cell_runs() -> None:
    greedy = "from gatebook import confined; confined.MEMORY_BYTES = 1 << 30; confined.limit(); b'x' * (2 << 30)"
    done = subprocess.run([sys.executable, "-c", greedy], capture_output=True, text=True)
    assert done.returncode == 1 and "MemoryError" in done.stderr


LINKS: dict[str, Callable[[Path, Path], object]] = {
    "a page is a link": lambda bundle, aim: (bundle / "index.html").symlink_to(aim),
    "a verdict is a link": lambda bundle, aim: (bundle / "verdict.json").symlink_to(aim),
    "a record is a link": lambda bundle, aim: (bundle / "01_health.exchanges.jsonl").symlink_to(aim),
    "texts is a link": lambda bundle, aim: (bundle / "texts").symlink_to(aim.parent, target_is_directory=True),
    "a pipe": lambda bundle, aim: os.mkfifo(bundle / "troubles.json"),
    "the plan is a link": lambda bundle, aim: (
        (bundle / "cases.json").rename(aim),
        (bundle / "cases.json").symlink_to(aim),
    ),
}


def test_nothing_follows_a_link_out_of_a_bundle(green: Done, project: Project, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("years of work")
    for made in ("index.html", "verdict.json", "SHA256SUMS", "01_health.exchanges.jsonl"):
        (green.run / made).unlink()
    shutil.rmtree(green.run / "texts", ignore_errors=True)
    for number, (name, link) in enumerate(LINKS.items()):
        bundle = Path(shutil.copytree(green.run, tmp_path / f"run-{number}"))
        link(bundle, outside / "file")
        before = [(p.name, p.read_bytes()) for p in outside.iterdir()]
        for command in ("report", "verify") if number in (0, 3) else ():
            done = project.gatebook(command, bundle)
            assert done.code == 75 and "a bundle holds plain files and folders only" in done.out + done.err, done
        for reads in (
            lambda: report_again(bundle),  # noqa: B023
            lambda: resume(bundle, watch=False),  # noqa: B023
            lambda: accept(bundle, "x", None, "li"),  # noqa: B023
            lambda: passed(bundle, "smoke"),  # noqa: B023
        ):
            with pytest.raises(BrokenRecord):
                pytest.fail(f"{name}: {reads()}")
        assert [(p.name, p.read_bytes()) for p in outside.iterdir()] == before, name


NAMED = ("../../outside/file", "/tmp/outside", "..", "a\x00b", ".hidden", "a/b", "")


def test_a_manifest_names_files_of_its_folder_only(green: Done, project: Project) -> None:
    (green.run / "SHA256SUMS").unlink()
    kept = (green.run / "manifest.json").read_bytes()
    for name in NAMED:
        for change in (_notebook, _baseline, _profile):
            (green.run / "manifest.json").write_bytes(kept)
            forging.edit(green.run / "manifest.json", lambda manifest: change(manifest, name))  # noqa: B023
            with pytest.raises(BrokenRecord):
                pytest.fail(f"{name!r}: {Run(green.run)}")
    forging.edit(green.run / "manifest.json", lambda manifest: _notebook(manifest, "../../outside/file"))
    before = sorted(project.root.rglob("*"))
    for command in (("report",), ("verify",), ("accept", "--reason", "x")):
        done = project.gatebook(command[0], green.run, *command[1:])
        assert done.code == 75 and "is no path" in done.out + done.err, done
    assert sorted(project.root.rglob("*")) == before


def _notebook(manifest: Any, name: str) -> None:
    manifest["expected"] = {name: list(manifest["expected"].values())[0]}


def _baseline(manifest: Any, name: str) -> None:
    manifest["profile"]["target"]["baseline"] = name


def _profile(manifest: Any, name: str) -> None:
    manifest["profile"]["name"] = name


def test_no_page_and_no_export_is_written_into_a_bundle(tmp_path: Path) -> None:
    first, other = (runs.bundle(tmp_path / "outputs" / name).path for name in ("run-1", "run-2"))
    page, link = other / "index.html", tmp_path / "link.csv"
    link.symlink_to(other / "verdict.json")
    project = Project(checkout(tmp_path / "project"))
    for command in (
        ("verify", first, "--html", page),
        ("verify", other, "--html", page),
        ("compare", first, other, "--html", other / "texts" / "new.html"),
        ("history", "export", link),
        ("history", "plot", other / "new.svg"),
        ("serve", "--log", other / "verdict.json"),
    ):
        done = project.gatebook(*command)
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done
        assert f"lies in the run folder {other}, a sealed bundle; name another file" in done.err
    assert Run(other).damage() == []


def test_no_link_in_a_published_folder_is_written_through(green: Done, project: Project, tmp_path: Path) -> None:
    run, outside, site, figures = green.run, tmp_path / "outside", tmp_path / "public", tmp_path / "figures"
    outside.write_text("years of work")
    for folder, *command in (
        (site, "archive", run, "--to", site),
        (figures, "report", run, "--no-texts", "--out", figures),
    ):
        assert project.gatebook(*command).code == 0
        files = [file for file in folder.iterdir() if file.is_file() and file.name != "NO_TEXTS"]
        for file in files:
            file.unlink()
            file.symlink_to(outside)
        done = project.gatebook(*command)
        assert (done.code, outside.read_text()) == (0, "years of work"), done
        assert len(files) > 4 and not any(file.is_symlink() for file in files)
    (site / "data").rename(tmp_path / "data")
    (site / "data").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "mine.json").touch()
    done = project.gatebook("archive", run, "--to", site)
    assert (done.code, "public/data: is a link" in done.err) == (2, True), done
    assert (tmp_path / "data" / "mine.json").exists()
