"""Inference servers and the gateways before them: one shape (`engine.Engine`), one file an engine.

A new engine is one new file here, a line in `ENGINES`, and its recorded replies in tests/unit/engines/. An engine that is
not known, or hidden behind a gateway, is `GENERIC`: it is gated by what it does.
"""

from __future__ import annotations

import re

from gatebook.engines.engine import Engine, Json, Probes, Said, Value
from gatebook.engines.litellm import LiteLLM
from gatebook.engines.llamacpp import LlamaCpp
from gatebook.engines.llamacpp_python import LlamaCppPython
from gatebook.engines.sglang import SGLang
from gatebook.engines.transformers import Transformers
from gatebook.engines.vllm import VLLM

__all__ = ["ENGINES", "GENERIC", "Engine", "Probes", "Said", "Value", "by_name", "recognise", "refused"]

GENERIC = Engine()
ENGINES: tuple[Engine, ...] = (SGLang(), LlamaCpp(), VLLM(), LiteLLM(), LlamaCppPython(), Transformers())
"""In the order in which they are tried: SGLang may answer /version as vLLM does."""
REFUSALS = frozenset({400, 404, 413, 415, 422})
"""A clean 4xx: the server, or the gateway before it, understood and said no."""
REFUSED_KEY = frozenset({401, 403, 407})


def names(attribute: str) -> tuple[str, ...]:
    """The union of an attribute over all engines: paths, or names of metrics such as `waiting`."""
    return tuple(dict.fromkeys(name for engine in ENGINES for name in getattr(engine, attribute)))


HOST_PATHS = names("paths")
"""GETs on the host by which an engine is known."""
SETTINGS_PATHS = names("settings_paths")


def recognise(probes: Probes) -> Engine:
    """The engine that answered; GENERIC when none of the known ones did."""
    return next((engine for engine in ENGINES if engine.recognises(probes)), GENERIC)


def by_name(name: str) -> Engine:
    """The engine of a recorded identity; GENERIC for a name that is not known."""
    return next((engine for engine in ENGINES if engine.name == name), GENERIC)


def refused(status: int | None, detail: str) -> bool:
    """Whether a server said "cannot": a clean 4xx, or words that some engine uses with another status. Gateways pass them on."""
    return status in REFUSALS or _anyone_says("refusals", detail)


def credentials_refused(status: int | None, detail: str) -> bool:
    """Whether the key was refused, by its status or in any engine's words."""
    return status in REFUSED_KEY or _anyone_says("credentials", detail)


def _anyone_says(attribute: str, detail: str) -> bool:
    patterns: list[re.Pattern[str] | None] = [getattr(engine, attribute) for engine in ENGINES]
    return any(pattern.search(detail) for pattern in patterns if pattern)


def settings_kept(body: Json) -> Json:
    """The settings that are compared, from a server's description of itself; nothing else is recorded: SGLang's holds all of
    its arguments, keys among them, and vLLM's its environment."""
    return {key: value for engine in ENGINES for key, value in engine.settings_kept(body).items()}
