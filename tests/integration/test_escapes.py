"""Names that a bundle brings reach the terminal as one visible line, whatever they hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gatebook.cli import command
from gatebook.record.folder import sha256_of
from gatebook.record.run import Run
from gatebook.report.terminal import show
from gatebook.verdict.verdict import Verdict

from tests.conftest import Done, Project
from tests.faults.proxy import FaultProxy
from tests.forging import chain, edit, seal

SPOOF = "x\x1b[2K\x1b[1A\r\npassed, PASS: all is well\x9b2J\u202e\u2028y"
CONTROLS = ("\x1b", "\r", "\x9b", "\u202e", "\u2028")


@pytest.fixture
def red(project: Project, server: str) -> Done:
    project.choose("canary-water")
    with FaultProxy(server, ["garbage"]) as proxy:
        return project.ask(proxy.base_url)


def _shown(done: Done, *never: str) -> None:
    said = done.out + done.err
    assert not any(sign in said for sign in CONTROLS), said
    assert not [line for line in said.splitlines() if line.startswith(never or ("passed", "PASS", "all is well"))], said


@pytest.mark.parametrize("where", ["a file", "SHA256SUMS", "verdict"])
def test_a_red_bundle_cannot_write_passed_on_the_terminal(project: Project, red: Done, where: str) -> None:
    run = Path(shutil.copytree(red.run, project.root / "outputs" / "forged"))
    if where == "a file":
        (run / SPOOF).write_text("")
    elif where == "SHA256SUMS":
        with (run / "SHA256SUMS").open("a", encoding="utf-8", newline="") as file:
            file.write(f"{'0' * 64}  {SPOOF.replace(chr(10), '')}\n")
    else:
        told = json.loads((run / "verdict.json").read_text(encoding="utf-8"))
        (run / "verdict.json").write_text(json.dumps({**told, "reason": SPOOF, "troubles": [SPOOF]}), encoding="utf-8")
    for words in (("passed", run, "--suite", "smoke"), ("verify", run), ("report", run)):
        done = project.gatebook(*words)
        assert done.code not in (0, 3), done
        _shown(done)


def _of_the_same_model(exchange: dict[str, Any]) -> bool:
    """Every request has asked for the model that the manifest names, else it is no evidence."""
    if "model" in (exchange.get("body") or {}):
        exchange["body"]["model"] = SPOOF
    return True


@pytest.mark.parametrize("where", ["run", "revision", "model"])
def test_what_a_bundle_calls_itself_is_one_visible_line(project: Project, server: str, where: str) -> None:
    project.choose("canary-water")
    done = project.ask(server)
    run = Path(shutil.copytree(done.run, project.root / "outputs" / "forged"))
    if where == "run":
        edit(run / "manifest.json", lambda manifest: {**manifest, "run": SPOOF.replace("/", "")})
        edit(run / "verdict.json", lambda verdict: {**verdict, "run": SPOOF.replace("/", "")})
        sums = [f"{sha256_of(file)}  {file.name}\n" for file in sorted(run.iterdir()) if file.name != "SHA256SUMS"]
        (run / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    else:
        edit(run / "manifest.json", lambda manifest: manifest["profile"]["target"].update({where: SPOOF}))
        if where == "model":
            chain(run, _of_the_same_model)
        seal(run)
    commands: list[tuple[object, ...]] = [
        ("accept", run, "--reason", "x"), ("history", "enter", run), ("history", "list"), ("history", "export", project.root / "rows.csv"),
        ("archive", project.root / "outputs", "--to", project.root / "site"), ("compare", done.run, run), ("compare", run, done.run),
        ("report", run), ("report", run, "--no-texts", "--out", project.root / "figures"), ("merge", run, done.run), ("verify", run),
        ("passed", run, "--suite", "smoke"), ("judge", run, "--profile", project.profile, "--out", project.root / "judged"),
        ("fleet", "accept", run, "--reason", "x"), ("fleet", "--resume", run), ("run", "--resume", run), ("accept", done.run, "--reason", "y", "--again", run),
    ]  # fmt: skip
    for words in commands:
        told = project.gatebook(*words)
        assert "Traceback" not in told.err, told
        _shown(told, "passed, PASS: all", "all is well")


def test_what_a_fleet_accepts_is_one_visible_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gatebook.fleet.conduct.accept_fleet", lambda *_: ([SPOOF, SPOOF], 1))
    monkeypatch.setattr("sys.argv", ["gatebook", "fleet", "accept", "x", "--reason", "y"])
    assert command() == 3
    said = capsys.readouterr().out
    assert said.count("\n") == 2
    _shown(Done(3, said, "", Path()))


def test_what_a_server_calls_itself_is_no_markup_and_no_control(red: Done, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = Verdict.model_validate(red.verdict)
    served = verdict.served.model_copy(update={"version": f"[/bold] {SPOOF}", "model": f"[red]{SPOOF}"})
    show(verdict.model_copy(update={"served": served, "reason": f"[/] {SPOOF}", "notes": [SPOOF]}), Run(red.run))
    said = capsys.readouterr().out
    assert "[/bold] x\\x1b[2K" in said and "[red]x" in said and "note: x" in said
    _shown(Done(1, said, "", red.folder))


def test_an_option_that_is_a_name_is_shown_as_one(project: Project) -> None:
    done = project.gatebook("verify", f"outputs/{SPOOF}")
    assert done.code == 2, done
    _shown(done)
