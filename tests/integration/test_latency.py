"""Slowdowns on the wire against a server with a fixed schedule: each is caught or told to be undecided, and named."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from gatebook.collect.scheduler import collect
from gatebook.config.profile import load_profile, with_target
from gatebook.opening import open_run
from gatebook.record.history import open_history
from gatebook.record.manifest import Against
from gatebook.record.run import Run
from gatebook.record.samples import measurements
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Verdict

from tests.conftest import ROOT, Project, shipped_cases
from tests.faults.proxy import Fault, FaultProxy

FIRST_S, GAP_S, TOKENS, SAMPLES = 0.040, 0.010, 5, 32
CHAT = "latency.chat"
CASE: dict[str, Any] = {
    "id": "latency-chat", "notebook": "08_load", "group": CHAT, "suites": ["smoke"], "why": "an upgrade must not be slower",
    "samples": SAMPLES, "messages": [{"role": "user", "content": "{nonce} Tell me a story."}], "finish": "any",
    "options": {"max_tokens": TOKENS},
    "expect": [{f"latency_{m}": "profile"} for m in ("ttft", "itl", "total", "cold")],
}  # fmt: skip
LATENCY: dict[str, Any] = {
    "lag_ms": 1000.0,  # a busy machine must not leave this test without samples
    "factor": 5.0,  # nor make a healthy server look slow
    "least": 4.0,
    "caps": {CHAT: {"ttft_ms": 2000.0, "itl_ms": 500.0, "total_ms": 5000.0, "cold_ms": 3000.0}},
}
STRICT = {"factor": 1.3, "least": 1.1}
CHUNK = {"id": "x", "object": "chat.completion.chunk", "created": int(time.time()), "model": "steady"}
USAGE = {"prompt_tokens": 9, "completion_tokens": TOKENS, "total_tokens": 9 + TOKENS}


@contextmanager
def steady_server() -> Iterator[str]:
    """An OpenAI-compatible server that takes FIRST_S to the first token and GAP_S to each further one."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    urls: list[str] = []
    sent = iter(range(1_000_000))

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        shared = {**CHUNK, "id": f"chatcmpl-{next(sent)}", "created": int(time.time()), "model": body["model"]}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "length"}
            return web.json_response({**shared, "object": "chat.completion", "choices": [choice], "usage": {**USAGE, "completion_tokens": 1, "total_tokens": 10}})  # fmt: skip
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(fields: dict[str, Any]) -> None:
            await response.write(f"data: {json.dumps({**shared, **fields})}\n\n".encode())

        begun = loop.time()
        for number, word in enumerate(("Once", " upon", " a", " time", ",")):
            await asyncio.sleep(max(0.0, begun + FIRST_S + number * GAP_S - loop.time()))
            await send({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        await send({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        await send({"choices": [], "usage": USAGE})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "steady", "max_model_len": 4096}, {"id": "older"}]})

    async def serve() -> web.AppRunner:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        started.set()
        return runner

    def run() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait()
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@pytest.fixture(scope="module")
def steady() -> Iterator[str]:
    with steady_server() as url:
        yield url


