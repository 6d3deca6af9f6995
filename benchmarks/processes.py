"""Processes that a benchmark starts, and always ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


@contextmanager
def child(arguments: list[str], log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that ends when its standard input closes. Its output goes to `log`, else into a pipe."""
    out = log.open("ab") if log else None
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=out or subprocess.PIPE, stderr=out
    )
    try:
        yield process
    finally:
        for pipe in (process.stdin, out):
            if pipe:
                pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


SPIN = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
while True: pass
"""


@contextmanager
def busy_process() -> Iterator[None]:
    """One core kept busy by somebody else."""
    with child(["-c", SPIN]):
        yield
