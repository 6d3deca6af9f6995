"""The profile's `production:` block: what production runs on and how it is started, and how full it may get under load."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from gatebook.plan.strict import Strict

Item = Literal[
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "prefix_caching",
    "dtype",
    "kv_cache_dtype",
    "gpu",
    "gpu_memory_gb",
    "cuda_visible_devices",
]
ITEMS: tuple[Item, ...] = get_args(Item)
"""What is compared with what the server says of itself, named as vLLM names its settings."""


class Production(Strict):
    """How production is started. What is not stated here is not compared, and its case says so."""

    gpu: str | None = None
    """The card's name as NVML tells it; `NVIDIA`, `GeForce`, spaces and case make no difference."""
    gpu_memory_gb: float | None = Field(default=None, gt=0)
    """Of one card, in GiB, as vendors count it; 8 % less is the same card (error correction takes 6 %)."""
    gpu_memory_limit_gb: float | None = Field(default=None, gt=0)
    """The most that a card may hold at the peak, in GiB."""
    gpu_metrics_url: str | None = None
    """Prometheus endpoint of a DCGM exporter on the server's machine, for a runner that does not see the GPU."""
    nvml: Literal["auto", "always", "never"] = "auto"
    """Whether this machine's GPUs are the server's. `auto`: when the base URL names this machine; a tunnel needs `never`, a container `always`."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens of context; llama.cpp's `n_ctx` of a slot."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one forward step; SGLang's `chunked_prefill_size`."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Requests at a time; SGLang's `max_running_requests`, llama.cpp's slots."""
    prefix_caching: bool | None = None
    dtype: str | None = None
    """Of the weights, such as bfloat16; llama.cpp's file type, such as Q4_1."""
    kv_cache_dtype: str | None = None
    cuda_visible_devices: str | None = None
    """As the server's environment has it: indices or UUIDs; also which of a machine's GPUs are looked at."""
    kv_cache_usage_limit: float | None = Field(default=None, gt=0, le=1)
    """The largest share of the KV cache that may be in use under load."""
    queue_limit: int | None = Field(default=None, ge=0)
    """Requests that may wait inside the server at a time."""
    preemptions_limit: int | None = Field(default=None, ge=0)
    """Requests that may be preempted (vLLM) or retracted (SGLang) in one load."""

    @field_validator("gpu_metrics_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must be a URL such as http://gpu-box:9400/metrics")
        return value
