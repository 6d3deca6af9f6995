"""How often the gate cries wolf: the smoke suite of the healthy server against its own baseline, over and over.

Every run differs in what must not matter: a server just started or warm, one request at a time or two.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import yaml
from gatebook.ask.server import embedded_server
from gatebook.judge.stats import largest_possible_drop
from gatebook.plan.cases import load_cases

from tests.conftest import ROOT, Project, small_project
from tests.faults.lab import OUTPUTS, accept, ask, keep, kept, state

RUNS = OUTPUTS / "quiet.jsonl"
SETTINGS = [*product(("cold", "warm"), (1, 2))]


@dataclass(frozen=True)
class Quiet:
    """One run of the healthy server."""

    state: str
    number: int
    cache: str
    in_flight: int
    verdict: str
    reason: str
    seconds: float
    at: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()))


def smoke_project(folder: Path) -> Project:
    """The shipped profile with the smoke suite's cases, no baseline yet."""
    project = small_project(folder)
    smoke = [case for case in load_cases(ROOT / "params" / "cases") if "smoke" in case.suites]
    project.write_cases([case.model_dump(mode="json", exclude_defaults=True) for case in smoke])
    shipped = yaml.safe_load((ROOT / "params" / "smollm2.yaml").read_text())
    names = {name for case in smoke for name in (case.id, case.group)}
    excused = {k: why for k, why in shipped["excused"].items() if any(fnmatchcase(name, k) for name in names)}
    project.edit_profile(excused=excused, limits={**shipped["limits"], "request_deadline_s": 60})
    return project


def with_baseline(folder: Path) -> Project:
    """The smoke project with the baseline of one run of a server of its own; made once."""
    made = Project(folder / "project")
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = smoke_project(folder)
        with embedded_server(folder / "server.log") as url:
            accept(made, url)
        (folder / "ready").touch()
    return made


def measure(runs: int) -> int:
    """Run what is missing of `runs`, keep it, and say how many were not green."""
    now = state()
    project = with_baseline(OUTPUTS / now / "smoke")
    done = [Quiet(**run) for run in kept(RUNS) if run["state"] == now]
    with ExitStack() as stack:
        warm: str | None = None
        for number in range(len(done), runs):
            cache, in_flight = SETTINGS[number % len(SETTINGS)]
            project.edit_profile(limits={"in_flight": in_flight})
            if cache == "cold" or warm is None:  # what was cold is warm for the runs that follow
                stack.close()
                warm = stack.enter_context(embedded_server(OUTPUTS / now / "quiet.log"))
            started = time.monotonic()
            ran = ask(project, warm)
            verdict = ran.verdict
            quiet = Quiet(
                now,
                number,
                cache,
                in_flight,
                verdict["verdict"],
                verdict["reason"],
                round(time.monotonic() - started, 1),
            )
            keep(quiet, RUNS)
            done.append(quiet)
            print(
                f"quiet {number + 1}/{runs}: {cache}, {in_flight} in flight: {quiet.verdict} in {quiet.seconds:.0f} s {quiet.reason[:120]}",
                flush=True,
            )
    print(told(done))
    return sum(run.verdict != "PASS" for run in done)


def told(done: list[Quiet]) -> str:
    """Fails and other reds of all runs, each with its upper 95 % bound (Clopper-Pearson, one-sided)."""
    failed, red = sum(q.verdict == "FAIL" for q in done), sum(q.verdict != "PASS" for q in done)
    return (
        f"{failed} FAIL in {len(done)} runs of the healthy server against its own baseline "
        f"(95 % upper bound {largest_possible_drop(failed, len(done)):.1%}); not green: {red} "
        f"(upper bound {largest_possible_drop(red, len(done)):.1%})"
    )  # fmt: skip


def measured() -> list[Quiet]:
    """The runs of the newest state that has any."""
    found = [Quiet(**run) for run in kept(RUNS)]
    return [run for run in found if run.state == found[-1].state] if found else []
