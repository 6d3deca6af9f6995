"""How far log probabilities of the embedded model move by themselves, and how far when something is wrong, in nats.

Every row is a fresh server, asked the fingerprint's prompts by the real command and compared with the first one. Harmless:
restart, threads, batch sizes, flash attention, no prompt cache, other matrix kernels (as another CPU would choose). Faults:
a quantised cache, a changed rope. The tolerance of the profile must lie between the two.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from gatebook.checks.drift import distance_nats, greedy_moved
from gatebook.config.profile import load_profile, with_target
from gatebook.runner import run_profile
from gatebook.verdict.fingerprint import Fingerprint, rows_of

from benchmarks.embedded import Setting, server_with
from benchmarks.processes import ROOT
from benchmarks.report import Row

HARMLESS = {
    "restart": Setting(1),
    "two threads": Setting(2),
    "n_ubatch=64": Setting(1, change="n_ubatch=64"),
    "n_batch=128, n_ubatch=128": Setting(1, change="n_batch=128 n_ubatch=128"),
    "flash attention off": Setting(1, change="flash_attn_type=0"),
    "flash attention on": Setting(1, change="flash_attn_type=1"),
    "no prompt cache": Setting(1, change="cache_prompt=False"),
    "plain kernels, as on another CPU": Setting(1, change="no_extra_bufts=True"),
}
FAULTS = {
    "fault: KV cache in q4_0": Setting(1, change="cache_type_k=2 cache_type_v=2 flash_attn_type=1"),
    "fault: KV cache in q8_0": Setting(1, change="cache_type_k=8 cache_type_v=8 flash_attn_type=1"),
    "fault: rope_freq_base 1000": Setting(1, change="rope_freq_base=1000.0"),
    "fault: rope_freq_scale 0.5": Setting(1, change="rope_freq_scale=0.5"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=1)


def run(args: argparse.Namespace) -> list[Row]:
    profile = load_profile(ROOT / "params" / "smollm2.yaml")
    tolerance = profile.limits.logprob_tolerance_nats
    first = _asked(profile, Setting(1))
    rows = []
    for name, setting in {**HARMLESS, **FAULTS}.items():
        found = [_asked(profile, setting) for _ in range(args.rounds)]
        away = [max(_distances(first, one).values()) for one in found]
        texts = max(_texts(first, one, tolerance) for one in found)
        harmless = name in HARMLESS
        rows.append(Row(f"{name}: first token", max(away), "nats", goal=tolerance, at_least=not harmless))
        rows.append(Row(f"{name}: greedy answers that moved", texts, "", goal=0 if harmless else None))
        print(f"{name}: {max(away):.4f} nats, {texts} greedy answers moved", flush=True)
    return rows


def _asked(profile: Any, setting: Setting) -> Fingerprint:
    with tempfile.TemporaryDirectory() as out, server_with(setting) as url:
        _, verdict = run_profile(
            with_target(profile, base_url=url), "demo", ["fingerprint.logprobs"], Path(out), watch=False
        )
    return verdict.fingerprint


def _distances(old: Fingerprint, new: Fingerprint) -> dict[str, float]:
    return {
        n: distance_nats(rows_of(old[n]), rows_of(new[n])) for n in old.keys() & new.keys() if n.startswith("logprobs.")
    }


def _texts(old: Fingerprint, new: Fingerprint, tolerance: float) -> int:
    return sum(
        greedy_moved(old[n], new[n], tolerance) is not None for n in old.keys() & new.keys() if n.startswith("greedy.")
    )
