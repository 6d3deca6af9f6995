"""How often each latency rule is wrong: simulated healthy weeks, and slowdowns that it should catch.

A week is some days of history and the day that is judged, each with its own level: a day effect, an hour effect, now and then a
slow day, all shared by the metrics of the machine; on top, samples with heavy tails. The rules are the gate's own functions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from gatebook.checks.latency import FAIL, OPEN, PASS, against_decision, day_decision, quantile_decision
from gatebook.checks.stats import p90, shift_bounds
from gatebook.config.policies import LEAST_SAMPLES, METRICS, RULES, Latency, Metric, Rule
from gatebook.config.profile import load_profile

from benchmarks.processes import ROOT
from benchmarks.report import Row

WEEKS, CHUNK = 10_000, 2_000
RESAMPLES = 50
"""Of the bootstrap: a standard error needs no more."""
DAYS, SAMPLES = 7, 32
"""Of history, and of each day."""
RATIOS = (1.0, 1.1, 1.3, 2.0)
GROUPS: dict[str, tuple[Metric, ...]] = {
    "latency.chat": METRICS,
    "latency.prompt": ("ttft",),
    "latency.schema": ("total",),
}
"""What the shipped cases judge."""
TOKENS, TTFT_MS, ITL_MS = 16, 60.0, 15.0
HEADROOM = 2.0
"""The absolute limit over the healthy P90: what a person writes into a profile."""


@dataclass(frozen=True)
class World:
    """Healthy noise, as standard deviations of logs."""

    day: float = 0.04
    hour: float = 0.02
    slow_day: float = 0.03
    """Chance of a day `slow` times as slow."""
    slow: float = 1.2
    own_day: float = 0.02
    """Of each group and metric beside the machine's."""
    ttft: float = 0.15
    itl: float = 0.05
    straggler: float = 0.04
    """Chance of an answer 1 + Pareto(3) times as slow."""


WORLDS = {
    "a usual machine": World(),
    "a quiet machine": World(day=0.02, hour=0.01, slow_day=0.0, own_day=0.01, ttft=0.08, itl=0.02, straggler=0.02),
    "a noisy machine": World(day=0.10, hour=0.04, slow_day=0.05, slow=1.3, own_day=0.04, ttft=0.25, itl=0.10),
}
Answers = dict[tuple[str, Metric], Any]
"""Group and metric -> latencies in ms, samples in the last axis."""


@dataclass(frozen=True)
class Weeks:
    """So many weeks at once, in the first axis."""

    window: Answers
    """[week, day, sample]"""
    run: Answers
    """[week, sample]: the day that is judged."""
    second: Answers
    """[week, sample]: another deployment, asked in turn with it."""


def weeks(
    rng: np.random.Generator,
    world: World,
    count: int,
    days: int,
    n: int,
    ratio: float = 1.0,
    groups: dict[str, tuple[Metric, ...]] = GROUPS,
) -> Weeks:
    """`ratio` slows first token and tokens of the day that is judged, and not of the second target."""
    machine = rng.normal(0, world.day, (count, days + 1)) + rng.normal(0, world.hour, (count, days + 1))
    machine += (rng.random(machine.shape) < world.slow_day) * log(world.slow)
    made = Weeks({}, {}, {})
    for group, metrics in groups.items():
        ttft, itl = (machine + rng.normal(0, world.own_day, machine.shape) for _ in range(2))
        for into, at, slowed in ((made.window, slice(days), 1.0), (made.run, days, ratio), (made.second, days, 1.0)):
            first = TTFT_MS * slowed * _answers(rng, world, ttft[:, at], n, world.ttft)
            gap = ITL_MS * slowed * _answers(rng, world, itl[:, at], n, world.itl)
            all_three: dict[Metric, Any] = {"ttft": first, "itl": gap, "total": first + (TOKENS - 1) * gap}
            into.update({(group, metric): all_three[metric] for metric in metrics})
    return made


def _answers(rng: np.random.Generator, world: World, level: Any, n: int, noise: float) -> Any:
    shape = (*level.shape, n)
    tail = np.where(rng.random(shape) < world.straggler, 1 + rng.pareto(3, shape), 1)
    return np.exp(level[..., None] + rng.normal(0, noise, shape)) * tail


def decisions(made: Weeks, settings: Latency, level: float, against: bool, seed: int = 1) -> dict[Rule, Any]:
    """Rule -> [test, week] of PASS, OPEN, FAIL, one test a group and metric."""
    found: dict[Rule, list[Any]] = {rule: [] for rule in RULES}
    for key, run in made.run.items():
        window, nothing = made.window[key], np.full(len(run), OPEN)
        cap = HEADROOM * {"ttft": TTFT_MS, "itl": ITL_MS, "total": TTFT_MS + (TOKENS - 1) * ITL_MS}[key[1]]
        few, days = run.shape[-1] < LEAST_SAMPLES, window.shape[1]
        found["absolute"].append(nothing if few else quantile_decision(run, cap, level))
        no_window = few or window[0].size < LEAST_SAMPLES
        pooled = None if no_window else p90(window.reshape(len(run), -1))
        found["p90"].append(nothing if no_window else quantile_decision(run, settings.factor * pooled, level))
        medians = np.median(np.log(window), axis=-1)
        day = (np.median(np.log(run), axis=-1), medians, settings, level)
        found["day"].append(nothing if few or days < settings.min_days else day_decision(*day))
        if against and not few:
            _, low, high = shift_bounds(np.log(run / made.second[key]), level, settings.miss, seed, resamples=RESAMPLES)
        found["against"].append(against_decision(low, high, settings) if against and not few else nothing)
    return {rule: np.array(codes) for rule, codes in found.items()}


