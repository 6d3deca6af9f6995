"""Long context and fingerprint against the real command: truncation, a lost middle, other weights, template and sampling."""

from __future__ import annotations

import pytest
import yaml

from benchmarks.embedded import Setting, server_with
from tests.conftest import PATIENT, Project, small_project
from tests.faults.proxy import Fault, FaultProxy


def only(project: Project, *names: str, **groups: str) -> None:
    """The project asks these shipped cases alone; `groups` sets policies (a dot is written as two underscores)."""
    project.choose(*names)
    project.edit_profile(limits=PATIENT, groups={k.replace("__", "."): v for k, v in groups.items()})


NEEDLES = ("needle-1k-single-50", "needle-1k-single-75", "needle-1k-single-100")


@pytest.fixture
def context(project: Project) -> Project:
    only(project, *NEEDLES, context__needles="must")
    return project


def test_needles_are_found_in_a_healthy_server_and_the_record_holds_the_document_once(
    context: Project, server: str
) -> None:
    only(context, "needle-2k-single-75", "needle-2k-single-100")
    done = context.run(server)
    assert done.code == 0, done
    [text] = (done.run / "texts").iterdir()  # two questions, one document
    assert f"texts/{text.name}" in (done.run / "04_long_context.html").read_text()
    assert context.gatebook("verify", done.run).code == 0
    text.write_text("another document")
    assert context.gatebook("verify", done.run).code == 75


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("truncate", arg=2500), "was cut silently"),
        (Fault("lose_middle"), "at 50 % of needles-en-1-1000-tokens not found"),
    ],
    ids=["truncated", "middle-lost"],
)
def test_what_the_server_forgets_is_named(context: Project, server: str, fault: Fault, reason: str) -> None:
    with FaultProxy(server, [fault]) as proxy:
        done = context.ask(proxy.base_url)
    assert proxy.faulted > 0
    assert (done.code, reason in done.reasons) == (1, True), done.reasons


def test_a_length_that_is_not_served_is_not_measured_and_only_a_reason_excuses_it(
    project: Project, server: str
) -> None:
    only(project, NEEDLES[0], "needle-16k-single-0", context__needles="must")
    project.edit_profile(excused={"needle-16k-*": "it serves 8,192 tokens"})
    done = project.ask(server)
    assert done.code == 0, done
    assert [e["id"] for e in done.verdict["excused"]] == ["needle-16k-single-0"]
    data = yaml.safe_load(project.profile.read_text())
    project.profile.write_text(yaml.safe_dump({**data, "excused": {}}))
    bare = project.ask(server)
    assert bare.code == 3, bare
    assert "the server serves 8,192" in bare.reasons


def test_a_budget_cuts_the_longest_documents_and_says_so(project: Project, server: str) -> None:
    only(project, NEEDLES[0], "needle-2k-single-50", context__needles="must")
    project.edit_profile(limits={"document_budget_tokens": 1500})
    done = project.ask(server)
    assert done.code == 3, done
    assert "cut by limits.document_budget_tokens (1,500): needles-en-1-2000-tokens" in done.reasons


PRINTS = (
    "count-text",
    "first-token-x",
    "first-token-code",
    "greedy-rain",
    "defaults-boat",
    "defaults-word",
    "defaults-sea",
)


@pytest.fixture(scope="module")
def accepted(server: str, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The baseline of the healthy server."""
    project = small_project(tmp_path_factory.mktemp("accepted"))
    only(project, *PRINTS)
    first = project.ask(server)
    assert first.code == 3, first  # the small project's baseline has none of these
    project.accept(first.run)
    return (project.root / "params" / "baselines" / "small.json").read_bytes()


@pytest.fixture
def printed(project: Project, accepted: bytes) -> Project:
    """A project whose baseline is the healthy server's fingerprint."""
    only(project, *PRINTS)
    (project.root / "params" / "baselines").mkdir(exist_ok=True)
    (project.root / "params" / "baselines" / "small.json").write_bytes(accepted)
    return project


def test_the_same_server_has_the_same_fingerprint(printed: Project, server: str) -> None:
    done = printed.ask(server)
    assert (done.code, done.verdict["changes"]) == (0, []), done


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("shift_logprobs"), "weights or precision changed"),
        (Fault("more_prompt_tokens"), "chat template changed"),
        (Fault("force_temp", match='"max_tokens": 8', arg=3.0), "sampling defaults changed"),
    ],
    ids=["weights", "template", "temperature"],
)
def test_what_moved_is_named(printed: Project, server: str, fault: Fault, reason: str) -> None:
    with FaultProxy(server, [fault]) as proxy:
        done = printed.ask(proxy.base_url)
        assert (done.code, reason in done.reasons) == (1, True), done.reasons


def test_a_new_revision_may_change_and_the_change_is_told(printed: Project, server: str) -> None:
    with FaultProxy(server, ["shift_logprobs"]) as proxy:
        done = printed.ask(proxy.base_url, revision="another")
    assert done.code == 0, done
    assert {change["part"] for change in done.verdict["changes"]} == {"weights or precision"}


def test_a_really_degraded_server_is_told_from_the_healthy_one(printed: Project) -> None:
    with server_with(Setting(1, change="rope_freq_base=1000.0")) as url:
        done = printed.ask(url)
    assert done.code == 1, done
    assert "weights or precision changed" in done.reasons
