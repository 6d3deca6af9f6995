"""A server that no file here knows, or that a gateway hides: it is gated by what it does."""

from __future__ import annotations

from gatebook.engines.engine import Engine

GENERIC = Engine()
