"""A run in three shards, merged: the verdict of the run that asked all of it; what is missing or strange is no green.

The server gives one answer to one question at once: only what merging makes of it is tried here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gatebook.config.selection import Shard

from tests.conftest import PATIENT, Done, Project, greeting, shipped_cases, small_project
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.scripted import ScriptedServer
from tests.forging import watch_everything

GROUPS = {"multilingual.identifiers": "03_multilingual", "scenarios.questions": "06_scenarios"}
COUNT = 3


def visitor(group: str, number: int) -> dict[str, Any]:
    name = f"{group.replace('.', '-')}-{number:02d}"
    return greeting(name, group, GROUPS[group], f"Greet visitor {number:02d} of {group}.")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ScriptedServer("smollm2-135m-instruct", answer_s=0.01) as scripted:
        yield f"{scripted.url}/v1"


@pytest.fixture(scope="module")
def project(server: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two notebooks of compared cases beside one that is never split, and the baseline of a whole run."""
    made = small_project(tmp_path_factory.mktemp("merged"))
    served = {**shipped_cases()["model-served"].model_dump(mode="json", exclude_defaults=True), "suites": ["smoke"]}
    made.write_cases([served, *(visitor(group, number) for group in GROUPS for number in range(12))])
    made.edit_profile(limits=PATIENT, groups=dict.fromkeys(GROUPS, "no_worse"))
    first = made.ask(server)
    assert first.code == 3, first
    made.accept(first.run)
    return made


def partial(done: Done) -> Path:
    """The folder of a shard, which says that it is one."""
    assert " PARTIAL  " in done.out.splitlines()[-1], done
    return done.run


def verdict(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return found


def merged(project: Project, runs: list[Path], out: str) -> Done:
    return project.gatebook("merge", *runs, "--out", project.root / "outputs" / out)


@pytest.fixture(scope="module")
def parts(project: Project, server: str) -> list[Path]:
    """The first by the command, into a folder of its own; the others without kernels."""
    folder = project.root / "parts" / "1"
    done = project.run(server, "--suite", "smoke", "--shard", f"1/{COUNT}", "--out", str(folder))
    others = [project.ask(server, shard=Shard(number, COUNT)) for number in range(2, COUNT + 1)]
    return [partial(Done(done.code, done.out, done.err, folder)), *map(partial, others)]


def test_the_merged_verdict_is_that_of_the_whole_run(project: Project, server: str, parts: list[Path]) -> None:
    whole = project.run(server, "--suite", "smoke")
    assert whole.code == 0, whole
    done = merged(project, parts[::-1], "all")
    folder = project.root / "outputs" / "all"
    assert done.code == 0 and done.out.splitlines()[-1].startswith("PASS  "), done
    one, other = verdict(whole.run), verdict(folder)
    assert other["groups"] == one["groups"] and other["pooled"] == one["pooled"] and not other["partial"]
    assert {f["id"]: f["outcome"] for f in other["findings"]} == {f["id"]: f["outcome"] for f in one["findings"]}
    manifests = [json.loads((run / "manifest.json").read_text()) for run in parts]
    assert sum(len(ids) for m in manifests for ids in m["expected"].values()) == 25, "each case was asked once"
    plan = json.loads((folder / "manifest.json").read_text())
    assert plan["merged_from"] == [m["run"] for m in manifests] and plan["run"].startswith(manifests[0]["run"])
    assert len([*folder.glob("*.exchanges.jsonl")]) == sum(len(m["expected"]) for m in manifests) > 3
    again = project.gatebook("verify", folder)
    assert again.code == 0 and again.out.splitlines()[-1].startswith("reproduced, PASS"), again
    assert project.gatebook("accept", folder, "--reason", "merged").code == 0
    refused = project.gatebook("run", "--resume", folder)
    assert refused.code == 2 and "there is nothing to resume" in refused.err


def test_a_merged_run_is_asked_for_what_the_checkout_says(project: Project, parts: list[Path], tmp_path: Path) -> None:
    """Shards whose policies were turned to watch and sealed anew merge to a PASS that no deployment is let through by."""
    forged = [Path(shutil.copytree(part, tmp_path / part.name)) for part in parts]
    for part in forged:
        watch_everything(part)
    for name, runs, code in (("honest", parts, 0), ("watched", forged, 2)):
        assert merged(project, runs, name).code == 0
        done = project.gatebook(
            "passed", project.root / "outputs" / name, "--suite", "smoke", "--profile", project.profile
        )
        assert done.code == code and ("'watch', the checkout" in done.err) == bool(code), done


def test_a_shard_alone_is_no_measure(project: Project, parts: list[Path]) -> None:
    done = project.gatebook("accept", parts[0], "--reason", "no")
    assert done.code == 2 and "PARTIAL" in done.err and "gatebook merge" in done.err


def test_an_answer_edited_in_one_shard_breaks_the_merged_chain(project: Project, parts: list[Path]) -> None:
    folder = project.root / "outputs" / "edited"
    assert merged(project, parts, "edited").code == 0
    file = max(folder.glob("*.shard-*.exchanges.jsonl"))
    file.write_bytes(file.read_bytes().replace(b'"status": 200', b'"status": 201', 1))
    assert project.gatebook("verify", folder).code == 75


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("missing", 75, "1 of 3 shards missing: 2; run them"),
        ("doubled", 75, "shard 1/3 is there twice"),
        ("whole", 2, "is no shard of a run"),
        ("touched", 75, "was changed"),
    ],
)
def test_what_does_not_belong_together_is_named_and_nothing_is_made(
    project: Project, parts: list[Path], tmp_path: Path, change: str, code: int, said: str
) -> None:
    runs = list(parts)
    if change == "missing":
        runs = [runs[0], runs[2]]
    elif change == "doubled":
        runs[1] = runs[0]
    elif change == "whole":
        runs[1] = min(p for p in (project.root / "outputs").iterdir() if p.name.startswith("20"))
    else:
        runs[1] = Path(shutil.copytree(runs[1], tmp_path / "touched"))
        (runs[1] / "cases.json").write_bytes((runs[1] / "cases.json").read_bytes() + b" ")
    done = merged(project, runs, "never")
    assert (done.code, len(done.err.strip().splitlines())) == (code, 1) and said in done.err, done
    assert not (project.root / "outputs" / "never").exists()


def test_a_shard_of_another_revision_is_named(project: Project, server: str, parts: list[Path]) -> None:
    other = project.ask(server, shard=Shard(2, COUNT), revision="b")
    assert other.code in (0, 3), other
    done = merged(project, [parts[0], partial(other), parts[2]], "never")
    assert done.code == 75 and "its revision (b) is not that of" in done.err, done


def test_one_broken_answer_in_one_shard_is_red_in_the_merged_run(project: Project, server: str) -> None:
    with FaultProxy(server.removesuffix("/v1"), [Fault("server_error", match="visitor 03 of scenarios")]) as proxy:
        runs = [partial(project.ask(proxy.base_url, shard=Shard(number, COUNT))) for number in range(1, COUNT + 1)]
    reds = [verdict(run)["verdict"] for run in runs]
    assert reds.count("FAIL") >= 1
    done = merged(project, runs, "red")
    assert done.code == 1 and "HTTP 500" in done.out.splitlines()[-1], done


def test_a_shard_that_there_is_not_is_bad_input(project: Project, server: str) -> None:
    done = project.run(server, "--suite", "smoke", "--shard", "9/8")
    assert done.code == 2 and "--shard has value '9/8': must be K/N" in done.err and len(done.err.splitlines()) == 1
