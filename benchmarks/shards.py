"""Very many cases asked in shards and merged: is the CPU a case the same for more of them, and what does the merge take?

The project, the server and the cases are those of `scale`; every third case fails. The shards are asked one after the other.
CPU seconds are those of all processes of a command, kernels too, and nothing is subtracted from them: what commands cost
however few cases they have has a row of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.report import Row
from benchmarks.scale import LINEAR_GOAL, MODEL, Spent, gatebook, project, watched
from tests.faults.scripted import ScriptedServer

SPLIT_GOAL, MERGE_GOAL_S = 1.2, 60.0
"""CPU seconds of all shards and the merge over those of one run, at most; wall of a merge."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--whole", type=int, default=10_000, help="up to so many cases are also asked in one run")
    parser.add_argument("--keep", type=Path, help="keep the projects and their runs in this new folder")


@dataclass(frozen=True)
class Night:
    """So many cases, asked in shards."""

    count: int
    shards: list[Spent]
    merge: Spent
    whole: Spent | None

    @property
    def cpu_s(self) -> float:
        return sum(shard.cpu_s for shard in self.shards)

    @property
    def ms_a_case(self) -> float:
        return 1000 * self.cpu_s / self.count


def run(args: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="gatebook-shards-") as name:
        folder = args.keep or Path(name)
        nights = []
        for count in sorted(args.cases):
            nights.append(_night(folder / str(count), count, args.shards, count <= args.whole))
            if not args.keep:
                shutil.rmtree(folder / str(count))
    return [*_linear(nights), *(row for night in nights for row in _of_night(night))]


def _linear(nights: list[Night]) -> list[Row]:
    """What a case costs at each size; and each case that a size has more than the one before, where no fixed cost is in it."""
    least, rows = nights[0], list[Row]()
    for night in nights:
        said = f"{night.count:,} cases in {len(night.shards)} shards: CPU a case, with the fixed cost"
        base = None if night is least else least.ms_a_case
        rows.append(Row(said, night.ms_a_case, "ms", base=base))
    first = None
    for one, more in pairwise(nights):
        each = 1000 * (more.cpu_s - one.cpu_s) / (more.count - one.count)
        said = f"CPU of each case beyond {one.count:,}, up to {more.count:,}"
        rows.append(Row(said, each, "ms", base=first, goal=first and LINEAR_GOAL))
        if first is None:
            first, fixed_s = each, one.cpu_s - each * one.count / 1000
            said = f"fixed cost: CPU of {len(one.shards)} commands without cases, by these two sizes"
            rows.append(Row(said, fixed_s, "s", base=one.cpu_s, of_value=True))
    return rows


def _of_night(night: Night) -> list[Row]:
    size, merge = f"{night.count:,} cases", night.merge
    memory = max(merge.peak_mb.values())
    rows = [
        Row(f"{size}: most memory of a process of a shard", max(max(s.peak_mb.values()) for s in night.shards), "MB"),
        Row(f"{size}: merge, wall", merge.wall_s, "s", goal=MERGE_GOAL_S),
        Row(f"{size}: merge", merge.cpu_s, "s CPU"),
        Row(f"{size}: merge, most memory of one of its processes", memory, "MB"),
        Row(f"{size}: merge, most memory of all its processes together", merge.most_mb, "MB"),
    ]
    if night.whole:
        base = night.whole.cpu_s
        rows += [
            Row(f"{size}: all shards over one run", night.cpu_s, "s CPU", base=base, goal=SPLIT_GOAL),
            Row(f"{size}: all shards and the merge over one run", night.cpu_s + merge.cpu_s, "s CPU", base=base),
        ]
    return rows


def _night(root: Path, count: int, total: int, whole: bool) -> Night:
    """Raises SystemExit where the merged verdict is not what the cases, or the run that asked all of them, say."""
    project(root, count)
    shards = []
    with ScriptedServer(MODEL, answer_s=0) as server:
        ask = ("run", "--profile", "params/scale.yaml", "--base-url", f"{server.url}/v1", "--suite", "full")
        parts = [root / "parts" / str(number) for number in range(1, total + 1)]
        for number, part in enumerate(parts, 1):
            words = gatebook(*ask, "--shard", f"{number}/{total}", "--out", str(part))
            shards.append(_ended(root, watched(root, f"{count:,} cases, shard {number}", *words)))
        words = gatebook(
            "merge", *(str(next(part.glob("20*"))) for part in parts), "--out", str(root / "all" / "merged")
        )
        merge = _ended(root, watched(root, f"{count:,} cases, merge", *words))
        merged, asked = _groups(root / "all" / "merged"), None
        if whole:
            words = gatebook(*ask, "--out", str(root / "one" / "whole"))
            asked = _ended(root, watched(root, f"{count:,} cases in one run", *words))
            if merged != (said := _groups(root / "one" / "whole")):
                raise SystemExit(f"{count:,} cases: the merged groups are {merged}, those of one run {said}")
    bad = (count + 2) // 3
    decided = {
        name: (passed, cases) for name, (passed, cases, _) in merged.items() if name in ("many.bad", "many.good")
    }
    if decided != {"many.bad": (0, bad), "many.good": (count - bad, count - bad)}:
        raise SystemExit(f"{count:,} cases: the merged groups are {merged}")
    return Night(count, shards, merge, asked)


def _ended(root: Path, spent: Spent) -> Spent:
    """Every third case fails, so each command ends with 1. Raises SystemExit for another end."""
    if spent.status != 1:
        raise SystemExit(f"exit {spent.status}: {(root / 'said.log').read_text(encoding='utf-8')[-600:]}")
    return spent


def _groups(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Of the run in a folder: group -> how many of its cases passed, all its cases, what was decided."""
    run = next(folder.glob("20*"), folder)  # `run` makes its own folder in --out, `merge` that one
    groups = json.loads((run / "verdict.json").read_text(encoding="utf-8"))["groups"]
    counts = ("passed", "failed", "error", "not_measured")
    return {g["group"]: (g["passed"], sum(g[name] for name in counts), g["word"]) for g in groups}
