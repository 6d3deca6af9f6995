"""Where time and tokens went, and a budget that says what it had no room for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gatebook.checks.evidence import clipped, length_s, opened, union, worked
from gatebook.collect.lengths import Unfit
from gatebook.collect.session import Spending
from gatebook.record.exchange import Attempt, Exchange
from gatebook.record.run import Run
from gatebook.report.standing import altogether, left_out, spending_lines
from gatebook.verdict.judging import judge
from gatebook.verdict.spending import spent, total, unfit
from gatebook.workbook import Workbook

from tests.unit.replies import ASKED, USAGE, case, chat_body, exchange, plain, profile, ready, record, run_folder

START = ASKED.timestamp()


def attempt(after_s: float, seconds: float, **how: Any) -> Attempt:
    from datetime import timedelta

    at = (ASKED + timedelta(seconds=after_s)).isoformat(timespec="milliseconds")
    return Attempt(at=at, elapsed_ms=seconds * 1000, **{"status": 200, **how})


def answered(key: str, *attempts: Attempt, usage: dict[str, Any] | None = USAGE) -> Exchange:
    body = chat_body() if usage is None else chat_body(usage=usage)
    if usage is None:
        del body["usage"]
    return plain(body, key=key, attempts=list(attempts))


def test_intervals() -> None:
    assert union([(5, 6), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 6)]
    assert length_s([(0, 4000), (5000, 6000)]) == 5
    assert clipped([(0, 4), (5, 9)], (2, 6)) == [(2, 4), (5, 6)]
    waits = answered("a/ask", attempt(0, 1, status=503, fault="status"), attempt(3, 2))
    assert length_s(worked(waits)) == 2, "a 503 is no work"
    assert length_s(opened(waits)) == 5
    assert worked(exchange(attempts=[attempt(0, 9, status=None, fault="connect")])) == []
    assert opened(exchange(attempts=[])) == []


def folder(path: Path, *exchanges: Exchange, **limits: Any) -> Run:
    cases = [case(name, expect=[{"contains_any": ["Hello"]}], group="g.h" if name == "a" else "g.i") for name in "abcd"]
    by = profile({"g.h": "must", "g.i": "watch"})
    by = by.model_copy(update={"limits": by.limits.model_copy(update=limits)})
    run = run_folder(path / "run", cases, by)
    record(run, "01_x", *exchanges)
    return run


def executed(run: Run, seconds: float) -> None:
    told = {"papermill": {"start_time": ASKED.isoformat(), "duration": seconds}}
    (run.path / "01_x.ipynb").write_text(json.dumps({"cells": [], "metadata": told}))


def test_server_waiting_and_harness(tmp_path: Path) -> None:
    cached = {**USAGE, "prompt_tokens_details": {"cached_tokens": 3}}
    run = folder(
        tmp_path,
        answered("a/ask", attempt(1, 2)),
        answered("b/ask", attempt(2, 2), usage=cached),
        answered("c/ask", attempt(5, 1, status=503, fault="status"), attempt(7, 1)),
    )
    assert spent(run, "01_x").harness_s is None, "papermill has told nothing"
    executed(run, 10)
    part = spent(run, "01_x")
    assert (part.requests, part.server_s, part.waiting_s, part.harness_s) == (3, 4, 2, 4)
    assert (part.prompt_tokens, part.completion_tokens, part.cached_tokens, part.uncounted) == (21, 15, 3, 0)
    assert total([part, part]).harness_s == 8
    assert altogether(run).server_s == 4
    assert [part.notebook for part in Workbook("90_verdict", run).spending()] == ["01_x", "all"]
    assert spending_lines(run)[0] == "time: 4.0 s the server, 2.0 s waiting for it, 4.0 s the harness"


def test_what_a_resumed_run_asked_before_is_not_taken_from_its_last_execution(tmp_path: Path) -> None:
    run = folder(tmp_path, answered("a/ask", attempt(-100, 50)), answered("b/ask", attempt(1, 2)))
    executed(run, 5)
    part = spent(run, "01_x")
    assert (part.server_s, part.harness_s) == (52, 3)


def test_answers_without_usage_are_counted_as_such(tmp_path: Path) -> None:
    run = folder(tmp_path, answered("a/ask", attempt(0, 1), usage=None))
    assert spent(run, "01_x").uncounted == 1
    assert spent(run, "01_x").cached_tokens is None
    assert "1 answers told no usage" in spending_lines(run)[1]


def skip(name: str, why: str) -> Exchange:
    return Exchange(kind="skip", key=f"{name}/ask", case=name, ask="ask", at=ASKED.isoformat(), detail=why)


def test_what_did_not_fit_is_named_and_even_a_watched_group_is_not_green(tmp_path: Path) -> None:
    spending = Spending(300, [])
    with pytest.raises(Unfit) as refused:
        spending.reserve("b/ask", [{"role": "user", "content": "x" * 900}], {"max_tokens": 50})
    run = folder(
        tmp_path, ready(), answered("a/ask", attempt(0, 1)), *(skip(n, str(refused.value)) for n in "bc"),
        Exchange(kind="stop", key="stop/0", at=ASKED.isoformat(), detail="the notebook's deadline passed"), tokens=300,
    )  # fmt: skip
    first, second = unfit(run)
    assert (first.why, first.groups, first.cases) == ("limits.tokens of 300", {"g.i": 2}, ["b", "c"])
    assert (second.groups, second.cases) == ({"g.i": 1}, ["d"])
    assert left_out(run)[0] == "limits.tokens of 300: g.i (2): b, c"
    verdict = judge(run)
    assert verdict.verdict == "INCONCLUSIVE"
    assert any("b: limits.tokens of 300 has no room for it" in reason for reason in verdict.reasons)


def test_the_budget_counts_usage_and_what_may_still_come() -> None:
    small: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
    spending = Spending(200, [answered("old/ask", attempt(0, 1))])  # 12 tokens
    spending.reserve("a/ask", small, {"max_tokens": 150})
    with pytest.raises(Unfit, match="limits.tokens of 200 has no room"):
        spending.reserve("b/ask", small, {"max_tokens": 30})
    spending.settle(answered("a/ask", attempt(0, 1)))  # 12 tokens instead of 160
    spending.reserve("b/ask", small, {"max_tokens": 100})
    spending.settle(answered("b/ask", attempt(0, 1), usage=None))
    with pytest.raises(Unfit):
        spending.reserve("c/ask", small, {"max_tokens": 100})


def test_without_a_limit_everything_fits() -> None:
    Spending(None, []).reserve("a/ask", [{"role": "user", "content": "x" * 10**6}], {})
