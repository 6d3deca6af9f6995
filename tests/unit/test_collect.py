"""Asking: deadlines that are kept, servers that go away, kinds that hang, plain chats refused. Real HTTP servers, judged as a run is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from gatebook.checks.finding import Finding
from gatebook.collect.client import Lane, LoopLag
from gatebook.collect.scheduler import collect
from gatebook.collect.session import STARTED, kinds_of
from gatebook.config.cases import Case
from gatebook.config.profile import Limits, Profile, Target
from gatebook.record.exchange import Exchange
from gatebook.record.manifest import Manifest
from gatebook.record.run import Run, now
from gatebook.verdict.findings import judge_run
from gatebook.verdict.judging import judge

from tests.faults.proxy import Fault, FaultProxy
from tests.faults.scripted import ScriptedServer
from tests.unit.replies import MODEL, case

SCHEMA = {"type": "object", "properties": {"answer": {"const": "blue"}}, "required": ["answer"]}
FORMAT = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}
TOOLS = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}


@pytest.fixture(autouse=True)
def started_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv(STARTED, now())


def chat(name: str, notebook: str = "01_x", **fields: Any) -> Case:
    return case(name, notebook=notebook, **{"finish": "any", "expect": [{"length_chars": {"min": 1}}], **fields})


def planned(
    folder: Path,
    url: str,
    cases: list[Case],
    excused: dict[str, str] | None = None,
    policy: str = "must",
    **limits: Any,
) -> Run:
    given = {"in_flight": 1, "request_deadline_s": 1.0, "ready_deadline_s": 1.0, "transport_retries": 1, **limits}
    profile = Profile(
        target=Target(model=MODEL), limits=Limits.model_validate(given), excused=excused or {},
        groups=dict.fromkeys(("g.h", "g.other", "g.contract"), {"policy": policy}),  # type: ignore[arg-type]
    )  # fmt: skip
    expected: dict[str, list[str]] = {}
    for one in cases:
        expected.setdefault(one.notebook, []).append(one.id)
    manifest = Manifest(run="r", created=now(), profile=profile, base_url=f"{url}/v1", suite="full", expected=expected)
    return Run.create(folder, manifest, cases, None)


def asked(run: Run) -> dict[str, Finding]:
    """Every notebook of the run, one after the other, as the command asks them; finding id -> finding."""
    for notebook in run.notebooks:
        collect(run, notebook)
    return {found.id: found for found in judge_run(run)}


def recorded(run: Run, kind: str | None = None) -> list[Exchange]:
    return [e for notebook in run.notebooks for e in run.exchanges(notebook) if kind in (None, e.kind)]


def outcomes(found: dict[str, Finding], *checks: str) -> dict[str, str]:
    return {i: f.outcome for i, f in found.items() if f.check in checks}


def test_the_first_constrained_request_is_asked_alone(tmp_path: Path) -> None:
    """While it is, an engine loads its grammars; sent beside seven others it would make all of them late."""
    cases = [
        *(chat(f"plain-{n}", group="g.other") for n in range(4)),
        *(chat(f"schema-{n}", options=FORMAT, canary=True) for n in range(6)),
        case("time", notebook="01_x", group="g.other", over="g.h", messages=[], expect=[{"schema_ms": "limit"}]),
    ]
    with ScriptedServer(MODEL, answer_s=0.1) as server:
        run = planned(tmp_path / "r", server.url, cases, in_flight=4, request_deadline_s=20, ready_deadline_s=20)
        collect(run, "01_x")
    sent = [e for e in recorded(run) if e.kind in ("ask", "canary")]
    first, rest = [e for e in sent if e.case == "schema-0"], [e for e in sent if e.case != "schema-0"]
    assert max(e.client.in_flight for e in rest if e.client) == 4
    assert max(e.at for e in first) < min(e.at for e in rest)


# --- deadlines ---


def test_no_request_is_started_without_its_full_deadline_and_the_rest_is_not_measured(tmp_path: Path) -> None:
    """Nothing here is the deployment's fault, and no name or pattern excuses it."""
    cases = [
        *(chat(f"a{n}") for n in range(30)),
        chat("b", "02_y", group="g.other"),
        chat("c", "03_z", group="g.other"),
    ]
    with ScriptedServer(MODEL, answer_s=0.2) as server:
        run = planned(
            tmp_path / "r", server.url, cases, {"g.*": "too slow for us", "a29": "slow"}, run_deadline_s=3, request_deadline_s=1.5,
            in_flight=2,
        )  # fmt: skip
        found = asked(run)
    done = [e for e in recorded(run) if e.method == "POST" and e.attempts]
    assert all(e.fault is None for e in done) and 4 <= sum(e.kind == "ask" for e in done) < 30
    begun = datetime.fromisoformat(run.manifest.created)
    assert all(datetime.fromisoformat(e.at) - begun < timedelta(seconds=1.6) for e in done)
    assert not [f for f in found.values() if f.outcome in ("fail", "error")]
    told = "limits.run_deadline_s of 3 s has less left than one request may take (limits.request_deadline_s, 1.5 s)"
    lost = [f for f in found.values() if f.outcome == "not_measured"]
    assert {"a29", "b", "c"} <= {f.case for f in lost} and all(told in f.reason for f in lost)
    assert (found["02_y.ready"].outcome, found["03_z.ready"].outcome) == ("not_measured", "not_measured")
    verdict = judge(run)
    assert (verdict.verdict, told in verdict.reason, verdict.excused) == ("INCONCLUSIVE", True, [])


