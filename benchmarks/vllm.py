"""vLLM: `gatebook run --suite integration` beside the bare requests it makes, at the 8 in flight of the profile that `init` writes.

The bare requests are those of the run's own record: same bodies, same order, same concurrency, notebook by notebook. Both find
the server started fresh, so that the prefix cache of both is as cold. It needs `make engines`.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median

from gatebook.record.run import Run

from benchmarks.bare import Request, ask_all
from benchmarks.demo import open_s
from benchmarks.report import Row
from tests.engines.serving import vllm
from tests.faults.on_vllm import introduced

GOAL_RATIO = 1.15


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--suite", choices=("smoke", "integration"), default="integration")


def run(args: argparse.Namespace) -> list[Row]:
    ran, opened, bare = [], [], []
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            with vllm() as url:
                project = introduced(Path(folder), url)
                started = time.perf_counter()
                done = project.ask(url, args.suite)
                ran.append(time.perf_counter() - started)
                reason = done.verdict["reason"]
            recorded = Run(done.run)
            opened.append(open_s(recorded))
            bare.append(_replay(recorded))
        print(f"round {number + 1}: exit {done.code} in {ran[-1]:.1f} s, bare {bare[-1]:.1f} s; {reason}", flush=True)
    what = f"gatebook run --suite {args.suite} on vLLM"
    return [
        Row(f"{what}, beside its bare requests", median(ran), "s", base=median(bare), goal=GOAL_RATIO),
        Row(f"{what}, beside the time its requests were open", median(ran), "s", base=median(opened)),
    ]


def _replay(recorded: Run) -> float:
    """Seconds for the bare requests of all notebooks; the server's start does not count."""
    in_flight, wall_s = recorded.manifest.profile.limits.in_flight, 0.0
    with vllm() as url:
        for notebook in recorded.notebooks:
            asked = [Request(e.method, e.path, e.body) for e in recorded.exchanges(notebook) if e.kind != "stop"]
            wall_s += asyncio.run(ask_all(url, asked, in_flight, close=False)).wall_s
    return wall_s
