"""Faults that come and go: how likely one run of the smoke suite sees a fault that strikes one request in 3, or in 10.

Computed: 1 - (1 - p)^n over the n requests that the fault can touch, counted in the run. That is an upper bound: some of
them show nothing (finish_reason "stop" is right for most answers). Measured: runs with seeded dice.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from gatebook.checks.stats import wilson
from gatebook.collect.server import embedded_server

from tests.conftest import Project
from tests.faults.lab import OUTPUTS, ask, keep, kept, state
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.quiet import with_baseline

RUNS = OUTPUTS / "rates.jsonl"
RATES = (1 / 3, 1 / 10)
FAULTS = (
    Fault("garbage"),
    Fault("empty"),
    Fault("no_end"),
    Fault("server_error"),
    Fault("finish"),
    Fault("strip_format", has="response_format"),
    Fault("force_temp", arg=1.0),
)


@dataclass(frozen=True)
class Struck:
    """One run with a fault at a rate."""

    state: str
    fault: str
    rate: float
    seed: int
    verdict: str
    reason: str
    struck: int
    touched: int
    """Requests that it could have struck."""
    seconds: float
    at: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()))

    @property
    def seen(self) -> bool:
        return self.verdict != "PASS"


def measure(runs: int) -> None:
    """`runs` seeds of every fault at every rate; what was run already is not run again."""
    now = state()
    project = with_baseline(OUTPUTS / now / "smoke")
    have = {(s.fault, round(s.rate, 4), s.seed) for s in measured() if s.state == now}
    todo = [
        (fault, rate, seed)
        for seed in range(1, runs + 1)
        for rate in RATES
        for fault in FAULTS
        if (fault.name, round(rate, 4), seed) not in have
    ]
    with ExitStack() as stack:
        url = stack.enter_context(embedded_server(OUTPUTS / now / "rates.log")) if todo else ""
        for number, (fault, rate, seed) in enumerate(todo, 1):
            struck = _run(project, url, replace(fault, rate=rate, seed=seed), now)
            keep(struck, RUNS)
            print(
                f"rates {number}/{len(todo)}: {fault.name} at {rate:.2f}, seed {seed}: struck {struck.struck} of {struck.touched}: {struck.verdict} {struck.reason[:100]}",
                flush=True,
            )


def _run(project: Project, url: str, fault: Fault, now: str) -> Struck:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=OUTPUTS / now) as scratch, FaultProxy(url, [fault]) as proxy:
        copy = Project(Path(scratch) / "project")
        shutil.copytree(project.root, copy.root, ignore=shutil.ignore_patterns("outputs"))
        verdict = ask(copy, proxy.base_url).verdict
        [touched] = proxy.fitted
    return Struck(
        now,
        fault.name,
        fault.rate,
        fault.seed,
        verdict["verdict"],
        verdict["reason"],
        proxy.faulted,
        touched,
        round(time.monotonic() - started, 1),
    )


def measured() -> list[Struck]:
    found = [Struck(**run) for run in kept(RUNS)]
    return [run for run in found if run.state == found[-1].state] if found else []


def table(done: list[Struck]) -> list[list[str]]:
    """One line a fault and rate: touched, computed, measured with its Wilson interval, seeds."""
    grouped: dict[tuple[str, float], list[Struck]] = defaultdict(list)
    for run in done:
        grouped[run.fault, run.rate].append(run)
    lines = []
    for (fault, rate), runs in sorted(grouped.items()):
        touched, seen = min(run.touched for run in runs), sum(run.seen for run in runs)
        low, high = wilson(seen, len(runs))
        lines.append(
            [
                f"`{fault}`",
                f"1 in {round(1 / rate)}",
                str(touched),
                f"{1 - (1 - rate) ** touched:.1%}",
                f"{seen} of {len(runs)} ({low:.0%} to {high:.0%})",
                ", ".join(str(run.seed) for run in runs),
            ]
        )
    return lines
