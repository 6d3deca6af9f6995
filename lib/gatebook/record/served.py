"""What a server says of how it was started, item by item, with where it says so.

Sources: vLLM `/v1/models`, `vllm:cache_config_info` and, in its development mode, `/server_info`; SGLang
`/get_server_info` (`/server_info` in newer versions); llama.cpp `/props`; NVML and DCGM for the card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gatebook.plan.production import Item
from gatebook.record.answer import parse
from gatebook.record.exchange import Exchange
from gatebook.record.gauges import CACHE_CONFIG, Gauge, gpus

SETTINGS_PATHS = ("/get_server_info", "/server_info?config_format=json")
Value = str | int | float | bool
SGLANG: dict[str, Item] = {
    "context_length": "max_model_len",
    "chunked_prefill_size": "max_num_batched_tokens",
    "max_running_requests": "max_num_seqs",
    "dtype": "dtype",
    "kv_cache_dtype": "kv_cache_dtype",
}
VLLM: dict[str, dict[str, Item]] = {
    "model_config": {"max_model_len": "max_model_len", "dtype": "dtype"},
    "scheduler_config": {"max_num_batched_tokens": "max_num_batched_tokens", "max_num_seqs": "max_num_seqs"},
    "cache_config": {"cache_dtype": "kv_cache_dtype", "enable_prefix_caching": "prefix_caching"},
}
CACHE_LABELS: dict[str, Item] = {"cache_dtype": "kv_cache_dtype", "enable_prefix_caching": "prefix_caching"}
DEVICES = re.compile(r"^CUDA_VISIBLE_DEVICES=(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Said:
    """One value of one item, and who said it."""

    item: Item
    value: Value
    source: str


def kept(text: str) -> str:
    """Of a server's description of itself, the settings that are compared; nothing else is recorded.

    SGLang tells all of its arguments there, keys among them; vLLM its environment.
    """
    body = parse(text)
    if not isinstance(body, dict):
        return ""
    found: dict[str, Any] = {k: body[k] for k in (*SGLANG, "disable_radix_cache", "version") if _plain(body.get(k))}
    config, system = _dict(body.get("vllm_config")), _dict(body.get("system_env"))
    for part, items in VLLM.items():
        if values := {k: v for k in items if _plain(v := _dict(config.get(part)).get(k))}:
            found.setdefault("vllm_config", {})[part] = values
    if devices := DEVICES.search(str(system.get("env_vars"))):
        found["system_env"] = {"env_vars": devices[0]}
    return json.dumps(found)


def said(exchanges: Iterable[Exchange], card: dict[str, Any], props: dict[str, Any]) -> tuple[Said, ...]:
    """What the recorded probes tell: `card` is the model's own in /v1/models, `props` is llama.cpp's /props."""
    found = list(_of("/v1/models", {"max_model_len": "max_model_len"}, card))
    slot = _dict(props.get("default_generation_settings"))
    found += _of("/props", {"n_ctx": "max_model_len"}, slot)
    found += _of("/props", {"total_slots": "max_num_seqs", "model_ftype": "dtype"}, props)
    for exchange in exchanges:
        if exchange.kind != "probe" or exchange.path not in SETTINGS_PATHS or exchange.status != 200:
            continue
        body, path = _dict(parse(exchange.text or "")), exchange.path.partition("?")[0]
        found += _of(path, SGLANG, body)
        if isinstance(body.get("disable_radix_cache"), bool):
            found.append(Said("prefix_caching", not body["disable_radix_cache"], f"{path} disable_radix_cache"))
        for part, items in VLLM.items():
            found += _of(path, items, _dict(_dict(body.get("vllm_config")).get(part)))
        if devices := DEVICES.search(str(_dict(body.get("system_env")).get("env_vars"))):
            found.append(Said("cuda_visible_devices", devices[1], f"{path} CUDA_VISIBLE_DEVICES"))
    return tuple(found)


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
    return (*found, *_of(f"/metrics {CACHE_CONFIG}", CACHE_LABELS, labels))


def _of(source: str, items: dict[str, Item], values: dict[str, Any]) -> Iterator[Said]:
    for key, item in items.items():
        value: Any = values.get(key)
        if _plain(value) and value not in ("", "None"):
            yield Said(item, {"True": True, "False": False}.get(str(value), value), f"{source} {key}")


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
