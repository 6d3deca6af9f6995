"""What of a case is sent to a target, and what it may cost."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from gatebook.config.cases import Ask, Case
from gatebook.config.options import under
from gatebook.config.profile import Target

BYTES_PER_TOKEN = 3.0
"""Of UTF-8: English has about 4 bytes a token, Chinese 3 to 6, so this is rather too much than too little."""


DEFAULT_CAP = 512
"""Answer tokens of a request that names no cap."""


def prompt_tokens(messages: list[dict[str, Any]], options: dict[str, Any]) -> float:
    """An estimate of what the request is read as; schemas and tools cost tokens too."""
    text = json.dumps([messages, options], ensure_ascii=False, default=str)
    return len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN


def cap(options: dict[str, Any]) -> int:
    """The largest answer that a request allows; a default where it sets no whole number."""
    said = options.get("max_completion_tokens", options.get("max_tokens"))
    return said if isinstance(said, int) and not isinstance(said, bool) and said >= 0 else DEFAULT_CAP


CAPS = ("max_tokens", "max_completion_tokens")


def asked_hash(target: Target, case: Case) -> str:
    """The case's `prompt_hash`, with what the target's profile adds to its requests."""
    if not (more := target.asks_with):
        return case.prompt_hash
    return hashlib.sha256(json.dumps([case.prompt_hash, more], sort_keys=True).encode()).hexdigest()[:12]


def is_answer(case: Case, ask: Ask) -> bool:
    """Whether it asks for an answer, which a model that thinks gives after its thoughts; else for so many tokens, or a refusal."""
    one_token = any(ask.options.get(name) == 1 for name in CAPS)
    return not (case.raw or case.negative or case.samples or ask.finish == "length" or one_token)


def sent(target: Target, case: Case, ask: Ask) -> dict[str, Any]:
    """The options of a request as this target gets them."""
    options, room = under(target.request_options, ask.options), target.room if is_answer(case, ask) else 0
    return {name: value + room if name in CAPS and type(value) is int else value for name, value in options.items()}