def test_watching_does_not_look_away_from_our_own_deadline(tmp_path: Path) -> None:
    cases = [chat(f"a{n}") for n in range(12)]
    with ScriptedServer(MODEL, answer_s=0.2) as server:
        run = planned(tmp_path / "r", server.url, cases, {"a*": "slow"}, "watch", notebook_deadline_s=2)
        asked(run)
    verdict = judge(run)
    assert (verdict.verdict, "limits.notebook_deadline_s of 2 s" in verdict.reason) == ("INCONCLUSIVE", True)


def test_what_was_not_asked_for_want_of_time_is_asked_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [*(chat(f"a{n}", canary=n == 3) for n in range(8)), chat("b", "02_y")]
    with ScriptedServer(MODEL, answer_s=0.2) as server:
        run = planned(tmp_path / "r", server.url, cases, run_deadline_s=2.2)
        first = asked(run)
        before = {e.key for e in recorded(run) if e.kind in ("ask", "canary")}
        assert {"not_measured"} == set(outcomes(first, "recorded").values()) and before
        for _ in range(10):  # a busy machine gets less far each time
            monkeypatch.setenv(STARTED, now())
            found = asked(run)
            if {f.outcome for f in found.values()} == {"pass"}:
                break
        keys = [e.key for e in recorded(run) if e.kind in ("ask", "canary", "skip")]
    assert {f.outcome for f in found.values()} == {"pass"}, found
    assert len(keys) == len(set(keys)) == 10, "nothing recorded is asked twice"
    users = [body["user"] for body in server.chats]
    assert len(users) == len(set(users)), "a request was sent again"


def test_a_run_shorter_than_one_request_asks_once_and_says_what_is_wrong(tmp_path: Path) -> None:
    with ScriptedServer(MODEL) as server:
        run = planned(
            tmp_path / "r", server.url, [chat("a"), chat("b", "02_y")], run_deadline_s=5, request_deadline_s=60
        )
        asked(run)
    assert len(server.chats) == 1
    verdict = judge(run)
    assert verdict.verdict == "INCONCLUSIVE"
    assert (
        "limits.run_deadline_s of 5 s has less left than one request may take (limits.request_deadline_s, 60 s)"
        in verdict.reason
    )


