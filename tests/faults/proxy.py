"""A reverse proxy that stands before a healthy OpenAI-compatible server and makes faults on the wire.

with FaultProxy("http://127.0.0.1:8111", ["hang"]) as proxy:
    ask(proxy.base_url)

python -m tests.faults.proxy --upstream http://127.0.0.1:8111 --fault garbage,rate=0.3,after=5,only=streams
python -m tests.faults.proxy --upstream ... --fault soup,turns=3 --fault drop_field,arg=seed --fault slow,arg=2,busy=3
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import math
import random
import re
import signal
import threading
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Literal, NamedTuple

import aiohttp
from aiohttp import web
from yarl import URL

from tests.faults import fields as _fields  # noqa: F401 (puts its faults into FAULTS)
from tests.faults.call import Abort, Call, Event, Events, dump
from tests.faults.faults import FAULTS, NEEDS_ARG, STREAMS_ONLY, Context

BLANK_LINE = re.compile(rb"\r?\n\r?\n")
# Hop-by-hop headers, and those that the proxy sets itself.
NOT_FORWARDED = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "host",
    "accept-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
}
LISTS_MODELS = "/v1/models"


@dataclass(frozen=True)
class Fault:
    """When a fault strikes. `after`, `until` and `every` count the requests that fit all other conditions."""

    name: str
    rate: float = 1.0
    """Of the requests that fit, by seeded dice."""
    after: int = 0
    until: int | None = None
    """[after, until)."""
    path: str = "/chat/completions"
    only: Literal["all", "streams", "plain"] = "all"
    match: str = ""
    """Text that the request contains."""
    arg: Any = None
    seed: int = 0
    every: int = 1
    """Of the requests that fit, strikes the 1st, (1 + every)th ..."""
    has: str = ""
    """Field that the request sets, such as response_format."""
    turns: int = 0
    """Fewest messages of its conversation."""
    longer: int = 0
    """Fewest characters of its messages."""
    busy: int = 0
    """Fewest other requests in flight when it arrives."""
    beside: str = ""
    """Text that another request in flight contains."""

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            raise ValueError(f"no fault {self.name!r}; there are: {', '.join(sorted(FAULTS))}")
        if self.only not in ("all", "streams", "plain"):
            raise ValueError(f"only={self.only!r}: all, streams or plain")
        if self.name in NEEDS_ARG and not self.arg:
            raise ValueError(f"{self.name} needs an arg")

    @property
    def needles(self) -> list[str]:
        """What a request must contain."""
        return [self.match, self.arg] if self.name == "die_on" else [self.match]

    @classmethod
    def parse(cls, text: str) -> Fault:
        """`garbage,rate=0.3,after=5,only=streams`."""
        name, *pairs = text.split(",")
        options = dict(pair.split("=", 1) for pair in pairs)
        unknown = options.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"{text!r}: no option {', '.join(sorted(unknown))}")
        kinds = {"rate": float} | dict.fromkeys(("every", "after", "until", "turns", "longer", "busy", "seed"), int)
        return cls(name, **{key: kinds.get(key, str)(value) for key, value in options.items()})


class _Armed:
    """A fault in a running proxy: how many requests it has seen, its dice and its memory."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.seen = 0
        self.dice = random.Random(fault.seed)
        self.context = Context(fault.arg, random.Random(fault.seed))

    def strikes(self, call: Call, others: Collection[Call]) -> bool:
        """Whether it strikes this request, while `others` are in flight."""
        if self.fault.name == "no_model" and call.path.endswith(LISTS_MODELS):
            return self._open(self.seen)
        if not (self._fits(call) and self._fits_load(others)):
            return False
        self.seen += 1
        return self._open(self.seen - 1) and self.dice.random() < self.fault.rate

    def _fits(self, call: Call) -> bool:
        fault = self.fault
        return (
            fault.path in call.path
            and all(map(call.contains, fault.needles))
            and fault.only != ("plain" if call.streaming else "streams")
            and (call.streaming or fault.name not in STREAMS_ONLY)
            and (not fault.has or fault.has in call.body)
            and len(call.messages) >= fault.turns
            and (not fault.longer or len(json.dumps(call.messages, ensure_ascii=False)) >= fault.longer)
        )

    def _fits_load(self, others: Collection[Call]) -> bool:
        fault = self.fault
        return len(others) >= fault.busy and (not fault.beside or any(other.contains(fault.beside) for other in others))

    def _open(self, number: int) -> bool:
        fault = self.fault
        inside = fault.after <= number < (math.inf if fault.until is None else fault.until)
        return inside and (number - fault.after) % fault.every == 0


class Request(NamedTuple):
    method: str
    path: str
    body: Any
    """Parsed JSON as the client sent it, None when it was not JSON."""


