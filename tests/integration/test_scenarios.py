"""Scenarios against the real command and a real server: what is lost or changed on the wire is found and named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENT, Project
from tests.faults.proxy import Fault, FaultProxy

REPEAT: dict[str, Any] = {
    "id": "todos-tiny", "notebook": "06_scenarios", "group": "scenarios.todos", "suites": ["smoke"], "why": "a list of known truth",
    "minutes": {"seed": 5, "todos": 2, "language": "en"},
    "messages": [{"role": "user", "content": "Repeat these lines exactly, and nothing else:\n{todos}"}],
    "options": {"temperature": 0, "max_tokens": 60}, "finish": "any", "expect": [{"todos": True}],
}  # fmt: skip
MANUAL = "Manual of the Orion gateway. The gateway listens on port 8443. The log files are kept for 14 days."
PORT: dict[str, Any] = {
    "id": "ask-tiny", "notebook": "06_scenarios", "group": "scenarios.questions", "suites": ["smoke"], "why": "two turns over a text",
    "options": {"temperature": 0, "max_tokens": 32}, "finish": "any",
    "asks": [
        {"name": "first", "messages": [{"role": "user", "content": f"{MANUAL}\n\nWhich port does the gateway listen on?"}]},
        {"name": "second", "follows": "first", "messages": [{"role": "user", "content": "How long are the log files kept?"}]},
    ],
    "expect": [{"facts": {"ask": "first", "required": ["8443"]}}, {"facts": {"ask": "second", "required": ["14 days"]}}],
}  # fmt: skip


@pytest.fixture
def small(project: Project) -> Project:
    project.write_cases([REPEAT, PORT])
    project.edit_profile(groups={"scenarios.todos": "must", "scenarios.questions": "must"}, limits=PATIENT)
    return project


def test_a_healthy_server_is_green(small: Project, server: str) -> None:
    done = small.ask(server)
    assert done.code == 0, done


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("lose_line"), "1 of 2 to-dos missing: prepare the demo slides"),
        (Fault("change_number"), "first: 1 of 1 facts missing: 8443"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_is_lost_or_changed_is_named(small: Project, server: str, fault: Fault, words: str) -> None:
    with FaultProxy(server.removesuffix("/v1"), [fault]) as proxy:
        done = small.ask(proxy.base_url)
    assert done.code == 1, done
    assert words in done.reasons


def test_a_copied_bundle_is_verified_read_only_and_a_forged_cosine_is_found(
    project: Project, server: str, tmp_path: Path
) -> None:
    guarded = {**PORT, "golden": ["The log files are kept for 14 days."], "paraphrases": ["Logs stay for 14 days."]}
    project.write_cases([{**guarded, "expect": [*PORT["expect"], {"similar": True}]}])
    project.edit_profile(groups={"scenarios.questions": "must"}, limits=PATIENT)
    done = project.ask(server)
    assert done.code == 0, done
    bundle = tmp_path / "copied"
    shutil.copytree(done.run, bundle)
    for file in bundle.iterdir():
        file.chmod(0o444)
    bundle.chmod(0o555)
    try:
        assert project.gatebook("verify", bundle).code == 0
    finally:
        bundle.chmod(0o755)
    file = bundle / "06_scenarios.similarity.json"
    os.chmod(file, 0o644)  # noqa: PTH101
    kept = json.loads(file.read_text())
    kept["cosines"] = {key: 0.5 for key in kept["cosines"]}
    file.write_text(json.dumps(kept))
    found = project.gatebook("verify", bundle)
    assert found.code != 0 and "06_scenarios.similarity.json was changed" in found.out + found.err
    nbval = next(line for line in (found.out + found.err).splitlines() if "nbval" in line)
    assert not nbval.startswith("ok"), nbval