@pytest.fixture
def timed(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("GATEBOOK_ROOT", str(project.root))
    monkeypatch.delenv("GATEBOOK_HISTORY_URL", raising=False)
    project.write_cases([CASE])
    project.edit_profile(
        target={"server": "external", "model": "steady", "base_url": None, "context_tokens": None},
        groups={CHAT: "must", "latency.contract": "must"}, latency=LATENCY, limits={"request_deadline_s": 20},
    )  # fmt: skip
    return project


def asked(project: Project, url: str, against: str | None = None, **latency: Any) -> tuple[Run, Verdict]:
    """Planned, asked and judged as the command does it, without the notebooks around it."""
    project.edit_profile(latency={**LATENCY, **latency})
    profile = with_target(load_profile(project.profile), base_url=url)
    other = None
    if against is not None:
        other = Against(profile="old", target=profile.target.model_copy(update={"model": "older"}), base_url=against)
    run = open_run(profile, url, "smoke", None, out=project.root / "outputs", against=other)
    collect(run, "08_load")
    return run, judge(run)


def a_week_of(run: Run, quiet: bool = False) -> None:
    """Enter seven days that are comparable with the run: its own latencies, or those that the schedule has."""
    [row] = measurements(run, "PASS", accepted=True)
    scheduled = {
        "ttft_ms": FIRST_S * 1000 + 1,
        "itl_ms": GAP_S * 1000,
        "total_ms": (FIRST_S + (TOKENS - 1) * GAP_S) * 1000 + 1,
    }
    for day in range(1, 8):
        at = datetime.now(UTC) - timedelta(days=day) + timedelta(minutes=5)
        level = 1 + 0.02 * ((day % 3) - 1)
        days = {name: [level * (scheduled[name] if quiet else ms) for ms in getattr(row, name)] for name in scheduled}
        open_history().enter([row.model_copy(update={"run": f"day-{day}", "at": at, **days})])


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {f.check.removeprefix("latency_"): f.outcome for f in verdict.findings if f.check.startswith("latency_")}


def reason(verdict: Verdict, metric: str) -> str:
    return next(f.reason for f in verdict.findings if f.check == f"latency_{metric}")


def test_a_healthy_server_is_green_without_a_history_and_against_its_own(timed: Project, steady: str) -> None:
    first, young = asked(timed, steady)
    assert young.verdict == "PASS", young.reasons
    assert "rule absolute (too little history for p90 and day)" in reason(young, "ttft")
    a_week_of(first)
    _, later = asked(timed, steady)
    assert later.verdict == "PASS", later.reasons
    assert "rule p90: P90" in reason(later, "itl") and "times that of 7 days" in reason(later, "itl")


SLOWDOWNS: list[tuple[str, float, float, str, set[str]]] = [
    # what, s more to the first token, s more to each further one, outcome at least, in these metrics
    ("x1.5", 0.5 * FIRST_S, 0.5 * GAP_S, "not_measured", {"ttft", "itl", "total"}),
    ("x2", FIRST_S, GAP_S, "fail", {"ttft", "itl", "total"}),
    ("first-token", FIRST_S, 0.0, "fail", {"ttft"}),
    ("per-token", 0.0, GAP_S, "fail", {"itl"}),
]


def test_each_slowdown_is_caught_against_the_week_before(timed: Project, steady: str) -> None:
    """On a busy machine they are slower still, so nothing here depends on its speed."""
    with FaultProxy(steady) as proxy:
        first, _ = asked(timed, proxy.base_url)
    a_week_of(first, quiet=True)
    for what, first_s, gap_s, least, metrics in SLOWDOWNS:
        faults = [("slow", first_s), ("slow_gaps", gap_s)]
        with FaultProxy(steady, [Fault(name, arg=arg, match="story") for name, arg in faults if arg]) as proxy:
            _, verdict = asked(timed, proxy.base_url, **STRICT)
        found = outcomes(verdict)
        wanted = {"fail"} if least == "fail" else {"fail", "not_measured"}
        assert verdict.verdict in ("FAIL", "INCONCLUSIVE") and all(found[m] in wanted for m in metrics), (what, found)
        assert all("of 7 days" in reason(verdict, m) for m in metrics if found[m] == "fail"), (what, verdict.reasons)


def test_slow_first_requests_are_judged_as_a_cold_start_or_told_as_a_warm_up(timed: Project, steady: str) -> None:
    with FaultProxy(steady, [Fault("slow", arg=0.3, match="story", until=2)]) as proxy:
        _, verdict = asked(timed, proxy.base_url, caps={CHAT: {**LATENCY["caps"][CHAT], "cold_ms": 250.0}})
    assert outcomes(verdict) == {"ttft": "pass", "itl": "pass", "total": "pass", "cold": "fail"}
    assert "the slowest of the first 2 requests took" in reason(verdict, "cold") and verdict.verdict == "FAIL"
    with FaultProxy(steady, [Fault("slow", arg=0.6, match="story", until=6)]) as proxy:
        _, verdict = asked(timed, proxy.base_url, **STRICT)
    assert verdict.verdict == "INCONCLUSIVE", verdict.reasons
    assert "judged samples take more than 1.3 times the later ones" in reason(verdict, "ttft")


def test_too_few_samples_are_inconclusive(timed: Project, steady: str) -> None:
    timed.write_cases([{**CASE, "samples": 30}])
    _, verdict = asked(timed, steady)
    assert verdict.verdict == "INCONCLUSIVE" and "28 valid samples, 29 are needed" in reason(verdict, "ttft")


def test_a_second_target_is_asked_in_turn_and_shows_which_is_slower(timed: Project, steady: str) -> None:
    run, verdict = asked(timed, steady, against=steady)
    assert verdict.verdict == "PASS", verdict.reasons
    assert f"times older at {steady}" in reason(verdict, "ttft")
    record = [e for e in run.exchanges("08_load") if e.case]
    assert [e.kind for e in record[:8]] == ["ask", "against", "against", "ask"] * 2
    assert {e.target for e in record} == {None, f"older at {steady}"}
    assert {(e.body or {})["model"] for e in record if e.kind == "against"} == {"older"}
    prompts = [e.messages[0]["content"] for e in record]
    assert len(set(prompts)) == len(prompts), "a prefix cache could know a prompt"
    with FaultProxy(steady, [Fault("slow", arg=FIRST_S, match='"model": "steady"'), Fault("slow", arg=FIRST_S, match='"model":"steady"')]) as proxy:  # fmt: skip
        _, slower = asked(timed, proxy.base_url, against=steady, **STRICT)
    assert slower.verdict == "FAIL" and "shown slower by more than 1.1" in reason(slower, "ttft"), slower.reasons


def test_a_second_target_that_is_down_is_not_green_though_the_group_is_watched(timed: Project, steady: str) -> None:
    timed.edit_profile(groups={CHAT: "watch"})
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        _, verdict = asked(timed, steady, against=f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
    assert verdict.verdict == "ERROR" and "older at http://127.0.0.1" in verdict.reason, verdict.reasons


def test_the_command_compares_with_a_second_profile_and_the_page_shows_it(timed: Project, steady: str) -> None:
    """The command of docs/latency.md."""
    other = timed.root / "params" / "old.yaml"
    other.write_text(
        timed.profile.read_text()
        .replace("model: steady", "model: older")
        .replace("base_url: null", f"base_url: {steady}")
    )
    done = timed.run(steady, "--against", str(other))
    assert done.code == 0, done
    page = (done.run / "08_load.html").read_text()
    assert "between tokens" in page and f"older at {steady}" in page
    same = timed.root / "params" / "same.yaml"
    same.write_text(timed.profile.read_text().replace("base_url: null", f"base_url: {steady}"))
    refused = timed.run(steady, "--against", str(same))
    assert refused.code == 2 and "is the target under test itself" in refused.err, refused
    assert len(refused.err.splitlines()) == 1


@pytest.mark.parametrize(("more_s", "word"), [(0.0, "PASS"), (4.0, "FAIL")])
def test_schemas_that_take_four_seconds_longer_are_red_in_production_on_the_first_run(
    timed: Project, steady: str, more_s: float, word: str
) -> None:
    """No history and no baseline: the plain request after each constrained one tells, under production's own policy and limit."""
    production, group = load_profile(ROOT / "params" / "qwen3-4b.yaml"), "structured.latency"
    wanted = [c for c in shipped_cases().values() if c.group in (group, "structured.enforced")]
    timed.write_cases([{**c.model_dump(mode="json", exclude_defaults=True), "suites": ["smoke"]} for c in wanted])
    policies = {group: production.policy(group).policy, "structured.enforced": "watch", "structured.contract": "watch"}
    timed.edit_profile(groups=policies, limits={"schema_ms": production.limits.schema_ms, "in_flight": 5})
    profile = with_target(load_profile(timed.profile), base_url=steady)
    with FaultProxy(steady, [Fault("slow", arg=more_s, has="response_format")] if more_s else []) as proxy:
        run = open_run(profile, proxy.base_url, "smoke", None, out=timed.root / "outputs")
        collect(run, "02_structured_output")
    verdict = judge(run)
    found = next(g for g in verdict.groups if g.group == group)
    assert (found.word, policies[group]) == (word, "must"), found.reason
    assert ("a schema adds" in found.reason) == bool(more_s), found.reason
