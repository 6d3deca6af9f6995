"""A real vLLM that thinks: introduced, asked, accepted and asked again, with its thoughts, by the commands of docs/first-gate.md.

SmolLM2 does not think by itself. Its template opens a block of thoughts as Qwen3's does (where `enable_thinking` is false, it is the model's own),
vLLM's parser for Qwen3 puts them into a field of their own, and `thinking_token_budget` ends them by words that open an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.engines.install import HERE
from tests.engines.serving import vllm
from tests.faults.on_vllm import QUICK, REASONING, SAYS_LITTLE, THINKING, Introduced, introduced
from tests.integration.test_vllm import vllm_here  # noqa: F401  (a fixture)

TEMPLATE = HERE / "thinking.jinja"
OFF = {"chat_template_kwargs": {"enable_thinking": False}}
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def thinker(vllm_here: None) -> Iterator[str]:  # noqa: F811
    with vllm(*QUICK, *REASONING, "--chat-template", str(TEMPLATE), weights="thinker") as url:
        yield url


@pytest.fixture(scope="module")
def mine(thinker: str, tmp_path_factory: pytest.TempPathFactory) -> Introduced:
    return introduced(tmp_path_factory.mktemp("thinking"), thinker)


def retarget(project: Introduced, watched: tuple[str, ...] = SAYS_LITTLE, **target: object) -> None:
    data = yaml.safe_load(project.profile.read_text())
    data["target"] = {k: v for k, v in data["target"].items() if k not in THINKING} | target
    data["groups"] |= dict.fromkeys(watched, "watch")
    project.profile.write_text(yaml.safe_dump(data))


def test_it_is_introduced_with_its_thoughts(mine: Introduced) -> None:
    target = yaml.safe_load(mine.profile.read_text())["target"]
    assert (target["thinking"], target["thinking_tokens"]) == ("parsed", 2048), target


def test_run_accept_run_with_thoughts(mine: Introduced, thinker: str) -> None:
    retarget(mine, **THINKING)
    first = mine.ask(thinker, "smoke")
    assert first.code == 3, first.reasons
    assert mine.gatebook("accept", first.run, "--reason", "the first of it").code == 0
    again = mine.ask(thinker, "smoke")
    assert again.code == 0, again.reasons
    assert again.verdict["fingerprint"]["thinking"] == "thoughts before answers"


def test_the_same_server_under_a_profile_that_says_off(mine: Introduced, thinker: str) -> None:
    retarget(mine)
    done = mine.ask(thinker, "smoke", "--only", "max-tokens-5,canary-water")
    assert done.code == 1 and "set target.thinking: parsed" in done.verdict["reason"], done.reasons
    retarget(mine, request=OFF)
    done = mine.ask(thinker, "smoke", "--only", "max-tokens-5,canary-water")
    assert done.code == 0, done.reasons


def test_run_accept_run_with_thinking_switched_off(thinker: str, tmp_path: Path) -> None:
    """Every group decides as `init` has written it."""
    project = introduced(tmp_path, thinker)
    retarget(project, watched=(), request=OFF)
    first = project.ask(thinker, "smoke")
    assert first.code == 3, first.reasons
    assert project.gatebook("accept", first.run, "--reason", "the first of it").code == 0
    again = project.ask(thinker, "smoke")
    assert again.code == 0, again.reasons
    assert "thinking" not in again.verdict["fingerprint"]
