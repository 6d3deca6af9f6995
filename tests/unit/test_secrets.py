"""What is taken out of a reply before it is written, and what is left as it was."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys

import pytest
from aiohttp import web
from gatebook.collect.client import Lane, LoopLag
from gatebook.collect.reply import HEAD_BYTES
from gatebook.config.profile import Target
from gatebook.config.secrets import MASK, Scrubber, refuse_secrets, searched
from gatebook.record.exchange import Exchange
from gatebook.record.replies import read_answer
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.echoing import DRESSES, PLACES, EchoingServer
from tests.faults.scripted import ScriptedServer
from tests.integration.test_secrets import KEYS, leaks

KEY = KEYS["hex"]
EVENTS = st.lists(
    st.dictionaries(st.sampled_from(["content", "role", "n"]), st.text("ab\\\"%&é\ud800 1", max_size=5) | st.integers() | st.none()), max_size=6
)  # fmt: skip


def events(*parts: str) -> list[str]:
    return [json.dumps({"choices": [{"index": 0, "delta": {"content": part}}]}, ensure_ascii=False) for part in parts]


def text(told: list[str]) -> str:
    return "".join(json.loads(event)["choices"][0]["delta"]["content"] for event in told)


@pytest.mark.parametrize("dress", DRESSES)
@pytest.mark.parametrize("name", KEYS)
def test_every_dress_is_found_in_one_piece_and_wherever_it_is_cut(name: str, dress: str) -> None:
    scrubber, said = Scrubber([KEYS[name]]), DRESSES[dress](KEYS[name])
    assert MASK in scrubber.text(f"so {said}.") and not leaks(scrubber.text(f"so {said}."), KEYS[name])
    for cut in range(1, len(said), 3):
        told = scrubber.documents(events("so ", said[:cut], "", said[cut:], "."))
        assert MASK in text(told) and not leaks(text(told), KEYS[name]), cut


def test_a_key_cut_over_chunks_leaves_each_of_them_some_text_and_its_place() -> None:
    told = Scrubber([KEY]).documents(events("a", *KEY, "b"))
    assert len(told) == len(KEY) + 2 and all(json.loads(e)["choices"][0]["delta"]["content"] for e in told)
    assert text(told) == f"a{MASK[:-1]}{'*' * (len(KEY) - len(MASK))}]b"
    three = Scrubber([KEY]).documents(events("a " + KEY[:9], KEY[9:20], KEY[20:] + " and again " + KEY[:5], KEY[5:]))
    assert text(three) == f"a {MASK} and again {MASK}"


def test_numbers_stay_json() -> None:
    [told] = Scrubber(["4821397566"]).documents(['{"id": 4821397566, "of": [1, 4821397566.5], "t": true, "n": null}'])
    assert json.loads(told) == {"id": MASK, "of": [1, f"{MASK}.5"], "t": True, "n": None}


@given(EVENTS)
def test_what_holds_no_key_comes_back_as_it_was(found: list[dict[str, object]]) -> None:
    told = [json.dumps(event) for event in found]
    assert Scrubber([KEY]).documents(told) == told


@given(st.text(max_size=60))
def test_any_text_without_a_key_is_left_alone(said: str) -> None:
    assert Scrubber([KEY]).text(said) == said and Scrubber([KEY]).documents([said]) == [said]


def test_the_token_of_a_header_is_searched_for_without_its_scheme() -> None:
    assert searched(f"Bearer {KEY}") == [f"Bearer {KEY}", KEY]
    assert Scrubber([f"Bearer {KEY}"]).text(f"token={KEY}") == f"token={MASK}"
    basic = "Basic " + DRESSES["base64"]("admin:correcthorsebattery")
    assert Scrubber([basic]).text("correcthorsebattery") == MASK
    assert searched("Bearer EMPTY") == searched("EMPTY") == searched("%41%42%43%44") == []


@pytest.mark.parametrize("name", KEYS)
def test_every_place_and_every_dress_on_the_wire(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    key = KEYS[name]
    monkeypatch.setenv("OPENAI_API_KEY", key)

    async def ask(url: str) -> list[Exchange]:
        async with Lane(Target(model="m"), url, LoopLag()) as lane:
            return [
                await lane.ask(kind="ask", key="k", body={"model": "m", "messages": [], "stream": True, "n": 2}, deadline_s=20, retries=0)
                for _ in range(math.lcm(len(PLACES), len(DRESSES)))
            ]  # fmt: skip

    with EchoingServer("m") as server:
        found = asyncio.run(ask(f"{server.url}/v1"))
        assert len({*server.used}) == len(PLACES) * len(DRESSES)
    for exchange, way in zip(found, server.used, strict=True):
        answer = read_answer(exchange)
        said = "\n".join([exchange.model_dump_json(), *answer.texts()])
        assert not leaks(said, key), way
        if exchange.events is not None:
            assert exchange.timing and exchange.timing.first_token_ms is not None, "arrivals are those of the chunks"


class CuttingServer(ScriptedServer):
    """Says the key over the place at which a reply is cut, whose key is the way."""

    way = ""

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        key, ask = request.headers["Authorization"].removeprefix("Bearer "), await request.json()
        place, dress, inside = self.way.split("/")
        said = DRESSES[dress](key)
        if ask.get("stream"):
            before = int(place) - int(inside)
            pieces = [*"x" * before, *said, *(["y" * 2**20] * 2 if place == "100" else "y" * 100_000)]
            chunks = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
            return web.Response(
                text="".join(f"data: {json.dumps(c)}\n\n" for c in chunks), content_type="text/event-stream"
            )
        if place == "tokens":
            return web.Response(text=json.dumps([{"token": char} for char in said])[:-1] + "y" * 2**21)
        message = json.dumps({"choices": [{"index": 0, "message": {"content": "@" * int(place)}}]})
        at = HEAD_BYTES - int(inside)
        message = f"{message[:at]}{json.dumps(said)[1:-1]}{message[at:]}"
        return web.Response(text=message, content_type="application/json")


CUTS = {
    "an answer of more than 1 MiB": f"{2 << 20}/{{}}/{{}}",
    "a reply of more than 32 MiB": f"{33 << 20}/{{}}/{{}}",
    "the 100th event of a long answer": "100/{}/{}",
    "the 1,024th event of too many": "1024/{}/{}",
}


@pytest.mark.parametrize("where", CUTS)
@pytest.mark.parametrize("name", KEYS)
def test_no_beginning_of_a_key_stays_where_a_reply_is_cut(
    monkeypatch: pytest.MonkeyPatch, where: str, name: str
) -> None:
    key = KEYS[name]
    monkeypatch.setenv("OPENAI_API_KEY", key)
    stream = "event" in where
    ways = [CUTS[where].format(d, n) for d in ("as it is", "JSON", "URL", "base64", "hex") for n in (len(key) - 1, 15)]

    async def ask(server: CuttingServer) -> list[Exchange]:
        async with Lane(Target(model="m"), f"{server.url}/v1", LoopLag()) as lane:
            found = []
            for server.way in ways if "32" not in where and "1,024" not in where else ways[:2]:
                body = {"model": "m", "messages": [], "stream": stream}
                found.append(await lane.ask(kind="ask", key="k", body=body, deadline_s=60, retries=0))
            return found

    with CuttingServer("m", answer_s=0.0) as server:
        for way, exchange in zip(ways, asyncio.run(ask(server)), strict=False):
            assert exchange.fault == "broken", (way, exchange.detail)
            said = "\n".join([exchange.model_dump_json(), *read_answer(exchange).texts()])
            assert MASK[:4] in said and not leaks(said, key), way


def test_a_key_in_the_tokens_of_json_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    async def ask(url: str) -> Exchange:
        async with Lane(Target(model="m"), url, LoopLag()) as lane:
            return await lane.ask(kind="ask", key="k", body={"model": "m"}, deadline_s=60, retries=0)

    with CuttingServer("m", answer_s=0.0) as server:
        server.way = "tokens/as it is/0"
        assert asyncio.run(ask(f"{server.url}/v1")).text == MASK


@pytest.mark.parametrize("end", ["\\", "\\u", "\\u00", "\\x4", "%", "%2525", "&", "&amp;#", "&#6", "\\\\\\"])
def test_a_key_that_is_cut_in_an_escape(end: str) -> None:
    said = f"so {KEY[:20]}{end}"
    assert Scrubber([KEY]).text(said, cut=True) == f"so {MASK}" and Scrubber([KEY]).text(said) == said


def test_what_is_cut_elsewhere_stays() -> None:
    for said in ("nothing at all", "50 %", f"{KEY[:3]}", f"{KEY[:20]} and so on", "\\" * 70_000 + "x"):
        assert Scrubber([KEY]).text(said, cut=True) == said


@pytest.mark.parametrize("value", ["https://box/v1?max_tokens=5", "see the wiki: key=value", "postgres at box:5432"])
def test_what_is_no_secret_is_not_refused(value: str) -> None:
    refuse_secrets({"groups": {"why": value}}, "p")


def test_a_log_is_copied_without_the_keys_of_the_environment() -> None:
    said = f"args: api_key={KEY}\n{json.dumps(KEY)} served at \xff"
    environment = {**os.environ, "VLLM_API_KEY": KEY, "SHORT_TOKEN": "served"}
    done = subprocess.run(
        [sys.executable, "-m", "gatebook.config.secrets"], input=said.encode("latin-1"), env=environment, capture_output=True, check=True
    )  # fmt: skip
    assert done.stdout.decode() == f'args: api_key={MASK}\n"{MASK}" served at \ufffd'
