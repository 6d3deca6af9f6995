"""vLLM. Tried on 0.32.0 (CPU); sources: its replies, /metrics and, in development mode, /server_info."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gatebook.config.policies import Item
from gatebook.engines.engine import Engine, Json, Probes, Request, Said, Score, items, obj, plain

SERVER_INFO = "/server_info?config_format=json"
CONFIG: Mapping[str, Mapping[str, Item]] = {
    "model_config": {"max_model_len": "max_model_len", "dtype": "dtype"},
    "scheduler_config": {"max_num_batched_tokens": "max_num_batched_tokens", "max_num_seqs": "max_num_seqs"},
    "cache_config": {"cache_dtype": "kv_cache_dtype", "enable_prefix_caching": "prefix_caching"},
}
OVERRIDE, OUTPUTS = "override_generation_config", "structured_outputs_config"
TOLD = {"model_config": (OVERRIDE,), OUTPUTS: ("backend", "reasoning_parser")}
"""Further settings of /server_info that say what is served."""
CACHE_CONFIG = "vllm:cache_config_info"
CACHE_LABELS: Mapping[str, Item] = CONFIG["cache_config"]
DEVICES = re.compile(r"^CUDA_VISIBLE_DEVICES=(.*)$", re.MULTILINE)


class VLLM(Engine):
    name = "vllm"
    paths = ("/version",)
    settings_paths = (SERVER_INFO,)
    owner = "vllm"
    signs = (("/version", "version"), (SERVER_INFO, "vllm_config"))
    versions = (("/version", "version"),)
    keeps_connections = True
    answers_any_name = False
    takes_memory_at_start = True
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

    def rendering(self, messages: list[Json]) -> Request:
        return "/tokenize", {"messages": messages, "add_generation_prompt": True}

    def scoring(self, messages: list[Json], prompt: list[int], answer: list[int]) -> Request:
        return "completions", {"prompt": prompt + answer, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}

    def scores(self, reply: Json) -> list[Score]:
        places = reply["choices"][0]["prompt_logprobs"][1:]  # nothing stands before the first
        return [(int(token), float(told["logprob"])) for place in places for token, told in list(place.items())[:1]]

    def sampling(self, probes: Probes) -> Json:
        """`--override-generation-config`, told in development mode; what the model's own file sets is told nowhere."""
        return probes.at(SERVER_INFO, "vllm_config", "model_config", OVERRIDE)

    def options(self, probes: Probes) -> Json:
        found = probes.at(SERVER_INFO, "vllm_config", OUTPUTS)
        return {f"structured_outputs.{key}": found[key] for key in TOLD[OUTPUTS] if plain(found.get(key))}

    def settings(self, probes: Probes) -> Iterator[Said]:
        yield from super().settings(probes)
        for part, known in CONFIG.items():
            yield from items("/server_info", known, probes.at(SERVER_INFO, "vllm_config", part))
        if devices := _devices(probes.at(SERVER_INFO)):
            yield Said("cuda_visible_devices", devices[1], "/server_info CUDA_VISIBLE_DEVICES")

    def settings_kept(self, body: Json) -> Json:
        parts: Json = {}
        for part in {**CONFIG, **TOLD}:
            found, told = obj(body, "vllm_config", part), TOLD.get(part, ())
            values = {key: found.get(key) for key in (*CONFIG.get(part, ()), *told)}
            if kept := {k: v for k, v in values.items() if plain(v) or (k in told and obj(v))}:
                parts[part] = kept
        devices = _devices(body)
        environment = {"system_env": {"env_vars": devices[0]}} if devices else {}
        return {**({"vllm_config": parts} if parts else {}), **environment}


def _devices(body: Json) -> re.Match[str] | None:
    return DEVICES.search(str(obj(body, "system_env").get("env_vars")))
