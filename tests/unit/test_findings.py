"""From the record to findings: whose fault a missing answer is, and that nothing expected goes unsaid."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from gatebook.checks.finding import Finding, Stage, worst
from gatebook.config.cases import Case
from gatebook.record.exchange import GONE, Exchange
from gatebook.record.run import Run
from gatebook.verdict.findings import judge_notebook
from gatebook.verdict.judging import judge

from tests.unit.replies import (
    ASKED,
    MODEL,
    baseline,
    case,
    chat_body,
    exchange,
    good_chunks,
    plain,
    probe,
    profile,
    ready,
    record,
    run_folder,
    streamed,
)


def said(tmp_path: Path, cases: list[Case], *recorded: Exchange) -> dict[str, Finding]:
    """Finding id -> finding, of the notebook 01_x with this record."""
    run = run_folder(tmp_path / "r", cases, profile({"g.h": "must"}))
    record(run, "01_x", *recorded)
    return {found.id: found for found in judge_notebook(run, "01_x")}


def answered(name: str, text: str = "Hello there, you.", **changes: Any) -> Exchange:
    return plain(chat_body(text, id=f"id-{name}"), key=name if "/" in name else f"{name}/ask", **changes)


def broken(
    name: str, fault: str = "no_byte", after_s: float = 0, took_s: float | None = None, **changes: Any
) -> Exchange:
    """Sent so long after the others; a deadline had all of its 60 s."""
    at = (ASKED + timedelta(seconds=after_s)).isoformat(timespec="milliseconds")
    took_s = (60 if fault == "deadline" else 0.02) if took_s is None else took_s
    attempt = {"at": at, "elapsed_ms": took_s * 1000, "status": changes.get("status"), "fault": fault}
    return exchange(
        name if "/" in name else f"{name}/ask",
        fault=fault,
        at=at,
        attempts=[attempt],
        detail=changes.pop("detail", f"{fault} happened"),
        **{"status": None, **changes},
    )


GREETING = case("a", expect=[{"length_chars": {"min": 1}}, {"contains_any": ["Hello"]}, {"contains_any": ["Bye"]}])


def test_an_answered_case_is_judged_check_by_check(tmp_path: Path) -> None:
    found = said(tmp_path, [GREETING], ready(), answered("a"))
    assert {i: f.outcome for i, f in found.items()} == {
        "01_x.ready": "pass",
        "a.contract": "pass",
        "a.finished": "pass",
        "a.length_chars": "pass",
        "a.contains_any": "pass",
        "a.contains_any-2": "fail",
    }
    assert (found["a.contract"].group, found["a.length_chars"].group, found["01_x.ready"].group) == (
        "g.contract",
        "g.h",
        "g.contract",
    )


STOP = Exchange(
    kind="stop", key="stop/0", at="2026-03-01T12:00:00+00:00", detail="the server stopped answering at a/ask"
)
HIDDEN = {"role": "assistant", "content": "", "reasoning_content": "Hello there, you."}


@pytest.mark.parametrize(
    ("recorded", "check", "stage"),
    [
        ([ready(), answered("a"), answered("b")], "contains_any-2", Stage.BEHAVIOUR),
        ([ready("no_byte", status=None, text=None), broken("a")], "answered", Stage.UNREACHABLE),
        ([ready(), broken("a"), broken("b")], "answered", Stage.GONE),
        ([ready(), broken("a"), answered("b")], "answered", Stage.ENVELOPE),
        ([ready(), broken("a", "status", status=400), answered("b")], "answered", Stage.REFUSED),
        ([ready(), broken("a", "status", status=400), broken("b", "status", status=400)], "answered", Stage.REFUSED),
        ([ready(), broken("a", "status", status=500), answered("b")], "answered", Stage.REFUSED),
        ([ready(), broken("a", "status", status=500), STOP], "answered", Stage.GONE),
        ([ready("status", status=401), broken("a", "status", status=401)], "answered", Stage.UNREACHABLE),
        ([probe("models", {"data": [{"id": "other"}]}), broken("a", "status", status=404)], "answered", Stage.NOT_SERVED),
        ([ready(), plain("<html>", key="a/ask"), answered("b")], "contract", Stage.ENVELOPE),
        (
            [ready(), plain(chat_body(choices=[{"index": 0, "message": HIDDEN, "finish_reason": "stop"}]), key="a/ask")],
            "contract",
            Stage.REASONING,
        ),
    ],
)  # fmt: skip
def test_every_finding_says_what_it_would_explain(
    tmp_path: Path, recorded: list[Exchange], check: str, stage: Stage
) -> None:
    found = said(tmp_path, [GREETING, case("b", expect=[{"regex": "H"}])], *recorded)[f"a.{check}"]
    assert (found.outcome != "pass", found.stage) == (True, stage), found


def test_what_is_unusual_on_the_wire_and_breaks_nothing_is_told_once(tmp_path: Path) -> None:
    two = case("a", asks=[{"name": "x"}, {"name": "y"}], expect=[{"length_chars": {"min": 1}}])
    packed = {"packing": "packed", "headers": {"content-encoding": "gzip"}}
    found = said(tmp_path, [two], ready(), answered("a/x", **packed), answered("a/y", **packed, after_done="broken"))
    assert (found["a.contract"].outcome, found["a.contract"].reason) == (
        "pass",
        "2 replies keep the contract; packed with gzip although identity was asked; "
        "the answer is complete, the connection broke off after it",
    )


@pytest.mark.parametrize(
    ("left", "of", "outcome"), [(1, 20, "pass"), (2, 20, "pass"), (3, 20, "fail"), (1, 1, "fail"), (2, 3, "fail")]
)
def test_one_connection_that_is_closed_late_is_told_and_many_are_a_fault(
    tmp_path: Path, left: int, of: int, outcome: str
) -> None:
    names = [f"a{n}" for n in range(of)]
    replies = [
        streamed(
            [c | {"id": f"id-{name}"} for c in good_chunks()],
            key=f"{name}/ask",
            after_done="open" if n < left else None,
        )
        for n, name in enumerate(names)
    ]
    found = said(tmp_path, [case(name, stream=True) for name in names], ready(), *replies)
    assert found["a0.contract"].outcome == outcome, found["a0.contract"]
    assert ("was not closed" if outcome == "fail" else "the connection was closed late") in found["a0.contract"].reason


@pytest.mark.parametrize("odd", [[1], "pass", 5, None])
def test_a_finding_in_a_foreign_verdict_that_is_no_object_is_a_value_error(odd: Any) -> None:
    with pytest.raises(ValueError, match="valid dictionary"):
        Finding.model_validate(odd)


def test_a_refusal_is_packed_as_its_header_says(tmp_path: Path) -> None:
    wrong = case("a", negative=True)
    refusal = {"status": 400, "fault": "status", "detail": "HTTP 400: no", "text": '{"error": {"message": "no"}}'}
    lying = {"packing": "not packed", "headers": {"content-encoding": "gzip"}}
    for changes, outcome in ((refusal, "pass"), (refusal | lying, "fail")):
        found = said(tmp_path / outcome, [wrong], ready(), exchange("a/ask", **changes))
        assert found["a.contract"].outcome == outcome, found


@pytest.mark.parametrize("offered", [True, False])
def test_a_stream_owes_no_end_and_no_usage_that_the_profile_says_are_not_offered(tmp_path: Path, offered: bool) -> None:
    by = profile({"g.h": "must"})
    if not offered:
        by = by.model_copy(update={"offers": {"stream_done": "no [DONE]", "stream_usage": "include_usage is ignored"}})
    run = run_folder(tmp_path / "r", [GREETING], by)
    record(run, "01_x", ready(), streamed(good_chunks()[:-1], key="a/ask", done=False))
    found = {f.id: f for f in judge_notebook(run, "01_x")}["a.contract"]
    assert found.outcome == ("fail" if offered else "pass")
    assert not offered or found.reason == "the stream ended without [DONE]; usage is missing"


def test_an_empty_record_is_an_error_of_every_case(tmp_path: Path) -> None:
    found = said(tmp_path, [GREETING, case("b")])
    assert {i: f.outcome for i, f in found.items()} == {
        "01_x.ready": "error",
        "a.recorded": "error",
        "b.recorded": "error",
    }
    assert "nothing was recorded" in found["01_x.ready"].reason


def test_a_case_that_was_half_asked_is_not_judged(tmp_path: Path) -> None:
    two = case("a", asks=[{"name": "x"}, {"name": "y"}])
    found = said(tmp_path, [two], ready(), answered("a/x"))
    assert (found["a.recorded"].outcome, found["a.recorded"].reason) == (
        "error",
        "no record of y: expected, but never asked or lost",
    )
    assert not [i for i in found if i.startswith("a.") and i != "a.recorded"]


def test_what_was_not_asked_because_we_stopped_says_why(tmp_path: Path) -> None:
    found = said(tmp_path, [case("a"), case("b")], ready(), answered("a"), STOP)
    assert (found["b.recorded"].outcome, found["b.recorded"].reason) == (
        "not_measured",
        "the server stopped answering at a/ask",
    )


LISTED = probe("models", {"data": [{"id": "other-model"}]})
BLAME: dict[str, tuple[list[Exchange], Exchange, str, str]] = {
    "down from the start": ([ready("connect", text=None)], broken("a", "connect"), "error", "has not given one good answer in this run"),
    "dies after a good answer": ([ready()], broken("a", "no_byte"), "fail", "the server had answered before, so this is the deployment's fault"),
    "hangs after a good answer": ([ready()], broken("a", "deadline"), "fail", "the deployment's fault"),
    "cut in the stream": ([ready()], broken("a", "broken", status=200), "fail", "the deployment's fault"),
    "500 after a good answer": ([ready()], broken("a", "status", status=500), "fail", "the deployment's fault"),
    "503 for ever": ([ready("status", status=503, text="{}")], broken("a", "status", status=503), "error", "has not given one good answer"),
    "valid request refused": ([ready()], broken("a", "status", status=400), "fail", "the deployment's fault"),
    "an empty answer is no good one": ([ready(text='{"choices": [{"message": {"content": ""}}]}')], broken("a", "deadline"), "error", "has not given one good answer"),
    "cut short after a good answer": ([ready()], broken("a", "deadline", took_s=45), "not_measured", "a request may take 60 s: our own deadline cut it short"),
    "407": ([ready("status", status=407, text="{}")], broken("a", "status", status=407), "error", "the key was refused"),
    "LiteLLM, wrong key": ([ready("status", status=400, text="{}")], broken("a", "status", status=400, detail="HTTP 400: Authentication Error, No connected db."), "error", "the key was refused"),
    "LiteLLM, no key": ([ready("status", status=500, text="{}")], broken("a", "status", status=500, detail="HTTP 500: Authentication Error, No api key passed in."), "error", "the key was refused"),
    "401": ([ready("status", status=401, text="{}")], broken("a", "status", status=401), "error", "the key was refused (status happened); check the variable OPENAI_API_KEY"),
    "403": ([ready("status", status=403, text="{}")], broken("a", "status", status=403), "error", "the key was refused"),
    "401 in mid-run": ([ready()], broken("a", "status", status=401), "fail", "the key was refused"),
    "404 and another model listed": ([ready("status", status=404, text="{}"), LISTED], broken("a", "status", status=404), "fail", "model 'm1' is not served; served: other-model"),
    "404 that names the model": ([ready("status", status=404, text="{}")], broken("a", "status", status=404, detail="The model `m1` does not exist."), "fail", "model 'm1' is not served"),
    "404 of a wrong path": ([ready("status", status=404, text="{}")], broken("a", "status", status=404, detail="Not Found"), "error", "has not given one good answer"),
    "hangs though /health says 200": ([ready("deadline", status=None, text=None), probe("/health", {})], broken("a", "deadline"), "error", "though /health says 200"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "fault", "outcome", "reason"), BLAME.values(), ids=BLAME.keys())
def test_whose_fault(tmp_path: Path, before: list[Exchange], fault: Exchange, outcome: str, reason: str) -> None:
    found = said(tmp_path, [case("a")], *before, fault)
    assert (found["a.answered"].outcome, found["a.contract"].outcome) == (outcome, outcome)
    assert reason in found["a.answered"].reason


def test_a_good_answer_in_an_earlier_notebook_counts(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "r", [case("a"), case("b", notebook="02_y")], profile({"g.h": "must"}))
    record(run, "01_x", ready(), answered("a"))
    record(run, "02_y", ready("connect", status=None, text=None), broken("b", "connect"))
    assert {f.id: f.outcome for f in judge_notebook(run, "02_y")} == {
        "02_y.ready": "fail",
        "b.answered": "fail",
        "b.contract": "fail",
    }


def test_a_good_answer_later_does_not_count_backwards(tmp_path: Path) -> None:
    found = said(tmp_path, [case("a"), case("b")], broken("a", "connect"), answered("b"))
    assert found["a.answered"].outcome == "error"


def test_the_requests_that_broke_together_are_named(tmp_path: Path) -> None:
    found = said(tmp_path, [case("a"), case("b"), case("c")], ready(), broken("a"), broken("b"), answered("c"))
    assert "(in flight with it: b)" in found["a.answered"].reason


def stopped(why: str, number: int = 0) -> Exchange:
    return Exchange(kind="stop", key=f"stop/{number}", at="2026-03-01T12:00:09.000+00:00", detail=why)


def test_what_was_in_flight_when_the_server_went_is_named_and_nothing_else(tmp_path: Path) -> None:
    """a, b and c were open when it broke; d broke half a minute before; e was sent when nobody listened any more."""
    alive = answered("d/still-there", kind="canary", case=None, ask="still-there")
    refused = broken("a/still-there", "connect", after_s=30.5, kind="canary", case=None, ask="still-there")
    crash = [
        broken("a", "status", status=500, after_s=29, took_s=1),
        broken("b", "no_byte", after_s=28, took_s=2.3),
        broken("c", "broken", status=200, after_s=25, took_s=5.9),
        broken("e", "connect", after_s=30.4, took_s=0.01),
    ]
    gone = stopped(f"{GONE} since a/ask: cannot connect")
    cases = [case(name) for name in "abcdef"]
    found = said(tmp_path, cases, ready(), broken("d", "status", status=500), alive, *crash, refused, gone)
    for name in "abc":
        assert found[f"{name}.answered"].reason.startswith("the server is gone: ")
        assert "; in flight: a, b, c; the server had answered before" in found[f"{name}.answered"].reason
    assert "gone" not in found["d.answered"].reason and found["e.answered"].outcome == "fail"
    assert (found["f.recorded"].outcome, found["f.recorded"].reason) == (
        "not_measured",
        "the server is gone since a/ask: cannot connect; in flight: a, b, c",
    )


def test_later_notebooks_name_what_was_in_flight(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "r", [case("a"), case("b", notebook="02_y")], profile({"g.h": "must"}))
    record(run, "01_x", ready(), broken("a", "no_byte", after_s=3), stopped(f"{GONE} since a/ask: cannot connect"))
    record(
        run,
        "02_y",
        ready("connect", status=None, text=None, detail="cannot connect"),
        stopped(f"{GONE}: cannot connect"),
    )
    found = {f.id: f for f in judge_notebook(run, "02_y")}
    assert "the server is gone: cannot connect; in flight: a; the server had answered" in found["02_y.ready"].reason
    assert found["b.recorded"].reason == "the server is gone: cannot connect; in flight: a"


def test_a_hard_request_that_kills_the_server_is_named_by_the_plain_one_after_it(tmp_path: Path) -> None:
    hard = case("a", negative=True, canary=True)
    after = broken("a/canary", "connect", after_s=1, kind="canary", detail="cannot connect")
    found = said(tmp_path, [hard], ready(), exchange("a/ask", **REFUSED), after, stopped(f"{GONE} since a/canary: x"))
    assert found["a.contract"].outcome == "fail"
    assert found["a.contract"].reason.startswith("the server is gone: cannot connect; in flight: a;")


def test_a_case_whose_plain_request_afterwards_was_not_asked_is_not_measured(tmp_path: Path) -> None:
    late = stopped("limits.run_deadline_s of 45 s has less left than one request may take")
    hard = case("a", canary=True, expect=[{"length_chars": {"min": 1}}])
    found = said(tmp_path, [hard], ready(), answered("a"), late)
    assert {i: f.outcome for i, f in found.items() if f.case == "a"} == {
        "a.contract": "not_measured",
        "a.recorded": "not_measured",
    }


@pytest.mark.parametrize(
    ("readies", "models", "outcome"),
    [
        ([400, 400], ["m1"], "fail"),
        ([400], ["m1"], "error"),
        ([400, 422], ["m1"], "error"),
        ([400, 400], ["other"], "error"),
        ([400, 400], [], "error"),
        ([429, 429], ["m1"], "error"),
        ([500, 500], ["m1"], "error"),
    ],
)
def test_a_plain_chat_of_a_listed_model_refused_twice_alike_is_the_deployments(
    tmp_path: Path, readies: list[int], models: list[str], outcome: str
) -> None:
    asked = [
        ready("status", key=f"ready/{n}", status=s, text="{}", detail=f"HTTP {s}: no chat template")
        for n, s in enumerate(readies)
    ]
    listed = probe("models", {"data": [{"id": name} for name in models]})
    found = said(tmp_path, [case("a")], *asked, listed, stopped("the server refuses a plain chat"))["01_x.ready"]
    assert (found.outcome, "no chat template" in found.reason) == (outcome, True), found.reason


def test_the_last_ready_decides(tmp_path: Path) -> None:
    found = said(tmp_path, [case("a")], ready("status", status=503, text="{}"), ready(key="ready/1"), answered("a"))
    assert found["01_x.ready"].outcome == "pass"


REFUSED = {
    "fault": "status",
    "status": 400,
    "text": '{"error": {"message": "no such schema"}}',
    "detail": "no such schema",
}


@pytest.mark.parametrize(
    ("after", "outcome", "reason"),
    [
        (plain(chat_body("Hi", id="c"), key="a/canary", kind="canary"), "pass", "keeps the contract"),
        (
            plain(chat_body(" ", id="c"), key="a/canary", kind="canary"),
            "fail",
            "the plain request after it was not answered: empty content",
        ),
        (
            broken("a/canary", "no_byte", kind="canary"),
            "fail",
            "the plain request after it was not answered: no_byte happened",
        ),
        (None, "error", "no record of the plain request that must follow"),
    ],
)
def test_a_negative_case_may_be_refused_but_must_leave_the_server_alive(
    tmp_path: Path, after: Exchange | None, outcome: str, reason: str
) -> None:
    negative = case("a", negative=True, canary=True)
    found = said(tmp_path, [negative], ready(), exchange("a/ask", **REFUSED), *([after] if after else []))
    assert (found["a.contract"].outcome, "a.answered" in found) == (outcome, False)
    assert reason in found["a.contract"].reason


def test_a_server_error_is_no_clean_refusal(tmp_path: Path) -> None:
    found = said(tmp_path, [case("a", negative=True)], ready(), broken("a", "status", status=500))
    assert found["a.answered"].outcome == "fail"


@pytest.mark.parametrize(
    ("finish", "came", "outcome"),
    [
        ("stop", "stop", "pass"),
        ("stop", "length", "fail"),
        ("length", "length", "pass"),
        ("length", "stop", "fail"),
        ("any", "length", None),
    ],
)
def test_the_finish_reason_that_a_case_expects(tmp_path: Path, finish: str, came: str, outcome: str | None) -> None:
    body = chat_body()
    body["choices"][0]["finish_reason"] = came
    found = said(
        tmp_path,
        [case("a", finish=finish, expect=[{"length_chars": {"min": 1}}])],
        ready(),
        plain(body, key="a/ask", sent={"max_tokens": 5}),
    )
    assert (found["a.finished"].outcome if "a.finished" in found else None) == outcome


def test_an_answer_given_twice_is_a_cache(tmp_path: Path) -> None:
    found = said(tmp_path, [case("a"), case("b")], ready(), answered("a"), plain(chat_body(id="id-a"), key="b/ask"))
    assert found["a.contract"].outcome == "pass"
    assert "answered from a cache: response id 'id-a' was already given to a/ask" in found["b.contract"].reason


def test_a_reply_that_no_reader_expects_is_judged_and_not_a_crash(tmp_path: Path) -> None:
    """Half a character, a date of a thousand digits, numbers where text belongs: the server's fault, said as a finding."""
    bodies = [
        '{"id": "x\\ud83d", "model": "m\\ud83d", "choices": [{"message": {"content": "ab\\ud83d cd"}, "finish_reason": "stop\\ud83d"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}',
        '{"id": "y", "created": 1%s, "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}'
        % ("0" * 400),
        '{"choices": [{"message": {"content": 5, "tool_calls": 5}, "finish_reason": {"a": 1}}], "usage": {"prompt_tokens": []}}',
        '{"error": {"message": "half \\ud83d"}}',
    ]
    cases = [
        case(f"c{n}", expect=[{"regex": "zz"}, {"not_degenerate": True}, {"json_value": {"path": "$.a"}}])
        for n in range(len(bodies))
    ]
    run = run_folder(tmp_path / "r", cases, profile({"g.h": "must"}))
    record(run, "01_x", ready(), *(plain(body, key=f"c{n}/ask") for n, body in enumerate(bodies)))
    verdict = judge(run)
    assert verdict.verdict == "FAIL" and len(verdict.model_dump_json().encode()) > 0
    assert [worst([f.outcome for f in verdict.findings if f.id == f"c{n}.contract"]) for n in range(len(bodies))] == [
        "fail"
    ] * len(bodies)


