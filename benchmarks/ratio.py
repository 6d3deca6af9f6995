"""This build beside that of an earlier commit, in turn on one machine: ratios hold where absolute times do not.

Both run in the environment that runs this; what the earlier one lacks there is a row that could not be measured. It works in a
folder of its own, made by `git archive`. Every figure is the median of rounds in which the two take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.processes import ROOT
from benchmarks.report import Row
from tests.faults.scripted import ScriptedServer

EARLIER = "e6cfffa"
PROFILE, MODEL = "params/smollm2.yaml", "smollm2-135m-instruct"
LOAD = "08_load"
REQUESTS, UNDER_LOAD = 400, 170
"""In all, and those of 08_load, which is asked whole."""
COMMAND = """
import runpy, sys
try:
    from gatebook.cli import main
except ImportError:
    main = lambda: runpy.run_module("gatebook", run_name="__main__")
main()
"""
CASES = """
import importlib, json, pathlib
for name in ("gatebook.config.cases", "gatebook.plan.cases"):
    try:
        load_cases = importlib.import_module(name).load_cases
        break
    except ModuleNotFoundError:
        pass
print(json.dumps([(c.id, c.notebook, c.group, len(c.requests()) + c.canary) for c in load_cases(pathlib.Path("params/cases"))]))
"""
"""Of either build: (id, notebook, group, requests) of each case."""
Samples = tuple[list[float], list[float]]
"""Of this build, and of the earlier one."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", default=EARLIER, help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=["harness", "verify", "asking"],
        help="demo: on the embedded model, 10 min a round; setup: `make setup` in fresh clones, once; ci: `.ci/run` in such, once, more than an hour",
    )  # fmt: skip


