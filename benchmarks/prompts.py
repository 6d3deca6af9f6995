"""Threads that read prompts: prompt tokens a second of the embedded model, alone and beside one and two busy processes.

Three documents of about 1,000 tokens each, one after another, on a server started fresh; the server's own `timings`.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from statistics import median

import httpx
from gatebook.collect.embedded import MODEL
from gatebook.config.documents import Document, text

from benchmarks.embedded import Setting, server_with
from benchmarks.processes import busy_process
from benchmarks.report import Row

CHARS = 3800
SEEDS = (1, 2, 3)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="processes that spin beside it")


def run(args: argparse.Namespace) -> list[Row]:
    rows = []
    for busy in args.busy:
        one, two = (_tokens_per_s(threads, busy) for threads in (1, 2))
        beside = f"beside {busy} busy" if busy else "alone"
        rows += [Row(f"1 thread, {beside}", one, "tokens/s"), Row(f"2 threads, {beside}", two, "tokens/s", base=one)]
    return rows


def _tokens_per_s(threads: int, busy: int) -> float:
    found = []
    with server_with(Setting(1, change=f"cpuparams_batch.n_threads={threads}")) as base_url, ExitStack() as others:
        for _ in range(busy):
            others.enter_context(busy_process())
        for seed in SEEDS:
            document = Document(kind="needles", seed=seed, tokens=1000, family="single", depth=50)
            messages = [{"role": "user", "content": text(document, CHARS)}]
            body = {"model": MODEL, "messages": messages, "max_tokens": 1}
            answer = httpx.post(f"{base_url}/chat/completions", json=body, timeout=120, trust_env=False).json()
            found.append(answer["timings"]["prompt_per_second"])
    return median(found)
