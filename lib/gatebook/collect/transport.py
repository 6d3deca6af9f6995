"""What carries a lane's requests: httpx asks, h11 speaks HTTP/1.1, and the bytes are stamped when the event loop has them.

With httpx's own transport, which stamps nothing, times of two requests at once err by more (docs/benchmarks.md).
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from functools import cache
from typing import Any, Literal

import h11
import httpx

from gatebook.errors import BadInput

READ_AHEAD_BYTES = 4 << 20
"""What has arrived and nobody has taken yet; more stays with the server."""
MAX_HEAD_BYTES = 100 << 10
"""Of a reply's status and header."""
EVERY_ADDRESS_S = 0.25
"""How long one address of a name is tried before the next one is tried beside it (RFC 8305)."""
SENT, ARRIVED = "sent", "arrived"
"""Extensions: of a request, what is called with the time when it begins to leave; of a response, what returns when the bytes had
arrived that were read last. Both in ns of time.perf_counter_ns."""
Origin = tuple[bytes, bytes, int | None]


@cache
def certificates(ca_bundle: str | None) -> ssl.SSLContext:
    """One TLS context for all lanes: reading the certificates costs 30 ms each time."""
    try:
        context = (
            ssl.create_default_context(cafile=ca_bundle) if ca_bundle else httpx.create_ssl_context(trust_env=False)
        )
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"target.ca_bundle has value {ca_bundle!r}: cannot be read ({error}); name a PEM file") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


class Transport(httpx.AsyncBaseTransport):
    """Keeps the last connection for `keep_s`. A second request at the same time has a connection of its own."""

    def __init__(self, context: ssl.SSLContext, connect_s: float, keep_s: float) -> None:
        """`context`: for https; `connect_s`: how long a connection may take to be made, TLS included."""
        self._context, self._connect_s, self._keep_s = context, connect_s, keep_s
        self._idle: _Connection | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises ConnectError, ConnectTimeout, ReadError, LocalProtocolError, RemoteProtocolError and UnsupportedProtocol of httpx."""
        url = request.url
        if url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"Request URL has an unsupported protocol '{url.scheme}://'.")
        body = await request.aread()
        connection, self._idle = self._idle, None
        origin = (url.raw_scheme, url.raw_host, url.port)
        if connection is not None and not (connection.origin == origin and connection.is_usable(self._keep_s)):
            connection.close()
            connection = None
        connection = connection or await self._connected(origin)
        try:
            connection.send(request, body)
            head = await connection.head()
        except BaseException:
            connection.close()
            raise
        told = {
            "http_version": b"HTTP/" + head.http_version,
            "reason_phrase": head.reason,
            ARRIVED: lambda: connection.arrived_ns,
        }
        return httpx.Response(
            head.status_code, headers=head.headers.raw_items(), stream=_Body(self, connection), extensions=told
        )

    async def _connected(self, origin: Origin) -> _Connection:
        scheme, host, port = origin
        tls = scheme == b"https"
        name = host.decode("ascii")
        try:
            async with asyncio.timeout(self._connect_s):
                _, made = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(origin), name, port or (443 if tls else 80), ssl=self._context if tls else None,
                    happy_eyeballs_delay=EVERY_ADDRESS_S,
                )  # fmt: skip
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"no connection within {self._connect_s:g} s") from error
        except (OSError, UnicodeError) as error:  # the second for a name that is none
            number = None if isinstance(error, socket.gaierror | ssl.SSLError | UnicodeError) else error.errno
            raise httpx.ConnectError(str(error) if number is None else os.strerror(number)) from error
        return made

    def ended(self, connection: _Connection) -> None:
        """Keep a connection whose reply was read to its end, and close any other."""
        if connection.finish() and self._idle is None:
            self._idle = connection
        else:
            connection.close()

    async def aclose(self) -> None:
        if self._idle is not None:
            self._idle.close()
            self._idle = None


class _Body(httpx.AsyncByteStream):
    def __init__(self, transport: Transport, connection: _Connection) -> None:
        self._transport, self._connection = transport, connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._connection.body():
            yield data

    async def aclose(self) -> None:
        self._transport.ended(self._connection)


class _Connection(asyncio.Protocol):
    """One connection, and HTTP/1.1 on it, one request after the other."""

    _transport: asyncio.Transport

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.arrived_ns = 0
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._arrived: deque[tuple[int, bytes]] = deque()
        self._ahead = 0
        self._waiting: asyncio.Future[None] | None = None
        self._lost: Exception | Literal[True] | None = None
        """True for an orderly end."""
        self._since = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._arrived.append((time.perf_counter_ns(), data))
        self._ahead += len(data)
        if self._ahead > READ_AHEAD_BYTES:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._lost = self._lost or True
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = self._lost or error or True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def finish(self) -> bool:
        """End a request; whether the next one may follow."""
        if (self._http.our_state, self._http.their_state) != (h11.DONE, h11.DONE) or self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        self._since = time.monotonic()
        return True

    def is_usable(self, keep_s: float) -> bool:
        """Whether it was kept no longer than that, and the server has neither hung up nor said anything since."""
        if self._lost or self._arrived or time.monotonic() - self._since > keep_s or self._transport.is_closing():
            return False
        polled = select.poll()
        polled.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not polled.poll(0)

    def send(self, request: httpx.Request, body: bytes) -> None:
        """Head and body leave in one write. Raises LocalProtocolError."""
        try:
            asked = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            events = [asked, *([h11.Data(data=body)] if body else []), h11.EndOfMessage()]
            data = b"".join(self._http.send(event) or b"" for event in events)
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error), request=request) from error
        if (told := request.extensions.get(SENT)) is not None:
            told(time.perf_counter_ns())
        self._transport.write(data)

    async def head(self) -> h11.Response | h11.InformationalResponse:
        """Return the reply's status and header. An interim one (RFC 9110, 15.2) is passed over, unless nothing follows it."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Response) or (
                isinstance(event, h11.InformationalResponse) and event.status_code == 101
            ):
                return event

    async def body(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)

    async def _event(self) -> Any:
        """Return the next event of h11. Raises ReadError where the connection breaks, RemoteProtocolError for what is no HTTP."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = await self._read()
                if not data and self._http.their_state is h11.SEND_RESPONSE:
                    raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
                self._http.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        return event

    async def _read(self) -> bytes:
        """Return the next bytes, empty at the end, as they had arrived at `arrived_ns`."""
        while not self._arrived:
            if isinstance(self._lost, Exception):
                raise httpx.ReadError(str(self._lost)) from self._lost
            if self._lost:
                return b""
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        self.arrived_ns, data = self._arrived.popleft()
        self._ahead -= len(data)
        if not self._arrived:
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        """At once: nothing is left to be sent."""
        self._transport.abort()
