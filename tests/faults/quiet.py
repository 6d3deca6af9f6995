"""How often the gate cries wolf: the smoke suite of the healthy server against its own baseline, over and over.

Every run differs in what must not matter: a server just started or warm, one request at a time or two; on vLLM eight.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import yaml
from gatebook.checks.stats import largest_possible_drop
from gatebook.collect.server import embedded_server
from gatebook.config.cases import load_cases

from tests.conftest import ROOT, Project, small_project
from tests.engines.serving import vllm
from tests.faults.lab import OUTPUTS, accept, ask, keep, kept, state
from tests.faults.on_vllm import QUICK, VllmLab

RUNS = OUTPUTS / "quiet.jsonl"
LLAMA, VLLM = "llama.cpp", "vllm"
RUNS_OF = {LLAMA: 30, VLLM: 60}
SETTINGS = {LLAMA: [*product(("cold", "warm"), (1, 2))], VLLM: [("cold", 8), *[("warm", 8)] * 4]}


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
    engine: str = "llama.cpp"
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


def measure(runs: int, engine: str = LLAMA) -> int:
    """Run what is missing of `runs`, keep it, and say how many were not green."""
    now = state()
    folder = OUTPUTS / now
    project = _vllm_project(folder) if engine == VLLM else with_baseline(folder / "smoke")
    done = [run for run in (Quiet(**r) for r in kept(RUNS)) if (run.state, run.engine) == (now, engine)]
    with ExitStack() as stack:
        warm: str | None = None
        for number in range(len(done), runs):
            cache, in_flight = SETTINGS[engine][number % len(SETTINGS[engine])]
            if engine == LLAMA:
                project.edit_profile(limits={"in_flight": in_flight})
            if cache == "cold" or warm is None:  # what was cold is warm for the runs that follow
                stack.close()
                log = folder / f"quiet-{engine}.log"
                warm = stack.enter_context(vllm(*QUICK, log=log) if engine == VLLM else embedded_server(log))
            started = time.monotonic()
            ran = ask(project, warm, "--suite", "smoke")
            seconds = round(time.monotonic() - started, 1)
            quiet = Quiet(now, number, cache, in_flight, ran.verdict["verdict"], ran.verdict["reason"], seconds, engine)
            keep(quiet, RUNS)
            done.append(quiet)
            print(
                f"quiet {number + 1}/{runs} on {engine}: {cache}, {in_flight} in flight: {quiet.verdict} in {quiet.seconds:.0f} s {quiet.reason[:120]}",
                flush=True,
            )
    print(told(done))
    return sum(run.verdict != "PASS" for run in done)


def _vllm_project(folder: Path) -> Project:
    """The lab's own project of a healthy vLLM, with the profile of `init` (8 in flight) and its baseline."""
    folder.mkdir(parents=True, exist_ok=True)
    return VllmLab(folder, []).base("default")


def told(done: list[Quiet]) -> str:
    """Fails and other reds of all runs, each with its upper 95 % bound (Clopper-Pearson, one-sided)."""
    failed, red = sum(q.verdict == "FAIL" for q in done), sum(q.verdict != "PASS" for q in done)
    return (
        f"{failed} FAIL in {len(done)} runs of the healthy {done[0].engine if done else 'server'} against its own baseline "
        f"(95 % upper bound {largest_possible_drop(failed, len(done)):.1%}); not green: {red} "
        f"(upper bound {largest_possible_drop(red, len(done)):.1%})"
    )  # fmt: skip


def measured(engine: str = LLAMA) -> list[Quiet]:
    """The runs of the newest state that has any."""
    found = [run for run in (Quiet(**r) for r in kept(RUNS)) if run.engine == engine]
    return [run for run in found if run.state == found[-1].state] if found else []
