"""A profile's request options and models that think: what is sent, what is a fault, what is compared, what is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from gatebook.checks.finding import Finding, Stage
from gatebook.collect.scheduler import collect
from gatebook.collect.session import STARTED
from gatebook.commands.again import judge_again
from gatebook.config.cases import Case
from gatebook.config.profile import Profile, Target, profile_from
from gatebook.config.sending import sent, under
from gatebook.errors import BadInput
from gatebook.opening import planned
from gatebook.record.exchange import Exchange
from gatebook.record.manifest import Manifest
from gatebook.record.run import Run, now
from gatebook.report.estimate import estimate
from gatebook.verdict.comparing import _other
from gatebook.verdict.findings import judge_notebook
from gatebook.verdict.fingerprint import NO_THOUGHTS, THOUGHTS, asked_otherwise, changes, fingerprint
from gatebook.verdict.judging import judge, run_identity

from tests.faults.scripted import ScriptedServer
from tests.unit.replies import MODEL, baseline, case, chat_body, plain, profile, ready, record, run_folder

WITHOUT = {"chat_template_kwargs": {"enable_thinking": False}}
PARSED = {"thinking": "parsed", "thinking_tokens": 100}


def target(**fields: Any) -> Target:
    return Target.model_validate({"model": MODEL, **fields})


def refusal(**fields: Any) -> str:
    with pytest.raises(BadInput) as caught:
        profile_from({"target": {"model": MODEL, **fields}, "groups": {}}, "mine.yaml", "mine")
    return str(caught.value)


# --- the profile ---


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"model": "x"}, "'model' cannot be set here (write target.model)"),
        ({"extra_body": {"stream": False}}, "'stream' cannot be set here"),
        ({"max_tokens": 5}, "target.thinking_tokens"),
        ({"chat_template_kwarg": {}}, "did you mean 'chat_template_kwargs'?"),
        ({"top_p": 0.9, "extra_body": {"top_p": 0.8}}, "stands beside extra_body and in it"),
        ({"extra_body": 5}, "is a mapping"),
        ({"top_p": None}, "'top_p' has no value"),
        ({"top_p": float("nan")}, "what JSON cannot carry"),
    ],
)
def test_a_wrong_request_option_is_one_line_with_file_key_and_what_to_do(request_: dict[str, Any], said: str) -> None:
    message = refusal(request=request_)
    assert message.startswith("mine.yaml: key 'target.request' has value {") and said in message and "\n" not in message


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"thinking": "on"}, "'off' or 'parsed'"), ({"thinking": True}, "'off' or 'parsed'"), ({"thinking_tokens": 9}, "mine.yaml: key 'target.thinking_tokens' has value 9: thinking is off, so it does nothing; set thinking: parsed")],
)  # fmt: skip
def test_a_wrong_thinking_is_refused(fields: dict[str, Any], said: str) -> None:
    assert said in refusal(**fields)


def test_off_is_what_yaml_reads_it_as() -> None:
    assert target(thinking=False).thinking == target().thinking == "off"
    assert (target().room, target(thinking="parsed").room, target(**PARSED).room) == (0, 2048, 100)


def test_options_stand_under_a_requests_own_and_mappings_are_joined() -> None:
    options = target(request={**WITHOUT, "extra_body": {"top_k": 20}, "top_p": 0.9}).request_options
    own = {"chat_template_kwargs": {"tone": "dry"}, "top_p": 0.1}
    assert under(options, own) == {"chat_template_kwargs": {"enable_thinking": False, "tone": "dry"}, "top_k": 20, "top_p": 0.1}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "cap"),
    [
        ({"options": {"max_tokens": 64}}, 164),
        ({"options": {"max_completion_tokens": 64}}, 164),
        ({"options": {}}, None),
        ({"options": {"max_tokens": 1}}, 1),
        ({"options": {"max_tokens": 5}, "finish": "length"}, 5),
        ({"options": {"max_tokens": 24}, "raw": True}, 24),
        ({"options": {"max_tokens": 24}, "samples": 5}, 24),
        ({"options": {"max_tokens": "many"}, "negative": True}, "many"),
    ],
)
def test_thoughts_have_room_where_an_answer_is_asked_for(fields: dict[str, Any], cap: int | str | None) -> None:
    one = case(**fields, expect=[{"length_chars": {"min": 1}}])
    options = sent(target(**PARSED), one, one.requests()[0])
    assert options.get("max_completion_tokens", options.get("max_tokens")) == cap
    assert sent(target(), one, one.requests()[0]) == one.requests()[0].options


def test_an_option_that_every_case_overrides_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case("a", notebook="01_health", options={"temperature": 0}, expect=[{"regex": "x"}])]
    monkeypatch.setattr("gatebook.opening.load_cases", lambda folder: cases)
    with pytest.raises(
        BadInput, match=r"'target.request.temperature' has value 0.6: every case sets its own.*delete it"
    ):
        planned(profile(request={"temperature": 0.6}), "full", None)
    assert planned(profile(request={"top_p": 0.6}), "full", None) == (cases, {})


def test_the_plan_counts_thoughts_and_says_what_requests_override() -> None:
    cases = [case("a", options={"max_tokens": 50, "temperature": 0}), case("b", options={"max_tokens": 50})]
    text = estimate(profile(**PARSED, request={"temperature": 0.6}), "full", cases, None)
    assert next(line for line in text.splitlines() if line.startswith("total")).split()[-1] == "300"
    assert "target.request.temperature: 1 of 2 requests say their own" in text


# --- what is sent ---


def test_every_chat_carries_the_options_and_answers_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STARTED, now())
    by = profile({"g.h": "must"}, **PARSED, request=WITHOUT)
    cases = [
        case("a", options={"max_tokens": 64, "temperature": 0}, canary=True),
        case("b", options={"max_tokens": 8}, finish="any", raw=True, expect=[{"length_chars": {"min": 1}}]),
    ]
    with ScriptedServer(MODEL) as server:
        manifest = Manifest(run="r", created=now(), profile=by, base_url=f"{server.url}/v1", suite="full", expected={"01_x": ["a", "b"]})  # fmt: skip
        run = Run.create(tmp_path / "r", manifest, cases, None)
        collect(run, "01_x")
    bodies = {e.key: e.body or {} for e in run.exchanges("01_x") if e.method == "POST"}
    assert {key: body["max_tokens"] for key, body in bodies.items()} == {
        "ready/0": 1,
        "a/ask": 164,
        "a/canary": 8,
        "b/ask": 8,
    }
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in bodies.values())


# --- what is a fault ---


def reply(
    name: str, content: str | None, thoughts: str = "", finish: str = "stop", tokens: int = 0, cap: int = 164
) -> Exchange:
    message = {"role": "assistant", "content": content, "reasoning_content": thoughts}
    body = chat_body(
        id=f"id-{name}",
        choices=[{"index": 0, "message": message, "finish_reason": finish}],
        usage=usage(tokens or (64 if thoughts else 3)),
    )
    return plain(body, key=f"{name}/ask", sent={"max_tokens": cap})


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}


def found(tmp_path: Path, by: Profile, cases: list[Case], *recorded: Exchange) -> dict[str, Finding]:
    run = run_folder(tmp_path / "r", cases, by)
    record(run, "01_x", ready(), *recorded)
    return {f.id: f for f in judge_notebook(run, "01_x")}


THOUGHT = "Let me see what the user wants. " * 8
ASK = case("a", finish="any", options={"max_tokens": 64}, expect=[{"length_chars": {"min": 1}}])


@pytest.mark.parametrize(
    ("fields", "content", "thoughts", "finish", "reason", "stage"),
    [
        ({}, "", THOUGHT, "length", "content is empty and the answer is in the reasoning field.*enable_thinking: false", Stage.REASONING),
        ({}, f"<think>{THOUGHT}</think>\nParis.", "", "stop", "thinking block.*enable_thinking: false.*reasoning parser", Stage.BEHAVIOUR),
        (PARSED, f"<think>{THOUGHT}</think>\nParis.", "", "stop", "thinking block in the answer.*reasoning parser", Stage.BEHAVIOUR),
        (PARSED, None, THOUGHT, "stop", "content is empty and the answer is in the reasoning field", Stage.REASONING),
    ],
)  # fmt: skip
def test_thoughts_in_the_wrong_place_break_the_contract_and_say_what_to_set(
    tmp_path: Path, fields: Any, content: str, thoughts: str, finish: str, reason: str, stage: Stage
) -> None:
    cap = 164 if fields else 64
    said = found(tmp_path, profile({"g.h": "must"}, **fields), [ASK], reply("a", content, thoughts, finish, cap, cap))
    assert (said["a.contract"].outcome, said["a.contract"].stage) == ("fail", stage)
    assert re.search(reason, said["a.contract"].reason), said["a.contract"].reason


def test_thoughts_beside_an_answer_are_told_where_the_profile_names_none(tmp_path: Path) -> None:
    said = found(tmp_path, profile({"g.h": "must"}), [ASK], reply("a", "Paris.", THOUGHT))
    assert said["a.contract"].outcome == "pass" and "target.thinking: parsed" in said["a.contract"].reason


def test_what_follows_parsed_thoughts_is_judged(tmp_path: Path) -> None:
    said = found(tmp_path, profile({"g.h": "must"}, **PARSED), [ASK], reply("a", "Paris.", THOUGHT))
    assert {f.outcome for f in said.values()} == {"pass"}


def test_an_answer_that_ends_inside_its_thoughts_fails_its_case_and_says_what_was_spent(tmp_path: Path) -> None:
    by = profile({"g.h": "must"}, **PARSED)
    said = found(tmp_path, by, [ASK], reply("a", None, THOUGHT, "length", 164))
    assert [(f.check, f.outcome) for f in said.values() if f.case == "a"] == [
        ("contract", "pass"),
        ("finished", "fail"),
    ]
    assert said["a.finished"].reason == "ask: spent its 164 tokens thinking and did not answer; target.thinking_tokens (100) is the room for thoughts"  # fmt: skip


@pytest.mark.parametrize("fields", [{"raw": True, "finish": "any"}, {"finish": "length"}])
def test_where_no_answer_is_asked_for_thoughts_are_what_was_generated(tmp_path: Path, fields: dict[str, Any]) -> None:
    one = case("a", options={"max_tokens": 24}, expect=[{"contains_all": ["user wants"]}], **fields)
    said = found(tmp_path, profile({"g.h": "must"}, **PARSED), [one], reply("a", None, THOUGHT, "length", 24, 24))
    assert {f.outcome for f in said.values()} == {"pass"}, said


def test_a_budget_may_end_thoughts_within_a_character_and_never_an_answer(tmp_path: Path) -> None:
    """As vLLM's thinking_token_budget does to Chinese thoughts, and then goes on."""
    one = case("a", options={"max_tokens": 24}, finish="length")
    cut = "\n他想知道\ufffdassistant"
    for text, outcome in ((None, "pass"), (cut, "fail")):
        said = found(tmp_path / outcome, profile({"g.h": "must"}, **PARSED), [one], reply("a", text, THOUGHT if text else cut, "length", 24, 24))  # fmt: skip
        assert said["a.contract"].outcome == outcome, said


