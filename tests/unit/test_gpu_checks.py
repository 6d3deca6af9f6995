"""Memory, cache, queue and preemptions judged from traces: pass, fail, the edges, and what was not seen."""

from __future__ import annotations

from typing import Any

import pytest
from gatebook.checks.evidence import HOLE_S, Evidence, Watched
from gatebook.checks.finding import Result
from gatebook.config.policies import Production
from gatebook.record.exchange import Attempt, Exchange
from gatebook.record.gauges import SESSION, UNAVAILABLE, USED, Gauge
from gatebook.record.identity import Identity

from tests.unit.replies import ASKED, case, exchange, judged, profile
from tests.unit.traces import card, row

LIMITS = Production(gpu_memory_limit_gb=22, kv_cache_usage_limit=0.95, queue_limit=2, preemptions_limit=0)


def asked(seconds: float) -> Exchange:
    """One request in flight for so long, from the first reading on."""
    at = ASKED.isoformat(timespec="milliseconds")
    return exchange(attempts=[Attempt(at=at, elapsed_ms=seconds * 1000, status=200)])


def seen(
    rows: list[Gauge], engine: Any = "llama.cpp", limits: Production = LIMITS, busy_s: float = 1.0, requests: int = 1
) -> Evidence:
    watched = Watched(rows, [asked(busy_s)] * requests)
    looking = case(over="gauges", messages=[], expect=[{"gpu_memory": "limit"}])
    by = profile().model_copy(update={"production": limits})
    return Evidence(looking, [], Identity(engine=engine), by, watching=lambda: watched)


def told(check: str, rows: list[Gauge], **how: Any) -> Result:
    return judged(check, "limit", seen(rows, **how))


def points(name: str, *values: float, every_s: float = 0.5) -> list[Gauge]:
    return [row(name, value, n * every_s, engine="0") for n, value in enumerate(values)]


@pytest.mark.parametrize(("peak", "outcome"), [(21.9, "pass"), (22.0, "pass"), (22.1, "fail")])
def test_the_peak_against_the_limit(peak: float, outcome: str) -> None:
    result = told("gpu_memory", card(18.0, peak, 19.0))
    assert (result.outcome, result.measured, result.limit) == (outcome, peak, 22)
    assert f"held {peak:.1f} of 24.0 GB" in result.reason


def test_the_fullest_of_several_cards_decides() -> None:
    result = told("gpu_memory", [*card(10.0), *card(23.0, gpu="1")])
    assert result.outcome == "fail" and "GPU 1" in result.reason


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_where_memory_is_taken_at_the_start_it_is_evidence(engine: str) -> None:
    result = told("gpu_memory", card(22.6, 22.6), engine=engine)
    assert result.outcome == "pass" and "load.kv_cache decides" in result.reason


def test_no_gpu_is_not_measured_with_the_reason() -> None:
    why = row(UNAVAILABLE, None, of="gpu", gpu="all", why="NVMLError_LibraryNotFound: NVML Shared Library Not Found")
    result = told("gpu_memory", [why])
    assert result.outcome == "not_measured" and "LibraryNotFound" in result.reason
    assert "nothing was sampled" in told("gpu_memory", []).reason


def test_a_card_that_could_not_be_read_is_not_passed_over() -> None:
    denied = row(UNAVAILABLE, None, of="gpu", gpu="1", why="memory: NVMLError_NoPermission: Insufficient Permissions")
    result = told("gpu_memory", [*card(10.0), denied])
    assert result.outcome == "not_measured" and "GPU 1: memory: NVMLError_NoPermission" in result.reason
    hidden = row(UNAVAILABLE, None, of="gpu", gpu="0", why="processes: NVMLError_NoPermission: ...")
    assert told("gpu_memory", [*card(10.0), hidden]).outcome == "pass", "the device's own figure is enough"


@pytest.mark.parametrize(
    ("check", "rows"),
    [
        ("gpu_memory", card(1.0)),
        ("kv_cache_usage", points("vllm:kv_cache_usage_perc", 0.1)),
        ("queue", points("vllm:num_requests_waiting", 0)),
        ("preemptions", points("vllm:num_preemptions_total", 0)),
    ],
)
def test_what_is_not_stated_not_asked_or_not_seen_is_not_measured(check: str, rows: list[Gauge]) -> None:
    assert told(check, rows).outcome == "pass"
    unstated = told(check, rows, limits=Production())
    assert unstated.outcome == "not_measured" and "does not state production." in unstated.reason
    idle = told(check, rows, requests=0)
    assert idle.outcome == "not_measured" and "no load" in idle.reason
    blind = told(check, rows, busy_s=HOLE_S + 1)
    assert blind.outcome == "not_measured" and "no reading for 31 s" in blind.reason
    assert told(check, []).outcome == "not_measured"


@pytest.mark.parametrize(("peak", "outcome"), [(0.95, "pass"), (0.96, "fail"), (1.0, "fail")])
def test_the_kv_cache(peak: float, outcome: str) -> None:
    result = told("kv_cache_usage", points("sglang:token_usage", 0.1, peak, 0.2))
    assert (result.outcome, result.measured) == (outcome, peak)


@pytest.mark.parametrize(("peak", "outcome"), [(2, "pass"), (3, "fail")])
def test_the_queue(peak: int, outcome: str) -> None:
    result = told("queue", points("llamacpp:requests_deferred", 0, peak, 1))
    assert (result.outcome, result.measured) == (outcome, peak)


@pytest.mark.parametrize(
    ("values", "outcome", "count"), [((5, 5, 5), "pass", 0), ((5, 6, 9), "fail", 4), ((9, 9, 0), "fail", 0)]
)
def test_preemptions_are_counted_from_the_first_reading(values: tuple[int, ...], outcome: str, count: int) -> None:
    result = told("preemptions", points("vllm:num_preemptions_total", *values))
    assert (result.outcome, result.measured) == (outcome, count)
    assert ("started anew" in result.reason) == (values[-1] == 0)


def test_what_happened_between_two_sessions_is_not_the_loads() -> None:
    begins = row(SESSION, None, state="begins")
    rows = [begins, *points("vllm:num_preemptions_total", 3, 3), begins, *points("vllm:num_preemptions_total", 0, 0)]
    assert told("preemptions", rows).outcome == "pass"


def test_sglangs_gauge_where_it_has_no_counter() -> None:
    result = told("preemptions", points("sglang:num_retracted_reqs", 0, 2, 0), engine="sglang")
    assert (result.outcome, result.measured) == ("fail", 2)


def test_a_hole_is_the_longest_time_without_a_reading_in_flight() -> None:
    rows = [row(USED, 1.0, s, gpu="0") for s in (0.0, 1.0, 5.0)]
    watched = Watched(rows, [asked(7.0)])
    assert watched.hole_s([(r.ms, 1.0) for r in rows]) == pytest.approx(4.0)
    assert watched.hole_s([]) == float("inf")