def two_notebooks(tmp_path: Path, worse_a: int, worse_b: int, size: int = 8, passed: int | None = None) -> Run:
    """Two notebooks with a compared group each; the first `worse` of their cases fail now and passed in the baseline."""
    cases = [case(f"{n}-{i}", notebook=book, group=f"{n}.x", expect=[{"contains_any": ["Hello"]}], finish="any") for n, book in (("a", "01_x"), ("b", "02_y")) for i in range(size)]  # fmt: skip
    outcomes = {one.id: "pass" if passed is None or int(one.id[2:]) < passed else "fail" for one in cases}
    kept = baseline(outcomes, cases, revision="r0").to_json().encode()  # type: ignore[arg-type]
    by = profile({"a.x": "no_worse", "b.x": "no_worse", "a.contract": "must", "b.contract": "must"}, revision="r1")
    run = run_folder(tmp_path / "r", cases, by, kept)
    for n, book, worse in (("a", "01_x", worse_a), ("b", "02_y", worse_b)):
        texts = {f"{n}-{i}": "Sorry, no." if i < worse else "Hello there, you." for i in range(size)}
        record(run, book, ready(), *(answered(name, text) for name, text in texts.items()))
    return run


@pytest.mark.parametrize("worse_a", range(9))
def test_a_notebook_alone_does_not_fail_where_the_run_passes(tmp_path: Path, worse_a: int) -> None:
    """The other notebooks' compared groups count as p = 1: the gate of one notebook is never red in a green run."""
    run = two_notebooks(tmp_path, worse_a, 0)
    assert judge(run, "01_x").verdict == judge(run).verdict == ("FAIL" if worse_a >= 6 else "PASS")
    assert judge(run, "02_y").verdict == "PASS"


