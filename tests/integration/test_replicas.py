"""Two real llama.cpp servers behind one nginx: equal ones are green, unequal ones are named, and so is a front that buffers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from gatebook.record.run import Run

from tests.conftest import Done, Project
from tests.engines.install import CannotHave
from tests.engines.others import nginx, nginx_program
from tests.engines.serving import free_port
from tests.faults.catalogue import LLAMA_TEMPLATE
from tests.faults.degraded import degraded_server

PROMPTS = ("x", "code")
PRINTS = ("count-text", "count-roles", *(f"first-token-{key}" for key in PROMPTS), "greeting-nihao")
TWO = "two different servers answer at this address: "
TALE = {
    "messages": [{"role": "user", "content": "Tell a long tale of the sea."}],
    "options": {"temperature": 0, "max_tokens": 120},
}


@pytest.fixture(scope="module", autouse=True)
def nginx_here() -> None:
    """Skips, loudly, where there is no nginx; fails where CI is set."""
    try:
        nginx_program()
    except CannotHave as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"NOTHING WAS TRIED BEHIND NGINX: {error}")


@pytest.fixture
def prints(project: Project) -> Project:
    project.choose(*PRINTS)
    project.edit_profile(limits={"request_deadline_s": 120, "ttft_ms": 60_000, "total_ms": 90_000})
    return project


@pytest.fixture(scope="module")
def server(bare_server: str) -> str:
    """Without the front that remembers: what a server has answered before is a part of these tests."""
    return bare_server


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with degraded_server({}, tmp_path_factory.mktemp("twin")) as url:
        yield url


def behind(project: Project, *servers: str, packed: bool = False) -> Done:
    with nginx(*servers, packed=packed) as url:
        return project.ask(url)


def accepted(project: Project, *servers: str) -> None:
    """The first gate: no values of the fingerprint are accepted yet."""
    done = behind(project, *servers)
    assert done.code == 3, (done, done.reasons)
    project.accept(done.run)


def spoken_to(url: str, *texts: str) -> None:
    """What users ask, so that the server has other beginnings in its prompt cache than its twin."""
    for text in texts:
        body = {"model": "any", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
        httpx.post(f"{url}/chat/completions", json=body, timeout=60).raise_for_status()


def test_two_equal_servers_are_green_and_the_front_is_told(prints: Project, server: str, twin: str) -> None:
    """Whatever each has answered before."""
    spoken_to(twin, "The", "Tell a tale. " * 80)
    accepted(prints, server, twin)
    spoken_to(server, "Write", "x y z", "The capital " * 60)
    prints.edit_profile(target={"replicas": [server, twin]})
    done = behind(prints, server, twin)
    assert done.code == 0, (done, done.reasons)
    asked = [e for name in Run(done.run).notebooks for e in Run(done.run).exchanges(name) if e.kind == "replica"]
    assert {e.target for e in asked} == {server, twin}
    assert len([e for e in asked if e.method == "POST"]) == 2 * (4 + 8 * len(PROMPTS))
    assert any(note.startswith("answers come through nginx/") for note in done.verdict["notes"]), done.verdict["notes"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights": "coarser"}, "first-token logprobs of \\d prompts fall into two clusters, \\d+ of 16 replies"),
        ({"chat_template": LLAMA_TEMPLATE}, "prompt_tokens of one prompt is '\\d+' in \\d of 8 and"),
    ],
    ids=["weights", "template"],
)
def test_a_replica_that_differs_is_named(
    prints: Project, server: str, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    with degraded_server(change, tmp_path) as other:
        prints.edit_profile(target={"replicas": [server, other]})
        done = behind(prints, server, other)
    assert done.code == 1, (done, done.reasons)
    reason = done.verdict["reason"]
    assert reason.startswith(TWO), reason
    assert re.search(named, reason), reason
    assert (
        f"replica {other} differs from {server} in " in reason or f"replica {server} differs from {other} in " in reason
    )


def tales(project: Project) -> Project:
    """Three streams that are long enough, and what makes a run complete."""
    base = {
        "notebook": "01_health",
        "group": "health.greeting",
        "suites": ["smoke"],
        "why": "a stream is read while it is written",
        "finish": "any",
    }
    text = "Tell a long tale of the sea."
    tale = {**base, "messages": [{"role": "user", "content": text}], "options": {"temperature": 0, "max_tokens": 120}}
    project.write_cases(
        [
            {**tale, "id": f"tale-{n}", "asks": [{"name": "one"}], "expect": [{"length_chars": {"min": 1}}]}
            for n in range(3)
        ]
    )
    project.edit_profile(limits={"request_deadline_s": 120})
    return project


def test_a_front_that_buffers_streams_is_named(project: Project, server: str) -> None:
    done = behind(tales(project), server, packed=True)
    assert done.code == 1, (done, done.reasons)
    assert "the streamed reply arrives in one piece: something in front buffers it" in done.verdict["reason"], (
        done.reasons
    )


def test_a_front_that_passes_streams_on_is_green(project: Project, server: str) -> None:
    done = behind(tales(project), server)
    assert done.code == 0, (done, done.reasons)


def test_a_replica_that_nobody_can_reach_is_an_error(prints: Project, server: str) -> None:
    prints.choose("count-text")
    prints.edit_profile(target={"replicas": [server, f"http://127.0.0.1:{free_port()}/v1"]})
    done = prints.ask(server)
    assert done.code == 75, (done, done.reasons)
    assert "did not answer: cannot connect" in done.verdict["reason"], done.reasons


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_alias": {"another-model"}}, "serves another-model, others smollm2-135m-instruct"),
        ({"weights": "coarser"}, "logprobs|weights"),
    ],
    ids=["name", "weights"],
)
def test_a_replica_of_another_model_is_not_green(
    prints: Project, server: str, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    """Also where the address itself never reaches it, and though llama.cpp answers to any name."""
    prints.choose("count-text", "first-token-x")
    with degraded_server(change, tmp_path) as other:
        prints.edit_profile(target={"replicas": [server, other]})
        done = prints.ask(server)
    assert done.code == 1, (done, done.reasons)
    assert done.verdict["reason"].startswith("two different servers stand behind this address: replica "), done.reasons
    assert re.search(named, done.verdict["reason"]), done.reasons


def test_an_error_of_a_front_whose_server_is_dead_is_said_to_be_its_own(prints: Project, tmp_path: Path) -> None:
    prints.choose("greeting-nihao")
    prints.edit_profile(limits={"ready_deadline_s": 3})
    with ExitStack() as front:
        with degraded_server({}, tmp_path) as behind_it:
            url = front.enter_context(nginx(behind_it))
        done = prints.ask(url)
    assert done.code == 75, (done, done.reasons)
    assert re.search(r"502.*nginx", done.verdict["reason"]), done.reasons
