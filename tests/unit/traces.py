"""Gauges written by hand in the shape that was recorded elsewhere; every row says `source: trace`, no GPU was here.

The Prometheus texts follow vLLM's docs/design/metrics.md and engine/metrics.py (v0.11), SGLang's srt/metrics/collector.py,
llama.cpp's tools/server/README.md and NVIDIA's dcgm-exporter (etc/default-counters.csv); none was recorded from a live GPU.
"""

from __future__ import annotations

from gatebook.record.gauges import TOTAL, USED, Gauge

from tests.unit.replies import ASKED

START_MS = ASKED.timestamp() * 1000
VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-4B-Instruct-2507"} 8.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-4B-Instruct-2507"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-4B-Instruct-2507"} 0.9732
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="Qwen/Qwen3-4B-Instruct-2507"} 4.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",engine="0",gpu_memory_utilization="0.9",num_gpu_blocks="5480"} 1.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="Qwen/Qwen3-4B-Instruct-2507"} 0.0
"""
SGLANG = """\
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0"} 4.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0"} 1.0
sglang:token_usage{engine_type="unified",model_name="m",tp_rank="0"} 0.41
sglang:num_retracted_reqs{engine_type="unified",model_name="m",tp_rank="0"} 2.0
"""
LLAMA = """\
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 1
"""
DCGM = """\
# TYPE DCGM_FI_DEV_FB_FREE gauge
DCGM_FI_DEV_FB_FREE{gpu="0",UUID="GPU-aa",pci_bus_id="00000000:01:00.0",modelName="NVIDIA GeForce RTX 4090 D",Hostname="box"} 1564
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-aa",pci_bus_id="00000000:01:00.0",modelName="NVIDIA GeForce RTX 4090 D",Hostname="box"} 23000
"""


def row(name: str, value: float | None, after_s: float = 0.0, /, **labels: str) -> Gauge:
    return Gauge(ms=START_MS + after_s * 1000, source="trace", name=name, labels=labels, value=value)


def card(*used_gib: float, gpu: str = "0", every_s: float = 0.1) -> list[Gauge]:
    """A 24 GB card that holds so much, reading after reading."""
    head = row(TOTAL, 24564.0, gpu=gpu, uuid=f"GPU-{gpu}", name="NVIDIA GeForce RTX 4090 D", driver="575.57")
    return [head, *(row(USED, gib * 1024, n * every_s, gpu=gpu) for n, gib in enumerate(used_gib))]
