"""llama-cpp-python's server (0.3.36): no /health, no context in its card; any name is answered and echoed."""

from __future__ import annotations

import re

from gatebook.engines.engine import Engine


class LlamaCppPython(Engine):
    name = "llama-cpp-python"
    owner = "me"
    answers_any_name = True
    refusals = re.compile(r"HTTP 500: .*(validation error|json_schema|Unsupported|not supported)", re.DOTALL)