def test_a_request_that_had_its_full_deadline_is_the_deployments(tmp_path: Path) -> None:
    with ScriptedServer(MODEL) as server, FaultProxy(server.url, [Fault("hang", match="Tell me")]) as proxy:
        hung = chat("b", messages=[{"role": "user", "content": "Tell me more."}])
        run = planned(tmp_path / "r", proxy.base_url.removesuffix("/v1"), [chat("a"), hung, chat("c")])
        found = asked(run)
    assert outcomes(found, "answered", "contract") == {
        "a.contract": "pass", "b.contract": "fail", "b.answered": "fail", "c.contract": "pass",
    }  # fmt: skip
    assert "no complete reply within 1 s" in found["b.answered"].reason


# --- the server goes away ---


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_server_that_is_gone_stops_the_run_and_the_reason_names_what_was_in_flight(
    tmp_path: Path, in_flight: int
) -> None:
    cases = [*(chat(f"a{n}") for n in range(12)), chat("b", "02_y"), chat("c", "03_z")]
    with ScriptedServer(MODEL, answer_s=0.2, dies_at=3 * in_flight + 1) as server:
        run = planned(
            tmp_path / "r", server.url, cases, in_flight=in_flight, request_deadline_s=60, ready_deadline_s=300
        )
        found = asked(run)
    fails = [f for f in found.values() if f.outcome == "fail" and f.check == "answered"]
    assert len(fails) == in_flight
    told = fails[0].reason.partition("; in flight: ")[2].partition(";")[0]
    assert sorted(told.split(", ")) == sorted(f.case for f in fails)  # as they broke off
    names = f"; in flight: {told}"
    assert all(names in f.reason and f.reason.startswith("the server is gone: ") for f in fails), fails
    for book in ("02_y", "03_z"):
        last = found[f"{book}.ready"]
        assert (last.outcome, names in last.reason, "cannot connect" in last.reason) == ("fail", True, True), (
            last.reason
        )
    assert {f.outcome for f in found.values() if f.check == "recorded"} == {"not_measured"}
    readies = [len(e.attempts) for e in recorded(run, "ready")]
    assert readies == [1, 1, 1], "later notebooks try once"
    begun, over = (datetime.fromisoformat(recorded(run)[n].at) for n in (0, -1))
    assert (over - begun).total_seconds() < 30
    verdict = judge(run)
    assert (verdict.verdict, "the server is gone: " in verdict.reason) == ("FAIL", True)


def test_a_server_that_comes_back_is_asked_on_and_its_crash_is_still_its_fault(tmp_path: Path) -> None:
    cases = [*(chat(f"a{n}") for n in range(6)), chat("b", "02_y")]
    with ScriptedServer(MODEL, dies_at=4, back_s=1.0) as server:
        run = planned(tmp_path / "r", server.url, cases)
        found = asked(run)
    assert {f.case for f in found.values() if f.outcome != "pass"} == {"a2"}
    assert found["a2.answered"].reason.startswith("the server was gone for a while: HTTP 500: EngineCore encountered")
    assert "; in flight: a2;" in found["a2.answered"].reason
    assert judge(run).verdict == "FAIL"


def test_a_server_that_is_gone_between_two_notebooks_is_red_too(tmp_path: Path) -> None:
    with ScriptedServer(MODEL) as server:
        run = planned(tmp_path / "r", server.url, [chat("a"), chat("b", "02_y")], ready_deadline_s=300)
        collect(run, "01_x")
    collect(run, "02_y")
    found = {f.id: f for f in judge_run(run)}
    assert found["02_y.ready"].outcome == "fail"
    assert found["02_y.ready"].reason.startswith("the server is gone: cannot connect")
    assert "nothing was in flight" in found["02_y.ready"].reason and "the server is gone" in found["b.recorded"].reason
    [again] = [e for e in run.exchanges("02_y") if e.kind == "ready"]
    assert len(again.attempts) < 10


