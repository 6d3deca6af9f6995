"""The calibrated server says and sends what its log claims; the table judges goals rightly. Nothing here is timed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from gatebook.collect.client import Lane, LoopLag
from gatebook.collect.scheduler import collect
from gatebook.config.profile import Target
from gatebook.record.exchange import Exchange
from gatebook.record.replies import is_token, read_answer

from benchmarks import overhead
from benchmarks.calibrated_server import TEXT, TOKENS, VARIANTS, Sent, calibrated_server, read_log
from benchmarks.report import Row, table


async def _ask(base_url: str, variant: str, lane: Lane, user: str) -> Exchange:
    body = {"model": variant, "user": user, "messages": [], "stream": True}
    return await lane.ask(kind="ask", key=user, body=body, deadline_s=30, retries=2)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Exchange], dict[str, Sent]]:
    """Variant -> its exchange; and the server's log. All variants are asked at once, each over a lane of its own."""
    log = tmp_path_factory.mktemp("calibrated") / "sent.jsonl"

    async def one(base_url: str, variant: str) -> Exchange:
        async with Lane(Target(model=variant), base_url, LoopLag()) as lane:
            return await _ask(base_url, variant, lane, variant)

    async def every(base_url: str) -> list[Exchange]:
        return await asyncio.gather(*(one(base_url, variant) for variant in VARIANTS))

    with calibrated_server(log) as base_url:
        exchanges = asyncio.run(every(base_url))
    return {e.key: e for e in exchanges}, read_log(log)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_reply_arrives_intact(answered: tuple[dict[str, Exchange], dict[str, Sent]], variant: str) -> None:
    exchange = answered[0][variant]
    answer = read_answer(exchange)
    assert (exchange.fault, exchange.invalid_utf8, answer.malformed) == (None, False, None)
    assert answer.text == TEXT
    assert answer.done and answer.finish_reason == "stop" and answer.tokens("completion_tokens") == TOKENS


@pytest.mark.parametrize("variant", [name for name, variant in VARIANTS.items() if not variant.at_once])
def test_the_log_is_what_was_sent(answered: tuple[dict[str, Exchange], dict[str, Sent]], variant: str) -> None:
    exchange, sent = answered[0][variant], answered[1][variant]
    arrived = [ms for ms, data in exchange.events or [] if is_token(data)]
    assert len(sent.sent_ns) == len(arrived) == TOKENS // VARIANTS[variant].tokens_per_chunk
    assert sent.ttft_ms >= 200 and sent.tpot_ms > 0
    # we send before the server receives, and it sends before we receive: no error can be negative
    since_received = [(ns - sent.received_ns) / 1e6 for ns in sent.sent_ns]
    assert all(ours >= theirs for ours, theirs in zip(arrived, since_received, strict=True))


def test_the_role_chunk_is_a_trap(answered: tuple[dict[str, Exchange], dict[str, Sent]]) -> None:
    timing = answered[0]["1-token"].timing
    assert timing and timing.first_chunk_ms and timing.first_token_ms
    assert timing.first_chunk_ms < timing.first_token_ms


def test_a_kept_connection_survives_a_server_that_hangs_up(tmp_path: Path) -> None:
    async def twice(base_url: str) -> list[Exchange]:
        async with Lane(Target(model="hang-up"), base_url, LoopLag(), close=False) as lane:
            return [await _ask(base_url, "hang-up", lane, f"request-{number}") for number in range(2)]

    with calibrated_server(tmp_path / "sent.jsonl") as base_url:
        exchanges = asyncio.run(twice(base_url))
    assert [read_answer(e).text for e in exchanges] == [TEXT, TEXT]


def test_the_generated_run_is_asked_and_recorded(tmp_path: Path) -> None:
    with calibrated_server(tmp_path / "sent.jsonl") as base_url:
        run = overhead.make_run(tmp_path / "run", base_url, 3, 2)
        collect(run, overhead.NOTEBOOK)
    asked = [e for e in run.exchanges(overhead.NOTEBOOK) if e.kind == "ask"]
    assert sorted(e.case or "" for e in asked) == ["case-0", "case-1", "case-2"]
    assert {read_answer(e).text for e in asked} == {TEXT}


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("no goal", 3), ""),
        (Row("value", 3, goal=3), "yes"),
        (Row("value", 3.1, goal=3), "NO"),
        (Row("median", 2, worst=4, goal=3), "median only"),
        (Row("median", 4, worst=5, goal=3), "NO"),
        (Row("ratio", 110, base=100, goal=1.15), "yes"),
        (Row("ratio", 120, base=100, goal=1.15), "NO"),
        (Row("at least", 600, base=100, goal=4, at_least=True), "yes"),
        (Row("at least", 300, base=100, goal=4, at_least=True), "NO"),
        (Row("nothing to compare with", 300, base=0, goal=4), "NO"),
    ],
)
def test_a_goal_is_judged(row: Row, met: str) -> None:
    assert row.met == met


def test_the_table_is_aligned_markdown() -> None:
    lines = table([Row("a", 1.234, "ms", goal=3), Row("a longer name", 120, "s", base=100, goal=1.15)]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["a", "1.23 ms", "", "", "", "≤ 3 ms", "yes"]
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == [
        "a longer name",
        "120 s",
        "",
        "100 s",
        "1.20",
        "≤ 1.15",
        "NO",
    ]


def test_a_goal_of_the_value_is_not_one_of_the_ratio() -> None:
    row = Row("error", 0.8, "ms", base=3.6, goal=1.0, of_value=True)
    assert (row.met, row.cells[4:6]) == ("yes", ("0.22", "≤ 1 ms"))
    assert Row("error", 1.2, "ms", base=3.6, goal=1.0, of_value=True).met == "NO"
