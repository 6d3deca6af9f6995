"""Feeds a worker and watches it: 20 s and 1 GB an input."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import PATIENT, ROOT, Project, small_project

MOST_S = 20
MOST_BYTES = 1 << 30
CASES = ("model-served", "canary-water", "max-tokens-5", "enforced-nonsense-capital")


@dataclass
class Found:
    """What the inputs became, and what they have shown."""

    became: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    peak_bytes: int = 0

    def __str__(self) -> str:
        rows = [f"{count:>7} {what}" for what, count in sorted(self.became.items())]
        return "\n".join([
            *rows, f"{self.became.total():>7} inputs, {len(self.troubles)} with trouble, at most {self.peak_bytes / 2**20:.0f} MiB",
        ])  # fmt: skip


def prepared(folder: Path, url: str) -> tuple[Project, Path]:
    """A small project and its green bundle."""
    project = small_project(folder)
    project.choose(*CASES)
    project.edit_profile(limits=PATIENT)
    done = project.ask(url, revision="sha256:" + "a" * 64)
    assert done.code == 0, done
    return project, done.run


@contextlib.contextmanager
def worker(project: Project, base: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.fuzz.worker", str(project.root), str(base)]
    paths = [str(ROOT), str(ROOT / "lib"), os.environ.get("PYTHONPATH", "")]
    environment = {**project.environment, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def tried(
    project: Project, base: Path, seed: str, numbers: Iterable[int], say: Callable[[str], None] = lambda line: None
) -> Found:
    """Try these inputs of a seed, one after the other; a worker that hangs or has grown is replaced."""
    found, left = Found(), iter(numbers)
    number = next(left, None)
    while number is not None:
        with worker(project, base) as process:
            assert process.stdin and process.stdout
            first = True
            while number is not None:
                process.stdin.write(f"{seed}/{number}\n")
                process.stdin.flush()
                ready, _, _ = select.select([process.stdout], [], [], MOST_S + 60 * first)
                line = process.stdout.readline() if ready else ""
                told = json.loads(line) if line else {"kind": "?", "became": None, "peak_bytes": 0}
                told.setdefault("trouble", f"longer than {MOST_S} s" if not ready else "the process died")
                found.peak_bytes = max(found.peak_bytes, told["peak_bytes"])
                grown = told["peak_bytes"] > MOST_BYTES
                trouble = told["trouble"] or (f"took {told['peak_bytes'] / 2**20:.0f} MiB" if grown else None)
                found.became[f"{told['kind']}: {'TROUBLE' if trouble else told['became']}"] += 1
                if trouble:
                    found.troubles.append(f"{seed}/{number} ({told['kind']}): {trouble}")
                    say(found.troubles[-1])
                if found.became.total() % 500 == 0:
                    say(f"... {found.became.total()} inputs, {len(found.troubles)} with trouble")
                number, first = next(left, None), False
                if not line or grown:
                    break
    return found
