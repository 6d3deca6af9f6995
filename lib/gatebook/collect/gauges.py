"""Sampling of GPU and engine beside the requests: NVML ten times a second, Prometheus endpoints twice a second.

Each source has its own thread, so that a slow scrape delays neither NVML nor the event loop that stamps tokens. Nothing
here raises into the load: what cannot be read becomes a row that says why.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from functools import partial
from urllib.parse import urlsplit

from gatebook.collect.client import Lane, LoopLag
from gatebook.config.profile import Profile, Target
from gatebook.engines.vllm import CACHE_CONFIG
from gatebook.record.exchange import Exchange
from gatebook.record.gauges import (
    DCGM_FREE,
    DCGM_USED,
    KNOWN,
    RUNNING,
    SESSION,
    UNAVAILABLE,
    WAITING,
    Gauge,
    GaugeFile,
    Source,
    series,
    unavailable,
)
from gatebook.record.run import Run

NVML_S = 0.1
METRICS_S = 0.5
READINGS = 4
"""Of requests that are not ours: users come and go."""
SCRAPE_S = 5.0
"""llama.cpp answers /metrics between two batches only."""
MAX_ROWS, MAX_LINE_CHARS = 2_000, 16_384
"""Of one reading: 64 engines have 500."""
DCGM_LABELS = ("gpu", "UUID", "modelName", "Hostname", "hostname", "GPU_I_ID", "GPU_I_PROFILE")
ENGINE_LABELS = ("engine", "dp_rank", "tp_rank", "pid")
Readings = Generator[list[Gauge], None, None]


@asynccontextmanager
async def sampled(run: Run, notebook: str, profile: Profile, base_url: str) -> AsyncIterator[None]:
    """Sample while the block runs, into `<notebook>.gauges.jsonl`; a run that goes on appends."""
    ended, threads = threading.Event(), list[threading.Thread]()
    with ExitStack() as stack:
        with suppress(OSError):  # an unwritable file shows: no reading, so nothing is judged
            file = stack.enter_context(GaugeFile(run.gauges_file(notebook)))
            file.append([row(SESSION, state="begins")])
            sources = _sources(profile, base_url, file)
            threads = [threading.Thread(target=_sample, args=(file, ended, *s), daemon=True) for s in sources]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                await asyncio.to_thread(thread.join, SCRAPE_S + 1)
            if threads:
                with suppress(OSError):
                    file.append([row(SESSION, state="ends")])


async def glanced(run: Run, notebook: str, profile: Profile, base_url: str) -> None:
    """One reading of everything: which GPU it is, and what the engine says of its cache."""
    ended = threading.Event()
    ended.set()
    with suppress(OSError), GaugeFile(run.gauges_file(notebook)) as file:
        for source in _sources(profile, base_url, file):
            await asyncio.to_thread(_sample, file, ended, *source)


def glance(target: Target, base_url: str) -> list[Gauge]:
    """One reading of the server's own /metrics; it has no value where there are none."""
    with closing(_scrapes(target, _metrics_url(target, base_url), base_url, "metrics")) as source:
        return next(source)


def others(target: Target, base_url: str, settle_s: float) -> tuple[int, str] | str:
    """The most requests in flight of a few readings while we ask nothing, and the metrics that say so; or why nobody knows.
    `settle_s`: how long an engine's gauges may go on showing our own last request."""
    with closing(_scrapes(target, _metrics_url(target, base_url), base_url, "metrics")) as source:
        found = _others(source)
        if settle_s and isinstance(found, tuple) and found[0]:
            time.sleep(settle_s)
            found = _others(source)
    return found


def _others(source: Readings) -> tuple[int, str] | str:
    rows: list[Gauge] = []
    for _ in range(READINGS):
        time.sleep(METRICS_S)
        rows += next(source)
        read = [row for row in rows if row.name in (*RUNNING, *WAITING)]
        if not read:
            return "; ".join(unavailable(rows, "metrics")) or "its /metrics have no count of requests"
    counts: Counter[float] = Counter()
    for names in (RUNNING, WAITING):
        counts.update({ms: int(count) for ms, count in series(rows, names, total=True)})
    return int(max(counts.values())), " and ".join(dict.fromkeys(row.name for row in read if row.value))


