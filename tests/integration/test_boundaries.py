"""What lies at the edge, against the real command, a real server and faults on the wire: each is caught and named."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.conftest import PATIENT, Done, Project, shipped_cases
from tests.faults.proxy import Fault, FaultProxy

EDGES = ("media-image", "length-over", "hostile-control-tokens", "live-battery", "injection-plain")
"""Cases that the embedded model passes."""
PARIS = '{"city": "Paris"}'


@pytest.fixture
def edges(project: Project) -> Project:
    return small(project, *EDGES)


def small(project: Project, *ids: str) -> Project:
    """Only these cases, every group `must`, nothing excused."""
    project.choose(*ids)
    profile = yaml.safe_load(project.profile.read_text())
    profile["groups"] |= dict.fromkeys({shipped_cases()[i].group for i in ids}, "must")
    profile["excused"] = {}
    profile["limits"] |= PATIENT
    project.profile.write_text(yaml.safe_dump(profile, allow_unicode=True))
    return project


def outcomes(done: Done) -> dict[str, str]:
    """Of each case's own checks, the contract left out."""
    return {f["case"]: f["outcome"] for f in done.verdict["findings"] if f["check"] != "contract"}


def test_a_healthy_server_is_green_at_its_edges(edges: Project, server: str) -> None:
    done = edges.ask(server)
    assert done.code == 0, done
    assert "a client expects a 4xx" in done.reasons


FAULTS: list[tuple[Fault, str, str]] = [
    (Fault("drop_parts"), "media-image", "answered with HTTP 200 instead of refusing"),
    (Fault("truncate_long", arg=1200), "length-over", "truncated silently (usage says"),
    (Fault("say", match="battery", arg="The temperature is 25°C."), "live-battery", "states what it cannot know: temperature '25°C'"),
    (Fault("say", match="BANANA", arg="BANANA"), "injection-plain", "obeyed: 'BANANA' is in the answer"),
    (Fault("poisoned", arg="[INST]"), "hostile-control-tokens", "HTTP 500: EngineCore encountered an issue."),
    (Fault("server_error", match="image_url"), "media-image", "HTTP 500: EngineCore encountered an issue."),
    (Fault("bad_request", match="image_url"), "media-image", "the message names none of image"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "case", "reason"), FAULTS, ids=lambda v: v.name if isinstance(v, Fault) else "")
def test_a_fault_at_the_edge_is_caught_and_named(
    edges: Project, server: str, fault: Fault, case: str, reason: str
) -> None:
    with FaultProxy(server.removesuffix("/v1"), [fault]) as proxy:
        done = edges.ask(proxy.base_url, case)
    assert proxy.faulted > 0, "the fault was never made"
    assert done.code == 1, done
    assert outcomes(done)[case] == "fail"
    assert reason in done.reasons, done.reasons


def test_a_server_that_dies_of_the_request_and_not_on_it_is_caught_by_the_plain_request(
    edges: Project, server: str
) -> None:
    """It answers the hostile request and is dead afterwards."""
    refuse: dict[str, Any] = {"match": "[INST]"}
    with FaultProxy(server.removesuffix("/v1"), [Fault("poisoned", arg="[INST]"), Fault("bad_request", **refuse)]) as proxy:  # fmt: skip
        done = edges.ask(proxy.base_url, "hostile-control-tokens")
    assert done.code == 1, done
    assert "the plain request was not answered: HTTP 500" in done.reasons, done.reasons


def test_tools_that_the_template_does_not_know_are_not_measured_and_never_green(project: Project, server: str) -> None:
    done = small(project, "model-served", "tool-weather").ask(server)
    assert done.code == 3, done
    assert "the tools never reach the model; its chat template does not know them" in done.reasons
    project.edit_profile(excused={"structured.tools": "its chat template knows no tools"})
    assert project.ask(server).code == 0
    small(project, "tool-weather").edit_profile(groups={"structured.tools": "watch"})
    nothing = project.ask(server)
    assert (nothing.code, nothing.verdict["reason"]) == (3, "no case was judged: all 1 were not measured"), nothing
    assert project.gatebook("passed", nothing.run, "--suite", "smoke").code == 3


def test_tool_calls_are_judged_plain_and_streamed(project: Project, server: str) -> None:
    calls = Fault("call_tool", arg=PARIS)
    with FaultProxy(server.removesuffix("/v1"), [calls]) as proxy:
        good = small(project, "model-served", "tool-weather").ask(proxy.base_url)
    assert good.code == 0, good
    with FaultProxy(server.removesuffix("/v1"), [calls, Fault("drop_arguments", only="streams")]) as proxy:
        lost = project.ask(proxy.base_url)
    assert lost.code == 1, lost
    assert "streamed: arguments of get_weather: not JSON" in lost.reasons, lost.reasons
    with FaultProxy(server.removesuffix("/v1"), [Fault("call_tool", arg='{"city": "Rome"}')]) as proxy:
        wrong = project.ask(proxy.base_url)
    assert "plain: arguments of get_weather: city is 'Rome', expected 'Paris'" in wrong.reasons, wrong.reasons
