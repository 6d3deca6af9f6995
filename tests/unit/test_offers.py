"""What a server offers: asked once by `init`, held to by every run. Real HTTP servers, through the real lane."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from gatebook.collect.client import Lane, LoopLag
from gatebook.collect.offers import Learned, learn, problem
from gatebook.collect.scheduler import collect
from gatebook.collect.session import STARTED
from gatebook.config.cases import Case
from gatebook.config.policies import Offer
from gatebook.config.profile import Limits, Profile, Target
from gatebook.record.manifest import Manifest
from gatebook.record.run import Run, now
from gatebook.verdict.judging import judge

from tests.faults.scripted import ScriptedServer
from tests.unit.replies import MODEL, baseline, case, exchange

Change = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any] | tuple[int, str]]
"""(request, good reply) -> the reply, or a status with a message."""
PROMPT_TOKENS = {"tools": 40, "tool_calls": 120, "system": 12}


@pytest.fixture(autouse=True)
def started_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv(STARTED, now())


def reply(body: dict[str, Any], number: int) -> dict[str, Any]:
    """A full-featured server's answer."""
    text = json.dumps(body["messages"])
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 8
    said = '{"colour": "grue"}' if "response_format" in body else "Hello there, you."
    said = f"word{number}" if "temperature" not in body else said
    for stop in body.get("stop", []):
        said = said.partition(stop)[0]
    prompt = 30 + sum(tokens for word, tokens in PROMPT_TOKENS.items() if f'"{word}"' in text + json.dumps([*body]))
    logprobs = {"content": [{"token": "Hello", "logprob": -0.1, "bytes": list(b"Hello"), "top_logprobs": []}]}
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": said},
            "finish_reason": "stop",
            **({"logprobs": logprobs} if body.get("logprobs") else {}),
        }
        for index in range(body.get("n", 1))
    ]
    used = min(limit, 3) * len(choices)
    usage = {"prompt_tokens": prompt, "completion_tokens": used, "total_tokens": prompt + used}
    return {
        "id": f"c{number}",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": choices,
        "usage": usage,
    }


def refusal(body: dict[str, Any]) -> tuple[int, str] | None:
    if not isinstance(body["messages"], list) or isinstance(body.get("temperature"), str):
        return 400, "not valid"
    return (400, "no images") if "image_url" in json.dumps(body["messages"]) else None


def learned(change: Change = lambda body, good: good, usage: bool = True, done: bool = True) -> Learned:
    """What `init` learns of a server that is full-featured but for `change`."""
    numbers = iter(range(1000))

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.json()
        found = refusal(body) or change(
            body, {} if not isinstance(body["messages"], list) else reply(body, next(numbers))
        )
        if isinstance(found, tuple):
            return web.json_response({"error": {"message": found[1], "code": found[0]}}, status=found[0])
        if not body.get("stream"):
            return web.json_response(found)
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
        said = {"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": None}
        pieces = [
            {**chunk, "choices": [said]},
            {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]
        pieces += [{**chunk, "choices": [], "usage": found["usage"]}] if usage else []
        text = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + ("data: [DONE]\n\n" if done else "")
        return web.Response(text=text, content_type="text/event-stream")

    async def ask() -> Learned:
        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        async with Lane(Target(model=MODEL), url, LoopLag()) as lane:
            found = await learn(lane, MODEL, (MODEL,))
        await runner.cleanup()
        return found

    return asyncio.run(ask())


def missing(found: Learned) -> dict[str, Offer]:
    return {feature: said for feature, said in found.offers.items() if said is not True}


def test_a_server_that_does_everything_offers_everything_in_few_requests() -> None:
    found = learned()
    assert missing(found) == {} and found.told_as == MODEL
    assert len(found.exchanges) <= 15, "with the GETs of `init` no more than 20"
    assert missing(learned(unserved(404))) == {}


def without(option: str) -> Change:
    """Ignores an option with HTTP 200."""
    return lambda body, good: reply({k: v for k, v in body.items() if k != option}, int(good["id"][1:]))


def refusing(option: str) -> Change:
    return lambda body, good: (400, f"{option} is not supported") if option in body else good


def unserved(status: int) -> Change:
    """Says no to a model that it does not serve."""
    return lambda body, good: good if body["model"] == MODEL else (status, "no such model")


def dropping(role: str) -> Change:
    """A template that leaves messages out: they cost no tokens."""

    def change(body: dict[str, Any], good: dict[str, Any]) -> dict[str, Any]:
        good["usage"]["prompt_tokens"] = 30 if role in json.dumps(body) else good["usage"]["prompt_tokens"]
        return good

    return change


@pytest.mark.parametrize(
    ("change", "feature", "words"),
    [
        (without("n"), "n", "n is ignored"),
        (without("logprobs"), "logprobs", "logprobs are ignored"),
        (without("stop"), "stop", "the stop string stays in the text"),
        (without("response_format"), "json_schema", "response_format is ignored"),
        (without("response_format"), "json_object", "response_format is ignored"),
        (refusing("n"), "n", "HTTP 400: n is not supported"),
        (unserved(500), "unknown_model", "a model name that it does not serve is answered with HTTP 500"),
        (refusing("logprobs"), "logprobs", "HTTP 400: logprobs is not supported"),
        (refusing("tools"), "tools", "HTTP 400: tools is not supported"),
        (refusing("tools"), "tools_accepted", "HTTP 400: tools is not supported"),
        (refusing("tool_choice"), "tool_choice", "HTTP 400: tool_choice is not supported"),
        (refusing("response_format"), "json_schema", "HTTP 400: response_format is not supported"),
        (refusing("max_completion_tokens"), "max_completion_tokens", "HTTP 400"),
        (dropping("tools"), "tools", "its chat template knows no tools"),
        (dropping("tool_calls"), "tool_history", "drops tool calls or their results"),
        (dropping("Be brief"), "second_system", "drops a second system message"),
        (lambda body, good: reply({**body, "temperature": 0}, 0), "default_sampling", "all the same"),
    ],
)
def test_what_is_refused_or_ignored_is_said_and_nothing_else(change: Change, feature: str, words: str) -> None:
    said = missing(learned(change))
    assert words in str(said.get(feature)), said
    beside = {"json_schema", "json_object"} | {"tools_accepted", "tools", "tool_choice", "parallel_tools"}
    assert set(said) - {feature} <= (beside if feature in beside else set()), said


def failing(feature: str) -> Change:
    return lambda body, good: (500, "Internal Server Error") if feature in json.dumps(body) else good


@pytest.mark.parametrize(
    "words", ["max_completion_tokens", "tool_call_id", "Be brief", '"type": "text", "text": "Say hello."}]']
)
def test_a_server_s_own_error_is_no_refusal_of_what_every_client_sends(words: str) -> None:
    said = missing(learned(failing(words)))
    assert not {"max_completion_tokens", "tool_history", "second_system", "text_parts"} & set(said), said


def test_streams_that_tell_less_are_known() -> None:
    assert missing(learned(usage=False)) == {"stream_usage": "include_usage is ignored"}
    assert missing(learned(done=False)) == {"stream_done": "streams end without [DONE]"}


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (500, "Internal Server Error", "HTTP 500: Internal Server Error"),
        (200, "<html><title>Welcome</title>", "is no JSON"),
        (200, '{"data": []}', "it lists no models"),
    ],
)
def test_init_says_what_happened_at_the_list_of_models(status: int, text: str, words: str) -> None:
    fault = {"fault": "status", "detail": f"HTTP {status}: {text}"} if status != 200 else {}
    assert words in problem(exchange(kind="probe", path="models", status=status, text=text, **fault))


