"""What GPU and engine showed while a notebook asked: one row a reading, `<notebook>.gauges.jsonl`, append-only.

Rows keep the exporters' names; those of NVML have the names of USED, TOTAL and PROCESS. `session` opens and closes a stretch of
sampling, `unavailable` says what could not be read and why.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gatebook.engines import names
from gatebook.engines.sglang import RETRACTED_NOW
from gatebook.engines.vllm import CACHE_CONFIG
from gatebook.errors import BrokenRecord
from gatebook.record.exchange import Recorded
from gatebook.record.journal import LineFile

Source = Literal["nvml", "metrics", "trace"]
SESSION, UNAVAILABLE = "session", "unavailable"
USED, TOTAL, PROCESS = "gpu_memory_used_mib", "gpu_memory_total_mib", "gpu_process_memory_mib"
DCGM_USED, DCGM_FREE = "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"
KV_CACHE, WAITING, RUNNING, PREEMPTED = (names(of) for of in ("kv_cache", "waiting", "running", "preempted"))
KNOWN = (*KV_CACHE, *WAITING, *RUNNING, *PREEMPTED, RETRACTED_NOW, CACHE_CONFIG)


class Gauge(Recorded):
    """One reading."""

    ms: float
    """Since the Unix epoch, by the clock of the machine that asks."""
    source: Source
    name: str
    labels: dict[str, str] = {}
    value: float | None = None
    """null in a row that is no number: a session, something unavailable."""


class GaugeFile(LineFile):
    """Appends rows; each is on its way to the disk when `append` returns."""

    def append(self, rows: Iterable[Gauge]) -> None:
        """Raises OSError when the disk does not take them; nothing once the file is closed."""
        lines = "".join(row.model_dump_json() + "\n" for row in rows)
        with self._lock:
            if lines and not self._file.closed:
                self._write(lines.encode())


def read_gauges(path: Path) -> list[Gauge]:
    """All rows of a file but a last one that a crash cut; none of a missing file. Raises BrokenRecord."""
    found: list[Gauge] = []
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
        try:
            found.append(Gauge.model_validate_json(line))
        except ValueError:
            where = f"{path}, line {len(found) + 1}"
            raise BrokenRecord(f"{where}: is no reading of a gauge; the file was edited") from None
    return found


@dataclass
class Gpu:
    """One GPU or MIG instance over time, in MiB."""

    id: str
    """Index, `0:1` for the second MIG instance of GPU 0, or the exporter's host and index."""
    source: Source
    name: str = ""
    total_mib: float | None = None
    used: list[tuple[float, float]] = field(default_factory=list)
    """(ms, MiB), what the driver itself reserves included."""
    processes: dict[str, float] = field(default_factory=dict)
    """Process id -> its peak in MiB, where the driver tells it."""

    @property
    def peak_mib(self) -> float | None:
        return max((mib for _, mib in self.used), default=None)


def gpus(gauges: Iterable[Gauge]) -> list[Gpu]:
    """The GPUs in the rows, of NVML and DCGM alike."""
    found: dict[tuple[bool, str], Gpu] = {}
    free_mib: dict[tuple[bool, str], float] = {}
    for row in gauges:
        if row.value is None or row.name not in (USED, TOTAL, PROCESS, DCGM_USED, DCGM_FREE):
            continue
        exported = row.name in (DCGM_USED, DCGM_FREE)
        key = (exported, _exported_id(row.labels) if exported else row.labels.get("gpu", "?"))
        gpu = found.setdefault(key, Gpu(key[1], row.source))
        if row.name == TOTAL:
            gpu.total_mib, gpu.name = row.value, row.labels.get("name", "")
        elif row.name == PROCESS:
            process = row.labels.get("pid", "?")
            gpu.processes[process] = max(gpu.processes.get(process, 0.0), row.value)
        elif row.name == DCGM_FREE:
            free_mib[key] = row.value
        else:
            gpu.used.append((row.ms, row.value))
            gpu.name = gpu.name or row.labels.get("modelName", "")
    for key, free in free_mib.items():  # memory that the driver reserves is in neither figure
        if found[key].used:
            found[key].total_mib = found[key].used[-1][1] + free
    return list(found.values())


def _exported_id(labels: dict[str, str]) -> str:
    host, instance = labels.get("Hostname") or labels.get("hostname"), labels.get("GPU_I_ID")
    return f"{f'{host}/' if host else ''}{labels.get('gpu', '?')}{f':{instance}' if instance else ''}"


def gpu_names(gauges: Iterable[Gauge]) -> str:
    """`NVIDIA L4`, `2 x NVIDIA L4`, or `none` where none could be looked at."""
    rows = [row.labels for row in gauges if row.name in (USED, DCGM_USED, TOTAL)]
    told = {of.get("gpu", ""): name for of in rows if (name := of.get("name") or of.get("modelName"))}
    counts = sorted(Counter(told.values()).items())
    return " + ".join(name if n == 1 else f"{n} x {name}" for name, n in counts) or "none"


def series(gauges: Iterable[Gauge], names: tuple[str, ...], total: bool) -> list[tuple[float, float]]:
    """(ms, value) of the first of these names that has rows: the sum over the engines of a scrape, or the maximum."""
    by_name: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in gauges:
        if row.name in names and row.value is not None:
            by_name[row.name][row.ms].append(row.value)
    rows = next((by_name[name] for name in names if name in by_name), {})
    return [(ms, sum(values) if total else max(values)) for ms, values in sorted(rows.items())]


def sessions(gauges: Iterable[Gauge]) -> list[list[Gauge]]:
    """The rows by stretch of sampling: a resumed run has several, with nothing known in between."""
    found: list[list[Gauge]] = []
    for row in gauges:
        if not found or (row.name == SESSION and row.labels.get("state") == "begins"):
            found.append([])
        found[-1].append(row)
    return found


def unavailable(gauges: Iterable[Gauge], of: str) -> list[str]:
    """Why readings of this kind (`gpu`, `metrics`) are missing, each reason once."""
    rows = (row.labels for row in gauges if row.name == UNAVAILABLE)
    return list(dict.fromkeys(labels.get("why", "") for labels in rows if labels.get("of") == of))
