"""What an executed notebook file says of its own execution."""

from __future__ import annotations

import ast
import json
from datetime import datetime
from pathlib import Path
from typing import Any

GATE_ERROR = "NotGreen"


def unfinished(path: Path) -> str | None:
    """Why a notebook did not run to its end; None when every code cell ran and only the last may have raised the gate.

    papermill returns 0 for a cell that calls SystemExit(0), and nbval passes cells that never ran; this does not.
    """
    name = path.stem
    try:
        cells = [
            c
            for c in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if c["cell_type"] == "code" and "".join(c["source"]).strip()
        ]
        errors = [_error(cell) for cell in cells]
    except FileNotFoundError:
        return f"{name}: there is no executed notebook"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{name}: the executed notebook cannot be read"
    if not cells:
        return f"{name}: the notebook has no code cells"
    for number, (cell, error) in enumerate(zip(cells, errors, strict=True), 1):
        if error and not (number == len(cells) and error.startswith(GATE_ERROR)):
            return f"{name}: cell {number} of {len(cells)} raised {error}"
        if cell.get("execution_count") is None:
            return f"{name}: cell {number} of {len(cells)} did not run"
    return None if _is_gate("".join(cells[-1]["source"])) else f"{name}: its last cell is not the gate"


def execution(path: Path) -> tuple[str, float] | None:
    """(start in UTC, seconds) of the last execution by papermill; None where it was not papermill, or has not ended."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["metadata"]["papermill"]
        return datetime.fromisoformat(told["start_time"]).isoformat(), float(told["duration"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _error(cell: dict[str, Any]) -> str | None:
    for output in cell.get("outputs", []):
        if output.get("output_type") == "error":
            return f"{output.get('ename')}: {' '.join(str(output.get('evalue')).split())[:300]}"
    return None


def _is_gate(source: str) -> bool:
    """Whether the last statement of a cell is a call of `.gate()`."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    call = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "gate"
