"""llama.cpp's own server (the embedded default runs it); sources: /props and /v1/models."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gatebook.engines.engine import Engine, Json, Probes, Said, items, obj, whole_number

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "max_tokens", "ignore_eos")


class _LlamaCpp(Engine):
    name = "llama.cpp"
    paths = ("/props",)
    answers_any_name = True
    kv_cache = ("llamacpp:kv_cache_usage_ratio",)
    waiting = ("llamacpp:requests_deferred",)
    running = ("llamacpp:requests_processing",)
    refusals = re.compile(r"(image|audio|video) input is not supported|Failed to parse (messages|tools)")

    def recognises(self, probes: Probes) -> bool:
        return "default_generation_settings" in probes.at("/props") or probes.owned_by("llamacpp")

    def version(self, probes: Probes) -> str | None:
        return str(probes.at("/props").get("build_info") or "") or None

    def context_tokens(self, probes: Probes) -> int | None:
        return whole_number(obj(probes.card.get("meta")).get("n_ctx")) or super().context_tokens(probes)

    def sampling(self, probes: Probes) -> Json:
        told = obj(obj(probes.at("/props").get("default_generation_settings")).get("params"))
        return {name: told[name] for name in SAMPLING if name in told}

    def knows_tools(self, probes: Probes) -> bool | None:
        told = obj(probes.at("/props").get("chat_template_caps")).get("supports_tools")
        return told if isinstance(told, bool) else None

    def metadata(self, probes: Probes) -> Json:
        return obj(probes.card.get("meta"))

    def settings(self, probes: Probes) -> Iterator[Said]:
        yield from super().settings(probes)
        props = probes.at("/props")
        yield from items("/props", {"n_ctx": "max_model_len"}, obj(props.get("default_generation_settings")))
        yield from items("/props", {"total_slots": "max_num_seqs", "model_ftype": "dtype"}, props)


LLAMACPP = _LlamaCpp()
