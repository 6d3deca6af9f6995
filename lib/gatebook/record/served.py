"""What GPU and engine show of how the server was started, and what of its own description may be recorded."""

from __future__ import annotations

import json
from collections.abc import Iterable

from gatebook.engines import settings_kept
from gatebook.engines.engine import Said, items
from gatebook.engines.vllm import CACHE_CONFIG, CACHE_LABELS
from gatebook.record.answer import parse
from gatebook.record.gauges import Gauge, gpus


def kept(text: str) -> str:
    """Of a server's description of itself, the settings that are compared; nothing else is recorded."""
    body = parse(text)
    return json.dumps(settings_kept(body)) if isinstance(body, dict) else ""


def shown(gauges: Iterable[Gauge]) -> tuple[Said, ...]:
    """What the gauges tell of the card and of the engine's cache."""
    rows = list(gauges)
    found: list[Said] = []
    for gpu in gpus(rows):
        source = (
            f"{'NVML' if gpu.source == 'nvml' else 'DCGM' if gpu.source == 'metrics' else gpu.source}, GPU {gpu.id}"
        )
        if gpu.name:
            found.append(Said("gpu", gpu.name, source))
        if gpu.total_mib:
            found.append(Said("gpu_memory_gb", round(gpu.total_mib / 1024, 2), source))
    labels = next((row.labels for row in rows if row.name == CACHE_CONFIG), {})
    return (*found, *items(f"/metrics {CACHE_CONFIG}", CACHE_LABELS, labels))
