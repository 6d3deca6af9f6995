"""What sampling costs the client: CPU of one scrape, and the delays of the event loop that stamps tokens.

The text is as long as a vLLM server's (histograms and all); pass and control alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

from gatebook.collect.gauges import parsed, sampled
from gatebook.config import project
from gatebook.config.profile import load_profile
from gatebook.opening import open_run

from benchmarks.report import Row

LINES = 1500
PARSED = 50
SERVER = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open(sys.argv[1], "rb").read()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H); print(s.server_port, flush=True); s.serve_forever()
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)


def run(args: argparse.Namespace) -> list[Row]:
    text = _text()
    began = time.process_time()
    for _ in range(PARSED):
        parsed(text, 0.0)
    parse_ms = (time.process_time() - began) / PARSED * 1000
    lags: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder, _exporter(Path(folder) / "metrics.txt", text) as base_url:
        for number in range(2 * args.rounds):
            sampling = number % 2 == 0
            lags[sampling] += asyncio.run(_lags(Path(folder) / str(number), base_url, sampling, args.seconds))
    late = {sampling: quantiles(found, n=100) for sampling, found in lags.items()}
    return [
        Row(f"CPU to parse a text of {len(text) // 1000} kB", parse_ms, "ms", goal=2),
        Row("delay of the event loop, median, beside none sampled", late[True][49], "ms", base=late[False][49]),
        Row("delay of the event loop, P99, beside none sampled", late[True][98], "ms", base=late[False][98]),
    ]


@contextmanager
def _exporter(page: Path, text: str) -> Iterator[str]:
    page.write_text(text, encoding="utf-8")
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(page)], stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
    finally:
        server.terminate()
        server.wait()


async def _lags(folder: Path, base_url: str, sampling: bool, seconds: float) -> list[float]:
    """Delays of a 10 ms ticker, in ms."""
    profile = load_profile(project.root() / "params" / "smollm2.yaml")
    run = open_run(profile, base_url, "demo", ["01"], folder)
    if sampling:
        async with sampled(run, "01_health", profile, base_url):
            return await _tick(seconds)
    return await _tick(seconds)


async def _tick(seconds: float) -> list[float]:
    found, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends:
        asked = time.perf_counter_ns()
        await asyncio.sleep(0.01)
        found.append((time.perf_counter_ns() - asked) / 1e6 - 10)
    return found


def _text() -> str:
    buckets = [f'vllm:e2e_request_latency_seconds_bucket{{engine="0",le="{n / 10}",model_name="m"}} {n}.0' for n in range(LINES)]  # fmt: skip
    gauges = [f'vllm:{n}{{engine="0",model_name="m"}} 1.0' for n in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "num_preemptions_total")]  # fmt: skip
    return "\n".join([*buckets, *gauges]) + "\n"
