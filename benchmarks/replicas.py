"""How surely a second server behind the address shows in the first tokens' logprobs, and how often a healthy one is taken for two.

Simulated rows of the shipped cases (prompts asked so often alike, five tokens each) go through the check's own function. The chance
that values compared exactly show it, such as `system_fingerprint`, is 1 - (1 - share)^replies - share^replies.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from random import Random

from gatebook.checks.drift import Row, mixed_rows

from benchmarks.report import Row as Table

STEP_NATS = 0.125
"""Between two logits in bf16, from 16 to 32."""
TOKENS, BEYOND = 5, 3
"""What a row tells, and how many more are near enough to come into it."""


@dataclass(frozen=True)
class Mixture:
    """What is simulated, in nats: noise is the standard deviation of every logprob; a row of the second server is shifted by so much
    (standard deviation, each token alike in all rows of a prompt). `flips`: rows of a healthy server that jump so."""

    noise_nats: float
    share: float
    shift_nats: float
    prompts: int = 8
    asked: int = 8
    tolerance_nats: float = 0.25
    flips: float = 0.0
    batches: int = 0
    """Of a healthy server: its logits are rounded to bf16, in so many ways."""


def rate(given: Mixture, times: int, random: Random) -> float:
    """The share of simulated runs in which two servers are seen."""
    return sum(_seen(given, random) for _ in range(times)) / times


def _seen(given: Mixture, random: Random) -> bool:
    asked: dict[str, list[tuple[str, Row]]] = {}
    for prompt in range(given.prompts):
        own = [random.uniform(-6, -0.3) for _ in range(TOKENS + BEYOND)]
        other = [value + random.gauss(0, given.shift_nats) for value in own]
        ways = [[_rounded(value + random.gauss(0, STEP_NATS / 4)) for value in own] for _ in range(given.batches)]
        rows = (
            random.choice(ways) if ways else other if random.random() < max(given.share, given.flips) else own
            for _ in range(given.asked)
        )  # fmt: skip
        asked[str(prompt)] = [(f"{n:03d}", _row(values, given.noise_nats, random)) for n, values in enumerate(rows)]
    return mixed_rows(asked, given.tolerance_nats) is not None


def _row(values: list[float], noise_nats: float, random: Random) -> Row:
    told = [value + random.gauss(0, noise_nats) for value in values]
    return {str(n): told[n] for n in sorted(range(len(told)), key=lambda n: -told[n])[:TOKENS]}


def _rounded(value: float) -> float:
    return round(value / STEP_NATS) * STEP_NATS


def exact(share: float, replies: int) -> float:
    """P(both servers are among so many replies)."""
    return 1 - (1 - share) ** replies - share**replies


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--times", type=int, default=200, help="simulated runs a row")
    parser.add_argument("--seed", type=int, default=1)


def run(args: argparse.Namespace) -> list[Table]:
    healthy = [Mixture(noise, 0.0, 0.0) for noise in (0.02, 0.1, 0.25)]
    jumping = [Mixture(0.03, 0.0, 0.3, flips=0.05)]
    rounded = [Mixture(0.0, 0.0, 0.0, tolerance_nats=nats, batches=n) for nats in (0.1, 0.25) for n in (2, 3)]
    second = [Mixture(0.03, share, shift) for shift in (0.2, 0.4, 1.0) for share in (0.1, 0.2, 0.5)]
    rows = [
        Table(_told(given), 100 * rate(given, args.times, Random(args.seed)), "%")
        for given in (*healthy, *rounded, *jumping, *second)
    ]
    return [
        *rows,
        *(
            Table(f"compared exactly, {s:.0%} in {n} replies", 100 * exact(s, n), "%")
            for s in (0.1, 0.5)
            for n in (20, 44, 109)
        ),
    ]


def _told(given: Mixture) -> str:
    who = f"{given.share:.0%} of another, off by {given.shift_nats:g}" if given.share else "one server"
    if given.batches:
        return f"one server, bf16 logits in {given.batches} batch sizes, tolerance {given.tolerance_nats:g}"
    jump = f", 5 % of rows jump by {given.shift_nats:g}" if given.flips else ""
    return f"{who}, noise {given.noise_nats:g}{jump}"
