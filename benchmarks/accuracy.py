"""Errors of our TTFT, TPOT and E2E against a server that logs its own sending, and requests that get lost.

An error is our time less the server's for the same request; ours starts when the request leaves, its connection made. No time is
compared with the schedule, only with the log, so a slow machine does not count as an error of the client's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from gatebook.collect.client import Lane, LoopLag
from gatebook.config.profile import Target
from gatebook.record.exchange import Exchange
from gatebook.record.replies import read_answer

from benchmarks.calibrated_server import Sent, calibrated_server, read_log
from benchmarks.report import Row

ERROR_GOAL_MS, TPOT_GOAL_PERCENT = 2.0, 1.0
CLOSE = {"1-token": False, "4-tokens": False, "split": False, "hang-up": True}
"""Variant -> a new connection a request, as the collector does for llama.cpp."""
LOSS_LANES = 8


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=20, help="measured requests a variant and concurrency")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 2, 8], help="concurrencies of each variant")
    parser.add_argument("--loss-requests", type=int, default=120, help="requests on the server that hangs up")
    parser.add_argument(
        "--stagger-ms", type=float, default=0, help="start each lane this much after the one before; 0 is lockstep"
    )


def run(args: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "sent.jsonl"
        with calibrated_server(log) as base_url:
            rows = []
            for variant, close in CLOSE.items():
                for in_flight in args.in_flight:
                    asked = asyncio.run(
                        ask(base_url, variant, in_flight, args.requests, close=close, stagger_ms=args.stagger_ms)
                    )
                    rows += _errors(f"{variant}, {in_flight} in flight", asked, read_log(log))
            for close in (False, True):
                asked = asyncio.run(ask(base_url, "hang-up", LOSS_LANES, args.loss_requests, close=close))
                rows += _losses("a new connection each" if close else "connections kept", asked)
    return rows


async def ask(
    base_url: str, variant: str, in_flight: int, requests: int, *, close: bool, stagger_ms: float = 0
) -> list[Exchange]:
    """Ask through lanes as the collector does, after two warm-up requests a lane.

    Without a stagger all lanes end and begin requests at the same moment, and wait for each other in our one thread.
    """
    lag, target, done = LoopLag(), Target(base_url=base_url, model=variant), []
    users = [f"{variant}/{in_flight}/{close}/{number}" for number in range(requests)]

    async def work(lane: Lane, users: list[str], delay_ms: float = 0) -> None:
        await asyncio.sleep(delay_ms / 1000)
        while users:
            user = users.pop()
            body = {
                "model": variant,
                "user": user,
                "messages": [],
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            done.append(await lane.ask(kind="ask", key=user, body=body, deadline_s=30, retries=2))

    ticker = asyncio.create_task(lag.run())
    async with AsyncExitStack() as stack:
        lanes = [await stack.enter_async_context(Lane(target, base_url, lag, close)) for _ in range(in_flight)]
        await asyncio.gather(*(work(lane, [f"{variant}/warm-up"] * 2) for lane in lanes))
        done.clear()
        await asyncio.gather(*(work(lane, users, number * stagger_ms) for number, lane in enumerate(lanes)))
    ticker.cancel()
    return done


def _errors(name: str, asked: list[Exchange], log: dict[str, Sent]) -> list[Row]:
    ttft_ms, tpot_percent, e2e_ms = [], [], []
    for exchange in asked:
        sent, timing, tokens = log[exchange.key], exchange.timing, read_answer(exchange).tokens("completion_tokens")
        assert timing and timing.first_token_ms and timing.last_token_ms and tokens
        ttft_ms.append(timing.first_token_ms - sent.ttft_ms)
        e2e_ms.append(timing.last_token_ms - sent.e2e_ms)
        tpot_ms = (timing.last_token_ms - timing.first_token_ms) / (tokens - 1)
        tpot_percent.append(abs(tpot_ms / sent.tpot_ms - 1) * 100)
    return [
        _row(f"{name}: TTFT error", ttft_ms, "ms", ERROR_GOAL_MS),
        _row(f"{name}: TPOT error", tpot_percent, "%", TPOT_GOAL_PERCENT),
        _row(f"{name}: E2E error", e2e_ms, "ms", ERROR_GOAL_MS),
    ]


def _row(name: str, errors: list[float], unit: str, goal: float) -> Row:
    return Row(name, median(errors), unit, worst=max(errors, key=abs), goal=goal)


def _losses(name: str, asked: list[Exchange]) -> list[Row]:
    said = f"hang-up, {len(asked)} requests, {name}"
    return [
        Row(f"{said}: lost", sum(e.fault is not None for e in asked), goal=0),
        Row(f"{said}: transport retries", sum(len(e.attempts) - 1 for e in asked)),
    ]
