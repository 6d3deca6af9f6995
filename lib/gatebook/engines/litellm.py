"""LiteLLM's proxy (1.108.7): a gateway that answers under its own names and words."""

from __future__ import annotations

import re

from gatebook.engines.engine import Engine, Probes


class LiteLLM(Engine):
    name = "litellm"
    answers_any_name = False
    refusals = re.compile(
        r"litellm\.\w*(BadRequest|UnsupportedParams|NotFound|InternalServer)Error: .*(not supported|requires|does not|must be|invalid|400)",
        re.IGNORECASE | re.DOTALL,
    )
    credentials = re.compile(r"No connected db|No api key passed in|Authentication Error", re.IGNORECASE)

    def recognises(self, probes: Probes) -> bool:
        return any(name.startswith("x-litellm") for name in probes.headers)
