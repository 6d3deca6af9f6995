"""`gatebook run --effort`: fewer questions where nothing leans, everything where something does, red where it is.

What is staged is asked of a server that answers at once; what draws is asked of the embedded model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENT, Done, Project, greeting, small_project
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.scripted import ScriptedServer

COUNT, FIRST = 60, 20
GROUP = "scenarios.questions"


def visitor(number: int) -> dict[str, Any]:
    return greeting(f"visitor-{number:02d}", GROUP, "06_scenarios", f"Say hello to visitor {number:02d}.")


@pytest.fixture(scope="module")
def scripted() -> Iterator[str]:
    with ScriptedServer("smollm2-135m-instruct", answer_s=0.01) as server:
        yield f"{server.url}/v1"


@pytest.fixture(scope="module")
def project(scripted: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Sixty compared questions beside one that must pass, and the baseline of a normal run."""
    made = small_project(tmp_path_factory.mktemp("effort"))
    must = {"id": "must-hello", "notebook": "06_scenarios", "group": "scenarios.must", "suites": ["smoke"], "why": "it answers",
            "messages": [{"role": "user", "content": "Say hello."}], "options": {"max_tokens": 4, "temperature": 0}, "finish": "any",
            "tags": {"task": "must", "language": "en"}, "expect": [{"regex": "[A-Za-z]"}]}  # fmt: skip
    made.write_cases([must, *(visitor(number) for number in range(COUNT))])
    made.edit_profile(limits=PATIENT, groups={GROUP: "no_worse", "scenarios.must": "must"})
    refused = made.run(scripted, "--effort", "quick", "--suite", "smoke")
    assert refused.code == 2 and "--effort quick: too few of the cases before its look passed" in refused.err, refused
    first = made.run(scripted, "--suite", "smoke")
    assert first.code == 3, first
    made.accept(first.run)
    return made


def quick(project: Project, url: str, out: str) -> Done:
    return project.run(url, "--suite", "smoke", "--effort", "quick", "--out", str(project.root / out))


def manifest(project: Project, out: str) -> tuple[Path, dict[str, Any]]:
    (folder,) = [p for p in (project.root / out).iterdir() if p.name.startswith("20")]
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return folder, found


def asked(proxy: FaultProxy) -> set[str]:
    return {body["messages"][-1]["content"] for r in proxy.requests if (body := r.body) and "visitor" in str(body)}


def wrong(*numbers: int) -> list[Fault]:
    """These visitors are answered well formed and wrong."""
    return [Fault("say", match=f"visitor {number:02d}.", arg="12 34") for number in numbers]


def test_the_plan_prints_stages_and_asks_nothing(project: Project) -> None:
    done = project.run("http://127.0.0.1:9/v1", "--suite", "smoke", "--effort", "quick", "--plan")
    assert (
        done.code == 0 and "effort quick: 21 cases first" in done.out and "healthy runs, simulated: 100%" in done.out
    ), done


def test_a_healthy_run_asks_a_third_and_is_no_measure(project: Project, scripted: str) -> None:
    with FaultProxy(scripted) as proxy:
        done = quick(project, proxy.base_url, "healthy")
        assert len(asked(proxy)) == FIRST
    folder, plan = manifest(project, "healthy")
    last = done.out.splitlines()[-1]
    assert (
        done.code == 0 and last.startswith("PASS QUICK  21 cases asked") and "40 not asked after an early look" in last
    ), done
    assert "could have seen a drop of 10 of 20 cases that passed (50.0%)" in done.out, "larger than that of all"
    assert len(plan["look"]["later"]) == COUNT - FIRST and plan["look"]["margin"] == 0.22
    again = project.gatebook("verify", folder)
    assert again.code == 0 and again.out.splitlines()[-1].startswith("reproduced, PASS QUICK"), again
    no = project.gatebook("accept", folder, "--reason", "quick")
    assert no.code == 2 and "is PASS QUICK and not accepted" in no.err and "--effort normal" in no.err, no
    no = project.gatebook("passed", folder, "--suite", "smoke")
    assert no.code == 2 and "is of effort quick, asked for is normal" in no.err, no
    by = ("--profile", project.profile)
    yes = project.gatebook("passed", folder, "--suite", "smoke", "--effort", "quick", *by)
    assert yes.code == 0 and yes.out.startswith("passed, PASS QUICK: "), yes
    no = project.gatebook("judge", folder, "--profile", project.profile, "--out", project.root / "other" / "rules")
    assert no.code == 2 and "its look was planned by the rules" in no.err, no


