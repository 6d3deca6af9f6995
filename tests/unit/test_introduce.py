"""What `gatebook init` writes: a profile that loads, with what this server cannot do excused by name."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from gatebook.collect.offers import Learned
from gatebook.commands.init import _summary, introduce
from gatebook.commands.introduction import Introduction, too_long
from gatebook.config.profile import SUITES, Profile, Target, load_profile, profile_from
from gatebook.config.selection import select
from gatebook.engines import Said
from gatebook.errors import BadInput
from gatebook.opening import planned
from gatebook.record.identity import Identity
from gatebook.verdict.policy import check_plan

from tests.conftest import ROOT, shipped_cases
from tests.unit.replies import exchange

CASES = list(shipped_cases().values())
FAR = "http://gpu-box:8000/v1"


LEARNED = Learned({"tools": "HTTP 400: no", "logprobs": True}, 40.0, 4.0, "m", [])


def written(
    context_tokens: int | None,
    url: str = FAR,
    learned: Learned = LEARNED,
    seats: int | None = None,
    languages: list[str] | None = None,
) -> Profile:
    said = [Said("max_num_seqs", seats, "/props")] if seats else []
    identity = Identity(
        models=("m",), engine="vllm", version="0.30.0", context_tokens=context_tokens, settings=tuple(said)
    )
    text = Introduction(Target(model="m", base_url=url), identity, learned, [], languages).profile("mine")
    return profile_from(yaml.safe_load(text), "mine.yaml", "other")


def test_it_holds_every_section_that_production_has() -> None:
    made, production = written(32768), load_profile(ROOT / "params" / "qwen3-4b.yaml")
    assert made.name == "mine" and made.latency == production.latency
    assert made.load == production.load.model_copy(update={"long_prompts": made.load.long_prompts})
    assert {case.group for case in CASES} <= set(made.groups)


@pytest.mark.parametrize("context_tokens", [4096, 8192, 32768, 131072, 262144])
def test_documents_that_cannot_fit_are_excused_and_no_other_case(context_tokens: int) -> None:
    patterns = too_long(CASES, context_tokens)
    named = {c.id for c in CASES if any(fnmatchcase(c.id, pattern) for pattern in patterns)}
    assert named == {
        c.id for c in CASES if c.document and (c.document.tokens or (c.document.chars or 0) // 4) >= context_tokens
    }
    assert len(patterns) < 25 and (named or context_tokens == 262144)


def test_an_untold_context_excuses_nothing() -> None:
    assert too_long(CASES, None) == {}


@pytest.mark.parametrize(("context_tokens", "tokens"), [(8192, 6963), (32768, 27852), (131072, 28000), (None, 28000)])
def test_documents_read_at_once_fit_the_context(context_tokens: int | None, tokens: int) -> None:
    assert written(context_tokens).load.long_prompts.tokens == tokens


def test_gpu_memory_that_cannot_be_read_from_here_is_excused_with_what_to_do() -> None:
    assert "production.gpu_metrics_url" in written(32768).excused["load.gpu_memory"]


@pytest.mark.parametrize("name", ["", " ", "../up", "a/b", ".hidden", "a b", "x\n"])
def test_a_name_that_is_no_file_name_is_refused_before_anything_is_asked(name: str) -> None:
    with pytest.raises(BadInput, match="--name has value"):
        introduce("http://127.0.0.1:9/v1", name, None, None)


def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadInput, match="must be the NAME of an environment variable") as caught:
        introduce("http://127.0.0.1:9/v1", None, None, "sk-abcdef0123456789")
    assert "abcdef" not in str(caught.value)


def test_it_says_what_is_not_offered_and_holds_the_rest() -> None:
    made = written(32768)
    assert made.offers == {"tools": "HTTP 400: no", "logprobs": True}
    assert made.not_offered("logprobs", "tools") == "tools: HTTP 400: no" and made.not_offered("logprobs") is None


def test_it_says_which_description_of_itself_a_server_fails_at() -> None:
    probes = [
        exchange(
            kind="probe", path="server_info", status=500, fault="status", detail="HTTP 500: Internal Server Error"
        ),
        exchange(kind="probe", path="props", status=404, fault="status", detail="HTTP 404: Not Found"),
    ]
    lines = _summary(Path("params/m.yaml"), Identity(models=("m",)), "m", LEARNED, probes)
    assert [line for line in lines if "HTTP 500" in line or "HTTP 404" in line] == [
        "/server_info fails (HTTP 500: Internal Server Error), so what it tells is not compared; mend it and run `gatebook init` again"
    ]


def test_no_more_requests_are_in_flight_than_the_server_takes() -> None:
    assert (written(8192, seats=2).limits.in_flight, written(8192).limits.in_flight) == (2, 8)


def test_a_slow_server_is_held_to_its_own_speed() -> None:
    slow = written(8192, learned=replace(LEARNED, ttft_ms=300.0, itl_ms=30.0))
    assert (slow.limits.ttft_ms, slow.limits.total_ms) == (1200, 4920)
    assert slow.latency.caps["latency.chat"].total_ms == 4920
    assert (slow.policy("health.latency").policy, written(8192).policy("health.latency").policy) == ("watch", "must")
    assert slow.policy("structured.latency").policy == "must", "beside its own plain answers a slow server is no excuse"
    assert written(8192).limits.total_ms == 800, "a fast one as production"


def test_what_a_model_must_know_is_compared_and_what_a_service_must_do_blocks() -> None:
    made = written(32768)
    assert made.policy("health.service").policy == made.policy("structured.enforced").policy == "must"
    assert made.policy("multilingual.identifiers").policy == "no_worse"
    assert made.policy("health.manners").policy == "watch", "one case can never be shown worse"
    for suite in SUITES:
        check_plan(made, select(CASES, suite, None), set())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_model_of_one_language_can_be_asked_every_suite(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEBOOK_ROOT", str(ROOT))
    made = written(32768, languages=[language])
    assert made.languages == [language] and written(32768).languages is None
    for suite in SUITES if language == "en" else [suite for suite in SUITES if suite != "demo"]:
        planned(made, suite, None)
    assert made.policy("health.greeting").policy == "must"


def test_deadlines_leave_a_slow_server_time_for_the_longest_answer() -> None:
    quick, slow = (
        written(8192, learned=replace(LEARNED, itl_ms=4.0)).limits,
        written(8192, learned=replace(LEARNED, itl_ms=75.0)).limits,
    )
    production = load_profile(ROOT / "params" / "qwen3-4b.yaml").limits
    assert (quick.request_deadline_s, quick.run_deadline_s) == (
        production.request_deadline_s,
        production.run_deadline_s,
    )
    assert slow.request_deadline_s == pytest.approx(2 * 8 * 768 * 0.075, abs=1), (
        "768 tokens, eight in flight, not batched"
    )
    assert slow.notebook_deadline_s / production.notebook_deadline_s == pytest.approx(
        slow.request_deadline_s / production.request_deadline_s, rel=0.01
    )
