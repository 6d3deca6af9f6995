"""vLLM. Tried on 0.32.0 (CPU); sources: its replies, /metrics and, in development mode, /server_info."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gatebook.config.policies import Item
from gatebook.engines.engine import Engine, Json, Probes, Said, items, obj, plain

CONFIG: Mapping[str, Mapping[str, Item]] = {
    "model_config": {"max_model_len": "max_model_len", "dtype": "dtype"},
    "scheduler_config": {"max_num_batched_tokens": "max_num_batched_tokens", "max_num_seqs": "max_num_seqs"},
    "cache_config": {"cache_dtype": "kv_cache_dtype", "enable_prefix_caching": "prefix_caching"},
}
TOLD = {"model_config": ("override_generation_config",), "structured_outputs_config": ("backend", "reasoning_parser")}
"""Further settings of /server_info that say what is served."""
CACHE_CONFIG = "vllm:cache_config_info"
CACHE_LABELS: Mapping[str, Item] = {"cache_dtype": "kv_cache_dtype", "enable_prefix_caching": "prefix_caching"}
DEVICES = re.compile(r"^CUDA_VISIBLE_DEVICES=(.*)$", re.MULTILINE)
SERVER_INFO = "/server_info?config_format=json"


class _VLLM(Engine):
    name = "vllm"
    paths = ("/version",)
    settings_paths = (SERVER_INFO,)
    keeps_connections = True
    answers_any_name = False
    takes_memory_at_start = True
    tells_latency = True
    kv_cache = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    waiting = ("vllm:num_requests_waiting",)
    running = ("vllm:num_requests_running",)
    preempted = ("vllm:num_preemptions_total",)
    ttft_histograms = ("vllm:time_to_first_token_seconds",)
    itl_histograms = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
    total_histograms = ("vllm:e2e_request_latency_seconds",)
    refusals = re.compile(
        r"HTTP 501: |Grammar error: |is not a multimodal model|requires --(enable-auto-tool-choice|tool-call-parser)"
    )
    logprob_options = {"return_tokens_as_token_ids": True}  # a part of a character has neither text nor bytes there

    def recognises(self, probes: Probes) -> bool:
        return "version" in probes.at("/version") or probes.owned_by("vllm") or "vllm_config" in probes.at(SERVER_INFO)

    def version(self, probes: Probes) -> str | None:
        return str(probes.at("/version").get("version") or "") or None

    def sampling(self, probes: Probes) -> Json:
        """`--override-generation-config`, told in development mode; what the model's own file sets is told nowhere."""
        return obj(_config(probes.at(SERVER_INFO), "model_config").get("override_generation_config"))

    def options(self, probes: Probes) -> Json:
        found = _config(probes.at(SERVER_INFO), "structured_outputs_config")
        return {
            f"structured_outputs.{key}": found[key] for key in ("backend", "reasoning_parser") if plain(found.get(key))
        }

    def settings(self, probes: Probes) -> Iterator[Said]:
        yield from super().settings(probes)
        body = probes.at(SERVER_INFO)
        for part, known in CONFIG.items():
            yield from items("/server_info", known, _config(body, part))
        if devices := DEVICES.search(str(obj(body.get("system_env")).get("env_vars"))):
            yield Said("cuda_visible_devices", devices[1], "/server_info CUDA_VISIBLE_DEVICES")

    def settings_kept(self, body: Json) -> Json:
        parts: Json = {}
        for part in {*CONFIG, *TOLD}:
            names = (*CONFIG.get(part, {}), *TOLD.get(part, ()))
            found = _config(body, part)
            if kept := {
                k: found[k] for k in names if plain(found.get(k)) or (k in TOLD.get(part, ()) and obj(found.get(k)))
            }:
                parts[part] = kept
        kept_all: Json = {"vllm_config": parts} if parts else {}
        if devices := DEVICES.search(str(obj(body.get("system_env")).get("env_vars"))):
            kept_all["system_env"] = {"env_vars": devices[0]}
        return kept_all


def _config(body: Json, part: str) -> Json:
    return obj(obj(body.get("vllm_config")).get(part))


VLLM = _VLLM()
