"""Who answers: engine, version, served models and context limit, read from the recorded probes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from gatebook.record.answer import parse
from gatebook.record.exchange import Exchange
from gatebook.record.served import Said, said

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "max_tokens", "ignore_eos")
EngineName = Literal["vllm", "sglang", "llama.cpp", "unknown"]


@dataclass(frozen=True)
class Identity:
    """What the server says of itself; None and empty where it says nothing."""

    engine: EngineName = "unknown"
    version: str | None = None
    models: tuple[str, ...] = ()
    context_tokens: int | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    """Default sampling parameters, where the engine tells them."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What /v1/models says of the served model, times and permissions left out."""
    tools: bool | None = None
    """Whether the chat template knows tools, where the engine tells it (llama.cpp)."""
    health: int | None = None
    """Status of /health. 200 is not evidence that anything is generated."""
    settings: tuple[Said, ...] = ()
    """How it was started, where it tells it."""


def probe(exchanges: Iterable[Exchange], path: str) -> Any:
    """The JSON body of the last good GET of `path`, or None."""
    found = [e.text for e in exchanges if e.kind == "probe" and e.path == path and e.status == 200 and e.text]
    return parse(found[-1]) if found else None


def identify(exchanges: list[Exchange], model: str) -> Identity:
    """Tell the engine apart: vLLM has /version, SGLang /get_model_info, llama.cpp /props (FAULTS.md §5)."""
    version, sglang, props = (_dict(probe(exchanges, path)) for path in ("/version", "/get_model_info", "/props"))
    listed = _dict(probe(exchanges, "models")).get("data")
    cards = [card for card in listed if isinstance(card, dict)] if isinstance(listed, list) else []
    card = next((c for c in cards if c.get("id") == model), {})
    meta = _dict(card.get("meta"))
    engine: EngineName = "unknown"
    if "model_path" in sglang:
        engine = "sglang"
    elif "default_generation_settings" in props:
        engine = "llama.cpp"
    elif "version" in version:
        engine = "vllm"
    told = _dict(_dict(props.get("default_generation_settings")).get("params"))
    sampling: dict[str, Any] = {name: told[name] for name in SAMPLING if name in told}
    health = [e.status for e in exchanges if e.kind == "probe" and e.path == "/health"]
    context = card.get("max_model_len") or meta.get("n_ctx")
    return Identity(
        engine=engine,
        version=str(version.get("version") or props.get("build_info") or sglang.get("version") or "") or None,
        models=tuple(str(c["id"]) for c in cards if "id" in c),
        context_tokens=context if isinstance(context, int) and not isinstance(context, bool) else None,
        sampling=sampling or _dict(sglang.get("preferred_sampling_params")),
        metadata={**{k: card[k] for k in ("root", "parent", "owned_by") if card.get(k)}, **meta},
        tools=tools
        if isinstance(tools := _dict(props.get("chat_template_caps")).get("supports_tools"), bool)
        else None,
        health=health[-1] if health else None,
        settings=said(exchanges, card, props),
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