# --- a run that holds to it ---


def run_of(folder: Path, url: str, cases: list[Case], offers: dict[str, Offer], in_flight: int = 2) -> Run:
    profile = Profile(
        target=Target(model=MODEL), limits=Limits(in_flight=in_flight, request_deadline_s=5), offers=offers,  # type: ignore[arg-type]
        groups=dict.fromkeys(("g.h", "g.contract"), {"policy": "must"}),  # type: ignore[arg-type]
    )  # fmt: skip
    expected = {"01_x": [one.id for one in cases]}
    manifest = Manifest(run="r", created=now(), profile=profile, base_url=f"{url}/v1", suite="full", expected=expected)
    return Run.create(folder, manifest, cases, baseline({}, []).to_json().encode())


PLAIN = {"finish": "any", "expect": [{"length_chars": {"min": 1}}]}


def test_what_is_not_offered_is_not_asked_and_stands_beside_the_pass(tmp_path: Path) -> None:
    cases = [case("a", **PLAIN), case("b", needs=["n"], options={"n": 2}, **PLAIN)]
    with ScriptedServer(MODEL) as server:
        run = run_of(tmp_path / "r", server.url, cases, {"n": "HTTP 400: no", "tools": True})
        collect(run, "01_x")
    assert {e.case for e in run.exchanges("01_x") if e.kind == "ask"} == {"a"}
    verdict = judge(run)
    assert (verdict.verdict, [e.id for e in verdict.excused]) == ("PASS", ["b"]), verdict.reason
    assert any("not offered by this server" in note and "n (HTTP 400: no)" in note for note in verdict.notes)


def test_logprobs_that_are_not_offered_are_left_out_and_the_rest_is_asked(tmp_path: Path) -> None:
    options = {"logprobs": True, "top_logprobs": 2, "max_tokens": 4}
    one = case("a", options=options, stream=False, finish="any", expect=[{"default_samples": True}])
    with ScriptedServer(MODEL) as server:
        collect(run_of(tmp_path / "r", server.url, [one], {"logprobs": "logprobs are ignored"}), "01_x")
        collect(run_of(tmp_path / "s", server.url, [one], {}), "01_x")
        sent = [body for body in server.chats if "max_tokens" in body and body["max_tokens"] == 4]
    assert ["logprobs" in body for body in sent] == [False, True]


def test_a_reply_whose_own_time_is_judged_has_nothing_beside_it(tmp_path: Path) -> None:
    timed = case("t", finish="any", expect=[{"total_ms": "limit"}])
    cases = [*(case(f"a{n}", **PLAIN) for n in range(6)), timed]
    with ScriptedServer(MODEL, answer_s=0.1) as server:
        run = run_of(tmp_path / "r", server.url, cases, {}, in_flight=4)
        collect(run, "01_x")
    found = {e.case: e.client.in_flight for e in run.exchanges("01_x") if e.kind == "ask" and e.client}
    assert found["t"] == 1 and max(found.values()) > 1
