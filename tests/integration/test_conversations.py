"""Conversations as clients send them, on the real server: read whole, or red for what was dropped, refused or lost."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from gatebook.collect.scheduler import collect
from gatebook.config.cases import Case
from gatebook.config.profile import load_profile
from gatebook.opening import open_run
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Verdict

from tests.conftest import ROOT, Project, shipped_cases
from tests.faults.catalogue import spell
from tests.faults.proxy import Fault, FaultProxy

SHIPPED = [*shipped_cases().values()]
CONVERSATIONS = [case for case in SHIPPED if case.group == "health.conversations"]
TWO_CALLS = next(case for case in SHIPPED if case.group == "structured.parallel_tools")
EXCUSED = yaml.safe_load((ROOT / "params" / "smollm2.yaml").read_text())["excused"]
OSLO_AND_ROME = Fault("call_tool", arg=['{"city": "Oslo"}', '{"city": "Rome"}'])


@pytest.fixture
def asked(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("GATEBOOK_ROOT", str(project.root))
    monkeypatch.delenv("GATEBOOK_HISTORY_URL", raising=False)
    project.edit_profile(limits={"request_deadline_s": 60})
    return project


def verdict(project: Project, url: str, cases: list[Case]) -> Verdict:
    """Planned, asked and judged as the command does it, without the notebooks around it."""
    project.write_cases([case.model_dump(mode="json", exclude_defaults=True) | {"suites": ["smoke"]} for case in cases])
    own = {case.id: EXCUSED[case.id] for case in cases if case.id in EXCUSED}
    project.edit_profile(excused=own)
    run = open_run(load_profile(project.profile), url, "smoke", None, out=project.root / "outputs")
    collect(run, cases[0].notebook)
    return judge(run)


def outcomes(said: Verdict) -> dict[str, str]:
    """Case -> its worst outcome, where it is not pass."""
    return {f.case: f"{f.outcome}: {f.reason}" for f in said.findings if f.outcome != "pass"}


def test_they_are_few_and_short() -> None:
    asks = [ask for case in [*CONVERSATIONS, TWO_CALLS] for ask in case.requests()]
    limits = [ask.options.get("max_tokens") or ask.options["max_completion_tokens"] for ask in asks]
    assert len(asks) <= 12 and sum(limits) <= 12 * 16
    assert all(limit <= 16 for ask, limit in zip(asks, limits, strict=True) if "tools" not in ask.options)


def test_the_healthy_server_reads_them_all(asked: Project, server: str) -> None:
    said = verdict(asked, server, CONVERSATIONS)
    assert said.verdict == "PASS", said.reasons
    assert [*outcomes(said)] == ["tool-history-call"], "its template knows no tools, which the profile excuses"


BROKEN = [
    (Fault("first_part"), "text-parts", "where .* say the same: a part of it is dropped"),
    (Fault("print_parts"), "text-parts", "something else reaches the model"),
    (Fault("server_error", match='"type": "text"'), "text-parts", "HTTP 500"),
    (Fault("bad_request", match='"role": "tool"'), "tool-history-result", "HTTP 400"),
    (Fault("drop_results"), "tool-history-result", "no more than the .* without: a message is dropped"),
    (Fault("one_system"), "second-system-message", "no more than the .* without: a message is dropped"),
    (Fault("drop_field", arg="max_completion_tokens"), "max-completion-tokens", "although max_tokens is 5"),
    (Fault("drop_field", arg="n"), "several-choices", "2 choices asked, the reply has the indexes \\[0\\]"),
    (Fault("drop_field", arg="n", only="streams"), "several-choices", "streamed: 2 choices asked"),
]


@pytest.mark.parametrize(
    ("fault", "case", "reason"), BROKEN, ids=[f"{spell(fault)}-{case}" for fault, case, _ in BROKEN]
)
def test_what_is_dropped_or_refused_is_red_and_named(
    asked: Project, server: str, fault: Fault, case: str, reason: str
) -> None:
    with FaultProxy(server, [fault]) as proxy:
        said = verdict(asked, proxy.base_url, [one for one in CONVERSATIONS if one.id == case])
    assert said.verdict == "FAIL" and proxy.faulted
    found = [f for f in said.findings if f.outcome == "fail"]
    assert {f.case for f in found} == {case}
    assert any(re.search(reason, f.reason) for f in found), [f.reason for f in found]


def test_calls_that_a_template_with_tools_leaves_out_are_red(asked: Project, server: str) -> None:
    history = [one for one in CONVERSATIONS if one.id == "tool-history-call"]
    knows = Fault("says", path="/props", arg={"supports_tools": True})
    with FaultProxy(server, [knows, Fault("show_calls")]) as proxy:
        assert verdict(asked, proxy.base_url, history).verdict == "PASS"
    with FaultProxy(server, [knows, Fault("drop_calls")]) as proxy:
        said = verdict(asked, proxy.base_url, history)
    assert said.verdict == "FAIL" and "a message is dropped" in said.reason, said.reasons


def test_two_streamed_calls_are_told_apart(asked: Project, server: str) -> None:
    with FaultProxy(server, [OSLO_AND_ROME]) as proxy:
        said = verdict(asked, proxy.base_url, [TWO_CALLS])
    assert said.verdict == "PASS", said.reasons
    for fault, reason in (("merge_calls", "1 calls where 2 are asked"), ("lose_call", "1 calls where 2 are asked")):
        with FaultProxy(server, [OSLO_AND_ROME, Fault(fault)]) as proxy:
            said = verdict(asked, proxy.base_url, [TWO_CALLS])
        assert said.verdict == "FAIL" and any(reason in f.reason for f in said.findings), (fault, said.reasons)
    said = verdict(asked, server, [TWO_CALLS])
    assert "its chat template does not know them" in json.dumps(outcomes(said)), said.reasons
