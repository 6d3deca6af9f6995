"""llama.cpp's own server (the embedded default runs it); sources: /props and /v1/models."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gatebook.engines.engine import Engine, Json, Probes, Request, Said, Score, items, obj, whole_number

PROPS, DEFAULTS = "/props", "default_generation_settings"
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "max_tokens", "ignore_eos")


class LlamaCpp(Engine):
    name = "llama.cpp"
    paths = (PROPS,)
    owner = "llamacpp"
    signs = ((PROPS, DEFAULTS),)
    versions = ((PROPS, "build_info"),)
    answers_any_name = True
    kv_cache = ("llamacpp:kv_cache_usage_ratio",)
    waiting = ("llamacpp:requests_deferred",)
    running = ("llamacpp:requests_processing",)
    whole_prompt = {"cache_prompt": False}
    """A cached beginning moves a first token by up to 0.24 nats, and each server has cached another (docs/decisions/fingerprint-tolerance.md)."""
    refusals = re.compile(r"(image|audio|video) input is not supported|Failed to parse (messages|tools)")

    def scoring(self, messages: list[Json], prompt: list[int], answer: list[int]) -> Request:
        """Generate the answer under a grammar that allows no other, since prompt tokens have no log probabilities here; those
        returned are from before the grammar. Fails where a token is a part of a character."""
        grammar = "root ::= " + " ".join(f"<[{token}]>" for token in answer)
        how = {"temperature": 0, "max_tokens": len(answer), "logprobs": True, "top_logprobs": 1}
        return "chat/completions", {"messages": messages, "grammar": grammar, **how, **self.whole_prompt}

    def scores(self, reply: Json) -> list[Score]:
        return [(int(e["id"]), float(e["logprob"])) for e in reply["choices"][0]["logprobs"]["content"]]

    def context_tokens(self, probes: Probes) -> int | None:
        return whole_number(self.metadata(probes).get("n_ctx")) or super().context_tokens(probes)

    def sampling(self, probes: Probes) -> Json:
        told = probes.at(PROPS, DEFAULTS, "params")
        return {name: told[name] for name in SAMPLING if name in told}

    def knows_tools(self, probes: Probes) -> bool | None:
        told = probes.at(PROPS, "chat_template_caps").get("supports_tools")
        return told if isinstance(told, bool) else None

    def metadata(self, probes: Probes) -> Json:
        return obj(probes.card, "meta")

    def settings(self, probes: Probes) -> Iterator[Said]:
        yield from super().settings(probes)
        yield from items(PROPS, {"n_ctx": "max_model_len"}, probes.at(PROPS, DEFAULTS))
        yield from items(PROPS, {"total_slots": "max_num_seqs", "model_ftype": "dtype"}, probes.at(PROPS))
