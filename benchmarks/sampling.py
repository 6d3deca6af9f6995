"""How often the test of default samples fails a healthy server, and how often it sees another temperature.

The prompts of `fingerprint.defaults` are asked of the embedded server many times, as they are and at other temperatures.
Pairs of samples of the size that a run takes are then drawn from these answers and compared as a run compares them.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import httpx
from gatebook.checks.drift import PREFIX_CHARS, samples_moved
from gatebook.collect.server import embedded_server
from gatebook.config.cases import Case, load_cases
from gatebook.record.logprobs import TokenLogprobs, mean_shortfall

from benchmarks.processes import ROOT
from benchmarks.report import Row

TEMPERATURES = (None, 0.3, 1.0, 1.5, 2.0)
"""None is the server's default, 0.8."""
Answers = dict[str, list[list[object]]]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--answers", type=int, default=60, help="of each prompt at each temperature")
    parser.add_argument("--pairs", type=int, default=200)


def run(args: argparse.Namespace) -> list[Row]:
    cases = [case for case in load_cases(ROOT / "params" / "cases") if case.group == "fingerprint.defaults"]
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder) / "server.log") as url:
        asked = {t: {case.id: _ask(url, case, t, args.answers) for case in cases} for t in TEMPERATURES}
    rng, rows = random.Random(1), []
    for temperature in TEMPERATURES:
        seen = 0
        for number in range(args.pairs):
            old, new = _pair(rng, cases, asked[None], None if temperature is None else asked[temperature])
            tested = samples_moved(old, new, f"{temperature}/{number}")
            seen += tested is not None and tested.rejected
        what = "healthy: no change" if temperature is None else f"temperature {temperature}"
        rows.append(Row(f"{what}: seen in {args.pairs} pairs", 100 * seen / args.pairs, "%"))
    return rows


def _pair(rng: random.Random, cases: list[Case], healthy: Answers, other: Answers | None) -> tuple[Answers, Answers]:
    """Samples of a baseline and of a run; two parts of the same answers where nothing changed."""
    old, new = {}, {}
    for case in cases:
        size = len(case.requests())
        drawn = rng.sample(healthy[case.id], 2 * size)
        old[case.id] = drawn[:size]
        new[case.id] = drawn[size:] if other is None else rng.sample(other[case.id], size)
    return old, new


def _ask(url: str, case: Case, temperature: float | None, times: int) -> list[list[object]]:
    ask = case.requests()[0]
    body = {"model": "any", "messages": ask.messages, **ask.options}
    body |= {} if temperature is None else {"temperature": temperature}
    found: list[list[object]] = []
    with httpx.Client(timeout=60) as client:
        for _ in range(times):
            choice = client.post(f"{url}/chat/completions", json=body).json()["choices"][0]
            tokens = [
                TokenLogprobs(t["token"], t["logprob"], {x["token"]: x["logprob"] for x in t["top_logprobs"]})
                for t in choice["logprobs"]["content"]
            ]
            found.append([choice["message"]["content"][:PREFIX_CHARS], mean_shortfall(tokens)])
    return found
