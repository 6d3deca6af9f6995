"""A fleet: CPU and memory per deployment on an instant scripted server, and how often a thousand healthy ones are red by chance."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import yaml
from gatebook.checks import stats

from benchmarks.report import Row
from benchmarks.scale import Watched

if TYPE_CHECKING:
    from tests.faults.many import ManyServers

MODEL, ONE_IN, LOOK_S = "smollm2-135m-instruct", 25, 0.05
BESIDE, SLOW_S = 6, 1.0
WAYS: dict[str, str | tuple[int, str]] = {
    "HTTP 500": (500, '{"error": {"message": "out of memory"}}'),
    "HTTP 401": (401, '{"error": {"message": "Unauthorized"}}'),
    "HTTP 404": (404, '{"error": {"message": "The model does not exist."}}'),
    "HTTP 429": (429, '{"error": {"message": "too many requests"}}'),
    "not valid JSON": (200, "<!DOCTYPE html><html><head><title>Welcome</title></head></html>"),
    "no choices": (
        200,
        '{"id": "1", "object": "chat.completion", "created": 1, "model": "smollm2-135m-instruct", "choices": []}',
    ),
    "content is empty": "",
    "mojibake": "It is Helloä½\xa0å¥½.",
    "special token in the answer": "It is Paris.<|im_end|>",
    "U\\+FFFD": "It is P\ufffdris.",
}
"""The cause that must be named -> a text, or (status, body) of every chat."""
NIGHTS, GROUPS, CASES, FLIPS = 2000, 8, 20, 0.2
"""Simulated: compared groups of a deployment, cases of each, the share of them that turn between two healthy runs:
more than batches on a GPU do."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deployments", type=int, nargs="*", default=[8], help="asked for CPU and memory; none: the simulation alone"
    )


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


@dataclass(frozen=True)
class Night:
    """What the command and all its processes cost."""

    cpu_s: float
    wall_s: float
    parent_mb: float


def _asked(counts: list[int]) -> list[Row]:
    """First nights of so many deployments, and two workers beside one where the server is what takes time."""
    nights = {count: _night(count) for count in counts}
    least, rows = nights[min(counts)], []
    for count, night in nights.items():
        base = least.parent_mb if count > min(counts) else None
        rows += [
            Row(f"CPU a deployment, of {count}, with the cluster's start", night.cpu_s / count, "s", goal=3.0),
            Row(f"wall of {count} deployments, one in {ONE_IN} broken and red by its own cause", night.wall_s, "s"),
            Row(
                f"most memory of the command, {count} deployments", night.parent_mb, "MB", base=base, goal=base and 1.2
            ),
        ]
    one, two = (_night(BESIDE, workers=count, slow_s=SLOW_S) for count in (1, 2))
    said = f"wall of {BESIDE} deployments that take {SLOW_S:g} s an answer, two workers beside one"
    return [*rows, Row(said, two.wall_s, "s", base=one.wall_s, goal=0.6)]


def _night(count: int, workers: int = 2, slow_s: float = 0.0) -> Night:
    """A first night of so many deployments behind one scripted server, by the command; one in 25 is broken, in ten ways, of a
    server that answers at once.

    Raises SystemExit where one is not red by its own cause, or another one is red.
    """
    from tests.faults.many import ManyServers

    with tempfile.TemporaryDirectory() as folder, ManyServers(MODEL) as many:
        many.slow = slow_s
        file, broken = _fleet(Path(folder), many, count, workers, broken=not slow_s)
        root = file.parents[1]
        began, watched, parent_mb = time.monotonic(), Watched(), 0.0
        with (Path(folder) / "said").open("wb") as said:
            process = psutil.Popen(
                [sys.executable, "-m", "gatebook", "fleet", str(file)], cwd=root, env={**os.environ, "GATEBOOK_ROOT": str(root)}, stdout=said, stderr=said
            )  # fmt: skip
            while process.poll() is None:
                watched.look(process)
                with suppress(psutil.Error):
                    parent_mb = max(parent_mb, process.memory_info().rss / 1e6)
                time.sleep(LOOK_S)
        night = Night(sum(watched.cpu_s.values()), time.monotonic() - began, parent_mb)
        told = max((root / "outputs" / "fleet").glob("20*/verdict.json"), default=None)
        if told is None:
            last = (Path(folder) / "said").read_text(encoding="utf-8")[-600:]
            raise SystemExit(f"the fleet ended with {process.returncode}: {last}")
        rows = json.loads(told.read_text(encoding="utf-8"))["deployments"]
        if len(rows) != count:
            raise SystemExit(f"{len(rows)} of {count} deployments have a verdict")
        for row in rows:
            cause = broken.get(row["deployment"])
            if cause is None and row["verdict"] != "INCONCLUSIVE":
                raise SystemExit(f"{row['deployment']} is healthy: {row['verdict']}, {row['reason']}")
            if cause and (row["verdict"] not in ("FAIL", "ERROR") or not re.search(cause, row["reason"])):
                raise SystemExit(f"{row['deployment']} is broken ({cause}): {row['verdict']}, {row['reason']}")
    return night


def _fleet(folder: Path, many: ManyServers, count: int, workers: int, broken: bool) -> tuple[Path, dict[str, str]]:
    """(the fleet file of a project with eight cases, broken deployment -> a regular expression of its cause)."""
    from tests.conftest import small_project
    from tests.integration.test_fleet import capitals

    project, ways = small_project(folder), [*WAYS.items()]
    project.write_cases(capitals(8))
    project.edit_profile(
        limits={"ready_deadline_s": 5, "transport_retries": 0},
        groups={"fleet.capitals": "no_worse", "fleet.contract": "must"},
    )
    chosen = range(0, count, ONE_IN) if broken else ()
    found = {f"d{number}": ways[place % len(ways)] for place, number in enumerate(chosen)}
    for name, (_, how) in found.items():
        if isinstance(how, str):
            many.says[name] = how
        else:
            many.fixed[name] = how
    names = [f"d{number}" for number in range(count)]
    deployments = [{"name": n, "profile": "params/small.yaml", "base_url": many.base_url(n)} for n in names]
    file = project.root / "params" / "fleet.yaml"
    file.write_text(
        yaml.safe_dump({"suite": "smoke", "workers": workers, "deployments": deployments}), encoding="utf-8"
    )
    return file, {name: cause for name, (cause, _) in found.items()}