def test_a_server_that_is_not_up_yet_has_its_time_in_the_first_notebook(tmp_path: Path) -> None:
    with ScriptedServer(MODEL) as healthy, FaultProxy(healthy.url, [Fault("unavailable", until=4)]) as proxy:
        run = planned(tmp_path / "r", proxy.base_url.removesuffix("/v1"), [chat("a")], ready_deadline_s=30)
        assert {f.outcome for f in asked(run).values()} == {"pass"}
    assert len(recorded(run, "ready")[0].attempts) == 5


def test_a_server_that_was_never_up_costs_its_deadline_once(tmp_path: Path) -> None:
    cases = [chat("a"), chat("b", "02_y"), chat("c", "03_z")]
    with ScriptedServer(MODEL) as healthy, FaultProxy(healthy.url, [Fault("unavailable")]) as proxy:
        run = planned(tmp_path / "r", proxy.base_url.removesuffix("/v1"), cases, ready_deadline_s=2)
        found = asked(run)
    assert outcomes(found, "ready") == dict.fromkeys(("01_x.ready", "02_y.ready", "03_z.ready"), "error")
    assert [len(e.attempts) > 1 for e in recorded(run, "ready")] == [True, False, False]
    assert judge(run).verdict == "ERROR"


def test_a_server_that_hangs_for_good_is_tried_shortly_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatebook.collect.session.PATIENCE_S", 0.5)
    cases = [*(chat(f"a{n}") for n in range(5)), chat("b", "02_y")]
    with ScriptedServer(MODEL) as healthy, FaultProxy(healthy.url, [Fault("hang", after=3)]) as proxy:
        run = planned(tmp_path / "r", proxy.base_url.removesuffix("/v1"), cases, request_deadline_s=2)
        found = asked(run)
    assert found["a2.answered"].outcome == "fail" and "no complete reply within 2 s" in found["a2.answered"].reason
    assert found["02_y.ready"].outcome == "not_measured"
    assert "one short try, because the server stopped answering at a2/ask" in found["02_y.ready"].reason
    assert judge(run).verdict == "FAIL"


# --- kinds that hang ---


@pytest.mark.parametrize(
    ("fault", "options", "messages", "kind"),
    [
        (Fault("hang", has="response_format"), FORMAT, None, "a schema"),
        (Fault("hang", has="response_format"), {"response_format": {"type": "json_object"}}, None, "a schema"),
        (Fault("hang", has="tools"), TOOLS, None, "tools"),
        (Fault("hang", has="logprobs"), {"logprobs": True, "top_logprobs": 2}, None, "logprobs"),
        (Fault("hang", longer=4000), {}, [{"role": "user", "content": "ship " * 900}], "a long prompt"),
        (Fault("stall", only="streams"), {}, None, "a stream"),
    ],
    ids=["schema", "json_object", "tools", "logprobs", "long", "stream"],
)
@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_kind_that_hangs_is_tried_twice(
    tmp_path: Path,
    fault: Fault,
    options: dict[str, Any],
    messages: list[dict[str, str]] | None,
    kind: str,
    in_flight: int,
) -> None:
    more = {"options": options, **({"messages": messages} if messages else {})}
    plain = [chat("p", stream=False), chat("q", "02_y", stream=False)]
    hard = [chat(f"h{n}", "01_x" if n < 8 else "02_y", **more) for n in range(10)]
    with ScriptedServer(MODEL) as healthy, FaultProxy(healthy.url, [fault]) as proxy:
        run = planned(tmp_path / "r", proxy.base_url.removesuffix("/v1"), [*plain, *hard], in_flight=in_flight)
        found = asked(run)
    hung = [e for e in recorded(run, "ask") if e.fault == "deadline"]
    assert 2 <= len(hung) <= in_flight + 1 and (in_flight > 1 or len(hung) == 2)
    assert (found["p.contract"].outcome, found["q.contract"].outcome) == ("pass", "pass"), "a plain one is asked on"
    failed = {f.case for f in found.values() if f.outcome == "fail"}
    assert failed == {e.case for e in hung}
    rest = [f for f in found.values() if f.check == "recorded"]
    assert {f.case for f in rest} == {c.id for c in hard} - failed and {f.outcome for f in rest} == {"not_measured"}
    said = f"requests with {kind} did not end in 1 s each ({hung[0].key}, {hung[1].key}"
    assert all(f.reason.startswith("this kind of request hangs: ") and said in f.reason for f in rest), rest[0].reason
    assert judge(run).verdict == "FAIL"


