"""One lane to the server: sends one request at a time and stamps every byte when it arrives."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from gatebook.errors import BadInput
from gatebook.plan.secrets import is_telling
from gatebook.plan.settings import Target, api_key, extra_headers, is_url, secrets
from gatebook.record.answer import error_message, is_token
from gatebook.record.exchange import BUSY, Attempt, Client, Exchange, FaultKind, Kind, Timing
from gatebook.record.run import now

MAX_REPLY_BYTES = 32 * 2**20
CONNECT_S = 5.0
KEPT_HEADERS = ("content-type", "date", "server", "retry-after", "age", "x-cache", "cf-cache-status", "via")


@dataclass
class _Reply:
    """What has arrived so far; kept when the connection breaks or the deadline strikes."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    is_stream: bool = False
    chunks: list[tuple[int, bytes]] = field(default_factory=list)
    """(perf_counter_ns on arrival, bytes)."""
    headers_ns: int | None = None
    end_ns: int | None = None
    complete: bool = False


class LoopLag:
    """A 10 ms ticker; its largest delay while a request is open says whether our own timings can be trusted."""

    def __init__(self) -> None:
        self._worst: dict[int, float] = {}

    async def run(self) -> None:
        while True:
            asked = time.perf_counter_ns()
            await asyncio.sleep(0.01)
            lag_ms = (time.perf_counter_ns() - asked) / 1e6 - 10
            for key in self._worst:
                self._worst[key] = max(self._worst[key], lag_ms)

    def open(self, key: int) -> None:
        self._worst[key] = 0.0

    def close(self, key: int) -> float:
        return self._worst.pop(key)

    @property
    def in_flight(self) -> int:
        return len(self._worst)


class Lane:
    """One httpx client. Lanes do not share one: its pool is quadratic past 16 requests in flight.

    `close` asks for a new connection a request: llama.cpp hangs up after every streamed reply while promising
    keep-alive, which loses one request in eight otherwise.
    """

    def __init__(self, target: Target, base_url: str, lag: LoopLag, close: bool = True) -> None:
        key = api_key(target)
        extra = extra_headers(target)
        self._secrets = [value for value in secrets(target).values() if is_telling(value)]
        self._base_url, self._lag = base_url.rstrip("/"), lag
        self._headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            **({"Authorization": f"Bearer {key}"} if key else {}),
            **({"Connection": "close"} if close else {}),
            **extra,
        }
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=4, keepalive_expiry=4.0),
            verify=certificates(target.ca_bundle),
            trust_env=False,
        )

    async def __aenter__(self) -> Lane:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def ask(
        self,
        *,
        kind: Kind,
        key: str,
        body: dict[str, Any] | None,
        deadline_s: float,
        retries: int,
        path: str = "chat/completions",
        case: str | None = None,
        ask: str = "",
        scheduled_ns: int | None = None,
    ) -> Exchange:
        """Send one request (a GET when `body` is None) and record everything; never raises for what the server does.

        Connect errors, 429, 502, 503, 504 and a close before any byte are tried again within the deadline.
        """
        scheduled = scheduled_ns or time.perf_counter_ns()
        content = json.dumps(body, ensure_ascii=False).encode() if body is not None else None
        attempts: list[Attempt] = []
        slot = id(attempts)
        self._lag.open(slot)
        in_flight = self._lag.in_flight
        started_at, reply, fault, detail, pending = now(), _Reply(), None, "", False
        cpu, first_sent = time.process_time(), time.perf_counter_ns()
        at, sent = started_at, first_sent
        try:
            async with asyncio.timeout(deadline_s):
                for number in range(retries + 1):
                    reply, at, sent, pending = _Reply(), now(), time.perf_counter_ns(), True
                    fault, detail = await self._send(path, content, reply)
                    attempts.append(_attempt(at, sent, reply, fault, self._scrub(detail)))
                    pending = False
                    if number == retries or not _worth_another(fault, reply):
                        break
                    await asyncio.sleep(_pause(number, reply))
        except TimeoutError:
            if pending:
                fault, detail = "deadline", f"no complete reply within {round(deadline_s, 2):g} s"
                attempts.append(_attempt(at, sent, reply, fault, detail))
            else:
                detail = f"{detail}; still so after {len(attempts)} attempts in {round(deadline_s, 2):g} s"
        wall_s = (time.perf_counter_ns() - first_sent) / 1e9
        client = Client(
            in_flight=in_flight,
            cpu_share=round((time.process_time() - cpu) / wall_s, 4) if wall_s > 0 else None,
            loop_lag_ms=round(self._lag.close(slot), 2),
        )
        events, text, invalid = _decode(reply, sent)
        return Exchange(
            kind=kind, key=key, case=case, ask=ask, at=started_at, method="GET" if body is None else "POST", path=path,
            body=body, attempts=attempts, status=reply.status, headers=reply.headers,
            events=None if events is None else [(ms, self._scrub(data)) for ms, data in events],
            text=None if text is None else self._scrub(text), invalid_utf8=invalid,
            fault=fault, detail=self._scrub(detail), timing=_timing(reply, events, scheduled, first_sent, sent), client=client,
        )  # fmt: skip

    async def _send(self, path: str, content: bytes | None, reply: _Reply) -> tuple[FaultKind | None, str]:
        method = "GET" if content is None else "POST"
        try:
            async with self._client.stream(method, self._url(path), content=content, headers=self._headers) as response:
                reply.headers_ns, reply.status = time.perf_counter_ns(), response.status_code
                reply.headers = {k: self._scrub(response.headers[k]) for k in KEPT_HEADERS if k in response.headers}
                reply.is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
                size = 0
                async for chunk in response.aiter_raw():
                    reply.chunks.append((time.perf_counter_ns(), chunk))
                    size += len(chunk)
                    if size > MAX_REPLY_BYTES:
                        return "broken", f"the reply is larger than {MAX_REPLY_BYTES >> 20} MiB"
                reply.end_ns, reply.complete = time.perf_counter_ns(), True
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            return "connect", f"cannot connect: {error or type(error).__name__}"
        except (httpx.TransportError, httpx.InvalidURL) as error:
            said = str(error) or type(error).__name__
            if reply.headers_ns is None:
                return "no_byte", f"connection closed before any byte: {said}"
            return "broken", f"connection broke off in the middle of the reply: {said}"
        if reply.status != 200:
            return "status", f"HTTP {reply.status}: {error_message(_text(reply)[0])}"
        return None, ""

    def _url(self, path: str) -> str:
        """`/x` is on the host, `x` below the base URL (which ends in /v1)."""
        if not path.startswith("/"):
            return f"{self._base_url}/{path}"
        return self._base_url.removesuffix("/v1") + path

    def _scrub(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        return text


@cache
def certificates(ca_bundle: str | None) -> ssl.SSLContext:
    """One TLS context for all lanes: reading the certificates costs 30 ms each time."""
    if ca_bundle is None:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"target.ca_bundle has value {ca_bundle!r}: cannot be read ({error}); name a PEM file") from None


