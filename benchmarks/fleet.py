"""A fleet: CPU and memory per deployment on an instant scripted server, and how often a thousand healthy ones are red by chance."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from gatebook.checks import stats

from benchmarks.report import Row

NIGHTS, GROUPS, CASES, FLIPS = 2000, 8, 20, 0.2
"""Simulated: compared groups of a deployment, cases of each, the share of them that turn between two healthy runs:
more than batches on a GPU do."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deployments", type=int, default=4, help="asked for CPU and memory; 0: the simulation alone")


def run(args: argparse.Namespace) -> list[Row]:
    rows = [
        Row(f"nights in which one of 1,000 healthy deployments is red, judged {how}", 100 * red_nights(1000, among), "%", goal=goal)
        for how, among, goal in (("each by itself", 1, None), ("as a fleet", 1000, 5.0))
    ]  # fmt: skip
    for among in (1, 10, 100, 1000):
        drop = stats.smallest_visible_drop(CASES, GROUPS, stats.ALPHA / among)
        rows.append(
            Row(f"smallest drop that blocks, of {CASES} cases in {GROUPS} groups, among {among}", drop or 0, "cases")
        )
    return rows + (_asked(args.deployments) if args.deployments else [])


def red_nights(deployments: int, among: int, nights: int = NIGHTS) -> float:
    """Share of nights in which any group of any healthy deployment is shown worse, at a level that `among` deployments share.

    Holm rejects something exactly where the smallest p-value is at most alpha / family."""
    turned = np.arange(CASES + 1)
    p_values = stats.mcnemar_worse(turned[:, None], turned[None, :])
    rng, red = np.random.default_rng(stats.seed_of("fleet")), 0
    for _ in range(nights):
        flips = rng.binomial(CASES, FLIPS, (deployments, GROUPS))
        worse = rng.binomial(flips, 0.5)
        red += bool(p_values[worse, flips - worse].min() <= stats.ALPHA / among / GROUPS)
    return red / nights


def _asked(count: int) -> list[Row]:
    """One night of so many deployments behind one scripted server, by the command."""
    from tests.conftest import small_project
    from tests.faults.many import ManyServers

    with tempfile.TemporaryDirectory() as folder, ManyServers("smollm2-135m-instruct") as many:
        project = small_project(Path(folder))
        project.choose("model-served", suites=("smoke",))
        names = [f"d{number}" for number in range(count)]
        deployments = [{"name": n, "profile": "params/small.yaml", "base_url": many.base_url(n)} for n in names]
        file = project.root / "params" / "fleet.yaml"
        file.write_text(yaml.safe_dump({"suite": "smoke", "deployments": deployments}), encoding="utf-8")
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        command = [sys.executable, "-m", "gatebook", "fleet", str(file)]
        done = subprocess.run(command, cwd=project.root, env=project.environment, capture_output=True, encoding="utf-8")
        if done.returncode != 3:
            raise SystemExit(f"a first night ends with 3, this one with {done.returncode}: {done.stderr}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [
        Row(f"CPU a deployment, of {count}, with the cluster's start", cpu_s / count, "s"),
        Row(f"wall of {count} deployments", time.monotonic() - began, "s"),
    ]