class FaultProxy:
    """Runs in a thread of its own, on a free port of the loopback interface, until the block is left."""

    def __init__(self, upstream: str, faults: Iterable[str | Fault] = (), port: int = 0) -> None:
        self.upstream = upstream.rstrip("/").removesuffix("/v1")
        self.port = port
        self.requests: list[Request] = []
        self.authorizations: set[str] = set()
        self.faulted = 0
        self._armed = [_Armed(Fault(fault) if isinstance(fault, str) else fault) for fault in faults]
        self._flying: list[Call] = []
        self._dead = False
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # A connection a request: llama.cpp closes after each stream without saying so.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            read_bufsize=2**20,
            skip_auto_headers=["User-Agent", "Accept", "Content-Type"],
        )
        # A client that leaves cancels its request upstream too, as in front of a real server.
        self._server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()
            await self._session.close()

    def calm(self) -> None:
        """From now on nothing is faulted."""
        self._armed = []

    @property
    def fitted(self) -> list[int]:
        """How many requests each fault could have struck, were its rate 1."""
        return [armed.seen for armed in self._armed]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = None
        try:
            raw = await request.content.read()
            body = _read_json(raw)
            self.requests.append(Request(request.method, request.path, body))
            call = Call(request.path, raw.decode(errors="replace"), deepcopy(body) if isinstance(body, dict) else {})
            call.authorization = request.headers.get("Authorization", "")
            self.authorizations.add(call.authorization)
            striking = [armed for armed in self._armed if armed.strikes(call, self._flying)]
            for armed in striking:
                FAULTS[armed.fault.name](call, armed.context)
            if request.method == "POST":
                self._flying.append(call)
            if call.kills_server:
                self._die()
            self.faulted += bool(striking) or self._dead
            if self._dead:
                raise Abort
            await asyncio.sleep(call.delay_s)
            changed = isinstance(body, dict) and call.body != body
            return await self._answer(request, call, dump(call.body) if changed else raw)
        except Abort:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # nobody is left to read it
        finally:
            if call in self._flying:
                self._flying.remove(call)

    async def _answer(self, request: web.BaseRequest, call: Call, data: bytes) -> web.StreamResponse:
        if call.reply is not None:
            return await send(request, call, call.reply.status, call.reply.headers, _one(call.reply.body))
        headers = _forwarded(request.headers) | {"Accept-Encoding": "identity"}
        url = URL(self.upstream + request.path_qs, encoded=True)
        try:
            async with self._session.request(
                request.method, url, data=io.BytesIO(data) if data else None, headers=headers, allow_redirects=False
            ) as upstream:
                sent = _forwarded(upstream.headers)
                length = upstream.headers.get("Content-Length")
                return await send(request, call, upstream.status, sent, upstream.content.iter_any(), length)
        except aiohttp.ClientError as error:
            raise Abort from error

    def _die(self) -> None:
        self._dead = True
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()


def _read_json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in NOT_FORWARDED}


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _events(chunks: AsyncIterator[bytes]) -> Events:
    """SSE events, each with the blank line that ends it, as soon as it is complete."""
    buffer = b""
    async for chunk in chunks:
        buffer += chunk
        while end := BLANK_LINE.search(buffer):
            yield Event.parse(buffer[: end.end()])
            buffer = buffer[end.end() :]
    if buffer:
        yield Event(buffer)


async def _whole(chunks: AsyncIterator[bytes]) -> Events:
    yield Event.parse(b"".join([chunk async for chunk in chunks]))


async def _encoded(events: Events) -> AsyncIterator[bytes]:
    async for event in events:
        yield event.encode()


async def _encoded_whole(first: Event, events: Events) -> AsyncIterator[bytes]:
    """A plain answer is its first event; going on to the end lets a transform cut, stall or store."""
    yield first.encode()
    async for _ in events:
        pass


async def send(
    request: web.BaseRequest,
    call: Call,
    status: int,
    headers: Mapping[str, str],
    chunks: AsyncIterator[bytes],
    length: str | int | None = None,
) -> web.StreamResponse:
    """Passes an answer on: untouched, or through the transforms when it is a 200 with JSON in it."""
    kind = headers.get("Content-Type", "")
    is_stream = "event-stream" in kind
    if status == 200 and call.transforms and (is_stream or "json" in kind):
        events = _events(chunks) if is_stream else _whole(chunks)
        for transform in call.transforms:
            events = transform(events)
        if is_stream:
            chunks, length = _encoded(events), None
        else:
            first = await anext(events)
            length = len(first.encode()) if first.promised_bytes is None else first.promised_bytes
            chunks = _encoded_whole(first, events)
    response = web.StreamResponse(status=status, headers=headers)
    if length is None:
        response.enable_chunked_encoding()
    else:
        response.content_length = int(length)
    await response.prepare(request)
    async for chunk in chunks:
        for piece in _sliced(chunk, call.slice_bytes):
            await response.write(piece)
            if call.slice_bytes:
                await asyncio.sleep(0)  # lets the slice leave as a packet of its own
    await response.write_eof()
    if call.closes_silently and request.transport is not None:
        request.transport.close()
    return response


def _sliced(chunk: bytes, size: int | None) -> Iterable[bytes]:
    return [chunk] if size is None else [chunk[at : at + size] for at in range(0, len(chunk), size)]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.proxy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faults", nargs="*", type=Fault.parse, metavar="NAME", help="like --fault")
    parser.add_argument("--fault", action="append", default=[], type=Fault.parse, metavar="NAME,KEY=VALUE,...")
    parser.add_argument("--upstream", help="URL of the healthy server")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--list", action="store_true", help="print the faults")
    options = parser.parse_args()
    if options.list:
        for name, function in FAULTS.items():
            print(f"{name:18} {function.__doc__}")
        return
    if options.upstream is None:
        parser.error("--upstream is required")
    # Blocked before the thread starts, so that the signal waits for sigwait here.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with FaultProxy(options.upstream, [*options.faults, *options.fault], options.port) as proxy:
        print(proxy.base_url, flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
