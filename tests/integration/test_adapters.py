"""An adapter on the wire: a real server whose list names one, and answers for it as its base, or otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from gatebook.collect.embedded import MODEL
from gatebook.collect.scheduler import collect
from gatebook.record.run import Run

from tests.conftest import ROOT, Project
from tests.faults.proxy import Fault, FaultProxy

ADAPTER = "tuned"
ASKED = ("first-token-x", "first-token-capital", "greedy-boat", "adapter-unlike-parent")
BASE_CARD = {"id": MODEL, "owned_by": "llamacpp"}
CARD = {"id": ADAPTER, "parent": MODEL}


def listing(*cards: dict[str, str]) -> Fault:
    return Fault("reply", path="/v1/models", arg=json.dumps({"object": "list", "data": cards}))


OTHERWISE = Fault("shift_logprobs", match=f'"{ADAPTER}"')


@pytest.fixture
def gating(project: Project) -> Project:
    """Asks the adapter for the fingerprint's prompts."""
    project.choose(*ASKED)
    project.edit_profile(target={"model": ADAPTER, "revision": "r1", "aliases": [MODEL]})  # llama.cpp's own name
    return project


def parents(run: Path) -> list[dict[str, object]]:
    """What was asked of the base."""
    lines = (run / "05_fingerprint.exchanges.jsonl").read_text().splitlines()
    return [e for e in (json.loads(line)["exchange"] for line in lines) if e["kind"] == "parent"]


def test_an_adapter_for_which_the_base_answers_is_red_and_shown_beside_it(gating: Project, server: str) -> None:
    with FaultProxy(server, [listing(BASE_CARD, CARD)]) as proxy:
        done = gating.ask(proxy.base_url, "05")
    assert done.code == 1 and f"adapter {ADAPTER} answers as its base {MODEL}: all 3 prompts" in done.verdict["reason"]
    assert [(e["body"]["model"], e["ask"]) for e in parents(done.run)] == [(MODEL, name) for name in ASKED[:3]]  # type: ignore[index]
    page = (done.run / "05_fingerprint.ipynb").read_text()
    assert "first token, nats apart" in page


def test_an_adapter_that_answers_otherwise_keeps_its_group(gating: Project, server: str) -> None:
    with FaultProxy(server, [listing(BASE_CARD, CARD), OTHERWISE]) as proxy:
        done = gating.ask(proxy.base_url, "05")
    [found] = [f for f in done.verdict["findings"] if f["check"] == "unlike_parent"]
    assert found["outcome"] == "pass" and "3 of 3 prompts otherwise" in found["reason"], found


def test_a_base_that_is_not_listed_or_not_answered_is_not_measured(gating: Project, server: str) -> None:
    refusing = Fault("bad_request", match=f'"{MODEL}"')
    for faults, words in (
        ([listing(CARD)], "is not served"),
        ([listing(BASE_CARD, CARD), refusing], "does not answer"),
    ):
        with FaultProxy(server, faults) as proxy:
            done = gating.ask(proxy.base_url, "05")
        [found] = [f for f in done.verdict["findings"] if f["check"] == "unlike_parent"]
        assert (found["outcome"], done.code) == ("not_measured", 3) and words in found["reason"], done


def test_a_resumed_run_asks_only_what_is_missing_of_the_base(gating: Project, server: str) -> None:
    with FaultProxy(server, [listing(BASE_CARD, CARD), OTHERWISE]) as proxy:
        done = gating.ask(proxy.base_url, "05")
        record = done.run / "05_fingerprint.exchanges.jsonl"
        record.write_text("\n".join(record.read_text().splitlines()[:-1]) + "\n")
        before = len(proxy.requests)
        with gating.inside():
            collect(Run(done.run), "05_fingerprint")
            collect(Run(done.run), "05_fingerprint")
        chats = [r.body for r in proxy.requests[before:] if r.path.endswith("chat/completions")]
    assert [(b["model"], b["max_tokens"]) for b in chats] == [(ADAPTER, 1), (MODEL, 24)], "ready, and the last prompt"
    assert len(parents(done.run)) == 3


def test_an_adapters_profile_is_written_beside_the_bases_and_none_is_written_over(
    project: Project, server: str
) -> None:
    shutil.copy(ROOT / "params" / "qwen3-4b.yaml", project.root / "params")
    with FaultProxy(server, [listing(BASE_CARD, CARD)]) as proxy:
        init = ("init", "--base-url", proxy.base_url, "--adapters")
        first = project.gatebook(*init, "--name", "base")
        files = {name: project.root / "params" / f"{name}.yaml" for name in ("base", ADAPTER)}
        models = {name: yaml.safe_load(file.read_text())["target"]["model"] for name, file in files.items()}
        files[ADAPTER].write_text("mine")
        both = project.gatebook(*init, "--name", "base")
        other = project.gatebook(*init, "--name", "second")
        same = project.gatebook(*init, "--name", ADAPTER)
    assert first.code == 0 and models == {"base": MODEL, ADAPTER: ADAPTER}
    assert all(f"{file}: " in first.out for file in files.values())
    assert both.code == 2 and "exists already" in both.err and files[ADAPTER].read_text() == "mine"
    assert other.code == 0 and f"{files[ADAPTER]}: exists already, left as it is" in other.out
    assert same.code == 2 and f"would be the profile of {MODEL} and {ADAPTER}" in same.err


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ([BASE_CARD], "lists no adapter, no card has a `parent`"),
        ([BASE_CARD, {**CARD, "parent": "elsewhere"}], f"lists '{ADAPTER}' without its parent 'elsewhere'"),
    ],
)
def test_no_adapters_and_one_without_its_parent_are_one_line_of_bad_input(
    project: Project, server: str, cards: list[dict[str, str]], words: str
) -> None:
    with FaultProxy(server, [listing(*cards)]) as proxy:
        done = project.gatebook("init", "--base-url", proxy.base_url, "--adapters", "--name", "base")
    assert done.code == 2 and "--adapters: " in done.err and words in done.err and len(done.err.splitlines()) == 1, done
    assert not (project.root / "params" / "base.yaml").exists()


def test_an_adapter_whose_parent_is_not_listed_is_excused_by_name(project: Project, server: str) -> None:
    shutil.copy(ROOT / "params" / "qwen3-4b.yaml", project.root / "params")
    with FaultProxy(server, [listing({**CARD, "parent": "elsewhere"})]) as proxy:
        done = project.gatebook("init", "--base-url", proxy.base_url, "--model", ADAPTER, "--name", "orphan")
    assert done.code == 0, done
    written = yaml.safe_load((project.root / "params" / "orphan.yaml").read_text())
    assert written["excused"]["fingerprint.adapter"].startswith(f"elsewhere, the parent of {ADAPTER}, is not listed"), (
        written
    )
