"""An adapter that answers as its base is none: judged from the record alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gatebook.checks.finding import Finding, Stage
from gatebook.config.cases import Case
from gatebook.record.exchange import Exchange
from gatebook.record.identity import asked_of_parent
from gatebook.record.run import Run
from gatebook.report.estimate import estimate
from gatebook.verdict.findings import judge_run
from gatebook.verdict.judging import judge
from gatebook.verdict.spending import spent

from tests.conftest import shipped_cases
from tests.unit.replies import ACCEPTED, MODEL, chat_body, exchange, plain, probe, profile, ready, record, run_folder

BASE, BOOK = "base", "05_fingerprint"
SHIPPED = shipped_cases()
CASES = [SHIPPED[name] for name in ("first-token-x", "first-token-code", "greedy-boat", "adapter-unlike-parent")]
MUST = profile({f"fingerprint.{name}": "must" for name in ("contract", "logprobs", "adapter")})
CARDS = [{"id": BASE, "max_model_len": 4096, "parent": None}, {"id": MODEL, "max_model_len": None, "parent": BASE}]
LISTED = probe("models", {"data": CARDS})
Row = dict[str, float]
SURE = {"Boat": -0.1, "Ship": -3.0, "Raft": -4.0, "Oar": -5.0, "Sea": -6.0}


def said(*rows: Row, **more: Any) -> dict[str, Any]:
    """A reply whose tokens have these alternatives, the first of each chosen."""
    tokens = [
        {"token": next(iter(row)), "logprob": next(iter(row.values())), "bytes": None,
         "top_logprobs": [{"token": token, "logprob": value, "bytes": None} for token, value in row.items()]}
        for row in rows
    ]  # fmt: skip
    body = chat_body("".join(str(token["token"]) for token in tokens), **more)
    body["choices"][0] |= {"logprobs": {"content": tokens}, "finish_reason": "length"}
    return {**body, "usage": {"prompt_tokens": 7, "completion_tokens": len(rows), "total_tokens": 7 + len(rows)}}


def shifted(nats: float) -> Row:
    """Another leading token's weight."""
    return {**SURE, "Ship": SURE["Ship"] + nats}


def answers(adapter: Row, greedy: Row | None = None) -> list[Exchange]:
    """Of the model under test to all requests of the cases."""
    asks = [(case, ask) for case in CASES for ask in case.requests()]
    rows = {case.id: [SURE, greedy or SURE] if case.id == "greedy-boat" else [adapter] for case, _ in asks}
    return [
        plain(said(*rows[c.id], id=f"{c.id}-{a.name}"), key=f"{c.id}/{a.name}", sent={"max_tokens": len(rows[c.id])})
        for c, a in asks
    ]


def parents(**changes: Any) -> list[Exchange]:
    """Of its base; `changes` make another exchange of the first."""
    asked = [(case, ask) for case, ask in asked_of_parent(CASES, MUST)]
    found = []
    for number, (case, ask) in enumerate(asked):
        rows = [SURE, SURE] if ask.name == "greedy-boat" else [SURE]
        reply = plain(said(*rows, model=BASE, id=f"p{number}"), key=f"{case.id}/{ask.name}", sent={"model": BASE})
        more = {"kind": "parent", **(changes if number == 0 else {})}
        found.append(Exchange.model_validate({**reply.model_dump(), **more}))
    return found


def recorded(folder: Path, *exchanges: Exchange, listed: Exchange = LISTED, cases: list[Case] = CASES) -> Run:
    run = run_folder(folder / "run", cases, MUST, ACCEPTED, only=["05"])
    record(run, BOOK, ready(), listed, *exchanges)
    return run


def of_adapter(run: Run) -> Finding:
    [found] = [f for f in judge_run(run) if f.case == "adapter-unlike-parent"]
    assert (found.group, found.notebook) == ("fingerprint.adapter", BOOK)
    return found


def test_an_adapter_that_answers_as_its_base_is_the_first_reason(tmp_path: Path) -> None:
    run = recorded(tmp_path, *answers(SURE), *parents())
    found, verdict = of_adapter(run), judge(run)
    assert (found.check, found.outcome, found.stage) == ("unlike_parent", "fail", Stage.WEIGHTS)
    assert found.reason.startswith(f"adapter {MODEL} answers as its base {BASE}: all 3 prompts within 0.1 nats")
    assert (verdict.verdict, verdict.exit_code) == ("FAIL", 1) and "answers as its base" in verdict.reason


@pytest.mark.parametrize(
    ("adapter", "greedy", "outcome"),
    [
        (shifted(0.05), None, "fail"),
        (shifted(0.5), None, "pass"),
        (SURE, {"Mast": -0.1, "Boat": -3.0}, "pass"),
        (SURE, {"Ship": -0.69, "Boat": -0.7}, "pass"),
    ],
    ids=[
        "within the tolerance",
        "a first token beyond it",
        "a greedy answer parts",
        "it parts where the base was sure",
    ],
)
def test_one_prompt_that_differs_beyond_the_tolerance_is_enough(
    tmp_path: Path, adapter: Row, greedy: Row | None, outcome: str
) -> None:
    found = of_adapter(recorded(tmp_path, *answers(adapter, greedy), *parents()))
    assert found.outcome == outcome, found.reason
    assert ("otherwise than its parent" in found.reason) == (outcome == "pass")


