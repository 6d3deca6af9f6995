"""The table that every benchmark ends in."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

HEAD = ("measured", "value", "worst", "beside", "ratio", "goal", "met")
Machine = dict[str, str | int | float]


@dataclass(frozen=True)
class Row:
    """One measured quantity. With `base` the goal is one for the ratio value / base, else for the value."""

    name: str
    value: float
    unit: str = ""
    worst: float | None = None
    """The largest single sample, where `value` is a median. The goal holds for it too."""
    base: float | None = None
    """What it is compared with, same unit, measured in the same run."""
    goal: float | None = None
    at_least: bool = False
    """The goal is a lower bound; else an upper one."""
    of_value: bool = False
    """The goal is one for the value, and `base` is only shown."""

    @property
    def ratio(self) -> float | None:
        return self.value / self.base if self.base else None

    @property
    def _of_ratio(self) -> bool:
        return self.base is not None and not self.of_value

    @property
    def met(self) -> str:
        """`yes`, `NO`, `median only`, or empty without a goal."""
        if self.goal is None:
            return ""
        if not self._holds(self.ratio if self._of_ratio else self.value):
            return "NO"
        return "yes" if self.worst is None or self._holds(self.worst) else "median only"

    def _holds(self, value: float | None) -> bool:
        if value is None or self.goal is None:
            return False
        return value >= self.goal if self.at_least else value <= self.goal

    @property
    def cells(self) -> tuple[str, ...]:
        goal = (
            ""
            if self.goal is None
            else f"{'≥' if self.at_least else '≤'} {self.goal:g}{'' if self._of_ratio else self._unit}"
        )
        return (self.name, self._said(self.value), self._said(self.worst), self._said(self.base),
                "" if self.ratio is None else f"{self.ratio:.2f}", goal, self.met)  # fmt: skip

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""

    def _said(self, value: float | None) -> str:
        return "" if value is None else f"{_three_digits(value)}{self._unit}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def table(rows: Sequence[Row]) -> str:
    """Markdown, aligned so that it reads in a terminal too."""
    lines = [HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines
    )


def print_table(before: Machine, rows: Sequence[Row]) -> None:
    print(
        f"\n{before['date']}, {before['cores']} cores, Python {before['python']}, load average {before['load']}\n\n{table(rows)}"
    )


def machine() -> Machine:
    """What the numbers depend on; asked before a benchmark adds to the load itself."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def write_json(path: Path, command: str, before: Machine, rows: Sequence[Row]) -> None:
    found = [asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows]
    path.write_text(
        json.dumps({"command": command, **before, "rows": found}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
