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
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [(c, source) for c in told if c["cell_type"] == "code" and (source := "".join(c["source"])).strip()]
        cells = [(source, cell.get("execution_count"), _error(cell)) for cell, source in code]
    except FileNotFoundError:
        return f"{path.stem}: there is no executed notebook"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{path.stem}: the executed notebook cannot be read"
    if not cells:
        return f"{path.stem}: the notebook has no code cells"
    for number, (_, count, error) in enumerate(cells, 1):
        if error and not (number == len(cells) and error.startswith(GATE_ERROR)):
            return f"{path.stem}: cell {number} of {len(cells)} raised {error}"
        if count is None:
            return f"{path.stem}: cell {number} of {len(cells)} did not run"
    return None if _is_gate(cells[-1][0]) else f"{path.stem}: its last cell is not the gate"


def execution(path: Path) -> tuple[str, float] | None:
    """(start in UTC, seconds) of the last execution by papermill; None where it was not papermill, or has not ended."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["metadata"]["papermill"]
        return datetime.fromisoformat(told["start_time"]).isoformat(), float(told["duration"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _error(cell: dict[str, Any]) -> str | None:
    errors = [o for o in cell.get("outputs", []) if o.get("output_type") == "error"]
    return next((f"{o.get('ename')}: {' '.join(str(o.get('evalue')).split())[:300]}" for o in errors), None)


def _is_gate(source: str) -> bool:
    """Whether the last statement of a cell is a call of `.gate()`."""
    try:
        last = ast.parse(source).body[-1]
    except (SyntaxError, ValueError, MemoryError, RecursionError, IndexError):
        return False
    call = last.value if isinstance(last, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "gate"
