"""SGLang. By its source (0.5.23): it was not run here, its wheel wants CUDA. sglang-router passes its worker's /get_model_info."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gatebook.config.policies import Item
from gatebook.engines.engine import Engine, Json, Probes, Request, Said, Score, items, plain

ARGUMENTS: Mapping[str, Item] = {
    "context_length": "max_model_len",
    "chunked_prefill_size": "max_num_batched_tokens",
    "max_running_requests": "max_num_seqs",
    "dtype": "dtype",
    "kv_cache_dtype": "kv_cache_dtype",
}
RETRACTED_NOW = "sglang:num_retracted_reqs"
"""A gauge of the last batch, in versions without the counter."""
MODEL_PATHS = ("/model_info", "/get_model_info")
"""The second is to go."""
SERVER_PATHS = ("/server_info?config_format=json", "/get_server_info")
"""The first by the name under which vLLM has it too."""


class SGLang(Engine):
    name = "sglang"
    paths = MODEL_PATHS
    settings_paths = SERVER_PATHS
    owner = "sglang"
    signs = (
        *((path, "model_path") for path in MODEL_PATHS),
        *((path, "max_running_requests") for path in SERVER_PATHS),
    )
    versions = tuple((path, "version") for path in ("/version", *MODEL_PATHS, *SERVER_PATHS))
    keeps_connections = True
    answers_any_name = True
    takes_memory_at_start = True
    kv_cache = ("sglang:token_usage",)
    waiting = ("sglang:num_queue_reqs",)
    gauges_settle_s = 31.0  # an idle one wrote them anew every 30 s only (sglang PR 26495, mended by PR 31517)
    running = ("sglang:num_running_reqs",)
    preempted = ("sglang:num_retracted_requests_total",)
    ttft_histograms = ("sglang:time_to_first_token_seconds",)
    itl_histograms = ("sglang:inter_token_latency_seconds",)
    total_histograms = ("sglang:e2e_request_latency_seconds",)

    def rendering(self, messages: list[Json]) -> Request:
        """Its /tokenize takes no messages; a chat of one token returns those of its prompt."""
        how = {"max_tokens": 1, "temperature": 0, "return_prompt_token_ids": True}
        return "chat/completions", {"messages": messages, **how}

    def scoring(self, messages: list[Json], prompt: list[int], answer: list[int]) -> Request:
        how = {"return_logprob": True, "logprob_start_len": len(prompt) - 1}
        sampling = {"max_new_tokens": 1, "temperature": 0}
        return "/generate", {"input_ids": prompt + answer, "sampling_params": sampling, **how}

    def scores(self, reply: Json) -> list[Score]:
        told = reply["meta_info"]["input_token_logprobs"][1:]  # [log probability, id, text]; null where it begins
        return [(int(place[1]), float(place[0])) for place in told]

    def sampling(self, probes: Probes) -> Json:
        told = (probes.at(path, "preferred_sampling_params") for path in MODEL_PATHS)
        return next(filter(None, told), {})

    def settings(self, probes: Probes) -> Iterator[Said]:
        yield from super().settings(probes)
        for path in SERVER_PATHS:
            body, source = probes.at(path), path.partition("?")[0]
            yield from items(source, ARGUMENTS, body)
            if isinstance(body.get("disable_radix_cache"), bool):
                yield Said("prefix_caching", not body["disable_radix_cache"], f"{source} disable_radix_cache")

    def settings_kept(self, body: Json) -> Json:
        return {k: body[k] for k in (*ARGUMENTS, "disable_radix_cache", "version") if plain(body.get(k))}
