"""What a lane sends and what it keeps: keys that are words, keys that are secrets, header bytes beyond ASCII."""

from __future__ import annotations

import asyncio
import json

import pytest
from gatebook.collect.client import Lane, LoopLag
from gatebook.config.profile import Target
from gatebook.record.exchange import Exchange

SECRET = "b7e151628aed2a6abf7158809cf4f3c7"


def asked(status: bytes = b"200 OK", header: bytes = b"") -> tuple[Exchange, bytes]:
    """One chat with a real socket that owns up to everything: the exchange, and what was sent."""
    said = {"role": "assistant", "content": "1 of 10, says vllm"}
    sent: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(await reader.readuntil(b"\r\n\r\n"))
        key = sent[-1].split(b"Bearer ")[1].split(b"\r\n")[0].decode() if b"Bearer " in sent[-1] else ""
        reply = {"id": "a", "model": "m", "owned_by": "vllm", "key": key, "choices": [{"index": 0, "message": said}]}
        body = json.dumps(reply).encode()
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\n" + header)
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async def ask() -> Exchange:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            async with Lane(Target(model="m"), url, LoopLag()) as lane:
                return await lane.ask(kind="ask", key="k", body={"model": "m"}, deadline_s=10, retries=0)

    return asyncio.run(ask()), sent[0]


@pytest.mark.parametrize("key", ["1", "vllm", "EMPTY", "m", "a"])
def test_a_key_that_is_a_word_is_sent_and_spoils_no_reply(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    exchange, sent = asked()
    assert b"Bearer " + key.encode() in sent
    reply = json.loads(exchange.text or "")
    assert (reply["owned_by"], reply["choices"][0]["message"]["content"]) == ("vllm", "1 of 10, says vllm")


def test_a_key_that_a_reply_repeats_is_not_kept_and_no_request_header_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    exchange, sent = asked()
    assert SECRET.encode() in sent
    assert SECRET not in exchange.model_dump_json() and "[redacted]" in (exchange.text or "")
    assert "authorization" not in exchange.model_dump_json().lower()


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (b"200 OK", "Server: café\r\n".encode("latin-1")),
        (b"200 OK", "Server: 网关\r\n".encode()),
        (b"200 OK", "Server: 网关\r\n".encode("gb18030")),
        (b"200 OK", b"Date: \xff\xfe\r\n"),
        ("200 très bien".encode("latin-1"), b""),
    ],
    ids=["latin-1", "utf-8", "gb18030", "date", "reason"],
)
def test_a_header_beyond_ascii_is_an_answer_like_any_other(status: bytes, header: bytes) -> None:
    exchange, _ = asked(status, header)
    assert (exchange.fault, exchange.status) == (None, 200)
    assert Exchange.model_validate_json(exchange.model_dump_json()) == exchange


def test_a_header_that_http_does_not_have_is_a_fault_in_one_line() -> None:
    exchange, _ = asked(header=b"X-\xe9: a\r\n")
    assert exchange.fault in ("no_byte", "broken") and "illegal header line" in exchange.detail
    assert "\n" not in exchange.detail
