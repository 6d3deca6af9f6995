"""Time and memory of each stage of a run of very many cases: what is linear takes ten times as long for ten times as many.

A project of its own with one notebook and a scripted server that answers at once. Every third case fails, so that long lists
of what is red are made too. CPU seconds and peak memory are those of all processes of a command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.processes import ROOT
from benchmarks.report import Row
from tests.conftest import checkout
from tests.faults.scripted import ScriptedServer

NOTEBOOK, MODEL = "02_structured_output", "scale"
CASES_A_FILE = 2500
PEAK_GOAL_MB, PAGE_GOAL_MB, LINEAR_GOAL = 600.0, 2.0, 1.15
"""What ten times the cases may cost over ten times the price, beside what a run costs at all."""
LOOK_S, SHARES_EVERY = 0.1, 10
"""Between two looks at a command; every so many the kernel adds up what its processes share, which takes longer."""
STAGES = {
    "read the record": "run.exchanges(N)",
    "frame of replies": "replies_frame(run, N)",
    "judge it all again": "judge(run)",
    "findings of the notebook": "keep_findings(run, N)",
    "pages": "[notebook_page(run, N, v), index_page(run, v, {N: v})]",
    "JUnit and metrics": "[junit(run, v, ''), metrics(run, v)]",
    "measurements for the history": "measurements(run, v.verdict, None)",
}
"""Stage -> what is timed, in a process of its own."""
STAGE_CODE = """
import sys, time, json, resource
from pathlib import Path
from gatebook.record.frames import replies_frame
from gatebook.record.run import Run
from gatebook.record.samples import measurements
from gatebook.report.junit import junit
from gatebook.report.figures import metrics
from gatebook.report.pages import index_page, notebook_page
from gatebook.verdict.judging import judge, keep_findings
from gatebook.verdict.verdict import Verdict
N, run = sys.argv[1], Run(Path(sys.argv[2]))
v = Verdict.model_validate_json((run.path / "verdict.json").read_bytes())
if "{code}" != "run.exchanges(N)": run.exchanges(N)
began = time.process_time()
{code}
print(json.dumps([time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6]))
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--keep", type=Path, help="keep the projects and their runs in this new folder")


@dataclass
class Watched:
    """A command and every process under it: their CPU seconds, and the most memory that one of them and that all of them held.

    What a process does after the last look at it is not counted: `LOOK_S` of it at most."""

    cpu_s: dict[int, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    most_mb: float = 0.0
    looks: int = 0

    def look(self, process: psutil.Process) -> None:
        try:
            found = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:  # it has just ended
            return
        shares_mb = 0.0
        self.looks += 1
        for one in found:
            try:
                times, words = one.cpu_times(), " ".join(one.cmdline())
                status = Path(f"/proc/{one.pid}/status").read_text(encoding="utf-8")
            except (psutil.Error, OSError):
                continue
            self.cpu_s[one.pid] = times.user + times.system
            name = "kernels" if "gatebook.forks" in words else "the command"
            self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), _mb(status, "VmHWM"))
            if self.looks % SHARES_EVERY == 0:
                with suppress(OSError):
                    shares_mb += _mb(Path(f"/proc/{one.pid}/smaps_rollup").read_text(encoding="utf-8"), "Pss")
        self.most_mb = max(self.most_mb, shares_mb)


def _mb(status: str, key: str) -> float:
    """Of a line of /proc/PID/status or smaps_rollup; 0 of a process that has ended."""
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{key}:")), 0) * 1024 / 1e6


@dataclass(frozen=True)
class Spent:
    """What a command cost that has ended, with every process under it."""

    status: int
    wall_s: float
    cpu_s: float
    peak_mb: dict[str, float]
    """The most memory of one process: of a kernel, and of any other."""
    most_mb: float
    """The most that all its processes held at one time, what they share counted once."""


def run(args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="gatebook-scale-") as name:
        folder = args.keep or Path(name)
        found = {count: measure(folder / str(count), count) for count in args.cases}
    least = min(found)
    for stage in found[least]:
        for count, costs in found.items():
            rows.append(_row(stage, count, costs[stage], found[least][stage], least))
    return rows


def _row(stage: str, count: int, cost: float, of_least: float, least: int) -> Row:
    """Sizes and memory have limits of their own; a time is compared with that of the fewest cases, a case."""
    name = f"{count:,} cases: {stage}"
    if stage.endswith("MB"):
        goal = PEAK_GOAL_MB if "memory" in stage else PAGE_GOAL_MB
        return Row(name.removesuffix(", MB"), cost, "MB", goal=goal)
    if count == least:
        return Row(name, cost, "s CPU")
    return Row(name, cost, "s CPU", base=of_least * count / least, goal=LINEAR_GOAL)