def test_a_broken_answer_that_stands_in_both_fields_is_broken_where_nothing_thinks(tmp_path: Path) -> None:
    said = found(tmp_path, profile({"g.h": "must"}), [ASK], reply("a", "He\ufffdlo.", "He\ufffdlo."))
    assert (said["a.contract"].outcome, "U+FFFD" in said["a.contract"].reason) == ("fail", True), said


def test_a_canary_that_thinks_lives(tmp_path: Path) -> None:
    one = case("a", finish="any", canary=True, options={"max_tokens": 64}, expect=[{"length_chars": {"min": 1}}])
    canary = reply("a", None, THOUGHT, "length", 8, 8).model_copy(
        update={"kind": "canary", "key": "a/canary", "ask": "canary"}
    )
    canary = canary.model_copy(update={"text": (canary.text or "").replace("id-a", "id-c")})
    for fields, outcome in ((PARSED, "pass"), ({}, "fail")):
        by = profile({"g.h": "must"}, **fields)
        assert found(tmp_path / outcome, by, [one], reply("a", "Paris."), canary)["a.contract"].outcome == outcome


# --- what is compared ---


def told(tmp_path: Path, by: Profile, accepted: dict[str, Any], thoughts: str = "") -> Any:
    old = baseline({"a": "pass"}, [ASK], fingerprint=accepted)
    run = run_folder(tmp_path / "r", [ASK], by, old.to_json().encode())
    record(run, "01_x", ready(), reply("a", "Paris.", thoughts, cap=164 if by.target.thinks else 64))
    return judge(run)


