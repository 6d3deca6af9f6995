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
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit

from gatebook.collect.client import Lane, LoopLag
from gatebook.collect.nvml import Nvml
from gatebook.config.profile import Profile, Target
from gatebook.engines.vllm import CACHE_CONFIG
from gatebook.record.gauges import DCGM_FREE, DCGM_USED, KNOWN, SESSION, UNAVAILABLE, Gauge, GaugeFile
from gatebook.record.run import Run

NVML_S = 0.1
PROCESSES_EVERY = 10
"""Memory by process, once in so many readings."""
METRICS_S = 0.5
SCRAPE_S = 5.0
"""llama.cpp answers /metrics between two batches only."""
MAX_ROWS, MAX_LINE_CHARS = 2_000, 16_384
"""Of one reading: 64 engines have 500."""
DCGM_LABELS = ("gpu", "UUID", "modelName", "Hostname", "hostname", "GPU_I_ID", "GPU_I_PROFILE")
ENGINE_LABELS = ("engine", "dp_rank", "tp_rank", "pid")
Read = Callable[[], list[Gauge]]


@asynccontextmanager
async def sampled(run: Run, notebook: str, profile: Profile, base_url: str) -> AsyncIterator[None]:
    """Sample while the block runs, into `<notebook>.gauges.jsonl`; a run that goes on appends."""
    with ExitStack() as stack:
        samplers: list[_Sampler] = []
        with suppress(OSError):  # an unwritable file shows: no reading, so nothing is judged
            file = stack.enter_context(GaugeFile(run.gauges_file(notebook)))
            file.append([_session("begins")])
            samplers = _samplers(profile, base_url, file)
        for sampler in samplers:
            sampler.start()
        try:
            yield
        finally:
            for sampler in samplers:
                sampler.stop()
            for sampler in samplers:
                await asyncio.to_thread(sampler.join, SCRAPE_S + 1)
            if samplers:
                with suppress(OSError):
                    file.append([_session("ends")])


async def glanced(run: Run, notebook: str, profile: Profile, base_url: str) -> None:
    """One reading of everything: which GPU it is, and what the engine says of its cache."""
    with suppress(OSError), GaugeFile(run.gauges_file(notebook)) as file:
        for sampler in _samplers(profile, base_url, file):
            await asyncio.to_thread(sampler.once)


def glance(target: Target, base_url: str) -> list[Gauge]:
    """One reading of the server's own /metrics; empty where it has none."""
    exporter = _Exporter(target, target.metrics_url or base_url.removesuffix("/v1") + "/metrics", base_url, "metrics")
    try:
        return exporter.read()
    finally:
        exporter.close()


class _Sampler(threading.Thread):
    """Reads again and again until it is stopped; never lets an error out."""

    def __init__(
        self, file: GaugeFile, of: str, every_s: float, first: Read, then: Read, close: Callable[[], None]
    ) -> None:
        super().__init__(daemon=True)
        self._file, self._of, self._every_s = file, of, every_s
        self._first, self._then, self._close = first, then, close
        self._ended = threading.Event()
        self._failed: str | None = None

    def run(self) -> None:
        due = time.monotonic()
        self._read(self._first)
        while not self._ended.wait(max(due - time.monotonic(), 0)):
            self._read(self._then)
            due = max(due + self._every_s, time.monotonic())
        self._close()

    def once(self) -> None:
        self._read(self._first)
        self._read(self._then)
        self._close()

    def stop(self) -> None:
        self._ended.set()

    def _read(self, read: Read) -> None:
        try:
            rows = read()
        except Exception as error:  # sampling must not cost a load that a server took minutes to answer
            said = f"{type(error).__name__}: {error}"
            rows = [_unavailable(self._of, f"our own reader failed: {said}")] if said != self._failed else []
            self._failed = said
        try:
            self._file.append(rows)
        except OSError:
            self._ended.set()


def _samplers(profile: Profile, base_url: str, file: GaugeFile) -> list[_Sampler]:
    production, target = profile.production, profile.target
    exporters = [
        _Exporter(target, target.metrics_url or base_url.removesuffix("/v1") + "/metrics", base_url, "metrics")
    ]
    if production.gpu_metrics_url:
        exporters.append(_Exporter(target, production.gpu_metrics_url, base_url, "gpu"))
    found = [_Sampler(file, e.of, METRICS_S, lambda: [], e.read, e.close) for e in exporters]
    if production.nvml == "always" or (production.nvml == "auto" and on_this_machine(base_url)):
        chosen = production.cuda_visible_devices or os.environ.get("CUDA_VISIBLE_DEVICES")
        found.append(_nvml(file, Nvml(chosen, now_ms)))
    elif not production.gpu_metrics_url:
        text = "the server is on another machine, so this one's GPUs are not its own; name production.gpu_metrics_url"
        file.append([_unavailable("gpu", text if production.nvml == "auto" else "production.nvml is `never`")])
    return found


def _nvml(file: GaugeFile, nvml: Nvml) -> _Sampler:
    readings = iter(range(10**12))
    return _Sampler(
        file, "gpu", NVML_S, nvml.open, lambda: nvml.read(next(readings) % PROCESSES_EVERY == 0), nvml.close
    )


class _Exporter:
    """One Prometheus endpoint, read on a lane and an event loop of its own, in whatever thread reads it."""

    def __init__(self, target: Target, url: str, base_url: str, of: str) -> None:
        self._url, self.of = url, of
        self._told: set[str] = set()
        self._loop = asyncio.Runner()
        self._lane = Lane(target, base_url, LoopLag(), close=False)

    def read(self) -> list[Gauge]:
        """Bounded as every reply is: in bytes, and in time from the first byte sent to the last one read."""
        reply = self._loop.run(
            self._lane.ask(kind="probe", key="metrics", body=None, path=self._url, deadline_s=SCRAPE_S, retries=0)
        )
        at = now_ms()
        if reply.fault is not None:
            return self._miss(f"HTTP {reply.status}" if reply.fault == "status" else reply.detail)
        try:
            rows = parsed(reply.text or "", at)
        except ValueError as error:
            return self._miss(f"is no Prometheus text: {str(error)[:100]}")
        wanted = (DCGM_USED, DCGM_FREE) if self.of == "gpu" else KNOWN
        if not any(row.name in wanted for row in rows):
            return self._miss("answers and has none of the metrics that are read (docs/memory.md)")
        if CACHE_CONFIG in self._told:  # what does not change is kept once
            rows = [row for row in rows if row.name != CACHE_CONFIG]
        self._told |= {CACHE_CONFIG} & {row.name for row in rows}
        return rows

    def close(self) -> None:
        self._loop.run(self._lane.__aexit__(None, None, None))
        self._loop.close()

    def _miss(self, why: str) -> list[Gauge]:
        if why in self._told:
            return []
        self._told.add(why)
        return [_unavailable(self.of, f"{self._url}: {why}")]


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
    return dict(labels) if name == CACHE_CONFIG else {k: v for k, v in labels.items() if k in kept}


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


def _session(state: str) -> Gauge:
    return Gauge(ms=now_ms(), source="metrics", name=SESSION, labels={"state": state})


def _unavailable(of: str, why: str) -> Gauge:
    return Gauge(ms=now_ms(), source="metrics", name=UNAVAILABLE, labels={"of": of, "why": why})
