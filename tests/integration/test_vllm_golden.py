"""Golden answers on a real vLLM 0.32: every text has its values, a restart is green, 5 % noise on the weights is red by name.

Without `make engines` it is skipped, in continuous integration (CI is set) it fails.
"""

from __future__ import annotations

import os

import pytest
from gatebook.record.logprobs import Scored, read_scored
from gatebook.record.run import Run

from tests.conftest import PATIENT, Project, shipped_cases, small_project
from tests.engines.install import ENGINES, CannotHave, weights
from tests.engines.serving import vllm
from tests.faults.on_vllm import QUICK

GROUP = "fingerprint.golden"
CASES = [case.id for case in shipped_cases().values() if case.scored and "demo" in case.suites]
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that has accepted the healthy server's golden answers."""
    try:
        if not ENGINES["vllm"].ready:
            raise CannotHave("`make engines` has not been run, or could not install it")
        weights()
    except CannotHave as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"NOTHING WAS TRIED ON A REAL VLLM: {error}")
    project = small_project(tmp_path_factory.mktemp("golden-vllm"))
    (project.root / "params" / "baselines" / "small.json").unlink()
    project.choose("model-served", *CASES)
    project.edit_profile(groups={GROUP: "no_worse"}, limits={**PATIENT, "in_flight": 2})
    with vllm(*QUICK) as url:
        first = project.ask(url)
    assert (first.code, first.verdict["needs_baseline"]) == (3, True), first.reasons
    project.accept(first.run)
    return project


def test_every_text_is_scored_token_by_token(accepted: Project) -> None:
    run = Run(sorted(p.parent for p in (accepted.root / "outputs").glob("20*/manifest.json"))[0])
    scored = {e.case: read_scored(e) for e in run.exchanges("05_fingerprint") if e.kind == "ask" and e.case in CASES}
    assert len(scored) == len(CASES) == 40
    assert [name for name, found in scored.items() if not isinstance(found, Scored)] == []
    seine = scored["golden-en-seine"]
    assert isinstance(seine, Scored) and -5 < seine.mean_nats < -0.1, seine


def test_a_restart_is_green_and_noise_on_the_weights_is_red_by_name(accepted: Project) -> None:
    with vllm(*QUICK) as url:
        again = accepted.ask(url)
    assert again.code == 0, again.reasons
    with vllm(*QUICK, weights="noise_5") as url:
        worse = accepted.ask(url, revision="noise")
    assert worse.code == 1, worse.reasons
    assert worse.verdict["reason"].startswith(f"{GROUP}: knows less: golden answers -"), worse.verdict["reason"]