def test_no_parent_in_the_list_is_no_adapter_and_nothing_is_expected_of_one(tmp_path: Path) -> None:
    plain_list = probe("models", {"data": [{"id": MODEL, "parent": None}, {"id": BASE}]})
    run = recorded(tmp_path, *answers(SURE), listed=plain_list)
    assert of_adapter(run).outcome == "pass" and "names no parent" in of_adapter(run).reason
    assert judge(run).verdict == "PASS"


@pytest.mark.parametrize("parent", [7, "", MODEL, ["x"], {"id": "x"}])
def test_a_parent_that_is_no_other_name_is_none(tmp_path: Path, parent: Any) -> None:
    run = recorded(tmp_path, *answers(SURE), listed=probe("models", {"data": [{"id": MODEL, "parent": parent}]}))
    assert of_adapter(run).outcome == "pass"


def test_a_parent_that_is_not_served_is_not_measured(tmp_path: Path) -> None:
    run = recorded(tmp_path, *answers(SURE), listed=probe("models", {"data": CARDS[1:]}))
    found, verdict = of_adapter(run), judge(run)
    assert found.outcome == "not_measured"
    assert found.reason == f"{BASE}, the parent of adapter {MODEL}, is not served, so it was not asked; served: {MODEL}"
    assert verdict.verdict == "INCONCLUSIVE" and found.reason in verdict.reason


@pytest.mark.parametrize(
    ("changes", "check", "outcome"),
    [
        ({"status": 404, "fault": "status", "detail": "HTTP 404: no such model"}, "unlike_parent", "not_measured"),
        ({"status": 403, "fault": "status", "detail": "HTTP 403: not for you"}, "unlike_parent", "not_measured"),
        ({"status": 500, "fault": "status", "detail": "HTTP 500: boom"}, "answered", "fail"),
        ({"status": None, "fault": "broken", "detail": "broke off"}, "answered", "fail"),
        ({"text": json.dumps(chat_body("Boat"))}, "unlike_parent", "not_measured"),
        ({"text": "<html>"}, "unlike_parent", "not_measured"),
        ({"kind": "skip", "text": None, "attempts": [], "detail": "limits.tokens of 5 has no room for it"}, "recorded", "not_measured"),
    ],
    ids=["not there", "not allowed", "breaks", "cut", "no logprobs", "no JSON", "over budget"],
)  # fmt: skip
def test_a_parent_that_gives_no_answer_never_makes_it_green(
    tmp_path: Path, changes: dict[str, Any], check: str, outcome: str
) -> None:
    run = recorded(tmp_path, *answers(SURE), *parents(**changes))
    found = of_adapter(run)
    assert (found.check, found.outcome) == (check, outcome), found.reason
    assert judge(run).verdict in ("FAIL", "INCONCLUSIVE")


def test_lost_requests_are_an_error_and_an_unasked_rest_says_why(tmp_path: Path) -> None:
    lost = of_adapter(recorded(tmp_path / "a", *answers(SURE), *parents()[1:]))
    assert (lost.check, lost.outcome) == ("recorded", "error") and "first-token-x" in lost.reason
    stopped = exchange(kind="stop", key="stop/0", case=None, detail="limits.run_deadline_s of 9 s is over", status=None)
    cut = of_adapter(recorded(tmp_path / "b", *answers(SURE), stopped))
    assert (cut.check, cut.outcome, cut.reason) == ("recorded", "not_measured", stopped.detail)


def test_a_run_without_the_prompts_compares_nothing_and_is_not_green(tmp_path: Path) -> None:
    run = recorded(tmp_path, cases=CASES[-1:])
    assert of_adapter(run).outcome == "not_measured" and "no prompt of fingerprint.logprobs" in of_adapter(run).reason
    assert judge(run).verdict == "INCONCLUSIVE"


def test_an_adapter_unloaded_in_the_middle_is_not_served_any_more(tmp_path: Path) -> None:
    detail = f"HTTP 404: The model `{MODEL}` does not exist."
    first, *rest = answers(shifted(1))
    gone = [e.model_copy(update={"status": 404, "fault": "status", "detail": detail, "text": "{}"}) for e in rest]
    verdict = judge(recorded(tmp_path, first, *gone, *parents()))
    assert verdict.verdict == "FAIL" and f"model '{MODEL}' is not served any more: {detail}" in verdict.reason
    assert verdict.causes[0].stage == Stage.NOT_SERVED and len(verdict.causes) == 1


def test_what_the_base_is_asked_is_counted(tmp_path: Path) -> None:
    run = recorded(tmp_path, *answers(SURE), *parents())
    asked = sum(len(case.requests()) for case in CASES)
    assert spent(run, BOOK).requests == 2 + asked + 3
    said = estimate(MUST, "smoke", CASES, None)
    assert "if the model is an adapter, its parent is asked 3 requests more of" in said
    assert "parent" not in estimate(MUST, "smoke", CASES[:3], None)


def test_the_shipped_case_looks_over_all_prompts_of_the_logprobs() -> None:
    asked = [ask.name for _, ask in asked_of_parent(list(SHIPPED.values()), MUST)]
    assert asked == [case.id for case in SHIPPED.values() if case.group == "fingerprint.logprobs"] and len(asked) == 12


def test_an_adapters_context_is_its_parents_where_its_card_has_none() -> None:
    from gatebook.record.identity import identify

    found = identify([LISTED], MODEL)
    assert (found.parent, found.context_tokens) == (BASE, 4096)
