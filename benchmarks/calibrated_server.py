"""An OpenAI-compatible server with a known schedule that logs when it sent every chunk.

Run as `python -m benchmarks.calibrated_server LOG`: it prints its base URL, and ends when its standard input closes.
The `model` of a request names the variant. Headers and a role-only chunk go out at once, the first of 64 tokens
200 ms after the request came in, then one every 10 ms. The log has one JSON line a request, under the request's `user`;
its clock is CLOCK_MONOTONIC, so it can be compared with `time.perf_counter_ns` of any process on this host (Linux).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.processes import child

FIRST_TOKEN_MS, GAP_MS, TOKENS = 200, 10, 64
PIECES = "聪明的人喜欢茶🍵é"
TEXT = "".join(PIECES[i % len(PIECES)] for i in range(TOKENS))
LINGER_S = 0.002
"""Between the end of a reply and the hang-up: long enough that a client may already have sent its next request."""


@dataclass(frozen=True)
class Variant:
    """One way to stream."""

    tokens_per_chunk: int = 1
    split: bool = False
    """Every character is cut in two HTTP chunks and two TCP segments."""
    hangs_up: bool = False
    """Closes after the stream although it promised keep-alive, as llama.cpp does."""
    at_once: bool = False
    """The whole reply in one write, without the schedule."""


VARIANTS = {
    "1-token": Variant(),
    "4-tokens": Variant(tokens_per_chunk=4),
    "split": Variant(split=True),
    "hang-up": Variant(hangs_up=True),
    "instant": Variant(at_once=True),
}
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
)
LAST = b"0\r\n\r\n"


@dataclass(frozen=True)
class Sent:
    """One line of the log: when the request had arrived and when each chunk with tokens left, in ns."""

    user: str
    received_ns: int
    sent_ns: list[int]

    @property
    def ttft_ms(self) -> float:
        return (self.sent_ns[0] - self.received_ns) / 1e6

    @property
    def e2e_ms(self) -> float:
        """To the last token."""
        return (self.sent_ns[-1] - self.received_ns) / 1e6

    @property
    def tpot_ms(self) -> float:
        return (self.e2e_ms - self.ttft_ms) / (TOKENS - 1)


@contextmanager
def calibrated_server(log: Path) -> Iterator[str]:
    """Yield the base URL of a server in a process of its own."""
    with child(["-m", "benchmarks.calibrated_server", str(log)]) as process:
        assert process.stdout
        yield process.stdout.readline().decode().strip()


def read_log(log: Path) -> dict[str, Sent]:
    """`user` -> what was sent. The last one counts where a request came twice."""
    return {
        sent.user: sent for sent in (Sent(**json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines())
    }


def _event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return _data({"choices": choices, **more})


def _data(fields: dict[str, Any]) -> bytes:
    head = {"id": "chatcmpl-calibrated", "object": "chat.completion.chunk", "created": 1, "model": "calibrated"}
    return b"data: " + json.dumps({**head, **fields}, ensure_ascii=False).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


USAGE = {"prompt_tokens": 10, "completion_tokens": TOKENS, "total_tokens": 10 + TOKENS}
ROLE = _event({"role": "assistant", "content": ""})
END = _event({}, "stop") + _data({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n"
AT_ONCE = STREAM_HEAD + _chunk(ROLE + b"".join(_event({"content": piece}) for piece in TEXT) + END) + LAST
PLAIN: dict[str, Any] = {
    "id": "chatcmpl-calibrated", "object": "chat.completion", "created": 1, "model": "calibrated", "usage": USAGE,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
}  # fmt: skip


class _Server:
    def __init__(self, log: IO[str]) -> None:
        self._log = log

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; false when the connection ends with it."""
        first, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (field.partition(":") for field in fields if field)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        received_ns = time.perf_counter_ns()
        path = first.split()[1]
        if not path.endswith("/chat/completions"):
            # /version makes Gatebook take its way for vLLM: connections are kept
            writer.write(
                _json("200 OK", {"version": "calibrated"})
                if path == "/version"
                else _json("404 Not Found", {"error": "no such path"})
            )
            return headers.get("connection") != "close"
        request = json.loads(body)
        variant = VARIANTS[request["model"]]
        if not request.get("stream"):
            writer.write(_json("200 OK", PLAIN))
        elif variant.at_once:
            writer.write(AT_ONCE)
        else:
            await self._stream(variant, request["user"], received_ns, writer)
        if variant.hangs_up:
            await asyncio.sleep(LINGER_S)
        return not variant.hangs_up and headers.get("connection") != "close"

    async def _stream(self, variant: Variant, user: str, received_ns: int, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + _chunk(ROLE))
        sent_ns = []
        for start in range(0, TOKENS, variant.tokens_per_chunk):
            due_ns = received_ns + (FIRST_TOKEN_MS + GAP_MS * start) * 1_000_000
            await asyncio.sleep(max(0, due_ns - time.perf_counter_ns()) / 1e9)
            data = _event({"content": TEXT[start : start + variant.tokens_per_chunk]})
            if variant.split:
                cut = next(i for i, byte in enumerate(data) if byte >= 0x80) + 1
                writer.write(_chunk(data[:cut]))
                await asyncio.sleep(0.001)
                data = data[cut:]
            sent_ns.append(time.perf_counter_ns())
            writer.write(_chunk(data))
        # logged before the end goes out, so that it is there once a client has its whole reply
        self._log.write(json.dumps({"user": user, "received_ns": received_ns, "sent_ns": sent_ns}) + "\n")
        self._log.flush()
        writer.write(_chunk(END) + LAST)
        await writer.drain()


def _json(status: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body, ensure_ascii=False).encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )


async def _main(log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        server = await asyncio.start_server(_Server(file).serve, "127.0.0.1", 0)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