@pytest.mark.parametrize("passed", [4, 5, 6])
def test_a_notebook_alone_is_as_blind_as_the_run(tmp_path: Path, passed: int) -> None:
    """5 passed cases can show a drop in a family of one and not in one of two."""
    run = two_notebooks(tmp_path, 0, 0, passed=passed)
    for found in (judge(run, "01_x"), judge(run)):
        noted = any("nothing is compared" in note for note in found.notes)
        blind = [g.blind for g in found.groups if g.comparison]
        assert (found.verdict, {*blind}, noted) == ("PASS", {passed < 6}, passed < 6)


def test_judging_is_a_function_of_the_folder(tmp_path: Path) -> None:
    run = two_notebooks(tmp_path, 3, 2)
    assert judge(run) == judge(Run(run.path)) and judge(run, "01_x") == judge(Run(run.path), "01_x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Hello!", None),
        ("", "the plain request after it was not answered: empty content"),
        ("!" * 32, "the plain request after it was answered with noise: '!' is 32 of 32 characters"),
        (
            '{"answer": "zq7',
            "the plain request after it was answered with JSON: an answer or a grammar reached the wrong",
        ),
        ("Hel<|im_end|>lo", "the plain request after it broke the contract: special token"),
    ],
)
def test_the_plain_request_afterwards_keeps_the_contract_too(tmp_path: Path, text: str, reason: str | None) -> None:
    hard = case("a", canary=True, expect=[{"length_chars": {"min": 1}}])
    found = said(tmp_path, [hard], ready(), answered("a"), answered("a/canary", text, kind="canary"))["a.contract"]
    assert (found.outcome, (reason or "") in found.reason) == ("fail" if reason else "pass", True), found.reason


