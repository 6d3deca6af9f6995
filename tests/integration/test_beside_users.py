"""What may be asked of a server that users are on, and that load is not asked beside them unless someone says so."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from gatebook.collect.server import embedded_server
from gatebook.record.exchange import IN_USE
from gatebook.record.replies import read_answer
from gatebook.record.run import Run

from tests.conftest import PATIENT, ROOT, Project
from tests.integration.test_load import STEPS, only
from tests.remembering import Remembering

pytestmark = pytest.mark.timeout(900)
MODEL = "smollm2-135m-instruct"
MOST_REQUESTS, MOST_TOKENS = 100, 30_000


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[str]:
    """A server of its own: the one that tests share has the requests of others."""
    with embedded_server(tmp_path / "server.log", threads=1, prompt_threads=1) as url:
        yield url


@pytest.fixture
def remembered(quiet: str, answers: Path) -> Iterator[str]:
    """The same behind a front that remembers greedy answers."""
    with Remembering(quiet, answers) as front:
        yield front.base_url


@contextmanager
def user(url: str) -> Iterator[None]:
    """Somebody whose chat streams for as long as the block runs."""
    began, ended = threading.Event(), threading.Event()

    def chat() -> None:
        body = {"model": MODEL, "stream": True, "max_tokens": 4000, "temperature": 1.2, "ignore_eos": True,
                "messages": [{"role": "user", "content": "Tell me a tale without an end."}]}  # fmt: skip
        with httpx.Client(timeout=60) as client:
            while not ended.is_set():
                with client.stream("POST", f"{url}/chat/completions", json=body) as reply:
                    for _ in reply.iter_lines():
                        began.set()
                        if ended.is_set():
                            return

    thread = threading.Thread(target=chat, daemon=True)
    thread.start()
    assert began.wait(60)
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


def test_the_live_suite_is_small_one_at_a_time_and_green(project: Project, remembered: str) -> None:
    (project.root / "params" / "cases" / "small.yaml").unlink()
    shutil.copytree(ROOT / "params" / "cases", project.root / "params" / "cases", dirs_exist_ok=True)
    (project.root / "params" / "baselines" / "small.json").unlink()
    shipped = yaml.safe_load((ROOT / "params" / "smollm2.yaml").read_text())
    project.profile.write_text(yaml.safe_dump(shipped | {"name": "small"}, allow_unicode=True))
    project.edit_profile(limits={**PATIENT, "in_flight": 4}, target={"default_suite": "live"})
    plan = project.gatebook("run", "--profile", project.profile, "--base-url", remembered, "--suite", "live", "--plan")
    assert plan.code == 0 and "with 1 in flight" in plan.out, plan
    total = next(line for line in plan.out.splitlines() if line.startswith("total")).replace(",", "").split()
    assert int(total[2]) <= MOST_REQUESTS and int(total[3]) + int(total[4]) <= MOST_TOKENS, plan
    first = project.ask(remembered)
    project.accept(first.run)
    second = project.ask(remembered)
    assert (first.code, second.code) == (3, 0), f"{first}\n{second}"
    run = Run(second.run)
    sent = [e for name in run.notebooks for e in run.exchanges(name) if e.attempts]
    answers = [read_answer(e) for e in sent]
    tokens = sum(a.tokens("prompt_tokens") or 0 for a in answers) + sum(
        a.tokens("completion_tokens") or 0 for a in answers
    )
    assert 50 < sum(len(e.attempts) for e in sent) <= MOST_REQUESTS and 1000 < tokens <= MOST_TOKENS
    assert {e.client.in_flight for e in sent if e.client} == {1}
    assert "08_load" not in run.notebooks


def test_load_is_asked_beside_users_only_where_someone_says_so(project: Project, quiet: str) -> None:
    only(project, "canary-water", *STEPS)
    with user(quiet):
        red = project.run(quiet)
        assert red.code == 3 and red.verdict["verdict"] == "INCONCLUSIVE", red
        said = f"08_load: {IN_USE}: 1 request that is not ours (llamacpp:requests_processing) in flight"
        assert red.verdict["reason"].startswith(said) and "--yes-load" in red.out.splitlines()[-1], red
        assert [cause["about"] for cause in red.verdict["causes"]] == ["08_load"], "one cause explains the rest"
        assert not [e for e in Run(red.run).exchanges("08_load") if e.kind == "ask"]
        assert all(f["outcome"] == "pass" for f in red.verdict["findings"] if f["notebook"] == "01_health")
        allowed = project.gatebook("run", "--resume", red.run, "--yes-load")
        assert allowed.code == 0, allowed
        assert any("load was asked beside 1 request that is not ours" in note for note in allowed.verdict["notes"])
    own = project.run(quiet)
    assert own.code == 0 and not [note for note in own.verdict["notes"] if "not ours" in note], own
