"""Lost facts and lost table headers, against the real command, a real server and real faults on the wire."""

from __future__ import annotations

import pytest

from tests.conftest import PATIENT, Done, Project, shipped_cases
from tests.faults.proxy import FaultProxy

TASKS = ("phrasing-table-", "phrasing-items-")


@pytest.fixture
def accepted(project: Project, server: str) -> Project:
    """A healthy server's baseline: English notices, and two tasks in eight phrasings each."""
    shipped = shipped_cases().values()
    chosen = [c for c in shipped if c.id.startswith(TASKS) or c.id.startswith("facts-en-") and "demo" in c.suites]
    project.choose(*(case.id for case in chosen))
    project.edit_profile(limits=PATIENT)
    first = project.ask(server)
    assert first.code == 3, first
    project.accept(first.run)
    return project


def test_a_change_that_loses_something_is_shown_worse(accepted: Project, server: str) -> None:
    with FaultProxy(server.removesuffix("/v1"), ["headless"]) as proxy:
        headless = accepted.ask(proxy.base_url)
    assert headless.code == 1, headless
    assert "fingerprint.sensitivity: shown worse than the baseline" in headless.reasons
    assert "no Markdown table" in headless.reasons or "without a separator row" in headless.reasons
    assert _worse(headless, "fingerprint.facts") == []
    assert all(name.startswith("phrasing-table-") for name in _worse(headless, "fingerprint.sensitivity"))

    with FaultProxy(server.removesuffix("/v1"), ["wrong_digits"]) as proxy:
        wrong = accepted.ask(proxy.base_url)
    assert wrong.code == 1, wrong
    assert "fingerprint.facts: shown worse than the baseline" in wrong.reasons
    assert "facts missing: 4417" in wrong.reasons


def _worse(done: Done, group: str) -> list[str]:
    found: list[str] = next(g["comparison"]["worse"] for g in done.verdict["groups"] if g["group"] == group)
    return found
