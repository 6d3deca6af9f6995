"""The production block against what engines say of themselves, in the shape of their own documentation; none ran here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gatebook.checks.service import compare, same
from gatebook.collect.gauges import parsed
from gatebook.config.policies import ITEMS, Production
from gatebook.config.profile import profile_from
from gatebook.errors import BadInput
from gatebook.record.exchange import Exchange
from gatebook.record.identity import Identity, identify, kept

from tests.unit.replies import MODEL, probe
from tests.unit.traces import DCGM, VLLM, card

CARD: dict[str, Any] = {"data": [{"id": MODEL, "max_model_len": 32768}]}
SGLANG_INFO = {
    "model_path": "m", "api_key": "sk-secret-1", "admin_api_key": "sk-secret-2", "context_length": 32768,
    "chunked_prefill_size": 4096, "max_running_requests": 8, "dtype": "bfloat16", "kv_cache_dtype": "auto",
    "disable_radix_cache": False, "version": "0.5.3", "internal_states": [{"waiting_queue_size": 0}],
}  # fmt: skip
"""The keys of SGLang's ServerArgs and of its /get_server_info (srt/entrypoints/http_server.py)."""
VLLM_INFO = {
    "vllm_config": {
        "model_config": {"max_model_len": 32768, "dtype": "torch.bfloat16", "hf_token": "hf_secret3"},
        "scheduler_config": {"max_num_batched_tokens": 4096, "max_num_seqs": 8},
        "cache_config": {"cache_dtype": "auto", "enable_prefix_caching": True},
    },
    "vllm_env": {"VLLM_API_KEY": "sk-secret-4"},
    "system_env": {"env_vars": "CUDA_VISIBLE_DEVICES=0\nNVIDIA_TOKEN=secret5"},
}
"""vLLM's /server_info?config_format=json (entrypoints/serve/instrumentator/server_info.py), in its development mode."""
PROPS = {"default_generation_settings": {"n_ctx": 8192, "params": {}}, "total_slots": 2, "model_ftype": "Q4_1"}
WANTED = Production(
    max_model_len=32768, max_num_batched_tokens=4096, max_num_seqs=8, prefix_caching=True, dtype="bfloat16",
    kv_cache_dtype="auto", cuda_visible_devices="0", gpu="RTX 4090 D", gpu_memory_gb=24,
)  # fmt: skip


def said_by(*exchanges: Exchange) -> Identity:
    return identify(list(exchanges), MODEL)


def outcomes(identity: Identity, production: Production = WANTED, rows: Any = ()) -> dict[str, str]:
    return {row.item: row.outcome for row in compare(production, identity, rows)}


def recorded(path: str, info: dict[str, Any]) -> Exchange:
    return probe(path, json.loads(kept(json.dumps(info))))


def test_vllm_in_development_mode_tells_all_of_its_settings() -> None:
    identity = said_by(probe("models", CARD), recorded("/server_info?config_format=json", VLLM_INFO))
    found = outcomes(identity, rows=[*card(20.0), *parsed(VLLM, 1.0)])
    assert found == dict.fromkeys(ITEMS, "pass")


def test_vllm_as_it_ships_leaves_four_unknown() -> None:
    found = outcomes(said_by(probe("models", CARD)), rows=parsed(VLLM, 1.0) + parsed(DCGM, 1.0))
    unknown = {item for item, outcome in found.items() if outcome == "not_measured"}
    assert unknown == {"max_num_batched_tokens", "max_num_seqs", "dtype", "cuda_visible_devices"}
    assert set(found.values()) == {"pass", "not_measured"}


def test_sglang() -> None:
    identity = said_by(probe("models", CARD), recorded("/get_server_info", SGLANG_INFO))
    found = outcomes(identity)
    assert [item for item, outcome in found.items() if outcome != "pass"] == ["gpu", "gpu_memory_gb", "cuda_visible_devices"]  # fmt: skip


def test_llama_cpp() -> None:
    wanted = Production(max_model_len=8192, max_num_seqs=4, dtype="q4_1")
    rows = {row.item: row for row in compare(wanted, said_by(probe("/props", PROPS)), [])}
    assert (rows["max_model_len"].outcome, rows["dtype"].outcome) == ("pass", "pass")
    assert rows["max_num_seqs"].outcome == "fail"
    assert "max_num_seqs is 2 by /props total_slots, and production has 4" in rows["max_num_seqs"].reason


def test_one_source_that_differs_is_enough() -> None:
    other = {"vllm_config": {"model_config": {"max_model_len": 16384}}}
    identity = said_by(probe("models", CARD), recorded("/server_info?config_format=json", other))
    row = compare(WANTED, identity, [])[0]
    assert row.outcome == "fail" and "16384 by /server_info" in row.reason


def test_what_is_not_stated_or_not_told_says_so() -> None:
    rows = compare(Production(max_num_seqs=8), said_by(probe("models", CARD)), [])
    stated = {row.item: row.reason for row in rows}
    assert "does not state production.max_model_len (the server says 32768" in stated["max_model_len"]
    assert "unknown: production has max_num_seqs 8" in stated["max_num_seqs"]
    assert {row.outcome for row in rows} == {"not_measured"}


@pytest.mark.parametrize("info", [SGLANG_INFO, VLLM_INFO])
def test_only_settings_are_recorded_and_no_secret(info: dict[str, Any]) -> None:
    assert "secret" not in kept(json.dumps(info))


@pytest.mark.parametrize(
    "text", ["", "<html>", "[]", "null", '{"vllm_config": "VllmConfig(...)"}', '{"system_env": 3}']
)
def test_anything_may_stand_there(text: str) -> None:
    assert outcomes(said_by(probe("/get_server_info", text), probe("models", {"data": 3})))["dtype"] == "not_measured"
    assert kept(text) in ("", "{}")


@pytest.mark.parametrize(
    ("item", "wanted", "value", "equal"),
    [
        ("gpu", "RTX 4090D", "NVIDIA GeForce RTX 4090 D", True),
        ("gpu", "RTX 4090", "NVIDIA GeForce RTX 4090 D", False),
        ("gpu_memory_gb", 24.0, 22.49, True),
        ("gpu_memory_gb", 24.0, 20.0, False),
        ("dtype", "bf16", "torch.bfloat16", True),
        ("dtype", "bfloat16", "float16", False),
        ("kv_cache_dtype", "fp8", "auto", False),
        ("prefix_caching", True, False, False),
        ("prefix_caching", True, 1, False),
        ("cuda_visible_devices", "0,1", "0, 1", True),
        ("max_model_len", 32768, 32767, False),
    ],
)
def test_the_same_in_other_words(item: Any, wanted: Any, value: Any, equal: bool) -> None:
    assert same(item, wanted, value) is equal


@pytest.mark.parametrize(
    ("block", "named"),
    [
        ({"gpu_memory": 24}, "production.gpu_memory"),
        ({"kv_cache_usage_limit": 95}, "production.kv_cache_usage_limit"),
        ({"gpu_metrics_url": "gpu-box:9400"}, "production.gpu_metrics_url"),
        ({"nvml": "sometimes"}, "production.nvml"),
    ],
)
def test_a_wrong_block_is_bad_input(block: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        profile_from({"target": {"model": "m"}, "groups": {}, "production": block}, "p.yaml", "p")
