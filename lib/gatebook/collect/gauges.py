"""Samples GPU and engine beside what is asked: NVML ten times a second, Prometheus endpoints twice a second.

Each source has a thread of its own, so that a slow scrape delays neither NVML nor the event loop that stamps tokens.
Nothing here raises into the load: what cannot be read becomes a row that says why.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from functools import partial
from urllib.parse import urlsplit

from gatebook.collect.client import Lane, LoopLag
from gatebook.config.profile import Profile, Target
from gatebook.engines.vllm import CACHE_CONFIG
from gatebook.record.exchange import Exchange
from gatebook.record.gauges import DCGM_FREE, DCGM_USED, KNOWN, SESSION, UNAVAILABLE, Gauge, GaugeFile
from gatebook.record.run import Run

NVML_S = 0.1
METRICS_S = 0.5
SCRAPE_S = 5.0
"""llama.cpp answers /metrics between two batches only."""
MAX_ROWS, MAX_LINE_CHARS = 2_000, 16_384
"""Of one reading: 64 engines have 500."""
DCGM_LABELS = ("gpu", "UUID", "modelName", "Hostname", "hostname", "GPU_I_ID", "GPU_I_PROFILE")
ENGINE_LABELS = ("engine", "dp_rank", "tp_rank", "pid")


@asynccontextmanager
async def sampled(run: Run, notebook: str, profile: Profile, base_url: str) -> AsyncIterator[None]:
    """Sample while the block runs, into `<notebook>.gauges.jsonl`; a run that goes on appends."""
    with ExitStack() as stack:
        samplers: list[_Sampler] = []
        with suppress(OSError):  # an unwritable file shows: no reading, so nothing is judged
            file = stack.enter_context(GaugeFile(run.gauges_file(notebook)))
            file.append([_row(SESSION, state="begins")])
            samplers = _samplers(profile, base_url, file)
        for sampler in samplers:
            sampler.start()
        try:
            yield
        finally:
            for sampler in samplers:
                sampler.ended.set()
            for sampler in samplers:
                await asyncio.to_thread(sampler.join, SCRAPE_S + 1)
            if samplers:
                with suppress(OSError):
                    file.append([_row(SESSION, state="ends")])


async def glanced(run: Run, notebook: str, profile: Profile, base_url: str) -> None:
    """One reading of everything: which GPU it is, and what the engine says of its cache."""
    with suppress(OSError), GaugeFile(run.gauges_file(notebook)) as file:
        for sampler in _samplers(profile, base_url, file):
            sampler.ended.set()
            await asyncio.to_thread(sampler.run)


def glance(target: Target, base_url: str) -> list[Gauge]:
    """One reading of the server's own /metrics; empty where it has none."""
    with closing(_scrapes(target, _metrics_url(target, base_url), base_url, "metrics")) as source:
        return next(source)


class _Sampler(threading.Thread):
    """Reads once, and again and again until it is ended; never lets an error out."""

    def __init__(
        self, file: GaugeFile, of: str, every_s: float, source: Callable[[], Generator[list[Gauge], None, None]]
    ) -> None:
        super().__init__(daemon=True)
        self._file, self._of, self._every_s, self._source = file, of, every_s, source
        self.ended = threading.Event()

    def run(self) -> None:
        due, failed, source = time.monotonic(), "", self._source()
        while True:
            try:
                rows = next(source, [])
            except Exception as error:  # sampling must not cost a load that a server took minutes to answer
                said = f"our own reader failed: {type(error).__name__}: {error}"
                rows = [_row(UNAVAILABLE, of=self._of, why=said)] if said != failed else []
                failed, source = said, self._source()
            try:
                self._file.append(rows)
            except OSError:
                break
            due = max(due + self._every_s, time.monotonic())
            if self.ended.wait(max(due - time.monotonic(), 0)):
                break
        source.close()


