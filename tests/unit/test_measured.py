"""The rows that a run enters: only valid samples, and a key that changes with what was asked."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gatebook.config.cases import Case
from gatebook.errors import BrokenRecord
from gatebook.record.exchange import Attempt, Client, Exchange, Measurement
from gatebook.record.run import Run
from gatebook.record.samples import comparable, measurements

from tests.unit.replies import (  # fmt: skip
    MODEL,
    USAGE,
    case,
    chunk,
    good_chunks,
    plain,
    probe,
    profile,
    record,
    run_folder,
    streamed,
    timing,
)

CASES = [case("a"), case("b", options={"max_tokens": 8}), case("c", group="g.i")]


def answer(key: str, first: float = 20.0, last: float = 60.0, usage: Any = None, **changes: Any) -> Exchange:
    """5 completion tokens: (last - first) / 4 ms between them."""
    chunks = [*good_chunks()[:-1], chunk(usage={**USAGE, **(usage or {})})]
    at = changes.pop("at", "2026-03-01T12:00:00.000+00:00")
    attempts = [Attempt(at=at, elapsed_ms=last + 5, status=200)]
    return streamed(chunks, key=key, **{"timing": timing(first_token_ms=first, last_token_ms=last), "attempts": attempts, **changes})  # fmt: skip


def made(folder: Path, *exchanges: Exchange, cases: list[Case] = CASES, in_flight: int = 1, **fields: Any) -> Run:
    by = profile({"g.h": "watch", "g.i": "watch"}, revision="rev-1")
    by = by.model_copy(update={"limits": by.limits.model_copy(update={"in_flight": in_flight})})
    run = run_folder(folder, cases, by, **fields)
    record(run, "01_x", *exchanges)
    return run


def row(folder: Path, *exchanges: Exchange, **fields: Any) -> Measurement:
    return next(r for r in measurements(made(folder, *exchanges, **fields), "PASS") if r.group == "g.h")


def test_a_group_is_one_row_with_what_it_was_asked_of(tmp_path: Path) -> None:
    vllm = [probe("/version", {"version": "0.11.2"}), probe("models", {"data": [{"id": MODEL}]})]
    later = "2026-03-01T12:00:10.000+00:00"
    run = made(
        tmp_path / "r", *vllm, answer("a/ask"), answer("b/ask", 30, 70, at=later), answer("c/ask"), run="the-run"
    )
    rows = measurements(run, "FAIL")
    assert [r.group for r in rows] == ["g.h", "g.i"]
    found = rows[0]
    assert (found.run, found.at, found.profile, found.suite) == (
        "the-run",
        datetime(2026, 3, 1, 12, tzinfo=UTC),
        "unnamed",
        "full",
    )
    assert (found.engine, found.engine_version, found.gpu, found.revision) == ("vllm", "0.11.2", "none", "rev-1")
    assert (found.verdict, found.accepted, found.n) == ("FAIL", False, 2)
    assert (found.ttft_ms, found.itl_ms, found.total_ms) == ([20.0, 30.0], [10.0, 10.0], [60.0, 70.0])
    assert (found.prompt_tokens, found.completion_tokens) == ([7, 7], [5, 5])
    busy_s = (65 + 75) / 1000  # the ten seconds between the two are nobody's
    assert found.requests_per_s == pytest.approx(2 / busy_s, rel=1e-3) and found.tokens_per_s == pytest.approx(10 / busy_s, rel=1e-3)  # fmt: skip
    assert found.gpu_peak_mib is None


def test_requests_at_once_share_their_time(tmp_path: Path) -> None:
    found = row(tmp_path / "r", answer("a/ask"), answer("b/ask"))
    assert found.tokens_per_s == pytest.approx(10 / 0.065, rel=1e-3)


@pytest.mark.parametrize(("verdict", "given", "accepted"), [("PASS", None, True), ("INCONCLUSIVE", None, False), ("INCONCLUSIVE", True, True)])  # fmt: skip
def test_a_pass_is_accepted_and_a_person_may_accept(
    tmp_path: Path, verdict: str, given: bool | None, accepted: bool
) -> None:
    [found] = measurements(made(tmp_path / "r", answer("a/ask")), verdict, given)
    assert found.accepted is accepted


INVALID: dict[str, Exchange] = {
    "not streamed": plain("x", key="b/ask", timing=timing(first_token_ms=1.0, last_token_ms=2.0)),
    "broken off": answer("b/ask", fault="broken"),
    "at the second attempt": answer("b/ask", attempts=[Attempt(at="2026-03-01T12:00:00+00:00", elapsed_ms=1.0)] * 2),
    "without a token": answer("b/ask", timing=timing(end_ms=60.0)),
    "our loop was late": answer("b/ask", client=Client(in_flight=1, loop_lag_ms=5.1, cpu_share=0.1)),
    "our CPU was busy": answer("b/ask", client=Client(in_flight=1, loop_lag_ms=0.1, cpu_share=0.6)),
    "a canary": answer("b/canary", kind="canary"),
    "a probe": answer("ruler/1", kind="probe", case=None),
}


@pytest.mark.parametrize("bad", INVALID.values(), ids=INVALID.keys())
def test_only_valid_samples_count(tmp_path: Path, bad: Exchange) -> None:
    found = row(tmp_path / "r", answer("a/ask"), bad)
    assert (found.n, found.ttft_ms, found.total_ms) == (1, [20.0], [60.0])


def test_a_lag_that_is_little_beside_the_answer_does_not_count(tmp_path: Path) -> None:
    late = Client(in_flight=1, loop_lag_ms=30.0)
    assert row(tmp_path / "r", answer("a/ask", 200, 1000, client=late)).n == 1


def test_no_valid_sample_no_row(tmp_path: Path) -> None:
    assert measurements(made(tmp_path / "r", INVALID["not streamed"]), "PASS") == []
    assert measurements(made(tmp_path / "empty"), "ERROR") == []


def test_missing_is_not_zero(tmp_path: Path) -> None:
    without = streamed(good_chunks()[:-1], key="a/ask", timing=timing(first_token_ms=20.0, last_token_ms=60.0))
    single = answer("b/ask", usage={"completion_tokens": 1})
    found = row(tmp_path / "r", without, single)
    assert (found.n, found.itl_ms, found.completion_tokens, found.prompt_tokens) == (2, [], [1], [7])


def test_the_workload_is_the_same_for_the_same_requests_only(tmp_path: Path) -> None:
    base = (answer("a/ask"), answer("b/ask"))
    cached = {"prompt_tokens": 700, "prompt_tokens_details": {"cached_tokens": 690}}
    head = {"prompt_tokens": 70, "prompt_tokens_details": {"cached_tokens": 24}}
    cold = {"prompt_tokens_details": {"cached_tokens": 0}}
    longer = [case("a", options={"max_tokens": 9}), CASES[1]]
    more_asks = [case("a", asks=[{"name": "ask"}, {"name": "ask-2"}]), CASES[1]]
    workloads = {
        name: row(tmp_path / name.replace(" ", "-"), *exchanges, **fields).workload
        for name, (exchanges, fields) in {
            "first": (base, {}),
            "slower": ((answer("a/ask", 900, 990), answer("b/ask")), {"run": "other", "created": "2026-04-01T00:00:00+00:00"}),
            "one not asked": (base[:1], {}),
            "other options": (base, {"cases": longer}),
            "more requests": ((*base, answer("a/ask-2")), {"cases": more_asks}),
            "other order": (base, {"cases": [CASES[1], CASES[0]]}),
            "concurrency": (base, {"in_flight": 8}),
            "warm cache": (tuple(answer(f"{i}/ask", usage=cached) for i in "ab"), {}),
            "cold cache": (tuple(answer(f"{i}/ask", usage=cold) for i in "ab"), {}),
            "template cached": (tuple(answer(f"{i}/ask", usage=head) for i in "ab"), {}),
        }.items()
    }  # fmt: skip
    assert workloads.pop("template cached") == workloads["cold cache"]
    assert workloads["first"] == workloads["slower"]
    assert len(set(workloads.values())) == len(workloads) - 1


def test_a_run_is_compared_with_rows_of_its_own_key_only(tmp_path: Path) -> None:
    run = made(tmp_path / "r", answer("a/ask"), answer("b/ask"))
    [own] = measurements(run, "PASS")
    past = own.model_copy(update={"run": "before", "revision": "rev-0", "engine_version": "0.1"})
    others = [
        past.model_copy(update={name: "another"}) for name in ("profile", "engine", "gpu", "suite", "group", "workload")
    ]
    (run.path / "history.json").write_text(json.dumps([m.model_dump(mode="json") for m in (*others, past)]))
    assert comparable(Run(run.path), "01_x") == [past]
    (run.path / "history.json").unlink()
    assert comparable(Run(run.path), "01_x") == []


def test_the_gpu_is_the_one_that_the_gauges_name(tmp_path: Path) -> None:
    run = made(tmp_path / "r", answer("a/ask"))
    gauges = [
        {"ms": 1, "source": "nvml", "name": "gpu_memory_total_mib", "labels": {"gpu": "0", "name": "NVIDIA L4"}, "value": 23034.0},
        {"ms": 1, "source": "nvml", "name": "gpu_memory_total_mib", "labels": {"gpu": "1", "name": "NVIDIA L4"}, "value": 23034.0},
        *({"ms": n, "source": "nvml", "name": "gpu_memory_used_mib", "labels": {"gpu": "0"}, "value": v} for n, v in enumerate([5.0, 20100.5, None])),
        {"ms": 9, "source": "metrics", "name": "vllm:num_requests_waiting", "labels": {"name": "x"}, "value": 99999.0},
    ]  # fmt: skip
    (run.path / "01_x.gauges.jsonl").write_text("".join(json.dumps(g) + "\n" for g in gauges) + '{"cut')
    [found] = measurements(run, "PASS")
    assert (found.gpu, found.gpu_peak_mib) == ("2 x NVIDIA L4", 20100.5)
    (run.path / "01_x.gauges.jsonl").write_text("{edited\n")
    with pytest.raises(BrokenRecord, match="01_x.gauges.jsonl, line 1: is no reading of a gauge"):
        measurements(run, "PASS")


def test_a_run_that_was_judged_again_has_the_rows_of_the_one_that_asked(tmp_path: Path) -> None:
    assert row(tmp_path / "r", answer("a/ask"), run="again", judged_from="the-run").run == "the-run"


def test_the_workload_is_a_sha_256(tmp_path: Path) -> None:
    assert len(row(tmp_path / "r", answer("a/ask")).workload) == len(hashlib.sha256().hexdigest())
