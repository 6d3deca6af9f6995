"""Servers that differ little from the default: LiteLLM (1.108.7), llama-cpp-python (0.3.36), `transformers serve` (5.19)."""

from __future__ import annotations

import re

from gatebook.engines.engine import Engine, Probes


class LiteLLM(Engine):
    """A gateway that answers under its own names and words."""

    name = "litellm"
    answers_any_name = False
    refusals = re.compile(
        r"litellm\.\w*(BadRequest|UnsupportedParams|NotFound|InternalServer)Error: .*(not supported|requires|does not|must be|invalid|400)",
        re.IGNORECASE | re.DOTALL,
    )
    credentials = re.compile(r"No connected db|No api key passed in|Authentication Error", re.IGNORECASE)

    def recognises(self, probes: Probes) -> bool:
        return any(name.startswith("x-litellm") for name in probes.headers)


class LlamaCppPython(Engine):
    """No /health, no context in its card; any name is answered and echoed."""

    name = "llama-cpp-python"
    owner = "me"
    answers_any_name = True
    refusals = re.compile(r"HTTP 500: .*(validation error|json_schema|Unsupported|not supported)", re.DOTALL)


class Transformers(Engine):
    """A development server; its replies carry `<model>@<branch>`."""

    name = "transformers"

    def recognises(self, probes: Probes) -> bool:
        """By its cards: a creation time with a fraction, and the owner that the model's id begins with."""
        return any(
            isinstance(card.get("created"), float) and card.get("owned_by") == str(card.get("id")).partition("/")[0]
            for card in probes.cards
        )

    def is_alias(self, asked: str, told: str, probes: Probes) -> bool:
        return told.rpartition("@")[0] == asked or super().is_alias(asked, told, probes)
