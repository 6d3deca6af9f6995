"""The fast part of the fault lab (`make faults` runs it whole): one row of each class that no other test makes.

Other tests of the real command make faults on the wire, and serve other weights and templates; here are a real server with another
setting, a fault in the middle of conversations, a field that is ignored, and a difference that must not matter.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Done, Project
from tests.faults.catalogue import ALL
from tests.faults.lab import Lab

FAST = [row for row in ALL if row.fast]


@pytest.mark.timeout(900)
def test_the_fast_rows_are_caught_and_named(tmp_path: Path, server: str) -> None:
    with Lab(tmp_path, FAST, gate=gate, url=server) as lab:
        found = [(row, lab.run(row)) for row in FAST]
    wrong = [
        (row.id, result.verdict, result.reasons)
        for row, result in found
        if not result.caught or (row.named and not result.named)
    ]
    assert wrong == []


def gate(project: Project, base_url: str, *arguments: str) -> Done:
    """Without kernels; `make faults` makes every row by the command."""
    only = arguments[1].split(",") if arguments else []
    assert arguments in ((), ("--only", ",".join(only)))
    return project.ask(base_url, *only)
