"""The demo: `gatebook run` beside the bare requests it makes, `gatebook verify`, and the time of the import.

The bare requests are those of the run's own record: same bodies, same order, same concurrency, notebook by notebook,
on a server started fresh, so that the prompt cache of both is as cold. As another process may slow one of the two down,
the run is also compared with the time that its own requests were open: what is beyond that is Gatebook's.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from gatebook.collect.server import embedded_server
from gatebook.record.run import Run

from benchmarks.bare import Request, ask_all
from benchmarks.processes import ROOT
from benchmarks.report import Row

GATEBOOK = str(Path(sys.executable).with_name("gatebook"))
RUN_GOAL_RATIO, RUN_GOAL_S, VERIFY_GOAL_S, IMPORT_GOAL_S = 1.15, 150.0, 10.0, 0.5


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="params/smollm2.yaml")
    parser.add_argument("--rounds", type=int, default=1)


def run(args: argparse.Namespace) -> list[Row]:
    ran, opened, bare, verified = [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        for number in range(args.rounds):
            out = Path(name) / str(number)
            ran.append(_wall_s(GATEBOOK, "run", "--profile", args.profile, "--out", str(out)))
            folder = next(p.parent for p in out.glob("20*/manifest.json"))
            verified.append(_wall_s(GATEBOOK, "verify", str(folder), "--reproduced"))
            opened.append(open_s(Run(folder)))
            bare.append(_replay(Run(folder), Path(name) / f"server-{number}.log"))
    imported = [_wall_s(sys.executable, "-c", "import gatebook") for _ in range(5)]
    return [
        Row("gatebook run, beside its bare requests", median(ran), "s", base=median(bare), goal=RUN_GOAL_RATIO),
        Row(
            "gatebook run, beside the time its requests were open",
            median(ran),
            "s",
            base=median(opened),
            goal=RUN_GOAL_RATIO,
        ),
        Row("gatebook run", median(ran), "s", goal=RUN_GOAL_S),
        Row("gatebook verify", median(verified), "s", goal=VERIFY_GOAL_S),
        Row("import gatebook, Python's own start in it", median(imported), "s", goal=IMPORT_GOAL_S),
    ]


def _wall_s(*arguments: str) -> float:
    started = time.perf_counter()
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, encoding="utf-8")
    wall_s = time.perf_counter() - started
    said = (done.stdout + done.stderr).strip().splitlines()
    print(
        f"{' '.join(arguments[:3])}: exit {done.returncode}, {wall_s:.1f} s{': ' + said[-1] if said else ''}",
        flush=True,
    )
    return wall_s


def open_s(recorded: Run) -> float:
    """Seconds with a request open, the lanes taken as equally full (exact for one in flight)."""
    attempts = [a for notebook in recorded.notebooks for e in recorded.exchanges(notebook) for a in e.attempts]
    return sum(a.elapsed_ms for a in attempts) / 1000 / recorded.manifest.profile.limits.in_flight


def _replay(recorded: Run, log: Path) -> float:
    """Seconds for the bare requests of all notebooks; the server's start does not count."""
    in_flight, wall_s = recorded.manifest.profile.limits.in_flight, 0.0
    with embedded_server(log) as base_url:
        for notebook in recorded.notebooks:
            asked = [Request(e.method, e.path, e.body) for e in recorded.exchanges(notebook) if e.kind != "stop"]
            wall_s += asyncio.run(ask_all(base_url, asked, in_flight, close=True)).wall_s
    print(f"bare requests: {wall_s:.1f} s", flush=True)
    return wall_s
