"""What a server may or may not offer: asked once by `gatebook init`, written into the profile, and held to from then on."""

from __future__ import annotations

from typing import Literal

Feature = Literal[
    "tools",
    "tools_accepted",
    "tool_choice",
    "parallel_tools",
    "json_schema",
    "json_object",
    "logprobs",
    "n",
    "stop",
    "seed",
    "default_sampling",
    "stream_usage",
    "stream_done",
    "text_parts",
    "tool_history",
    "second_system",
    "max_completion_tokens",
    "refuses_media",
    "refuses_malformed",
    "refuses_parameters",
    "lists_models",
]
"""Parts of the chat API that real servers leave out, refuse or ignore.

`tools` with `tool_choice: auto` or left out, read by the model; `tools_accepted` not refused, whatever becomes of them; `tool_choice` with a named function, `parallel_tools` two calls in one reply; `n`
several choices; `default_sampling`: without parameters answers are drawn, not greedy; `stream_usage` a usage chunk where
`include_usage` asks for it; `stream_done` a last `[DONE]`; `text_parts` content as a list of texts; `tool_history` earlier
`tool_calls` and `tool` messages; `refuses_*`: an image, a malformed body, a parameter out of range gets a clean 4xx.
"""

Offer = Literal[True] | str
"""True, or in words what the server did when it was asked for it."""