def test_a_kind_that_hung_is_not_asked_again_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [chat(f"h{n}", options=FORMAT) for n in range(5)]
    with ScriptedServer(MODEL) as healthy, FaultProxy(healthy.url, [Fault("hang", has="response_format")]) as proxy:
        run = planned(tmp_path / "r", proxy.base_url.removesuffix("/v1"), cases)
        asked(run)
        before = len(proxy.requests)
        monkeypatch.setenv(STARTED, now())
        asked(run)
        assert len(proxy.requests) == before, "all of it is recorded"
    keys = [e.key for e in recorded(run)]
    assert len(keys) == len(set(keys))


def test_one_that_hangs_is_bad_luck_and_the_rest_of_its_kind_is_asked(tmp_path: Path) -> None:
    cases = [chat(f"h{n}", options=FORMAT) for n in range(4)]
    with (
        ScriptedServer(MODEL) as healthy,
        FaultProxy(healthy.url, [Fault("hang", has="response_format", until=1)]) as proxy,
    ):
        found = asked(planned(tmp_path / "r", proxy.base_url.removesuffix("/v1"), cases))
    assert {f.case for f in found.values() if f.outcome != "pass"} == {"h0"}


def test_a_sample_for_lengths_that_hangs_is_the_deployments_fault_once(tmp_path: Path) -> None:
    document = {"kind": "needles", "seed": 3, "tokens": 1000, "family": "single", "depth": 50}
    messages = [{"role": "user", "content": "{document}\n\n{question}"}]
    cases = [
        chat(f"d{n}", document=document, messages=messages, expect=[{"length_chars": {"min": 1}}]) for n in range(3)
    ]
    with ScriptedServer(MODEL) as healthy, FaultProxy(healthy.url, [Fault("hang", longer=1200)]) as proxy:
        run = planned(
            tmp_path / "r", proxy.base_url.removesuffix("/v1"), [*cases, chat("p")], {"g.h": "no documents here"}
        )
        found = asked(run)
    assert outcomes(found, "answered", "asked") == {
        "d0.answered": "fail",
        "d1.asked": "not_measured",
        "d2.asked": "not_measured",
    }
    assert "no complete reply within 1 s" in found["d0.answered"].reason and found["p.contract"].outcome == "pass"
    assert judge(run).verdict == "FAIL"


def test_kinds() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert kinds_of({"messages": messages}) == []
    assert kinds_of({"messages": messages, "stream": True, **FORMAT}) == ["a schema", "a stream"]
    assert kinds_of({"messages": messages, "response_format": {"type": "text"}}) == []
    assert kinds_of({"messages": "\ud800" * 2000, "tools": []}) == []
    assert kinds_of({"messages": [{"role": "user", "content": "字" * 1000}], **TOOLS}) == ["a long prompt"]


# --- refusals of a plain chat, and redirects ---


@contextmanager
def answering(reply: Callable[[web.BaseRequest], web.Response]) -> Iterator[tuple[str, list[str]]]:
    """A server that lists the model and answers chats by `reply`: its URL and the paths that it was asked."""
    paths: list[str] = []
    ready, ends = threading.Event(), asyncio.Event()
    found: dict[str, Any] = {}

    async def handle(request: web.BaseRequest) -> web.Response:
        paths.append(request.path)
        if request.path == "/v1/models" and not request.query.get("x"):
            return web.json_response({"object": "list", "data": [{"id": MODEL}]})
        return reply(request) if request.path == "/v1/chat/completions" else web.json_response({}, status=404)

    async def serve() -> None:
        runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.update(loop=asyncio.get_running_loop(), port=runner.addresses[0][1])
        ready.set()
        await ends.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{found['port']}", paths
    finally:
        found["loop"].call_soon_threadsafe(ends.set)
        thread.join()