def simulated(
    world: World,
    settings: Latency,
    days: int,
    n: int,
    ratio: float,
    count: int,
    level: float,
    against: bool = False,
    groups: dict[str, tuple[Metric, ...]] = GROUPS,
) -> dict[Rule, Any]:
    """`decisions` of `count` weeks, the same ones every time."""
    found = []
    for start in range(0, count, CHUNK):
        rng = np.random.default_rng([start, days, n])
        made = weeks(rng, world, min(CHUNK, count - start), days, n, ratio, groups)
        found.append(decisions(made, settings, level, against))
    return {rule: np.concatenate([f[rule] for f in found], axis=1) for rule in RULES}


def blocking(said: dict[Rule, Any], settings: Latency, days: int, n: int, against: bool) -> Any:
    """[week]: the worst of all tests that block; the absolute limit stands in for what the history does not carry."""
    carried = {"absolute": True, "p90": days * n >= LEAST_SAMPLES, "day": days >= settings.min_days, "against": True}
    codes = []
    for number, metric in enumerate(m for metrics in GROUPS.values() for m in metrics):
        for rule in {*settings.blocks.of(metric), *(["against"] if against else [])}:
            code = said[rule if carried[rule] else "absolute"][number]
            settled = (
                against and carried[rule] and rule in ("p90", "day")
            )  # where the days cannot tell, the second target can
            codes.append(np.where((code == OPEN) & (said["against"][number] == PASS), PASS, code) if settled else code)
    return np.max(codes, axis=0)


def family(settings: Latency, against: bool) -> int:
    return sum(
        len({*settings.blocks.of(m), *(["against"] if against else [])}) for metrics in GROUPS.values() for m in metrics
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weeks", type=int, default=WEEKS, help="healthy ones; a fifth of it for each slowdown")
    parser.add_argument(
        "--profile", type=Path, default=ROOT / "params" / "qwen3-4b.yaml", help="whose latency block is tried"
    )


def run(args: argparse.Namespace) -> list[Row]:
    settings, rows = load_profile(args.profile).latency, []
    print("\nOne rule alone, first token of one group, a usual machine: FAIL % / INCONCLUSIVE %\n")
    for line in each_rule(settings, args.weeks):
        print(line, flush=True)
    print(f"\nAll that blocks together, {DAYS} days, {SAMPLES} samples: FAIL % / INCONCLUSIVE %\n")
    print(_head("machine", "second target"))
    for name, world in WORLDS.items():
        for against in (False, True):
            level, cells = settings.level / family(settings, against), []
            for ratio in RATIOS:
                count = args.weeks if ratio == 1 else args.weeks // 5
                said = simulated(world, settings, DAYS, SAMPLES, ratio, count, level, against)
                codes = blocking(said, settings, DAYS, SAMPLES, against)
                cells.append(_told(codes))
                if ratio == 1:
                    what = f"{args.weeks} healthy weeks, {name}{', second target' if against else ''}"
                    rows.append(Row(f"{what}: FAIL", share(codes == FAIL), "%", goal=2))
            print(f"| {name} | {'yes' if against else 'no'} | {' | '.join(cells)} |", flush=True)
    return rows


def each_rule(settings: Latency, weeks: int) -> Iterator[str]:
    """Markdown: what each rule says of one test at the level that it has in a whole run."""
    yield _head("rule", "days", "samples")
    level = settings.level / family(settings, False)
    one: dict[str, tuple[Metric, ...]] = {"latency.chat": ("ttft",)}
    for days in (0, 3, 7):
        for n in (10, 29, 60):
            counts = {r: weeks if r == 1 else weeks // 5 for r in RATIOS}
            said = [simulated(World(), settings, days, n, r, c, level, days == 0, one) for r, c in counts.items()]
            for rule in ("p90", "day") if days else ("absolute", "against", "p90", "day"):
                when = days if rule in ("p90", "day") else "any"
                yield f"| {rule} | {when} | {n} | {' | '.join(_told(found[rule][0]) for found in said)} |"


def _head(*columns: str) -> str:
    names = [*columns, *("healthy" if ratio == 1 else f"×{ratio:g}" for ratio in RATIOS)]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def _told(codes: Any) -> str:
    return f"{share(codes == FAIL):g} / {share(codes == OPEN):g}"


def share(found: Any) -> float:
    """In per cent."""
    return round(float(np.mean(found)) * 100, 2)
