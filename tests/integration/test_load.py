"""Load against the real command, a real server and faults that strike only when several are asked at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gatebook.collect.scheduler import collect
from gatebook.config.policies import Goodput, LoadSettings, LongPrompts
from gatebook.config.profile import Limits, Profile, Target
from gatebook.config.selection import in_steps
from gatebook.record.manifest import Manifest
from gatebook.record.run import Run, now
from gatebook.verdict.findings import judge_run

from tests.conftest import Project, shipped_cases
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.scripted import ScriptedServer

STEPS = ("steps", "own-answers", "goodput")
GRADED = ("graded-france", "graded-italy", "graded-japan", "graded-spain", "graded-england", "decision-flips")
LOAD: dict[str, Any] = {
    "steps": [1, 2],
    "requests": 2,
    "goodput": {"at_once": 2, "ttft_ms": 20_000, "itl_ms": 5_000},
    "client_lag_ms": 10_000,
    "client_cpu_share": 1.0,
    "long_prompts": {"at_once": 3, "tokens": 700},
}
"""Limits so wide that only an injected fault passes them, however busy the machine is."""


def only(project: Project, *names: str, **goodput: float) -> None:
    project.choose(*names)
    project.edit_profile(
        limits={"request_deadline_s": 120, "document_budget_tokens": None},
        groups={"load.goodput": "must", "load.steps": "must", "load.long_prompts": "must"},
        load={**LOAD, "goodput": {**LOAD["goodput"], **goodput}},
    )


def test_a_healthy_server_is_green_under_load(project: Project, server: str) -> None:
    only(project, *STEPS, *GRADED)
    done = project.ask(server)
    assert done.code == 0, done
    assert "0 of 5 right answers become wrong at 2 in flight" in done.reasons
    assert "answers hold the word of their own request, none another's" in done.reasons
    assert "4 of 4 answered at 2 in flight" in done.reasons, done.reasons
    keys = {e.key: e.client.in_flight for e in Run(done.run).exchanges("08_load") if e.client and e.kind == "ask"}
    assert max(n for key, n in keys.items() if key.startswith("steps-1/")) == 1
    assert max(n for key, n in keys.items() if key.startswith("steps-2/")) == 2


def test_a_scripted_server_is_green_where_its_faults_are_not(project: Project) -> None:
    """What the next test shows is the faults' doing."""
    only(project, *STEPS, *GRADED, "picked-sky", "long-prompt", ttft_ms=8000.0)
    with ScriptedServer("smollm2-135m-instruct") as healthy:
        done = project.ask(f"{healthy.url}/v1")
    assert done.code == 0, done
    assert [note for note in done.verdict["notes"] if "whether others use the server is not known" in note], done


def test_what_breaks_only_in_company_is_caught_by_name(project: Project) -> None:
    """Each fault strikes a part of its own: swapped and slow answers, garbage, HTTP 500, and the third long prompt."""
    only(project, *STEPS, *GRADED, "picked-sky", "long-prompt", ttft_ms=8000.0)
    faults = [
        Fault("swap_answers", match="ship"),
        Fault("slow", match="ship", busy=1, arg=9.0),
        Fault("slow", match="capital of France", after=1, arg=6.0),  # all the others are asked in its company
        Fault("garbage", match="Answer in one word", busy=1),
        Fault("server_error", match="clear sky", busy=1),
        Fault("server_error", match="Handbook of the harbour office", busy=2),
    ]
    with ScriptedServer("smollm2-135m-instruct") as healthy, FaultProxy(healthy.url, faults) as proxy:
        done = project.ask(proxy.base_url)
    assert done.code == 1, done
    findings = {f["id"]: f for f in done.verdict["findings"]}
    assert "an answer reached the wrong asker" in findings["own-answers.own_word"]["reason"]
    assert "at 1 in flight 2 of 2: it is only so under load" in findings["goodput.goodput"]["reason"]
    flips = findings["decision-flips.decision_flips"]["reason"]
    assert "right answers become wrong at 2 in flight" in flips and "at 2 '!!!!" in flips
    unanswered = {f["case"]: f["reason"] for f in findings.values() if f["check"] == "answered"}
    assert set(unanswered) == {"picked-sky", "long-prompt-3"}, unanswered
    assert all("HTTP 500: EngineCore encountered an issue" in why for why in unanswered.values())
    blocked = {g["group"] for g in done.verdict["groups"] if g["word"] == "FAIL"}
    assert blocked == {"load.contract", "load.order", "load.goodput", "load.flips", "load.long_prompts"}


def plan(folder: Path, base_url: str, *names: str) -> Run:
    """A run of these cases that nobody has asked yet."""
    settings = LoadSettings(steps=[2], requests=4, goodput=Goodput(), long_prompts=LongPrompts(), client_lag_ms=1e6)
    cases = in_steps([shipped_cases()[n] for n in names], settings)
    groups: dict[str, Any] = dict.fromkeys({"load.contract", *(c.group for c in cases)}, "must")
    profile = Profile.model_validate(
        {"target": Target(model="smollm2-135m-instruct"), "limits": Limits(), "groups": groups, "load": settings}
    )
    manifest = Manifest(
        run="r", created=now(), profile=profile, base_url=base_url, suite="full",
        expected={"08_load": [c.id for c in cases]},
    )  # fmt: skip
    return Run.create(folder, manifest, cases, None)


def test_a_step_that_was_broken_off_and_resumed_is_not_measured(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan(tmp_path / "whole", server, "steps", "own-answers")
    collect(whole, "08_load")
    asked = [e for e in whole.exchanges("08_load") if e.kind == "ask"]
    half = plan(tmp_path / "half", server, "steps", "own-answers")
    with half.journal("08_load") as journal:
        for exchange in whole.exchanges("08_load"):
            if exchange.key != asked[-1].key:
                journal.append(exchange)
    collect(half, "08_load")
    found = {f.id: f for f in judge_run(half)}
    assert {f.outcome for f in judge_run(whole)} == {"pass"}
    assert found["steps-2.load_step"].outcome == "not_measured"
    assert "broken off and resumed" in found["steps-2.load_step"].reason
    assert [f.id for f in found.values() if f.outcome != "pass"] == ["steps-2.load_step"]
    assert sum(e.kind == "ask" for e in half.exchanges("08_load")) == 4, "what was recorded was asked again"