def _samplers(profile: Profile, base_url: str, file: GaugeFile) -> list[_Sampler]:
    production, target = profile.production, profile.target
    urls = {"metrics": _metrics_url(target, base_url), "gpu": production.gpu_metrics_url}
    found = [
        _Sampler(file, of, METRICS_S, partial(_scrapes, target, url, base_url, of)) for of, url in urls.items() if url
    ]
    if production.nvml == "always" or (production.nvml == "auto" and on_this_machine(base_url)):
        from gatebook.collect.nvml import readings  # costs 60 ms

        chosen = production.cuda_visible_devices or os.environ.get("CUDA_VISIBLE_DEVICES")
        found.append(_Sampler(file, "gpu", NVML_S, partial(readings, chosen)))
    elif not production.gpu_metrics_url:
        text = "the server is on another machine, so this one's GPUs are not its own; name production.gpu_metrics_url"
        text = text if production.nvml == "auto" else "production.nvml is `never`"
        file.append([_row(UNAVAILABLE, of="gpu", why=text)])
    return found


def _metrics_url(target: Target, base_url: str) -> str:
    return target.metrics_url or base_url.removesuffix("/v1") + "/metrics"


def _scrapes(target: Target, url: str, base_url: str, of: str) -> Generator[list[Gauge], None, None]:
    """One Prometheus endpoint, again and again, on a lane and an event loop of its own in whatever thread reads it.

    Bounded as every reply is: in bytes, and in time from the first byte sent to the last one read. What does not change is
    told once.
    """
    told: set[str] = set()
    with asyncio.Runner() as loop:
        lane = Lane(target, base_url, LoopLag(), close=False)
        try:
            while True:
                asked = lane.ask(kind="probe", key="metrics", body=None, path=url, deadline_s=SCRAPE_S, retries=0)
                found = _scraped(loop.run(asked), of)
                if isinstance(found, str):
                    rows = [] if found in told else [_row(UNAVAILABLE, of=of, why=f"{url}: {found}")]
                    told.add(found)
                else:
                    rows = [row for row in found if row.name != CACHE_CONFIG or CACHE_CONFIG not in told]
                    told |= {CACHE_CONFIG} & {row.name for row in rows}
                yield rows
        finally:
            loop.run(lane.__aexit__())


def _scraped(reply: Exchange, of: str) -> list[Gauge] | str:
    """The rows that are read, or why there are none."""
    if reply.fault is not None:
        return f"HTTP {reply.status}" if reply.fault == "status" else reply.detail
    try:
        rows = parsed(reply.text or "", now_ms())
    except ValueError as error:
        return f"is no Prometheus text: {str(error)[:100]}"
    wanted = (DCGM_USED, DCGM_FREE) if of == "gpu" else KNOWN
    if not any(row.name in wanted for row in rows):
        return "answers and has none of the metrics that are read (docs/memory.md)"
    return rows


def parsed(text: str, ms: float) -> list[Gauge]:
    """The rows of a Prometheus text that anything here reads. Raises ValueError when it is none.

    Lines are picked before they are parsed: an engine's text has thousands, and prometheus_client is pure Python.
    """
    from prometheus_client.parser import text_string_to_metric_families

    names = (*KNOWN, DCGM_USED, DCGM_FREE)
    lines = [line for line in text.splitlines() if line.startswith(names)]
    if len(lines) > MAX_ROWS or any(len(line) > MAX_LINE_CHARS for line in lines):
        longest = max(map(len, lines))
        raise ValueError(
            f"{len(lines):,} rows of {longest:,} characters at most; {MAX_ROWS:,} of {MAX_LINE_CHARS:,} are read"
        )
    found = []
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name in names and math.isfinite(sample.value):
                labels = _kept(sample.name, sample.labels)
                found.append(Gauge(ms=ms, source="metrics", name=sample.name, labels=labels, value=sample.value))
    return found


def _kept(name: str, labels: dict[str, str]) -> dict[str, str]:
    kept = DCGM_LABELS if name in (DCGM_USED, DCGM_FREE) else ENGINE_LABELS
    return {k: v for k, v in labels.items() if k in kept or name == CACHE_CONFIG}


def on_this_machine(base_url: str) -> bool:
    """Whether the URL's host is an address of this machine: only such an address can be bound."""
    try:
        found = socket.getaddrinfo(urlsplit(base_url).hostname, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    for family, kind, protocol, _, address in found:
        with suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            return True
    return False


def now_ms() -> float:
    """Since the Unix epoch."""
    return round(time.time() * 1000, 1)


def _row(name: str, **labels: str) -> Gauge:
    return Gauge(ms=now_ms(), source="metrics", name=name, labels=labels)