def _worth_another(fault: FaultKind | None, reply: _Reply) -> bool:
    return fault in ("connect", "no_byte") or (fault == "status" and reply.status in BUSY)


def _pause(number: int, reply: _Reply) -> float:
    told = reply.headers.get("retry-after", "")
    return float(told) if told.isdigit() else float(min(0.25 * 2**number, 4.0))


def _attempt(at: str, sent: int, reply: _Reply, fault: FaultKind | None, detail: str) -> Attempt:
    elapsed = (time.perf_counter_ns() - sent) / 1e6
    return Attempt(at=at, elapsed_ms=round(elapsed, 2), status=reply.status, fault=fault, detail=detail)


def _text(reply: _Reply) -> tuple[str, bool]:
    raw = b"".join(chunk for _, chunk in reply.chunks)
    try:
        return raw.decode(), False
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace"), True


def _decode(reply: _Reply, sent: int) -> tuple[list[tuple[float, str]] | None, str | None, bool]:
    """Split a stream into server-sent events, each stamped with the arrival of its last byte."""
    if reply.status is None:
        return None, None, False
    if not reply.is_stream:
        text, invalid = _text(reply)
        return None, text, invalid
    events: list[tuple[float, str]] = []
    data: list[bytes] = []
    rest, invalid = b"", False
    for stamp, chunk in [*reply.chunks, (reply.end_ns or 0, b"\n\n" if reply.complete else b"")]:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                joined = b"\n".join(data)
                text = joined.decode("utf-8", "replace")
                invalid = invalid or text.encode() != joined
                events.append((round((stamp - sent) / 1e6, 3), text))
                data = []
    return events, None, invalid


def _timing(reply: _Reply, events: list[tuple[float, str]] | None, scheduled: int, first: int, sent: int) -> Timing:
    tokens = [ms for ms, data in events or [] if is_token(data)]

    def since_sent(stamp: int | None) -> float | None:
        return None if stamp is None else round((stamp - sent) / 1e6, 3)

    return Timing(
        queued_ms=round((first - scheduled) / 1e6, 3),
        headers_ms=since_sent(reply.headers_ns),
        first_chunk_ms=since_sent(reply.chunks[0][0]) if reply.chunks else None,
        first_token_ms=tokens[0] if tokens else None,
        last_token_ms=tokens[-1] if tokens else None,
        end_ms=since_sent(reply.end_ns),
        from_schedule_ms=None if reply.end_ns is None else round((reply.end_ns - scheduled) / 1e6, 3),
    )


def normal_base_url(url: str) -> str:
    """`http://host:8000` and `http://host:8000/v1/` are the same server. Raises BadInput when it is no URL."""
    if not is_url(url):
        raise BadInput(f"--base-url has value {url!r}: must be a URL such as http://gpu-box:8000/v1")
    parts = urlsplit(url)
    return url.rstrip("/") if parts.path.rstrip("/") else url.rstrip("/") + "/v1"
