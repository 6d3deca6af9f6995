"""Rows of a history for tests, and a process that writes them."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from gatebook.record.exchange import Measurement

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

WRITER = """
import sys
from gatebook.record.history import History, database_url
from tests.unit.measured import measurement
url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.stdin.readline()  # all begin together
for number in range(count):
    History(database_url(url)).enter([measurement(run=f"{name}-{number}", group=g) for g in ("g.a", "g.b")])
    History(database_url(url)).enter([measurement(run="shared", group=g) for g in ("g.b", "g.a")])
"""


def measurement(days_ago: float = 1, **fields: Any) -> Measurement:
    base = {
        "run": "r1", "group": "g.h", "at": NOW - timedelta(days=days_ago), "profile": "p", "engine": "vllm", "gpu": "NVIDIA L4",
        "suite": "full", "workload": "w" * 64, "revision": "rev-1", "engine_version": "0.9", "verdict": "PASS", "n": 3,
        "ttft_ms": [100.0, 110.5, 120.0], "itl_ms": [10.0, 11.0, 12.0], "total_ms": [500.0, 510.0, 520.25],
        "prompt_tokens": [20, 20, 21], "completion_tokens": [40, 41, 42], "requests_per_s": 2.5, "tokens_per_s": 99.0,
        "gpu_peak_mib": 20480.0,
    }  # fmt: skip
    given = {**base, **fields}
    return Measurement.model_validate({"accepted": given["verdict"] == "PASS", **given})


def write_at_once(url: str, writers: int, count: int) -> None:
    """Real processes that begin together and enter `count` runs each, and all of them one run more."""
    started = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, f"w{n}", str(count)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(writers)
    ]  # fmt: skip
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