def test_a_request_that_kills_the_server_fails_though_the_rest_of_its_case_was_never_asked(tmp_path: Path) -> None:
    two = case("a", asks=[{"name": "x"}, {"name": "y"}])
    stop = Exchange(
        kind="stop", key="stop/0", at="2026-01-01T00:00:00.000+00:00", detail="the server stopped answering at a/x"
    )
    found = said(tmp_path, [case("b"), two, case("c")], ready(), answered("b"), broken("a/x"), stop)
    assert {i: f.outcome for i, f in found.items() if i[0] in "ac"} == {
        "a.contract": "fail",
        "a.answered": "fail",
        "c.recorded": "not_measured",
    }
    assert "the server had answered before" in found["a.answered"].reason


@pytest.mark.parametrize(
    ("texts", "sent", "outcome"),
    [
        (["A boat.", "El\ufffd\ufffd.", "A ship.", "A raft."], {}, "pass"),
        (["A boat.", "El\ufffd\ufffd.", "A ship.", "A \ufffd raft."], {}, "fail"),
        (["A boat.", "El\ufffd\ufffd.", "A ship."], {}, "fail"),
        (["A boat.", "El\ufffd\ufffd.", "A ship.", "A raft."], {"temperature": 0}, "fail"),
        (["A boat.", "El\ufffd\ufffd <|im_end|>.", "A ship.", "A raft."], {}, "fail"),
        (["A boat.", "The gentle fracÃ© sur of", "A ship.", "A raft."], {}, "pass"),
        (["A boat.", "The gentle fracÃ© sur of", "A ship.", "El\ufffd\ufffd."], {}, "fail"),
        (["A boat.", "The gentle fracÃ© sur of", "A ship.", "A raft."], {"temperature": 0}, "fail"),
        (["A boat.", "system\nYou are", "A ship.", "A raft."], {}, "pass"),
        (["A boat.", "system\nYou are", "A ship.", "user\nA raft."], {}, "fail"),
        (["A boat.", "system\nYou are", "A ship.", "A raft."], {"temperature": 0}, "fail"),
    ],
    ids=[
        "one-of-four",
        "two-of-four",
        "one-of-three",
        "greedy",
        "and-more",
        "mojibake",
        "two-kinds",
        "greedy-mojibake",
        "role",
        "two-roles",
        "greedy-role",
    ],
)
def test_one_sampled_answer_alone_may_draw_what_a_small_model_draws(
    tmp_path: Path, texts: list[str], sent: dict[str, Any], outcome: str
) -> None:
    names = "abcd"[: len(texts)]
    drawn = case("c", asks=[{"name": name} for name in names], finish="any", expect=[{"length_chars": {"min": 1}}])
    replies = [answered(f"c/{name}", text, sent=sent) for name, text in zip(names, texts, strict=True)]
    found = said(tmp_path, [drawn], ready(), *replies)["c.contract"]
    assert (found.outcome, any(w in found.reason for w in ("U+FFFD", "special token", "mojibake", "role header"))) == (
        outcome,
        True,
    ), found.reason
    if outcome == "pass":
        assert "one sampled answer alone may draw this by chance, and b did: " in found.reason


