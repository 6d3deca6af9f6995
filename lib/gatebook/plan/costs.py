"""What a request is about to cost, before anyone has counted its tokens."""

from __future__ import annotations

import json
from typing import Any

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
