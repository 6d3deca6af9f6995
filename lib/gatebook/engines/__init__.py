"""Inference servers and the gateways before them: one file an engine, one shape (`engine.Engine`).

A new engine is one new file here, a line in `ENGINES`, and its recorded replies in tests/unit/engines/. An engine that is
not known, or hidden behind a gateway, is `GENERIC`: it is gated by what it does.
"""

from __future__ import annotations

import re

from gatebook.engines.engine import Engine, Probes, Said, Value
from gatebook.engines.generic import GENERIC
from gatebook.engines.litellm import LITELLM
from gatebook.engines.llamacpp import LLAMACPP
from gatebook.engines.llamacpp_python import LLAMACPP_PYTHON
from gatebook.engines.sglang import SGLANG
from gatebook.engines.transformers import TRANSFORMERS
from gatebook.engines.vllm import VLLM

__all__ = [
    "ENGINES",
    "GENERIC",
    "HOST_PATHS",
    "REFUSALS",
    "SETTINGS_PATHS",
    "Engine",
    "Probes",
    "Said",
    "Value",
    "by_name",
    "credentials_refused",
    "names",
    "recognise",
    "refused",
    "settings_kept",
]

ENGINES: tuple[Engine, ...] = (SGLANG, LLAMACPP, VLLM, LITELLM, LLAMACPP_PYTHON, TRANSFORMERS)
"""In the order in which they are tried: SGLang may answer /version as vLLM does."""
HOST_PATHS = tuple(dict.fromkeys(path for engine in ENGINES for path in engine.paths))
"""GETs on the host by which an engine is known."""
SETTINGS_PATHS = tuple(dict.fromkeys(path for engine in ENGINES for path in engine.settings_paths))
REFUSALS = frozenset({400, 404, 413, 415, 422})
"""A clean 4xx: the server, or the gateway before it, understood and said no."""
REFUSED_KEY = frozenset({401, 403, 407})


def recognise(probes: Probes) -> Engine:
    """The engine that answered; GENERIC when none of the known ones did."""
    return next((engine for engine in ENGINES if engine.recognises(probes)), GENERIC)


def by_name(name: str) -> Engine:
    """The engine of a recorded identity; GENERIC for a name that is not known."""
    return next((engine for engine in ENGINES if engine.name == name), GENERIC)


def refused(status: int | None, detail: str) -> bool:
    """Whether a server said "cannot": a clean 4xx, or words that some engine is known to use with another status.

    The words count whoever sends them: a gateway passes them on under its own name.
    """
    return status in REFUSALS or any(_says(engine.refusals, detail) for engine in ENGINES)


def credentials_refused(status: int | None, detail: str) -> bool:
    """Whether the key was refused, in any dress."""
    return status in REFUSED_KEY or any(_says(engine.credentials, detail) for engine in ENGINES)


def names(prefix: str) -> tuple[str, ...]:
    """The metric names of all engines under one attribute, such as `waiting`."""
    return tuple(dict.fromkeys(name for engine in ENGINES for name in getattr(engine, prefix)))


def settings_kept(body: dict[str, object]) -> dict[str, object]:
    """Of a server's description of itself, the settings that are compared; nothing else is recorded.

    SGLang tells all of its arguments there, keys among them; vLLM its environment.
    """
    kept: dict[str, object] = {}
    for engine in ENGINES:
        kept |= engine.settings_kept(body)
    return kept


def _says(pattern: re.Pattern[str] | None, detail: str) -> bool:
    return pattern is not None and pattern.search(detail) is not None
