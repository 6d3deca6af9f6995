"""The ways that people take: gate a server of one's own, accept, compare, verify, judge again, explore."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from gatebook.commands import replay
from gatebook.commands.verify import verify

from tests.conftest import Done, Project
from tests.faults.proxy import Fault, FaultProxy


def test_verify_anywhere_and_not_after_one_changed_byte(green: Done, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "bundle"
    shutil.copytree(green.run, moved)
    intact = _verify(moved)
    assert intact.returncode == 0, intact.stdout
    assert intact.stdout.splitlines()[-1].startswith("reproduced, PASS")
    for name in sorted(
        p.name for p in moved.iterdir() if p.suffix in (".json", ".jsonl", ".ipynb", ".html", ".xml", ".txt")
    ):
        data = (moved / name).read_bytes()
        changed = bytearray(data)
        changed[len(data) // 2] ^= 1
        (moved / name).write_bytes(changed)
        assert "WRONG" in _steps_without_replay(moved), name
        (moved / name).write_bytes(data)
    assert _steps_without_replay(moved) == "ok"


def test_verify_sees_a_verdict_edited_with_fitting_checksums(project: Project, server: str) -> None:
    project.choose("max-tokens-5", "canary-water")
    with FaultProxy(server.removesuffix("/v1"), ["empty"]) as proxy:
        red = project.run(proxy.base_url)
    assert red.code == 1, red
    reproduced = project.gatebook("verify", red.run)
    assert reproduced.code == 1, reproduced
    assert "reproduced, FAIL" in reproduced.out
    assert project.gatebook("verify", red.run, "--reproduced").code == 0
    for name in ("verdict.json", "01_health.verdict.json"):
        file = red.run / name
        file.write_text(
            file.read_text()
            .replace('"verdict": "FAIL"', '"verdict": "PASS"')
            .replace('"exit_code": 1', '"exit_code": 0')
        )
    _reseal(red.run)
    forged = verify(red.run, replay=False)
    assert not forged.reproduced
    assert [step.what.split(":")[0] for step in forged.steps if step.wrong] == ["verdicts"]
    assert "verdict.json says PASS" in next(step.wrong or "" for step in forged.steps if step.wrong)


def test_verify_sees_an_unexecuted_cell_with_fitting_checksums(green: Done) -> None:
    file = green.run / "01_health.ipynb"
    notebook = json.loads(file.read_text())
    cell = next(c for c in notebook["cells"] if "nbval-check-output" in c["metadata"].get("tags", []))
    cell["execution_count"], cell["outputs"] = None, []
    file.write_text(json.dumps(notebook))
    _reseal(green.run)
    checked = verify(green.run, replay=False)
    assert not checked.reproduced
    assert [step.wrong for step in checked.steps if step.wrong] == ["01_health: cell 3 of 12 did not run"]


def test_verify_sees_an_edited_output_with_fitting_checksums(project: Project, server: str) -> None:
    project.choose("model-served", "max-tokens-5")
    done = project.ask(server)
    assert done.code == 0, done
    file = done.run / "90_verdict.ipynb"
    file.write_text(file.read_text().replace("VERDICT      PASS", "VERDICT      PASS (signed)"))
    _reseal(done.run)
    checked = project.gatebook("verify", done.run)
    assert checked.code == 75, checked
    assert "gives another output than recorded" in checked.out


def test_a_change_that_shows_in_several_notebooks_is_reproduced(project: Project, server: str) -> None:
    """Each notebook reports what had changed by then; at a replay those after it are recorded, too."""
    project.choose("model-served", "token-counts", "count-text", "count-roles")
    first = project.ask(server)
    assert first.code == 0, first
    project.accept(first.run)
    with FaultProxy(server.removesuffix("/v1"), ["more_prompt_tokens"]) as proxy:
        red = project.ask(proxy.base_url)
    changed = {change["name"].split(".")[1] for change in red.verdict["changes"]}
    assert red.code == 1 and {"token-counts", "count-text"} <= changed, red
    checked = project.gatebook("verify", red.run, "--reproduced")
    assert checked.code == 0, checked


@pytest.mark.parametrize("edited", [None, "02_structured_output"])
def test_notebooks_that_are_replayed_side_by_side_are_all_compared(
    green: Done, edited: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes share the notebooks of a longer run."""
    monkeypatch.setattr(replay, "MANY", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    if edited:
        file = green.run / f"{edited}.ipynb"
        notebook = json.loads(file.read_text())
        report = next(c for c in notebook["cells"] if c["source"] == ["print(run.report())"])
        report["outputs"][0]["text"].append("and signed\n")
        file.write_text(json.dumps(notebook))
        _reseal(green.run)
    said = verify(green.run).steps[-1]
    if edited:
        assert f"{edited}: Cell " in (said.wrong or "") and "another output than recorded" in (said.wrong or ""), said
    else:
        monkeypatch.setattr(replay, "MANY", 99)
        assert said == verify(green.run).steps[-1] and said.wrong is None, said


def test_judge_by_other_rules_asks_nothing(project: Project, green: Done) -> None:
    done = green
    stricter = project.root / "params" / "stricter.yaml"
    data = yaml.safe_load(project.profile.read_text())
    data["target"] |= {"context_tokens": 10**6, "baseline": "small"}
    cases = project.root / "params" / "cases" / "small.yaml"
    cases.unlink()  # what was asked stands in the run; nothing else is read
    data["groups"]["health.service"] = "watch"
    stricter.write_text(yaml.safe_dump(data))
    again = project.gatebook("judge", done.run, "--profile", stricter, "--out", project.root / "outputs" / "judged")
    verdict = json.loads((project.root / "outputs" / "judged" / "verdict.json").read_text())
    assert again.code == verdict["exit_code"] == 0, again
    assert {g["group"]: g["policy"] for g in verdict["groups"]}["health.service"] == "watch"
    twice = project.gatebook("judge", done.run, "--profile", stricter, "--out", project.root / "outputs" / "judged")
    assert twice.code == 2
    assert "exists already" in twice.err
    assert project.gatebook("verify", project.root / "outputs" / "judged").code == 0
    shipped = project.gatebook("passed", project.root / "outputs" / "judged", "--suite", verdict["suite"])
    assert (shipped.code, "judged again by other rules" in shipped.err) == (2, True), shipped


def test_the_key_reaches_the_server_and_nothing_else(project: Project, server: str) -> None:
    key = "sk-very-secret-0123456789"
    project.choose("model-served", "max-tokens-5", "canary-water")
    project.edit_profile(target={"api_key_env": "MY_KEY"})
    missing = project.run(server)
    assert missing.code == 2
    assert "MY_KEY" in missing.err
    with FaultProxy(server.removesuffix("/v1"), [Fault("leak_key", after=3)]) as proxy:
        done = project.run(proxy.base_url, env={"MY_KEY": key})
    assert proxy.authorizations == {f"Bearer {key}"}
    for file in done.run.rglob("*"):
        assert key not in file.read_text(errors="replace"), file
    assert key not in done.out + done.err
    assert "[redacted]" in (done.run / "01_health.exchanges.jsonl").read_text()


def test_papermill_alone_runs_a_notebook_and_exits_1_when_it_is_red(project: Project, server: str) -> None:
    project.choose("model-served", "max-tokens-5")
    profile = project.root / "params" / "mine.yaml"
    data = yaml.safe_load(project.profile.read_text())
    data["name"] = "mine"
    data["target"] |= {"server": "external", "base_url": server}
    profile.write_text(yaml.safe_dump(data, allow_unicode=True))
    green = _papermill(project, profile)
    assert green.returncode == 0, green.stderr
    run = next((project.root / "outputs").glob("20*"))
    assert (run / "01_health.exchanges.jsonl").exists(), "a run of its own was recorded"
    assert json.loads((run / "manifest.json").read_text())["profile"]["name"] == "mine", "its baseline is found by name"
    with FaultProxy(server.removesuffix("/v1"), ["empty"]) as proxy:
        data["target"]["base_url"] = proxy.base_url
        profile.write_text(yaml.safe_dump(data, allow_unicode=True))
        red = _papermill(project, profile)
    assert red.returncode == 1, red.stderr
    assert "content is empty" in red.stderr
    assert len(list((project.root / "outputs").glob("20*"))) == 2, "the first run was not written over"


def test_a_notebook_without_a_target_says_what_to_do(project: Project) -> None:
    done = _papermill(project, None)
    assert done.returncode == 1
    assert "GATEBOOK_PROFILE" in done.stderr


def test_jupyterlab_serves_the_notebooks(project: Project) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--port=0", "--ServerApp.token=t", f"--notebook-dir={project.root}"],
        env=project.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as lab:  # fmt: skip
        try:
            assert lab.stderr is not None
            url = next(word for line in lab.stderr for word in line.split() if word.startswith("http://127.0.0.1:"))
            base = url.split("/lab")[0]
            with httpx.Client(trust_env=False, timeout=30) as client:
                assert client.get(f"{base}/api/contents/notebooks/01_health.ipynb?token=t&content=0").status_code == 200
                assert client.get(f"{base}/lab?token=t", follow_redirects=True).status_code == 200
        finally:
            lab.terminate()
            lab.stderr.close() if lab.stderr else None


def test_a_port_where_something_listens_is_not_taken_for_the_embedded_server(
    project: Project, server: str, tmp_path: Path
) -> None:
    port = str(urlsplit(server).port)
    done = project.gatebook("serve", "--port", port, "--log", tmp_path / "server.log")
    assert (done.code, f"port {port} on 127.0.0.1: Address already in use" in done.err) == (75, True), done
    for beyond in ("0", "65536"):
        assert project.gatebook("serve", "--port", beyond).code == 2


def test_the_embedded_server_ends_with_its_parent(project: Project, tmp_path: Path) -> None:
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(
            project.command("serve", "--log", str(tmp_path / "log")),
            stdout=subprocess.PIPE,
            env=project.environment,
            text=True,
        ) as serve:
            assert serve.stdout is not None
            url = serve.stdout.readline().split(" at ")[1].split()[0]
            assert httpx.get(f"{url}/models", trust_env=False).status_code == 200
            serve.send_signal(how)
            serve.wait(20)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{url}/models", trust_env=False, timeout=2)
                time.sleep(0.1)
            except httpx.TransportError:
                break
        else:
            raise AssertionError(f"the server outlived its parent after {how.name}")


def test_plan_asks_nothing(project: Project) -> None:
    done = project.gatebook("run", "--profile", project.profile, "--base-url", "http://127.0.0.1:9/v1", "--plan")
    assert done.code == 0, done
    assert "minutes" in done.out
    assert not (project.root / "outputs").exists()


def _verify(run: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gatebook", "verify", str(run)], cwd=run.parent, capture_output=True, text=True
    )


def _steps_without_replay(run: Path) -> str:
    """The steps of verify before the replay, which costs seconds and is not needed to see a changed byte."""
    from gatebook.errors import BrokenRecord
    from gatebook.record.run import Run

    try:
        return "WRONG" if Run(run).damage() else "ok"
    except BrokenRecord:
        return "WRONG"


def _reseal(run: Path) -> None:
    from gatebook.record.run import Run

    Run(run).seal()


def _papermill(project: Project, profile: Path | None) -> subprocess.CompletedProcess[str]:
    arguments = ["notebooks/01_health.ipynb", "out.ipynb", "-k", "python3", *(["-f", str(profile)] if profile else [])]
    return subprocess.run(
        [sys.executable, "-m", "papermill", *arguments],
        cwd=project.root,
        env=project.environment,
        capture_output=True,
        text=True,
    )
