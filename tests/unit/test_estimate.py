"""What a run would cost, before anything is asked."""

from __future__ import annotations

import re

import pytest
from gatebook.report.estimate import estimate

from tests.unit.replies import baseline, case, profile


def minutes(text: str) -> float:
    return float(re.findall(r"about ([\d.]+) minutes", text)[0])


CASES = [
    case("a", options={"max_tokens": 100}),
    case("b", options={"max_completion_tokens": 50}, canary=True, asks=[{"name": "x"}, {"name": "y"}]),
    case("c", notebook="02_y"),
    case("d", notebook="02_y", messages=[], asks=[{"name": "models", "path": "models"}]),
]


def test_cases_requests_and_caps_are_counted_by_notebook() -> None:
    rows = {
        line.split()[0]: line.split()[1:] for line in estimate(profile(), "smoke", CASES, None).splitlines() if line
    }
    assert rows["01_x"][:2] == ["2", "4"] and rows["01_x"][3] == "200"
    assert rows["02_y"][:2] == ["2", "2"] and rows["02_y"][3] == "512"
    assert rows["total"][:2] == ["4", "6"] and rows["total"][3] == "712"


def test_it_says_what_it_rests_on() -> None:
    text = estimate(profile(), "smoke", CASES, None)
    assert "suite smoke of unnamed" in text and "no baseline yet" in text and "nothing was asked" in text
    assert "from latencies of the baseline r0" in estimate(profile(), "smoke", CASES, baseline({}, CASES))


def test_a_slower_server_takes_longer_and_lanes_share_the_work() -> None:
    many = [case(f"c{n}", options={"max_tokens": 500}) for n in range(50)]
    slow, fast = (baseline({}, many, latency_ms={"ttft": 100.0, "tpot": tpot}) for tpot in (100.0, 1.0))
    assert minutes(estimate(profile(), "full", many, slow)) > minutes(estimate(profile(), "full", many, fast))
    one = profile().model_copy(update={"limits": profile().limits.model_copy(update={"in_flight": 1})})
    assert minutes(estimate(one, "full", many, slow)) > 3 * minutes(estimate(profile(), "full", many, slow))


@pytest.mark.parametrize("cap", ["many", None, -1, [5]])
def test_a_cap_that_is_no_number_is_no_crash(cap: object) -> None:
    """A negative case may send one."""
    assert minutes(estimate(profile(), "full", [case("a", options={"max_tokens": cap})], None)) > 0
