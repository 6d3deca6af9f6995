"""Gatebook decides whether a deployment of an LLM service may ship."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatebook.commands.explore import Explorer
    from gatebook.workbook import Workbook, open_run

__all__ = ["Explorer", "Workbook", "__version__", "open_run"]
__version__ = "0.1.0"
_HOMES = {"Workbook": "workbook", "open_run": "workbook", "Explorer": "commands.explore"}

# jsonschema (and with it nbformat) would import this and build 38 grammars, 1.2 s a process; checks/structured.py does its work
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def __getattr__(name: str) -> Any:
    """Import what a notebook sees only when one asks for it: pandas and httpx cost half a second."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gatebook' has no attribute {name!r}")
    return getattr(import_module(f"gatebook.{_HOMES[name]}"), name)
