"""One real vLLM that somebody uses: load is asked beside them only where someone says so, and suite live becomes green.

What else is tried beside users is on llama.cpp (test_beside_users.py). Skipped and failed as test_vllm.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gatebook.record.exchange import IN_USE
from gatebook.record.run import Run

from tests.engines.serving import vllm
from tests.faults.on_vllm import QUICK, Introduced, introduced
from tests.integration.test_beside_users import user
from tests.integration.test_load import LOAD
from tests.integration.test_vllm import vllm_here

__all__ = ["vllm_here"]
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def url(vllm_here: None) -> Iterator[str]:
    with vllm(*QUICK) as served:
        yield served


@pytest.fixture(scope="module")
def mine(url: str, tmp_path_factory: pytest.TempPathFactory) -> Introduced:
    return introduced(tmp_path_factory.mktemp("users"), url)


def test_load_is_asked_beside_users_only_where_someone_says_so(mine: Introduced, url: str) -> None:
    mine.edit_profile(load=LOAD)
    with user(url):
        red = mine.gatebook(
            "run", "--profile", mine.profile, "--suite", "scenario", "--only", "load.steps,load.order", timeout=600
        )
        said = f"08_load: {IN_USE}: 1 request that is not ours (vllm:num_requests_running) in flight"
        assert red.code == 3 and red.verdict["reason"].startswith(said), red
        assert not [e for e in Run(red.run).exchanges("08_load") if e.kind == "ask"]
        allowed = mine.gatebook("run", "--resume", red.run, "--yes-load", timeout=600)
        assert any("load was asked beside 1 request that is not ours" in note for note in allowed.verdict["notes"]), (
            allowed
        )
        assert [e for e in Run(red.run).exchanges("08_load") if e.kind == "ask"]


def test_the_live_suite_becomes_green(mine: Introduced, url: str) -> None:
    first = mine.gatebook("run", "--profile", mine.profile, "--suite", "live", timeout=900)
    assert first.code == 3, first.reasons
    assert mine.gatebook("accept", first.run, "--reason", "the first of it").code == 0
    again = mine.gatebook("run", "--profile", mine.profile, "--suite", "live", timeout=900)
    assert again.code == 0, again.reasons
    sent = [e for name in Run(again.run).notebooks for e in Run(again.run).exchanges(name) if e.client]
    assert {e.client.in_flight for e in sent if e.client} == {1}
