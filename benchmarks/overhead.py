"""What asking and recording cost beside a bare httpx loop, on a server that answers at once.

Both ask the same streamed requests (role, 64 tokens, finish, usage, [DONE] in one write) over one client a lane, in
turn, several rounds; medians are shown. The collector stamps, parses and writes every exchange to disk (fdatasync).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from gatebook.collect.scheduler import collect
from gatebook.config.cases import Case
from gatebook.config.profile import Group, Limits, Profile, Target
from gatebook.record.manifest import Manifest
from gatebook.record.run import Run, now

from benchmarks.bare import Request, Spent, ask_all
from benchmarks.calibrated_server import calibrated_server
from benchmarks.report import Row

NOTEBOOK = "bench"
CONCURRENCY = (1, 16, 64)
GOAL_200_CASES_CPU_S = 1.5
GOAL_LANES_OVER_ONE_CLIENT = 4.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)


def run(args: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with calibrated_server(folder / "sent.jsonl") as base_url:
            _measure(base_url, folder / "warm-up", 16, 16)
            rows = []
            for in_flight in CONCURRENCY:
                found = [
                    _measure(base_url, folder / f"{in_flight}-{n}", args.cases, in_flight) for n in range(args.rounds)
                ]
                rows += _rows(found, args.cases, in_flight)
            whole = [_in_a_process(base_url, folder / f"process-{n}") for n in range(args.rounds)]
            rows.append(
                Row(
                    "200 cases, 16 in flight, a process with its imports: CPU",
                    median(whole),
                    "s",
                    goal=GOAL_200_CASES_CPU_S,
                )
            )
    return rows


@dataclass(frozen=True)
class _Round:
    ours: Spent
    bare: Spent
    one_client: Spent | None
    """The bare loop with one httpx client for all, where there are many in flight."""


def _measure(base_url: str, folder: Path, count: int, in_flight: int) -> _Round:
    plan = make_run(folder, base_url, count, in_flight)
    wall, cpu = time.perf_counter(), time.process_time()
    collect(plan, NOTEBOOK)
    ours = Spent(time.perf_counter() - wall, time.process_time() - cpu)
    record = [e for e in plan.exchanges(NOTEBOOK) if e.kind == "ask"]
    assert len(record) == count and not any(e.fault for e in record), "not every case was answered"
    requests = [Request(e.method, e.path, e.body) for e in record]
    bare = asyncio.run(ask_all(base_url, requests, in_flight, close=False))
    one = asyncio.run(ask_all(base_url, requests, in_flight, close=False, clients=1)) if in_flight > 16 else None
    return _Round(ours, bare, one)


def _rows(rounds: list[_Round], count: int, in_flight: int) -> list[Row]:
    ours_ms, bare_ms = (
        median(s.cpu_s for s in spent) * 1000 / count for spent in ([r.ours for r in rounds], [r.bare for r in rounds])
    )
    ours_rate, bare_rate = (
        count / median(s.wall_s for s in spent) for spent in ([r.ours for r in rounds], [r.bare for r in rounds])
    )
    rows = [
        Row(f"{in_flight} in flight: CPU a case, beside bare httpx", ours_ms, "ms", base=bare_ms),
        Row(f"{in_flight} in flight: requests a second, beside bare httpx", ours_rate, "/s", base=bare_rate),
    ]
    if one := [r.one_client.wall_s for r in rounds if r.one_client]:
        name = f"{in_flight} in flight: requests a second, beside one bare httpx client for all"
        rows.append(
            Row(name, ours_rate, "/s", base=count / median(one), goal=GOAL_LANES_OVER_ONE_CLIENT, at_least=True)
        )
    return rows


def make_run(folder: Path, base_url: str, count: int, in_flight: int) -> Run:
    """A run folder with `count` one-request cases, planned and not yet asked."""
    cases = [
        Case(
            id=f"case-{number}", notebook=NOTEBOOK, group=NOTEBOOK, why="costs what one case costs",
            messages=[{"role": "user", "content": f"Case {number}: say hello."}], options={"temperature": 0, "max_tokens": 64},
        )
        for number in range(count)
    ]  # fmt: skip
    profile = Profile(
        target=Target(base_url=base_url, model="instant"),
        limits=Limits(in_flight=in_flight),
        groups={NOTEBOOK: Group(policy="watch")},
    )
    expected = {NOTEBOOK: [case.id for case in cases]}
    manifest = Manifest(
        run=folder.name, created=now(), profile=profile, base_url=base_url, suite="full", expected=expected
    )
    return Run.create(folder, manifest, cases, None)


def _in_a_process(base_url: str, folder: Path) -> float:
    make_run(folder, base_url, 200, 16)
    code = (
        "import sys; from pathlib import Path; from gatebook.collect.scheduler import collect; from gatebook.record.run import Run; "
        f"collect(Run(Path(sys.argv[1])), {NOTEBOOK!r})"
    )
    before = os.times()
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system
