"""Which losses golden answers show: a real vLLM with weights that are a little worse, its golden answers beside the healthy one's.

Every row is a vLLM of its own (`make engines`), asked for the golden answers of suite `full` as a run does, and compared as a verdict does.
Harmless: a restart, another precision. A row that was measured stands in --keep and is not measured again. --simulate: power
curves and false alarms of whole runs, simulated (power_simulated.py).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from gatebook.collect.scheduler import collect
from gatebook.config.cases import load_cases
from gatebook.config.profile import Profile, load_profile, with_target
from gatebook.opening import open_run
from gatebook.verdict.findings import run_identity
from gatebook.verdict.fingerprint import fingerprint
from gatebook.verdict.golden import Golden, compared

from benchmarks.power_simulated import simulated
from benchmarks.processes import ROOT
from benchmarks.report import Row
from tests.engines import install
from tests.engines.serving import vllm_process

HEALTHY, GROUP, NOTEBOOK = "healthy", "fingerprint.golden", "05_fingerprint"
PRECISION = {"healthy": "float32", "bfloat16": "bfloat16"}
"""bfloat16, the model's own, is emulated on a CPU without AVX-512; the others are served in float32."""
HARMLESS = ("restart", "bfloat16")
FAULTS = ("noise_1", "noise_3", "noise_5", "int8", "int6", "int4")
HEAD = "| served | nats a token | 95 % | shown worse | lost more than the margin | could have seen | seconds |\n|---|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Measured:
    scores: dict[str, str]
    """As a fingerprint holds them."""
    seconds: float
    """Of the scoring; the server's start does not count."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", type=Path, default=ROOT / "outputs" / "power", help="where measured rows are kept")
    parser.add_argument("--simulate", action="store_true", help="simulated runs in place of a real vLLM; a minute")
    parser.add_argument("--only", nargs="*", choices=(*HARMLESS, *FAULTS), help="these rows")


def run(args: argparse.Namespace) -> list[Row]:
    if args.simulate:
        return simulated()
    args.keep.mkdir(parents=True, exist_ok=True)
    profile = load_profile(ROOT / "params" / "smollm2.yaml")
    profile = profile.model_copy(update={"limits": profile.limits.model_copy(update={"in_flight": 2})})
    healthy, rows = _measured(HEALTHY, profile, args.keep), []
    print(HEAD, flush=True)
    for name in args.only or (*HARMLESS, *FAULTS):
        found = _measured(name, profile, args.keep)
        seen = _beside(profile, healthy, found)
        print(_line(name, seen, found.seconds), flush=True)
        rows.append(Row(f"{name}: golden answers", round(seen.mean_nats, 4), "nats a token"))
    return rows


def _measured(name: str, profile: Profile, keep: Path) -> Measured:
    file = keep / f"{name}.json"
    if not file.exists():
        with vllm_process("--dtype", PRECISION.get(name, "float32"), weights=_weights(name, keep)) as running:
            url = running.base_url
            asked = open_run(with_target(profile, base_url=url), url, "full", [GROUP], out=keep / "runs")
            started = time.perf_counter()
            collect(asked, NOTEBOOK)
            seconds = time.perf_counter() - started
        scores = {n: v for n, v in fingerprint(asked, run_identity(asked), []).items() if n.startswith("golden.")}
        file.write_text(json.dumps({"seconds": round(seconds, 1), "scores": scores}, indent=1), encoding="utf-8")
    said = json.loads(file.read_text(encoding="utf-8"))
    return Measured(said["scores"], said["seconds"])


def _weights(name: str, keep: Path) -> Path:
    """The folder of the weights, made once. Raises CannotHave."""
    base = install.weights()
    if name not in FAULTS:
        return base
    folder = keep / "weights" / name
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        script = ROOT / "benchmarks" / "power_weights.py"
        command = [str(install.prepared("vllm").python), str(script), name, str(base), str(part)]
        subprocess.run(command, env=install.environment(), check=True)
        part.rename(folder)
    return folder


def _beside(profile: Profile, healthy: Measured, found: Measured) -> Golden:
    cases = {case.id: case for case in load_cases(ROOT / "params" / "cases") if case.group == GROUP}
    return compared(profile, cases, healthy.scores, found.scores, "power")[GROUP]


def _line(name: str, seen: Golden, seconds: float) -> str:
    low, high = seen.interval or (seen.mean_nats, seen.mean_nats)
    worse = f"{'yes' if seen.worse else 'no'} (p = {seen.p_worse:.2g})"
    lost = f"{seen.names or 'no '}(p = {seen.p_margin:.2g})" if seen.lost else f"no (p = {seen.p_margin:.2g})"
    return (
        f"| {name} | {seen.mean_nats:+.4f} | {low:+.4f} to {high:+.4f} | {worse} | {lost} | {seen.visible_nats:.4f} | "
        f"{seconds:.0f} ({seen.texts} texts, {seen.tokens:,} tokens) |"
    )