def test_a_broken_server_is_red_and_costs_no_second_stage(project: Project, scripted: str) -> None:
    with FaultProxy(scripted, wrong(*range(COUNT))) as proxy:
        done = quick(project, proxy.base_url, "broken")
        assert len(asked(proxy)) == FIRST
    folder, _ = manifest(project, "broken")
    assert done.code == 1 and "shown worse than the baseline" in done.out.splitlines()[-1], done
    assert project.gatebook("verify", folder).code == 1


def test_what_leans_is_asked_to_the_end_and_judged_on_all(project: Project, scripted: str) -> None:
    """Three lost are no more than a lean before the look; with five more of the rest they are a loss."""
    waiting = [int(i[-2:]) for i in manifest(project, "healthy")[1]["look"]["later"]]
    first = [number for number in range(COUNT) if number not in waiting]
    with FaultProxy(scripted, wrong(*first[:3], *waiting[:5])) as proxy:
        done = quick(project, proxy.base_url, "lost")
        assert len(asked(proxy)) == COUNT, done
    folder, plan = manifest(project, "lost")
    assert done.code == 1 and "8 worse, 0 better of 60 paired" in done.out.splitlines()[-1], done
    assert list(plan["expected"].values()) == [["must-hello", *(f"visitor-{n:02d}" for n in range(COUNT))]]
    assert project.gatebook("verify", folder).out.splitlines()[-1].startswith("reproduced, FAIL QUICK")


def test_a_server_that_dies_before_the_look_is_no_green_and_resume_keeps_the_stages(
    project: Project, scripted: str
) -> None:
    with FaultProxy(scripted, [Fault("die", after=9)]) as proxy:
        done = quick(project, proxy.base_url, "died")
        folder, plan = manifest(project, "died")
        assert done.code in (1, 75) and len(asked(proxy)) < FIRST, done
        port = proxy.port
    with FaultProxy(scripted, port=port) as proxy:
        again = project.gatebook("run", "--resume", folder)
        assert again.code == 1, "the crash stays a fail"
        assert len(asked(proxy)) <= FIRST
    assert manifest(project, "died")[1]["expected"] == plan["expected"]


def test_deep_asks_sampled_cases_more_often_beside_the_same_baseline(server: str, tmp_path: Path) -> None:
    made = small_project(tmp_path)
    sampled = [
        {**visitor(n), "draws": 2, "options": {"max_tokens": 4}, "needs": ["seed"], "group": "scenarios.sampled"}
        for n in range(6)
    ]
    made.write_cases(sampled)
    made.edit_profile(limits=PATIENT, groups={"scenarios.sampled": "no_worse"})
    first = made.run(server, "--suite", "smoke")
    normal = first.run.resolve()
    assert first.code == 3, first
    made.accept(normal)
    done = made.run(server, "--suite", "smoke", "--effort", "deep")
    assert done.code == 0 and done.out.splitlines()[-1].startswith("PASS DEEP  6 cases asked"), done
    assert done.verdict["pooled"]["paired"] == 6 and "of 8 sampled answers pass" in done.reasons
    for effort in ("normal", "deep"):
        told = made.gatebook("passed", done.run, "--suite", "smoke", "--effort", effort, "--profile", made.profile)
        assert told.code == 0, told
    no = made.gatebook("passed", normal, "--suite", "smoke", "--effort", "deep")
    assert no.code == 2 and "is of effort normal, asked for is deep" in no.err
    assert made.gatebook("accept", done.run, "--reason", "deep").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--effort", "fast"), "--effort has value 'fast': must be one of quick, normal, deep"),
        (("--effort", "quick", "--shard", "1/2"), "--effort quick: its look is at the whole run"),
        (("--effort", "deep"), "--effort deep: no case of the selection is sampled"),
    ],
)
def test_what_cannot_be_is_one_line(project: Project, arguments: tuple[str, ...], said: str) -> None:
    done = project.run("http://127.0.0.1:9/v1", "--suite", "smoke", *arguments)
    assert done.code == 2 and said in done.err and len(done.err.strip().splitlines()) == 1, done