def test_other_request_options_are_told_and_nothing_is_compared(tmp_path: Path) -> None:
    verdict = told(tmp_path, profile({"g.h": "no_worse"}, request=WITHOUT), {})
    assert (verdict.verdict, verdict.needs_baseline) == ("INCONCLUSIVE", True)
    assert verdict.reason.startswith(
        "request options changed: chat_template_kwargs was not set, is {'enable_thinking': False}"
    )
    assert len(verdict.causes) == 1 and verdict.causes[0].accepts


def test_the_same_request_options_are_as_before(tmp_path: Path) -> None:
    by = profile({"g.h": "must"}, request=WITHOUT)
    verdict = told(tmp_path, by, {"request": WITHOUT})
    assert verdict.verdict == "PASS" and verdict.fingerprint["request"] == WITHOUT


def test_a_baseline_from_before_knows_of_no_options(tmp_path: Path) -> None:
    verdict = told(tmp_path, profile({"g.h": "must"}), {})
    assert verdict.verdict == "PASS" and "request" not in verdict.fingerprint and "thinking" not in verdict.fingerprint
    assert asked_otherwise({}, {}) is None


def test_an_option_taken_out_is_a_change_too() -> None:
    assert asked_otherwise({"request": {"top_p": 0.9}}, {}) == "request options changed: top_p was 0.9, is not set"


