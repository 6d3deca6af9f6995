"""Threads and other llama.cpp parameters for the embedded model: generated tokens a second, alone and beside a busy process.

Twelve prompts of the demo's cases (five canaries, seven classifications under a schema), each server started fresh.
Two threads and one are compared at equal concurrency; other parameters with the default at the same threads.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import httpx
from gatebook.collect.embedded import MODEL
from gatebook.config.cases import load_cases

from benchmarks.bare import Request, ask_all
from benchmarks.processes import ROOT, busy_process, child
from benchmarks.report import Row

PROMPTS = {"health.canaries": 5, "structured.classification": 7}
"""Group -> how many of its first cases."""
READY_S = 60.0


@dataclass(frozen=True)
class Setting:
    """How the server is started and used."""

    threads: int
    in_flight: int = 1
    busy: bool = False
    """Beside a process that spins on one core."""
    change: str = ""
    """llama.cpp parameters, such as `n_ubatch=128`, with blanks between."""

    @property
    def name(self) -> str:
        parts = [f"{self.threads} thread{'s' * (self.threads > 1)}", f"{self.in_flight} in flight"]
        return ", ".join(
            [*parts, *([self.change] if self.change else []), "beside a busy process" if self.busy else "alone"]
        )

    @property
    def base(self) -> Setting:
        return replace(self, change="") if self.change else replace(self, threads=1)


GRID = [Setting(threads, in_flight, busy) for busy in (False, True) for in_flight in (1, 2) for threads in (1, 2)]
CHANGES = [
    *(
        Setting(1, change=c)
        for c in (
            "n_ubatch=64",
            "n_ubatch=128",
            "n_ubatch=2048",
            "n_batch=256",
            "flash_attn_type=0",
            "flash_attn_type=1",
        )
    ),
    *(Setting(threads, busy=busy, change="cpuparams.poll=0") for threads in (1, 2) for busy in (False, True)),
]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only-threads", action="store_true", help="leave out the other parameters")


def run(args: argparse.Namespace) -> list[Row]:
    settings = GRID if args.only_threads else GRID + CHANGES
    found: dict[Setting, list[_Speed]] = {setting: [] for setting in settings}
    for _ in range(args.rounds):
        for setting in settings:
            found[setting].append(_measure(setting))
            print(f"{setting.name}: {found[setting][-1].tokens_per_s:.1f} tokens/s", flush=True)
    speed = {setting: median(s.tokens_per_s for s in speeds) for setting, speeds in found.items()}
    seconds = {setting: median(s.wall_s for s in speeds) for setting, speeds in found.items()}
    rows = []
    for setting in settings:
        base = setting.base if setting.base != setting else None
        rows += [
            Row(setting.name, speed[setting], "tokens/s", base=speed[base] if base else None),
            Row(
                f"{setting.name}: all {sum(PROMPTS.values())}",
                seconds[setting],
                "s",
                base=seconds[base] if base else None,
            ),
        ]
    return rows


@dataclass(frozen=True)
class _Speed:
    tokens: int
    wall_s: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s


def _measure(setting: Setting) -> _Speed:
    with server_with(setting) as base_url, busy_process() if setting.busy else nullcontext():
        before = _generated(base_url)
        spent = asyncio.run(ask_all(base_url, _requests(), setting.in_flight, close=True))
        return _Speed(_generated(base_url) - before, spent.wall_s)


def _requests() -> list[Request]:
    cases = load_cases(ROOT / "params" / "cases")
    chosen = [case for group, count in PROMPTS.items() for case in [c for c in cases if c.group == group][:count]]
    assert len(chosen) == sum(PROMPTS.values()), "the case files hold fewer cases than PROMPTS wants"
    return [
        Request("POST", "chat/completions", {"model": MODEL, "messages": case.messages, **case.options, "stream": True})
        for case in chosen
    ]


@contextmanager
def server_with(setting: Setting) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = ["-m", "benchmarks.llama_server", "--port", str(port), "--threads", str(setting.threads)]
    changes = [part for change in setting.change.split() for part in ("--set", change)]
    base_url = f"http://127.0.0.1:{port}/v1"
    with (
        tempfile.NamedTemporaryFile() as log,
        child([*start, *changes], Path(log.name)),
    ):
        deadline = time.monotonic() + READY_S
        while not _answers(base_url):
            assert time.monotonic() < deadline, (
                f"no server with {setting.name}: {Path(log.name).read_text(encoding='utf-8', errors='replace')[-400:]}"
            )
            time.sleep(0.1)
        yield base_url


def _answers(base_url: str) -> bool:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    try:
        return httpx.post(f"{base_url}/chat/completions", json=body, timeout=30, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _generated(base_url: str) -> int:
    """Tokens that the server has generated so far."""
    metrics = httpx.get(base_url.removesuffix("/v1") + "/metrics", trust_env=False).text
    found = re.search(r"^llamacpp:tokens_predicted_total (\d+)", metrics, re.MULTILINE)
    assert found, "the server's /metrics has no llamacpp:tokens_predicted_total"
    return int(found[1])