@pytest.mark.parametrize(("value", "reason"), [(float("nan"), "no finite numbers"), (None, "tells no logprobs")])
def test_logprobs_that_are_no_numbers_are_not_said_to_be_missing(tmp_path: Path, value: Any, reason: str) -> None:
    body = chat_body("Hello")
    if value is not None:
        body["choices"][0]["logprobs"] = {"content": [{"token": "Hello", "logprob": value, "top_logprobs": []}]}
    asked = case("c", expect=[{"greedy_logprobs": True}])
    found = said(tmp_path, [asked], ready(), plain(body, key="c/ask"))["c.greedy_logprobs"]
    assert (found.outcome, reason in found.reason) == ("fail", True), found.reason


@pytest.mark.parametrize(
    ("cards", "aliases", "outcome"),
    [
        ([{"id": MODEL, "root": "/w"}, {"id": "second", "root": "/w"}], [], "pass"),
        ([{"id": MODEL, "root": "/w"}, {"id": "second", "root": "/w", "parent": MODEL}], [], "fail"),
        ([{"id": MODEL, "root": "/w"}, {"id": "second", "root": "/other"}], [], "fail"),
        ([{"id": MODEL}], [], "fail"),
        ([{"id": MODEL}], ["second"], "pass"),
    ],
)
def test_a_reply_under_another_name_is_the_model_s_where_the_server_or_the_profile_says_so(
    tmp_path: Path, cards: list[dict[str, str]], aliases: list[str], outcome: str
) -> None:
    run = run_folder(tmp_path / "r", [GREETING], profile({"g.h": "must"}, aliases=aliases))
    record(
        run, "01_x", ready(), probe("models", {"data": cards}), plain(chat_body("Hello.", model="second"), key="a/ask")
    )
    assert {f.id: f.outcome for f in judge_notebook(run, "01_x")}["a.contract"] == outcome


