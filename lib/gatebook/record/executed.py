"""What an executed notebook file says of its own execution."""

from __future__ import annotations

import json
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
            for c in json.loads(path.read_text())["cells"]
            if c["cell_type"] == "code" and "".join(c["source"]).strip()
        ]
    except FileNotFoundError:
        return f"{name}: there is no executed notebook"
    except (ValueError, KeyError, TypeError):
        return f"{name}: the executed notebook cannot be read"
    if not cells:
        return f"{name}: the notebook has no code cells"
    for number, cell in enumerate(cells, 1):
        error = _error(cell)
        if error and not (number == len(cells) and error.startswith(GATE_ERROR)):
            return f"{name}: cell {number} of {len(cells)} raised {error}"
        if cell.get("execution_count") is None:
            return f"{name}: cell {number} of {len(cells)} did not run"
    return None if "gate(" in "".join(cells[-1]["source"]) else f"{name}: its last cell is not the gate"


def _error(cell: dict[str, Any]) -> str | None:
    for output in cell.get("outputs", []):
        if output.get("output_type") == "error":
            return f"{output.get('ename')}: {' '.join(str(output.get('evalue')).split())[:300]}"
    return None