def refusing(status: int, said: str) -> Callable[[web.BaseRequest], web.Response]:
    return lambda request: web.json_response({"error": {"message": said}}, status=status)


NO_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template"
)
REFUSALS = [
    (400, NO_TEMPLATE, "fail", "refused a plain chat twice"),
    (404, "Not Found", "fail", "refused a plain chat twice"),
    (422, "messages: unknown", "fail", "refused a plain chat twice"),
    (401, "no", "error", "the key was refused"),
    (403, "no", "error", "the key was refused"),
    (407, "proxy", "error", "the key was refused"),
    (408, "slow", "error", "has not given one good answer"),
    (425, "early", "error", "has not given one good answer"),
    (429, "busy", "error", "has not given one good answer"),
    (400, "Authentication Error, No connected db.", "error", "the key was refused"),
    (500, "Authentication Error, No api key passed in.", "error", "the key was refused"),
    (500, "broken", "error", "has not given one good answer"),
]


@pytest.mark.parametrize(("status", "said", "outcome", "reason"), REFUSALS, ids=lambda v: str(v)[:24])
def test_a_plain_chat_refused_twice_is_the_deployments_and_credentials_are_not(
    tmp_path: Path, status: int, said: str, outcome: str, reason: str
) -> None:
    with answering(refusing(status, said)) as (url, paths):
        run = planned(tmp_path / "r", url, [chat("a"), chat("b", "02_y")])
        found = asked(run)
    assert outcomes(found, "ready") == {"01_x.ready": outcome, "02_y.ready": outcome}
    assert reason in found["01_x.ready"].reason and said in found["01_x.ready"].reason
    assert paths.count("/v1/chat/completions") < 9
    verdict = judge(run)
    assert (verdict.verdict, reason in verdict.reason) == ("FAIL" if outcome == "fail" else "ERROR", True)


def test_a_plain_chat_refused_once_is_chance(tmp_path: Path) -> None:
    answers = [refusing(400, "not yet")]

    def once(request: web.BaseRequest) -> web.Response:
        if answers:
            return answers.pop()(request)
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
        return web.json_response({"id": str(id(request)), "model": MODEL, "choices": [choice]})

    with answering(once) as (url, _):
        run = planned(tmp_path / "r", url, [chat("a", stream=False)])
        found = asked(run)
    assert found["01_x.ready"].outcome == "pass" and found["a.length_chars"].outcome == "pass"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_other_host_is_asked_where_the_server_redirects(tmp_path: Path, status: int) -> None:
    with ScriptedServer(MODEL) as other:
        away = f"{other.url}/v1/chat/completions"
        with answering(lambda request: web.Response(status=status, headers={"Location": away})) as (url, _):
            run = planned(tmp_path / "r", url, [chat("a")])
            found = asked(run)
            probed = asyncio.run(redirected_probe(url))
    assert other.chats == [] and judge(run).verdict == "ERROR"
    assert (
        f"HTTP {status}: redirects to '{away}', and no host is asked that the profile does not name"
        in found["01_x.ready"].reason
    )
    assert probed.status == 404 and probed.path == "/version"


async def redirected_probe(url: str) -> Exchange:
    """What is asked of the host is asked of the base URL's own."""
    async with Lane(Target(model=MODEL), f"{url}/v1", LoopLag()) as lane:
        return await lane.ask(kind="probe", key="p", body=None, path="/version", deadline_s=5, retries=0)


def test_proxies_of_the_environment_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(MODEL) as other, ScriptedServer(MODEL) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, other.url)
        found = asked(planned(tmp_path / "r", server.url, [chat("a")]))
    assert {f.outcome for f in found.values()} == {"pass"} and other.chats == [] and server.chats, found
