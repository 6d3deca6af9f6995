"""Two servers behind one address, judged from a record; and the profile's replicas, each by itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from gatebook.config.profile import Profile, load_profile, profile_from
from gatebook.errors import BadInput
from gatebook.opening import estimated, planned
from gatebook.record.exchange import Attempt, Exchange
from gatebook.report.estimate import estimate
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Verdict

from tests.conftest import ROOT, shipped_cases
from tests.unit.replies import ASKED, MODEL, chat_body, plain, probe, profile, ready, record, run_folder

CASE = "first-token-x"
TWO = "two different servers answer at this address: "
GROUPS = {"fingerprint.contract": "must", "fingerprint.logprobs": "must", "fingerprint.tokens": "must"}
TOP = {"x": -0.3, "y": -2.0, "z": -4.0, "u": -5.0, "v": -6.0}
Said = dict[str, Any]


def reply(case: str, ask: str, number: int, top: dict[str, float] = TOP, tokens: int = 9, **body: Any) -> Exchange:
    """A greedy first token, asked `number` seconds after the run began."""
    at = (ASKED + timedelta(seconds=number)).isoformat(timespec="milliseconds")
    entries = [{"token": t, "logprob": v, "bytes": list(t.encode())} for t, v in top.items()]
    entry = {**entries[0], "top_logprobs": entries}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": entry["token"]},
        "finish_reason": "length",
        "logprobs": {"content": [entry]},
    }
    usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    shipped = shipped_cases()[case]
    asked = next(a for a in shipped.requests() if a.name == ask)
    sent = {"model": MODEL, "messages": asked.messages, **asked.options}
    told = chat_body(None, choices=[choice], usage=usage, id=f"c{number}", **body)
    return plain(
        told,
        key=f"{case}/{ask}",
        at=at,
        attempts=[Attempt(at=at, elapsed_ms=9.0, status=200)],
        case=case,
        ask=ask,
        sent={"max_tokens": 1, **sent},
    )


def eight(case: str = CASE, start: int = 0) -> Iterator[tuple[str, int]]:
    yield from ((name, start + n) for n, name in enumerate("abcdefgh"))


def verdict(folder: Path, *exchanges: Exchange, by: Profile | None = None, cases: tuple[str, ...] = (CASE,)) -> Verdict:
    chosen = [shipped_cases()[name] for name in cases]
    run = run_folder(folder / "run", chosen, by or profile(GROUPS))
    record(run, "05_fingerprint", ready(), *exchanges)
    return judge(run)


def differing(differ: str, seconds: Said, firsts: Said, cases: tuple[str, ...] = (CASE,)) -> list[Exchange]:
    """Eight replies a case; those at the places of `1` come from the second server."""
    places = [(case, ask, n) for start, case in enumerate(cases) for ask, n in eight(case, 8 * start)]
    return [reply(case, ask, n, **(seconds if differ[n % 8] == "1" else firsts)) for case, ask, n in places]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"system_fingerprint": "vllm-0.32.0-a"}, {"system_fingerprint": "vllm-0.32.0-b"}, "system_fingerprint is 'vllm-0.32.0-a' in 5 of 8 and 'vllm-0.32.0-b' in 3 of 8 replies"),
        ({}, {"tokens": 12}, "prompt_tokens of one prompt is '9' in 5 of 8 and '12' in 3 of 8 replies"),
        ({}, {"model": "m2"}, "served name is 'm1' in 6 of 9 and 'm2' in 3 of 9 replies"),
    ],
    ids=["fingerprint", "tokens", "name"],
)  # fmt: skip
def test_values_that_one_server_says_alike(tmp_path: Path, first: Said, second: Said, said: str) -> None:
    found = verdict(tmp_path, *differing("01010100", second, first))
    assert (found.verdict, found.exit_code) == ("FAIL", 1)
    assert found.reason.startswith(TWO) and said in found.reason, found.reason


def test_rows_of_two_clusters_are_two_servers_though_their_mean_is_within_the_tolerance(tmp_path: Path) -> None:
    cases, other = (CASE, "first-token-code"), {"x": -0.7, "y": -1.6, "z": -4.4, "u": -4.6, "v": -6.4}
    found = verdict(tmp_path, *differing("01010010", {"top": other}, {}, cases), cases=cases)
    assert (
        found.reason
        == f"{TWO}first-token logprobs of 2 prompts fall into two clusters, 6 of 16 replies from the second"
    )
    wide = Profile.model_validate({**profile(GROUPS).model_dump(), "limits": {"logprob_tolerance_nats": 0.5}})
    assert (
        verdict(tmp_path / "wide", *differing("01010010", {"top": other}, {}, cases), by=wide, cases=cases).verdict
        == "INCONCLUSIVE"
    )


def test_one_switch_is_a_server_that_changed_in_mid_run(tmp_path: Path) -> None:
    new, old = {"system_fingerprint": "b2"}, {"system_fingerprint": "b1"}
    found = verdict(tmp_path, *differing("00001111", new, old))
    assert found.verdict == "FAIL"
    assert found.reason.startswith("the server changed in mid-run, at 2026-03-01T12:00:04"), found.reason


@pytest.mark.parametrize(
    ("second", "by"),
    [
        ({"system_fingerprint": None}, {}),
        ({"system_fingerprint": "fp_2"}, {"offers": {"system_fingerprint": "a hosted service with many configurations"}}),
        ({"model": "alias"}, {"target": {"model": MODEL, "aliases": ["alias"]}}),
    ],
    ids=["a gateway drops it", "said in the profile", "an alias"],
)  # fmt: skip
def test_what_is_no_second_server(tmp_path: Path, second: Said, by: Said) -> None:
    told = Profile.model_validate({**profile(GROUPS).model_dump(), **by})
    found = verdict(tmp_path, *differing("01010100", second, {"system_fingerprint": "fp_1"}), by=told)
    assert found.verdict == "INCONCLUSIVE", found.reasons
    assert "server" not in found.reason


def test_an_untold_prompt_cache_is_no_second_server(tmp_path: Path) -> None:
    found = verdict(tmp_path, *differing("10000000", {"tokens": 90, "top": {**TOP, "x": -0.9}}, {}))
    assert found.verdict == "INCONCLUSIVE", found.reasons


REPLICAS = ["http://a:8000/v1", "http://b:8000/v1", "http://c:8000/v1"]


def at_replica(number: int, exchange: Exchange) -> Exchange:
    update = {"kind": "replica", "target": REPLICAS[number], "key": f"replica/{number}/{exchange.key}"}
    return exchange.model_copy(update=update)


def each(*said: Said) -> list[Exchange]:
    return [
        at_replica(n, reply(CASE, ask, 100 * (n + 1) + k, **values))
        for n, values in enumerate(said)
        for ask, k in eight()
    ]


def asked_of(count: int) -> Profile:
    return Profile.model_validate({**profile(GROUPS, replicas=REPLICAS[:count]).model_dump()})


def test_equal_replicas_say_nothing(tmp_path: Path) -> None:
    found = verdict(tmp_path, *differing("00000000", {}, {}), *each({}, {}), by=asked_of(2))
    assert found.verdict == "INCONCLUSIVE", found.reasons
    assert found.needs_baseline


def test_the_replica_that_is_not_as_most_are_is_named(tmp_path: Path) -> None:
    other = {"top": {**TOP, "x": -0.9}}
    found = verdict(tmp_path, *differing("00000000", {}, {}), *each(other, {}, {}), by=asked_of(3))
    assert found.verdict == "FAIL"
    assert (
        "replica http://a:8000/v1 differs from http://b:8000/v1 in weights or precision: logprobs.first-token-x"
        in found.reason
    )


def test_a_replica_that_serves_another_model_is_named(tmp_path: Path) -> None:
    refused = at_replica(1, reply(CASE, "a", 200)).model_copy(
        update={"status": 404, "fault": "status", "text": "{}", "detail": "HTTP 404: the model `m1` does not exist"}
    )
    found = verdict(tmp_path, *differing("00000000", {}, {}), *each({}), refused, by=asked_of(2))
    assert (found.verdict, found.reason) == (
        "FAIL",
        "replica http://b:8000/v1 was refused: HTTP 404: the model `m1` does not exist",
    )


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        (([MODEL], ["other"]), "replica http://b:8000/v1 serves other, others m1"),
        ((["other"], [MODEL]), "replica http://a:8000/v1 serves other, others m1"),
        (([MODEL], ["z", MODEL]), None),
        ((["by-router"], ["by-router"]), None),
    ],
)
def test_a_replica_that_answers_to_any_name_is_known_by_its_list(
    tmp_path: Path, lists: tuple[list[str], ...], said: str | None
) -> None:
    cards = [
        at_replica(n, probe("models", {"object": "list", "data": [{"id": name} for name in names]}))
        for n, names in enumerate(lists)
    ]
    found = verdict(tmp_path, *differing("00000000", {}, {}), *each({}, {}), *cards, by=asked_of(2))
    if said is None:
        assert found.needs_baseline, found.reasons
    else:
        assert found.verdict == "FAIL" and said in found.reason, found.reasons


def test_a_replica_that_nobody_asked_is_not_green(tmp_path: Path) -> None:
    found = verdict(tmp_path, *differing("00000000", {}, {}), *each({}), by=asked_of(2))
    assert found.verdict == "INCONCLUSIVE"
    assert "replica http://b:8000/v1: 8 requests were not asked (first-token-x/a): no record of it" in found.reasons


def test_versions_that_the_notebooks_read(tmp_path: Path) -> None:
    chosen = [shipped_cases()[CASE], shipped_cases()["greeting-nihao"]]
    run = run_folder(
        tmp_path / "run", chosen, profile({**GROUPS, "health.contract": "must", "health.greeting": "must"})
    )
    for notebook, version in (("01_health", "0.31"), ("05_fingerprint", "0.32")):
        record(
            run,
            notebook,
            ready(),
            probe("/version", {"version": version}),
            *(differing("00000000", {}, {}) if version == "0.32" else ()),
        )
    reason = judge(run).reasons
    assert any("version is '0.32' in 1 of 2 and '0.31' in 1 of 2 readings" in line for line in reason), reason


@pytest.mark.parametrize(
    ("replicas", "said"),
    [
        (["gpu-box:8000"], "must be a URL such as http://gpu-box:8000/v1"),
        (["http://a:1/v1", "http://a:1/v1"], "stands twice; name each replica once"),
    ],
)
def test_bad_replicas_are_one_line(replicas: list[str], said: str) -> None:
    with pytest.raises(BadInput, match="replicas") as raised:
        profile_from({"target": {"model": "m", "replicas": replicas}, "groups": {}}, "params/p.yaml", "p")
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_replica_without_its_path_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(
        BadInput, match=r"key 'target.replicas' has value 'http://a:8000': write the base URL whole, http://a:8000/v1"
    ):
        planned(profile(GROUPS, replicas=["http://a:8000"]), "smoke", [CASE])


def test_the_plan_counts_every_replica() -> None:
    case = [shipped_cases()[CASE]]
    alone, three = (estimate(profile(GROUPS, **more), "smoke", case, None) for more in ({}, {"replicas": REPLICAS[:2]}))
    told = [next(line.split() for line in table.splitlines() if line.startswith("total")) for table in (alone, three)]
    assert told[0][:3] == ["total", "1", "8"] and told[1][:3] == ["total", "1", "24"], (alone, three)
    assert told[1][4] == "24", "one answer token a request"


def test_the_page_counts_the_requests_that_the_plan_counts() -> None:
    page = (ROOT / "docs" / "decisions" / "replicas.md").read_text(encoding="utf-8")
    plan = estimated(load_profile(ROOT / "params" / "qwen3-4b.yaml"), "smoke", None).splitlines()
    rows = {words[0]: int(words[2].replace(",", "")) for line in plan if len(words := line.split()) == 5}
    first = [case for case in shipped_cases().values() if case.id.startswith("first-token-") and "smoke" in case.suites]
    tokens = sum(len(case.requests()) for case in first)
    asked = f"asks {rows['total']} requests of a vLLM"
    assert asked in page and f"{rows['05_fingerprint']} of them in notebook 05, {tokens} of these" in page, rows
    assert (
        f"one in fifty is seen with {1 - 0.98 ** rows['total'] - 0.02 ** rows['total']:.0%}".replace("%", " %") in page
    )
    for replies, percent in ((22, 90), (29, 95), (44, 99)):
        assert f"{replies} replies see it with {percent} %" in page or f"{replies} with {percent} %" in page
        assert 1 - 0.9**replies - 0.1**replies >= percent / 100