def _sample(file: GaugeFile, ended: threading.Event, of: str, every_s: float, read: Callable[[], Readings]) -> None:
    """Read once, then until `ended`; no error leaves this."""
    due, failed, source = time.monotonic(), "", read()
    while True:
        try:
            rows = next(source, [])
        except Exception as error:  # sampling must not cost a load that a server took minutes to answer
            said = f"our own reader failed: {type(error).__name__}: {error}"
            rows = [row(UNAVAILABLE, of=of, why=said)] if said != failed else []
            failed, source = said, read()
        try:
            file.append(rows)
        except OSError:
            break
        due = max(due + every_s, time.monotonic())
        if ended.wait(max(due - time.monotonic(), 0)):
            break
    source.close()


def _sources(profile: Profile, base_url: str, file: GaugeFile) -> list[tuple[str, float, Callable[[], Readings]]]:
    """(`of`, seconds between two readings, reader) for every source; where the GPU is none, the file gets the reason."""
    production, target = profile.production, profile.target
    urls = {"metrics": _metrics_url(target, base_url), "gpu": production.gpu_metrics_url}
    found: list[tuple[str, float, Callable[[], Readings]]] = [
        (of, METRICS_S, partial(_scrapes, target, url, base_url, of)) for of, url in urls.items() if url
    ]
    if production.nvml == "always" or (production.nvml == "auto" and on_this_machine(base_url)):
        from gatebook.collect.nvml import readings  # costs 60 ms

        chosen = production.cuda_visible_devices or os.environ.get("CUDA_VISIBLE_DEVICES")
        found.append(("gpu", NVML_S, partial(readings, chosen)))
    elif not production.gpu_metrics_url:
        text = "the server is on another machine, so this one's GPUs are not its own; name production.gpu_metrics_url"
        text = text if production.nvml == "auto" else "production.nvml is `never`"
        file.append([row(UNAVAILABLE, of="gpu", why=text)])
    return found


def _metrics_url(target: Target, base_url: str) -> str:
    return target.metrics_url or base_url.removesuffix("/v1") + "/metrics"


def _scrapes(target: Target, url: str, base_url: str, of: str) -> Readings:
    """Yield the rows of one Prometheus endpoint again and again, on its own lane and event loop in whatever thread reads it,
    bounded in bytes and time as every reply is. What does not change comes once."""
    told: set[str] = set()
    with asyncio.Runner() as loop:
        lane = Lane(target, base_url, LoopLag(), close=False)
        try:
            while True:
                asked = lane.ask(kind="probe", key="metrics", body=None, path=url, deadline_s=SCRAPE_S, retries=0)
                found = _scraped(loop.run(asked), of)
                if isinstance(found, str):
                    rows = [] if found in told else [row(UNAVAILABLE, of=of, why=f"{url}: {found}")]
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
    """The rows of a Prometheus text that are used. Raises ValueError when it is none. Lines are picked before they are
    parsed: an engine's text has thousands, and prometheus_client is pure Python."""
    from prometheus_client.parser import text_string_to_metric_families

    names = (*KNOWN, DCGM_USED, DCGM_FREE)
    lines = [line for line in text.splitlines() if line.startswith(names)]
    if len(lines) > MAX_ROWS or any(len(line) > MAX_LINE_CHARS for line in lines):
        longest = max(map(len, lines))
        raise ValueError(
            f"{len(lines):,} rows of {longest:,} characters at most; {MAX_ROWS:,} of {MAX_LINE_CHARS:,} are read"
        )
    samples = [s for f in text_string_to_metric_families("\n".join(lines) + "\n") for s in f.samples if s.name in names]
    found = []
    for name, labels, value, *_ in samples:
        kept = labels if name == CACHE_CONFIG else DCGM_LABELS if name in (DCGM_USED, DCGM_FREE) else ENGINE_LABELS
        if math.isfinite(value):
            own = {k: v for k, v in labels.items() if k in kept}
            found.append(Gauge(ms=ms, source="metrics", name=name, labels=own, value=value))
    return found


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


def row(name: str, value: float | None = None, source: Source = "metrics", /, **labels: str) -> Gauge:
    """A reading of now, rounded to one decimal."""
    return Gauge(ms=now_ms(), source=source, name=name, labels=labels, value=value and round(value, 1))