def test_an_error_alone_in_a_stream_is_a_refusal_of_a_negative_case_and_a_fault_of_any_other(tmp_path: Path) -> None:
    error = [{"error": {"message": 'Grammar error: Unimplemented keys: ["uniqueItems"]', "code": 400}}]
    hostile = case("n", negative=True, canary=True, finish="any", expect=[{"survives": True}])
    canary = answered("n/canary").model_copy(update={"kind": "canary"})
    for one, outcome in ((hostile, "pass"), (case("n", expect=[{"length_chars": {"min": 1}}]), "fail")):
        asked = streamed(error, key="n/ask")
        found = said(tmp_path / outcome, [one], ready(), asked, *([canary] if one.canary else []))
        assert found["n.contract"].outcome == outcome, found["n.contract"]
        assert outcome == "pass" or "Grammar error" in found["n.contract"].reason


DRAWN = case("d", draws=4, options={"max_tokens": 8}, finish="any", expect=[{"contains_all": ["blue"]}])


def drawn(tmp_path: Path, *texts: str, **changes: Any) -> Finding:
    one = DRAWN.model_copy(update=changes)
    replies = [answered(f"d/ask-{n:02d}", text) for n, text in enumerate(texts, 1)]
    return said(tmp_path, [one], ready(), *replies)["d.draws" if len(texts) == 4 else "d.recorded"]


