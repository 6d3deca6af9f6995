"""Feeds a worker and watches it: 20 s of processor time, or 120 s asleep, and 1 GB an input."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import PATIENT, ROOT, Project, small_project

MOST_S = 20
"""Of processor time: other work on the machine is no hang."""
MOST_ASLEEP_S = 120
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


def _answer(process: subprocess.Popen[str]) -> str:
    """What it says of the input; empty when it hangs or died."""
    assert process.stdout
    began, used = time.monotonic(), _cpu_s(process.pid)
    while time.monotonic() - began < MOST_ASLEEP_S:
        if select.select([process.stdout], [], [], 1)[0]:
            return process.stdout.readline()
        if _cpu_s(process.pid) - used > MOST_S:
            break
    return ""


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tried(
    project: Project, base: Path, seed: str, numbers: Iterable[int], say: Callable[[str], None] = lambda line: None
) -> Found:
    """Try these inputs of a seed, one after the other; a worker that hangs or has grown is replaced."""
    found, left = Found(), iter(numbers)
    number = next(left, None)
    while number is not None:
        with worker(project, base) as process:
            assert process.stdin and process.stdout
            while number is not None:
                process.stdin.write(f"{seed}/{number}\n")
                process.stdin.flush()
                line = _answer(process)
                told = json.loads(line) if line else {"kind": "?", "became": None, "peak_bytes": 0}
                told.setdefault("trouble", f"longer than {MOST_S} s" if process.poll() is None else "the process died")
                found.peak_bytes = max(found.peak_bytes, told["peak_bytes"])
                grown = told["peak_bytes"] > MOST_BYTES
                trouble = told["trouble"] or (f"took {told['peak_bytes'] / 2**20:.0f} MiB" if grown else None)
                found.became[f"{told['kind']}: {'TROUBLE' if trouble else told['became']}"] += 1
                if trouble:
                    found.troubles.append(f"{seed}/{number} ({told['kind']}): {trouble}")
                    say(found.troubles[-1])
                if found.became.total() % 100 == 0:
                    say(f"... {found.became.total()} inputs, {len(found.troubles)} with trouble")
                number = next(left, None)
                if not line or grown:
                    break
    return found
