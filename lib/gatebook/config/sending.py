"""What is sent to a target: the options of a request, the key and headers from the environment; and what a request may cost."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from gatebook.config.cases import Ask, Case
from gatebook.config.profile import Target
from gatebook.config.secrets import Scrubber, searched, sendable
from gatebook.errors import BadInput

BYTES_PER_TOKEN = 3.0
"""Of UTF-8: English has about 4 bytes a token, Chinese 3 to 6, so this is rather too much than too little."""

DEFAULT_CAP = 512
"""Answer tokens of a request that names no cap."""
CAPS = ("max_tokens", "max_completion_tokens")


def prompt_tokens(messages: list[dict[str, Any]], options: dict[str, Any]) -> float:
    """Estimate the prompt tokens of a request; schemas and tools cost tokens too."""
    text = json.dumps([messages, options], ensure_ascii=False, default=str)
    return len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN


def cap(options: dict[str, Any]) -> int:
    """The largest answer that a request allows; a default where it sets no whole number."""
    said = options.get("max_completion_tokens", options.get("max_tokens"))
    return said if isinstance(said, int) and not isinstance(said, bool) and said >= 0 else DEFAULT_CAP


def asked_hash(target: Target, case: Case) -> str:
    """The case's `prompt_hash`, with what the target's profile adds to its requests."""
    if not (more := target.asks_with):
        return case.prompt_hash
    return hashlib.sha256(json.dumps([case.prompt_hash, more], sort_keys=True).encode()).hexdigest()[:12]


def is_answer(case: Case, ask: Ask) -> bool:
    """Whether it asks for an answer, which a model that thinks gives after its thoughts; else for so many tokens, or a refusal."""
    one_token = any(ask.options.get(name) == 1 for name in CAPS)
    return not (case.raw or case.negative or case.samples or ask.finish == "length" or one_token)


def has_room(case: Case, ask: Ask) -> bool:
    """Whether a model that thinks is given tokens for it."""
    return is_answer(case, ask) and any(type(ask.options.get(name)) is int for name in CAPS)


def sent(target: Target, case: Case, ask: Ask) -> dict[str, Any]:
    """Return the options of a request as this target receives them."""
    options, room = under(target.request_options, ask.options), target.room if is_answer(case, ask) else 0
    return {name: value + room if name in CAPS and type(value) is int else value for name, value in options.items()}


def under(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` over `defaults`; mappings, such as chat_template_kwargs, key by key."""
    both = {k: under(v, own[k]) for k, v in defaults.items() if isinstance(v, dict) and isinstance(own.get(k), dict)}
    return {**defaults, **own, **both}


def api_key(target: Target) -> str | None:
    """The key from the variable that the profile names, else OPENAI_API_KEY. Raises BadInput when it is not set or no key."""
    name = target.api_key_env or "OPENAI_API_KEY"
    key = os.environ.get(name) if target.api_key_env or target.server == "external" else None
    if target.api_key_env and not key:
        raise BadInput(f"environment variable {name} (target.api_key_env) is not set; export the key in it")
    return sendable(key, name) if key else None


def extra_headers(target: Target) -> dict[str, str]:
    """The profile's headers with `env:NAME` values filled in. Raises BadInput when one is not set or cannot be sent."""
    found = dict(target.headers)
    for header, variable in _variables(target).items():
        if variable not in os.environ:
            raise BadInput(f"environment variable {variable} (target.headers.{header}) is not set; export it")
        found[header] = sendable(os.environ[variable], variable, blanks=True)
    return found


def _variables(target: Target) -> dict[str, str]:
    """Return header -> the variable that holds it."""
    return {name: value.removeprefix("env:") for name, value in target.headers.items() if value.startswith("env:")}


def secrets(target: Target) -> dict[str, str]:
    """Variable -> what it holds, of every secret that requests carry. Raises BadInput as `api_key` and `extra_headers` do."""
    key, headers = api_key(target), extra_headers(target)
    found = {target.api_key_env or "OPENAI_API_KEY": key} if key else {}
    return found | {variable: headers[name] for name, variable in _variables(target).items()}


def scrubber(*targets: Target) -> Scrubber:
    """Return what masks the secrets of these targets in everything that is written."""
    return Scrubber(value for target in targets for value in secrets(target).values())


def untelling(target: Target) -> str | None:
    """Name in one line the variables whose secrets are too common to search for in replies; None without any."""
    names = [name for name, value in secrets(target).items() if not searched(value)]
    if not names:
        return None
    return f"{' and '.join(names)}: a short or common word as key; it is sent, and replies are not searched for it"