@dataclass(frozen=True)
class Build:
    """A checkout that runs with its own library."""

    name: str
    root: Path

    def python(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> tuple[float, str]:
        """(seconds, what it printed) of a Python of this environment in the checkout. Raises RuntimeError for another exit status."""
        path = os.pathsep.join(map(str, (self.root / "lib", self.root)))
        # byte code is kept, as in every checkout that is used twice
        environment = {**os.environ, "PYTHONPATH": path, "GATEBOOK_ROOT": str(self.root), "PYTHONDONTWRITEBYTECODE": ""}
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.root, env=environment, capture_output=True, encoding="utf-8"
        )
        took_s = time.perf_counter() - began
        if done.returncode not in ok:
            raise RuntimeError(
                f"{self.name}: {arguments}: exit {done.returncode}: {(done.stdout + done.stderr)[-600:]}"
            )
        return took_s, done.stdout

    def gatebook(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> float:
        """Seconds of a command."""
        return self.python("-c", COMMAND, *arguments, ok=ok)[0]

    def benchmark(self, *arguments: str) -> dict[str, dict[str, float]]:
        """The rows of a benchmark of its own, by name."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "rows.json"
            self.python("-m", "benchmarks", *arguments, "--out", str(out))
            return {row["name"]: row for row in json.loads(out.read_text(encoding="utf-8"))["rows"]}


def run(args: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="gatebook-ratio-") as name, earlier(args.to, Path(name)) as before:
        builds = (Build("this build", ROOT), before)
        return [row for chosen in args.rows for row in ROWS[chosen](builds, args.rounds, Path(name))]


@contextmanager
def earlier(commit: str, folder: Path) -> Iterator[Build]:
    """The checkout of a commit, without its history."""
    root = folder / "earlier"
    root.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(root)], input=archive, check=True)
    yield Build(commit, root)


def _in_turn(builds: tuple[Build, Build], rounds: int, measure: Callable[[Build, int], float]) -> Samples:
    found: Samples = ([], [])
    for number in range(rounds):
        for samples, build in zip(found, builds, strict=True):
            samples.append(measure(build, number))
            print(f"{build.name}: {samples[-1]:.4g}", flush=True)
    return found


def _row(name: str, samples: Samples, unit: str, goal: float | None, **more: bool) -> Row:
    return Row(name, median(samples[0]), unit, base=median(samples[1]), goal=goal, **more)


def common_groups(builds: tuple[Build, Build], requests: int) -> list[str]:
    """Groups that both builds have, of about so many requests, the notebooks taking turns; none of 08_load."""
    ours, theirs = (json.loads(build.python("-c", CASES)[1]) for build in builds)
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    for _, notebook, group, count in ours:
        if notebook != LOAD and any(case[2] == group for case in theirs):
            sizes[notebook][group] += count
    chosen: list[str] = []
    while requests > 0 and any(sizes.values()):
        for left in filter(None, sizes.values()):
            group, count = min(
                left.items(), key=lambda item: (item[1] < 5, item[1])
            )  # of few cases nothing can be shown
            del left[group]
            chosen.append(group)
            requests -= count
    return chosen


def _harness(builds: tuple[Build, Build], rounds: int, folder: Path) -> list[Row]:
    """`gatebook run` against a server that answers at once, so that all of it is ours."""
    only = ("--suite", "full", "--only", ",".join([*common_groups(builds, REQUESTS - UNDER_LOAD), LOAD]))
    with _at_once() as url:
        ran = _in_turn(
            builds, rounds, lambda build, number: _run(build, folder / f"full-{build.root.name}-{number}", url, *only)
        )
    return [_row(f"harness of a run of all notebooks, {REQUESTS} requests answered at once", ran, "s", 0.25)]


def _verify(builds: tuple[Build, Build], rounds: int, folder: Path) -> list[Row]:
    """`gatebook verify` of a run of the demo's selection on such a server."""
    outs = {build: folder / f"demo-{build.root.name}" for build in builds}
    with _at_once() as url:
        for build, out in outs.items():
            _run(build, out, url, "--suite", "demo")
    verified = _in_turn(builds, rounds, lambda build, _: _verified(build, outs[build]))
    return [_row("gatebook verify of the demo's selection", verified, "s", 0.2)]


@contextmanager
def _at_once() -> Iterator[str]:
    """The base URL of a server that answers at once; how many chats it was asked is printed at the end."""
    with ScriptedServer(MODEL, answer_s=0) as server:
        yield f"{server.url}/v1"
        print(f"{len(server.chats)} chats in all", flush=True)


def _run(build: Build, out: Path, url: str, *more: str) -> float:
    asked = ("run", "--profile", PROFILE, "--base-url", url, "--model", MODEL, "--out", str(out), *more)
    return build.gatebook(*asked, ok=(0, 1, 3))


def _verified(build: Build, out: Path) -> float:
    """Seconds; an earlier build may find that its own cells do not give again what they gave, and says so after all of its work."""
    ok = (0, 1, 3) if build.root == ROOT else (0, 1, 3, 75)
    return build.gatebook("verify", str(next(out.glob("20*/manifest.json")).parent), "--reproduced", ok=ok)


def _asking(builds: tuple[Build, Build], rounds: int, _: Path) -> list[Row]:
    """Each build's own measurements of its client, of one round each."""
    cpu: Samples = ([], [])
    rate: Samples = ([], [])
    for _ in range(rounds):
        for number, build in enumerate(builds):
            rows = build.benchmark("overhead", "--rounds", "1")
            cpu[number].append(rows["16 in flight: CPU a case, beside bare httpx"]["value"])
            rate[number].append(rows["64 in flight: requests a second, beside one bare httpx client for all"]["ratio"])
    few = ("--in-flight", "2", "--requests", "20", "--loss-requests", "8")
    name = "hang-up, 2 in flight: TTFT error"
    errors = _in_turn(builds, rounds, lambda build, _: build.benchmark("accuracy", *few)[name]["value"])
    return [
        _row("CPU a case asked, recorded and synced, 16 in flight", cpu, "ms", 0.6),
        _row("error of TTFT, closing server, 2 in flight", errors, "ms", 1.0, of_value=True),
        _row("requests a second, 64 in flight, over one shared client", rate, "x", 4.0, of_value=True, at_least=True),
    ]


def _demo(builds: tuple[Build, Build], rounds: int, folder: Path) -> list[Row]:
    """On the embedded model, whose answers take most of it."""

    def asked(build: Build, number: int) -> float:
        out = folder / f"embedded-{build.root.name}-{number}"
        return build.gatebook("run", "--profile", PROFILE, "--out", str(out), ok=(0, 1, 3))

    ran = _in_turn(builds, rounds, asked)
    verified = _in_turn(builds, rounds, lambda b, n: _verified(b, folder / f"embedded-{b.root.name}-{n}"))
    return [
        _row("the demo on the embedded model", ran, "s", None),
        _row("gatebook verify of it", verified, "s", 0.2),
    ]


def _set_up(builds: tuple[Build, Build], _: int, folder: Path) -> list[Row]:
    """`make setup` from nothing; what pip has in its cache is not fetched again, by neither."""
    seconds: Samples = ([], [])
    megabytes: Samples = ([], [])
    for number, build in enumerate(builds):
        root = _clone(build, folder / f"setup-{number}")
        seconds[number].append(_made(root, "make", "setup"))
        size = sum(p.lstat().st_size for p in (root / ".venv").rglob("*") if p.is_file() and not p.is_symlink())
        megabytes[number].append(size / 1e6)
        shutil.rmtree(root)
    return [_row("make setup", seconds, "s", None), _row("the environment that it makes", megabytes, "MB", None)]


def _ci(builds: tuple[Build, Build], _: int, folder: Path) -> list[Row]:
    roots = [_clone(build, folder / f"ci-{number}") for number, build in enumerate(builds)]
    took = [_made(root, ".ci/run") for root in roots]
    return [_row(".ci/run, environment and all", ([took[0]], [took[1]]), "s", None)]


def _clone(build: Build, to: Path) -> Path:
    """What git has of a build."""
    commit = "HEAD" if build.root == ROOT else build.name
    subprocess.run(["git", "clone", "-q", str(ROOT), str(to)], check=True)
    subprocess.run(["git", "-C", str(to), "checkout", "-q", commit], check=True)
    return to


def _made(root: Path, *command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=root, check=True, env={**os.environ, "PYTHONPATH": ""})
    return time.perf_counter() - began


ROWS = {"harness": _harness, "verify": _verify, "asking": _asking, "demo": _demo, "setup": _set_up, "ci": _ci}