@pytest.mark.parametrize(("thoughts", "value"), [(THOUGHT, THOUGHTS), ("", NO_THOUGHTS)])
def test_whether_anything_was_thought_is_in_the_fingerprint(tmp_path: Path, thoughts: str, value: str) -> None:
    by = profile({"g.h": "must"}, **PARSED)
    accepted = {"request": {"thinking_tokens": 100}, "thinking": THOUGHTS}
    verdict = told(tmp_path, by, accepted, thoughts)
    assert verdict.fingerprint["thinking"] == value
    if value == THOUGHTS:
        assert verdict.verdict == "PASS", verdict.reasons
    else:
        assert (verdict.verdict, verdict.causes[0].stage) == ("FAIL", Stage.SETTINGS)
        assert verdict.reason.startswith("thinking changed: thinking was thoughts before answers, is no thoughts")
        assert any(
            note.startswith("target.thinking is parsed, and no answer came after thoughts") for note in verdict.notes
        )


def test_two_runs_with_other_options_are_not_paired(tmp_path: Path) -> None:
    runs = [
        run_folder(tmp_path / str(n), [ASK], profile(**fields))
        for n, fields in enumerate(({}, {"request": WITHOUT}, {}))
    ]
    assert _other(runs[0], runs[1], "a", "pass", "pass", alike=True).startswith("asked differently")
    assert _other(runs[0], runs[2], "a", "pass", "pass", alike=True) == ""


def test_default_samples_of_a_model_that_thinks_are_its_thoughts(tmp_path: Path) -> None:
    one = case(
        "s",
        raw=True,
        options={"max_tokens": 8},
        expect=[{"default_samples": True}],
        asks=[{"name": "a"}, {"name": "b"}],
    )
    run = run_folder(tmp_path / "r", [one], profile(**PARSED))
    record(
        run,
        "01_x",
        ready(),
        *(
            reply("s", None, f"Thought {n}", "length", 8, 8).model_copy(update={"key": f"s/{n}", "ask": n})
            for n in "ab"
        ),
    )
    values = fingerprint(run, run_identity(run), [])
    assert [text for text, _ in values["defaults.s"]] == ["Thought a", "Thought b"]
    assert not changes(values, values)


def test_answers_are_not_judged_by_a_profile_that_asks_otherwise(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "r", [ASK], profile({"g.h": "must"}))
    record(run, "01_x", ready(), reply("a", "Paris.", cap=64))
    run.seal()
    with pytest.raises(
        BadInput, match=r"key 'target' adds \{'thinking_tokens': 100\}.*asked with nothing; write request"
    ):
        judge_again(run.path, profile({"g.h": "must"}, **PARSED), tmp_path / "other")
    assert not (tmp_path / "other").exists()
