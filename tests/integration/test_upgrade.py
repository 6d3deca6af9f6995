"""A profile and a baseline of commit e6cfffa keep working: run, accept, run, by the real command on a real server."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from gatebook.config.cases import Case

from tests.conftest import Done, Project, shipped_cases, small_project

pytestmark = pytest.mark.timeout(900)
OLD = Path(__file__).parent / "upgrade"
"""What `gatebook init` of e6cfffa wrote for the embedded server, `health.latency` and `health.manners` set to watch as its
tutorial says, and what its `accept` took of a smoke run. Neither file is ever written again."""
NEVER_ASKED = tuple(f"keyword-{name}" for name in ("type", "enum", "const", "minimum", "maximum", "required"))
KNOWN = ("token-counts", "canary-water", "fresh-answers", "first-token-capital", "first-token-x", "greedy-boat")


def test_files_of_e6cfffa_run_accept_run(tmp_path: Path, server: str) -> None:
    """Cases that the baseline knows, a compared group that it was never asked, and a group that the profile does not know."""
    project = small_project(tmp_path)
    shutil.copy(OLD / "e6cfffa.yaml", project.root / "params")
    shutil.copy(OLD / "e6cfffa.json", project.root / "params" / "baselines")
    cases = [c.model_dump(mode="json", exclude_defaults=True) for c in named().values()]
    for case in cases:
        case["suites"] = ["smoke"] if case["id"] in (*KNOWN, *NEVER_ASKED) else []
        case["group"] = "health.newer" if case["id"] == "canary-water" else case["group"]
    project.write_cases(cases)

    first = smoke(project, server)
    assert first.code == 3, first
    verdict = first.verdict
    assert verdict["changes"] == [] and {c["about"] for c in verdict["causes"]} == {
        "structured.keywords",
        "fingerprint",
    }
    assert all(c["accepts"] for c in verdict["causes"]) and verdict["needs_baseline"]
    [note] = [n for n in verdict["notes"] if "is older than" in n]
    assert "health.newer: must" in note and f"note: {note}" in first.out
    assert "next: gatebook accept" in first.out

    taken = project.gatebook("accept", first.run, "--reason", "upgraded")
    assert taken.code == 0, taken
    kept = json.loads((project.root / "params" / "baselines" / "e6cfffa.json").read_text())
    assert "greedy-tea-zh" in kept["cases"] and "keyword-enum" in kept["cases"], "what was not asked stays accepted"

    second = smoke(project, server)
    assert second.code == 0, second


def named() -> dict[str, Case]:
    """The cases that these files name, by id or group, and those that are asked: reading all of them takes each command seconds."""
    shipped, profile = shipped_cases(), yaml.safe_load((OLD / "e6cfffa.yaml").read_text())
    ids = {*json.loads((OLD / "e6cfffa.json").read_text())["cases"], *KNOWN, *NEVER_ASKED}
    ids |= {
        next(i for i, case in shipped.items() if case.group == group) for group in {c.group for c in shipped.values()}
    }
    return {i: c for i, c in shipped.items() if i in ids or any(fnmatchcase(i, name) for name in profile["excused"])}


def smoke(project: Project, server: str) -> Done:
    profile = project.root / "params" / "e6cfffa.yaml"
    return project.gatebook("run", "--profile", profile, "--base-url", server, "--suite", "smoke", timeout=500)
