"""Machines that are set up in another way: a locale that is not UTF-8, somebody else's kernelspec called python3."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gatebook.commands.lab import jupyter_path

from tests.conftest import ROOT, Project

PATIENT = {"request_deadline_s": 60}
PREFERRED = "import locale; print(locale.getpreferredencoding(False))"


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with zh_CN.GB18030; where that cannot be made, of one with plain ASCII."""
    folder = tmp_path_factory.mktemp("locales")
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    if shutil.which("localedef"):
        name = "zh_CN.GB18030"
        made = subprocess.run(["localedef", "-c", "-i", "POSIX", "-f", "GB18030", folder / name], capture_output=True)
        plain = {"LC_ALL": name, "LOCPATH": str(folder)} if (folder / name).is_dir() else plain | {"why": str(made)}
    return {**plain, "PYTHONUTF8": "0", "PYTHONIOENCODING": "", "LANG": "", "LANGUAGE": ""}


def test_a_locale_that_is_not_utf8_changes_nothing(project: Project, server: str, chinese: dict[str, str]) -> None:
    said = subprocess.run(
        [sys.executable, "-c", PREFERRED], env={**project.environment, **chinese}, capture_output=True
    )
    assert said.stdout.strip() in (b"GB18030", b"ANSI_X3.4-1968"), said
    project.edit_profile(excused={"fresh-answers": "没有缓存"}, target={"baseline": "other"}, limits=PATIENT)
    chinese = {**chinese, "OPENAI_API_KEY": "vllm"}
    first = project.gatebook("run", "--profile", project.profile, "--base-url", server, env=chinese, encoding="gb18030")
    assert first.code in (0, 3), first  # 3: what is compared has no baseline yet
    assert first.verdict["troubles"] == []
    assert "OPENAI_API_KEY: a short or common word as key" in first.err
    taken = project.gatebook("accept", first.run, "--reason", "first run", env=chinese, encoding="gb18030")
    assert taken.code == 0, taken
    checked = project.gatebook("verify", first.run, "--reproduced", env=chinese, encoding="gb18030")
    assert (checked.code, "WRONG" in checked.out) == (0, False), checked
    exchanges = (first.run / "01_health.exchanges.jsonl").read_text(encoding="utf-8")
    assert "你好" in exchanges


def test_somebody_else_s_kernelspec_is_not_ours(
    project: Project, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    kernel = {"argv": ["/bin/false", "{connection_file}"], "display_name": "another tool's", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    hostile = {"JUPYTER_PATH": str(tmp_path / "jupyter"), "IPYTHONDIR": str(tmp_path / "ipython")}
    assert str(spec) in _kernels(hostile, project), "Jupyter itself would take it"
    project.edit_profile(limits=PATIENT)
    done = project.run(server, "--only", "01", env=hostile)
    assert done.verdict["troubles"] == [] and done.verdict["verdict"] == "PASS", done
    assert project.gatebook("verify", done.run, "--reproduced", env=hostile).code == 0
    shared = [*(tmp_path / "ipython").rglob("history.sqlite")]
    assert not shared, "kernels that share a history tell of it in the output of a cell, which is then not reproduced"
    monkeypatch.setenv("JUPYTER_PATH", hostile["JUPYTER_PATH"])
    assert str(spec) not in _kernels({"JUPYTER_PATH": jupyter_path()}, project), "gatebook lab would take it"
    assert "another environment's" in project.gatebook("doctor", env=hostile).out


def _kernels(environment: dict[str, str], project: Project) -> str:
    """What Jupyter finds under the name python3."""
    command = [sys.executable, "-m", "jupyter", "kernelspec", "list", "--json"]
    listed = subprocess.run(command, env={**project.environment, **environment}, cwd=ROOT, capture_output=True)
    return str(json.loads(listed.stdout)["kernelspecs"]["python3"]["resource_dir"])
