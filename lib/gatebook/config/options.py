"""`target.request`: options that a profile puts under every request, as the OpenAI client would send them."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any

EXTRA = "extra_body"
"""Its fields go into the body, as the client does it."""
OWNED = {
    **dict.fromkeys(("model",), "write target.model"),
    **dict.fromkeys(("messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "stop"), "cases set it"),
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "cases set it, and target.thinking_tokens adds room for thoughts"),
    **dict.fromkeys(("stream", "stream_options", "user", "n", "seed", "logprobs", "top_logprobs"), "Gatebook sets it"),
    **dict.fromkeys(("extra_headers", "extra_query", "timeout"), "it is no field of a request; headers are target.headers"),
}  # fmt: skip
"""What no profile may say of a request -> who says it."""
KNOWN = (
    "temperature", "top_p", "top_k", "min_p", "typical_p", "logit_bias", "bad_words", "min_tokens", "skip_special_tokens",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "length_penalty", "repeat_penalty", "repeat_last_n",
    "reasoning_effort", "chat_template_kwargs", "thinking_token_budget", "include_reasoning", "reasoning_format",
    "priority", "service_tier", "metadata", "safety_identifier", "prompt_cache_key", "verbosity", EXTRA,
)  # fmt: skip
"""Options of the API and of its engines that a misspelt one is told by."""
NEARLY = 0.85


def request_options(said: dict[str, Any]) -> dict[str, Any]:
    """The fields that go into every body. Raises ValueError, with what to do."""
    more = said.get(EXTRA, {})
    if not isinstance(more, dict):
        raise ValueError(f"{EXTRA} is a mapping of fields of the request; write it so")
    options = {name: value for name, value in said.items() if name != EXTRA}
    if twice := sorted(options.keys() & more.keys()):
        raise ValueError(f"{twice[0]!r} stands beside {EXTRA} and in it; say it once")
    options |= more
    for name, value in options.items():
        near = [] if name in KNOWN else get_close_matches(name, KNOWN, 1, NEARLY)
        if name in OWNED:
            raise ValueError(f"{name!r} cannot be set here ({OWNED[name]}); delete it")
        if near:
            raise ValueError(f"no engine knows {name!r}; did you mean {near[0]!r}?")
        if value is None:
            raise ValueError(f"{name!r} has no value; say one, or delete it")
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"it holds what JSON cannot carry ({error}); quote it or correct it") from None
    return options


def under(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` over `defaults`; mappings, such as chat_template_kwargs, key by key."""
    both = {k: under(v, own[k]) for k, v in defaults.items() if isinstance(v, dict) and isinstance(own.get(k), dict)}
    return {**defaults, **own, **both}
