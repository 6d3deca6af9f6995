"""A model that thinks, on the wire before the real server: gated with its thoughts and without, and named where they go astray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.conftest import PATIENT, Done, Project
from tests.faults.proxy import Fault, FaultProxy

WITHOUT = {"chat_template_kwargs": {"enable_thinking": False}}
PARSED = {"thinking": "parsed", "thinking_tokens": 24, "request": {}}
QUICK = ("max-tokens-5", "canary-water")
"""Plain and streamed, cut and whole."""


@pytest.fixture
def thinker(project: Project, server: str) -> Iterator[FaultProxy]:
    project.edit_profile(limits=PATIENT)
    with FaultProxy(server.removesuffix("/v1"), ["thinks"]) as proxy:
        yield proxy


def accepted(project: Project, url: str) -> Done:
    """A run that is then the measure."""
    done = project.ask(url)
    assert done.code == 3, done
    project.accept(done.run)
    return done


def test_a_healthy_model_that_thinks_is_green_beside_its_own_baseline(project: Project, thinker: FaultProxy) -> None:
    project.edit_profile(target=PARSED)
    first = accepted(project, thinker.base_url)
    assert first.verdict["reason"].startswith("request options changed: thinking_tokens was not set, is 24"), (
        first.reasons
    )
    again = project.ask(thinker.base_url)
    assert again.code == 0, again.reasons
    assert again.verdict["fingerprint"]["thinking"] == "thoughts before answers"


def test_one_that_is_asked_not_to_think_is_green_without_thoughts(project: Project, thinker: FaultProxy) -> None:
    project.edit_profile(target={"request": WITHOUT})
    first = accepted(project, thinker.base_url)
    assert first.verdict["reason"].startswith("request options changed: chat_template_kwargs was not set"), (
        first.reasons
    )
    assert project.ask(thinker.base_url).code == 0


def test_a_model_that_stops_to_think_is_named(project: Project, thinker: FaultProxy, server: str) -> None:
    project.edit_profile(target=PARSED)
    accepted(project, thinker.base_url)
    done = project.ask(server)
    assert done.code == 1, done
    assert done.verdict["reason"].startswith(
        "thinking changed: thinking was thoughts before answers, is no thoughts"
    ), done.reasons


@pytest.mark.parametrize(
    ("fault", "target", "reason"),
    [
        (Fault("think"), {}, "start the server with a reasoning parser"),
        (Fault("think"), PARSED, "target.thinking is parsed, and the server parses no thoughts"),
        (Fault("reasoning"), PARSED, "the answer is in the reasoning field"),
        (Fault("overthink"), PARSED, "tokens thinking and did not answer; target.thinking_tokens (24)"),
    ],
)  # fmt: skip
def test_thoughts_astray_are_not_green_and_say_what_to_set(
    project: Project, server: str, fault: Fault, target: dict[str, Any], reason: str
) -> None:
    project.edit_profile(target=target, limits=PATIENT)
    with FaultProxy(server.removesuffix("/v1"), [fault]) as proxy:
        done = project.ask(proxy.base_url, *QUICK)
    assert proxy.faulted > 0, done
    assert done.code == 1, done
    assert reason in done.reasons, done.reasons


@pytest.mark.parametrize(
    ("fault", "written", "said"),
    [
        (Fault("thinks"), {"thinking": "parsed", "thinking_tokens": 2048}, "in the reasoning field: written as target.thinking: parsed"),
        (Fault("think"), {}, "does not heed target.request: {chat_template_kwargs: {enable_thinking: false}}: every answer fails"),
    ],
)  # fmt: skip
def test_init_finds_out_that_it_thinks_and_says_what_the_choice_is(
    project: Project, server: str, fault: Fault, written: dict[str, Any], said: str
) -> None:
    (project.root / "params" / "qwen3-4b.yaml").symlink_to(project.profile)  # the template of what init writes
    with FaultProxy(server.removesuffix("/v1"), [fault]) as proxy:
        done = project.gatebook("init", "--base-url", proxy.base_url, "--name", "mine", env={"OPENAI_API_KEY": "EMPTY"})
    assert done.code == 0 and said in done.out, done
    assert "OPENAI_API_KEY: a short or common word as key; it is sent, and replies are not searched" in done.out, done
    target = yaml.safe_load((project.root / "params" / "mine.yaml").read_text())["target"]
    assert {key: target[key] for key in ("thinking", "thinking_tokens", "request") if key in target} == written


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (Fault("cut", after=1, until=3), 75, "a plain greeting, which all else is compared with: connection broke off"),
        (Fault("cut", has="tools"), 0, "requests have no answer (connection broke off"),
    ],
)
def test_init_says_what_it_could_not_ask_and_writes_nothing_without_a_greeting(
    project: Project, server: str, fault: Fault, code: int, said: str
) -> None:
    (project.root / "params" / "qwen3-4b.yaml").symlink_to(project.profile)
    with FaultProxy(server.removesuffix("/v1"), [fault]) as proxy:
        done = project.gatebook("init", "--base-url", proxy.base_url, "--name", "mine")
    assert (done.code, (project.root / "params" / "mine.yaml").exists()) == (code, code == 0), done
    assert said in done.out + done.err, done
