"""python -m tests.fuzz [--inputs 10000] [--seed 1] [--only NUMBER]: ends with the counts, and with 1 where an input has shown something."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from gatebook.collect.server import embedded_server

from tests.fuzz.drive import prepared, tried


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", type=int, help="this input alone")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gatebook-fuzz-base-") as folder:
        with embedded_server(Path(folder) / "server.log") as url:
            project, base = prepared(Path(folder), url)
        numbers = [asked.only] if asked.only is not None else range(asked.inputs)
        found = tried(project, base, asked.seed, numbers, say=lambda line: print(line, flush=True))
    print(found)
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(1 if found.troubles else 0)


if __name__ == "__main__":
    main()