def measure(root: Path, count: int) -> dict[str, float]:
    """Stage -> CPU seconds, or megabytes where its name ends so."""
    project(root, count)
    costs: dict[str, float] = {}
    with ScriptedServer(MODEL, answer_s=0) as server:
        asked = ("run", "--profile", "params/scale.yaml", "--base-url", f"{server.url}/v1", "--suite", "full")
        _command(root, costs, "gatebook run", *asked)
    made = next(p.parent for p in (root / "outputs").glob("20*/verdict.json"))
    _command(root, costs, "gatebook verify", "verify", str(made), "--reproduced")
    for stage, code in STAGES.items():
        cpu_s, peak_mb = _stage(root, made, code)
        costs[stage] = cpu_s
        costs[f"memory, {stage}, MB"] = peak_mb
    for name in (f"{NOTEBOOK}.ipynb", "90_verdict.ipynb", f"{NOTEBOOK}.html", "90_verdict.html", "index.html"):
        costs[f"{name}, MB"] = (made / name).stat().st_size / 1e6
    return costs


def _command(root: Path, costs: dict[str, float], name: str, *arguments: str) -> None:
    """Run it to its end, and add what it cost."""
    spent = watched(root, name, *gatebook(*arguments))
    costs[name] = spent.cpu_s
    costs |= {f"memory, {name}, {who}, MB": peak for who, peak in sorted(spent.peak_mb.items())}


def gatebook(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gatebook", *arguments]


def watched(root: Path, name: str, *arguments: str, most_s: float | None = None, **environment: str) -> Spent:
    """Run a command in a project to its end, or kill it after `most_s`; looked at while it runs. What it says goes to `said.log`."""
    began, seen = time.perf_counter(), Watched()
    with (root / "said.log").open("ab") as log:
        process = psutil.Popen(
            arguments, cwd=root, env={**_environment(root), **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )  # fmt: skip
        done = threading.Event()

        def look() -> None:
            while not done.wait(LOOK_S):
                seen.look(process)

        looking = threading.Thread(target=look)
        looking.start()
        try:
            status = process.wait(most_s)
        except psutil.TimeoutExpired:
            for one in [*process.children(recursive=True), process]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            status = process.wait()
        done.set()
        looking.join()
    spent = Spent(status, time.perf_counter() - began, sum(seen.cpu_s.values()), seen.peak_mb, seen.most_mb)
    print(f"{name}: exit {status}, {spent.wall_s:.0f} s, {spent.cpu_s:.1f} s CPU", flush=True)
    return spent


def _stage(root: Path, made: Path, code: str) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-c", STAGE_CODE.replace("{code}", code), NOTEBOOK, str(made)],
        cwd=root, env=_environment(root), stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    cpu_s, peak_mb = json.loads(done.stdout)
    print(f"{code}: {cpu_s:.1f} s, {peak_mb:.0f} MB", flush=True)
    return cpu_s, peak_mb


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "lib"), "GATEBOOK_ROOT": str(root)}


def project(root: Path, count: int) -> None:
    """The shipped notebooks, a profile, and so many cases and none of the package's; every third of them fails."""
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    checkout(root)
    profile = {
        "target": {"model": MODEL, "context_tokens": 8192}, "limits": {"in_flight": 16, "notebook_deadline_s": 7200, "run_deadline_s": 14400},
        "groups": {"many.contract": "must", "many.good": "must", "many.bad": "must"},
    }  # fmt: skip
    (root / "params" / "scale.yaml").write_text(json.dumps(profile), encoding="utf-8")
    for first in range(0, count, CASES_A_FILE):
        cases = [make_case(number) for number in range(first, min(first + CASES_A_FILE, count))]
        (root / "params" / "cases" / f"many-{first}.yaml").write_text(json.dumps(cases), encoding="utf-8")


def make_case(number: int) -> dict[str, Any]:
    bad = number % 3 == 0
    return {
        "id": f"case-{number}", "notebook": NOTEBOOK, "group": "many.bad" if bad else "many.good", "why": "one of very many",
        "messages": [{"role": "user", "content": f"Case {number}: say hello."}],
        "options": {"temperature": 0, "max_tokens": 64}, "expect": [{"contains_any": ["Goodbye" if bad else "Hello"]}],
    }  # fmt: skip