def test_a_case_that_is_drawn_several_times_scores_the_share_that_passes(tmp_path: Path) -> None:
    asked = DRAWN.requests()
    assert [ask.options for ask in asked] == [{"max_tokens": 8, "seed": n} for n in (1, 2, 3, 4)], (
        "no temperature of ours"
    )
    found = drawn(tmp_path / "a", "It is blue.", "It is red.", "Sky blue.", "So blue.")
    assert (found.outcome, found.measured, found.limit, found.unit) == ("pass", 0.75, 0.5, "rate")
    assert found.reason.startswith("3 of 4 sampled answers pass (ask-02: ")
    assert drawn(tmp_path / "b", "It is red.", "It is red.", "Sky blue.", "It is red.").outcome == "fail"
    assert drawn(tmp_path / "c", "It is red.", "Red.", "Sky blue.", "So blue.", pass_share=0.6).outcome == "fail"
    lost = drawn(tmp_path / "d", "It is blue.", "Blue blue.", "Sky blue.")
    assert lost.outcome == "error" and "ask-04" in lost.reason, "three of four are no score"


@pytest.mark.parametrize(
    "wrong",
    [{"asks": [{"name": "a"}, {"name": "b"}]}, {"samples": 8}, {"canary": True}, {"draws": None, "pass_share": 0.7}],
)
def test_what_draws_cannot_be_combined_with(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="draws"):
        case("d", **{"draws": 4, "expect": [{"contains_all": ["blue"]}], **wrong})
