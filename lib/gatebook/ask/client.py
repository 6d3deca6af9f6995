"""One lane to the server: sends one request at a time and stamps every byte when it arrives."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from gatebook.ask.wire import Events, Unpacker
from gatebook.errors import BadInput
from gatebook.plan.secrets import is_telling
from gatebook.plan.settings import Target, api_key, extra_headers, is_url, secrets
from gatebook.record.answer import error_message, is_token
from gatebook.record.exchange import BUSY, Attempt, Client, Exchange, FaultKind, Kind, Timing
from gatebook.record.run import now

MAX_REPLY_BYTES = 32 * 2**20
"""As sent, and unpacked."""
MAX_EVENTS = 100_000
AFTER_DONE_S = 0.5
"""How long a connection may stay open after [DONE]; the official client leaves after 0.1 s."""
CONNECT_S = 5.0
KEPT_HEADERS = (
    "content-type", "content-encoding", "transfer-encoding", "date", "server", "retry-after", "age", "x-cache", "cf-cache-status", "via",
    "x-litellm-version",
)  # fmt: skip
NO_BASE = re.compile(r"(/v1)/(chat/completions|completions|models|embeddings|responses)$")
"""What is appended to a base URL, and so is none of it."""


@dataclass
class _Reply:
    """What has arrived so far; kept when the connection breaks or the deadline strikes."""

    asked: Literal["stream", "plain", "get"] = "get"
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: list[tuple[int, bytes]] = field(default_factory=list)
    """(perf_counter_ns on arrival, bytes), unpacked."""
    unpacker: Unpacker | None = None
    stream: Events | None = None
    """None where neither the request nor the header says that it is one."""
    headers_ns: int | None = None
    first_ns: int | None = None
    last_ns: int | None = None
    end_ns: int | None = None
    after_done: Literal["open", "broken"] | None = None
    size: int = 0
    unpacked: int = 0

    @property
    def done(self) -> bool:
        """Whether the stream has said its [DONE]; the official client reads no further."""
        return self.stream is not None and self.stream.done

    @property
    def is_event_stream(self) -> bool:
        return self.headers.get("content-type", "").lower().startswith("text/event-stream")

    def begin(self, stamp: int, status: int, headers: dict[str, str]) -> None:
        self.headers_ns, self.status, self.headers = stamp, status, headers
        self.unpacker = Unpacker.of(headers.get("content-encoding", ""))
        self.stream = Events() if self.asked == "stream" or self.is_event_stream else None

    def take(self, stamp: int, chunk: bytes) -> str | None:
        """The next bytes, stamped before anything looks at them. Says which limit they break, if any."""
        self.first_ns, self.last_ns = self.first_ns or stamp, stamp
        self.size += len(chunk)
        plain = self.unpacker.feed(chunk, MAX_REPLY_BYTES - self.unpacked) if self.unpacker else chunk
        self.unpacked += len(plain)
        if max(self.size, self.unpacked) > MAX_REPLY_BYTES:
            return f"the reply is larger than {MAX_REPLY_BYTES >> 20} MiB"
        self.body.append((stamp, plain))
        if self.stream is not None:
            self.stream.feed(stamp, plain)
            if len(self.stream.events) + len(self.stream.lines) > MAX_EVENTS:
                return f"the reply has more than {MAX_EVENTS:,} events"
        return None

    def end(self) -> None:
        """It is complete: closed in order, or [DONE] was said."""
        self.end_ns = self.last_ns if self.after_done else time.perf_counter_ns()
        if self.stream is not None:
            self.stream.finish(self.end_ns or 0)

    def text(self) -> tuple[str, bool]:
        """The body as `json.loads` of the official client decodes it, and whether it is invalid."""
        raw = b"".join(chunk for _, chunk in self.body)
        try:
            return raw.decode(json.detect_encoding(raw)), False
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace"), True

    def read(self) -> tuple[Events | None, str | None, bool]:
        """The stream or the text, by what was asked and what came (a client looks at no content type), and whether it is invalid UTF-8."""
        if self.status is None:
            return None, None, False
        text, invalid = self.text()
        begin = text[:256].lstrip()
        stream = self.stream
        if stream is None and self.asked == "plain" and begin.startswith(("data:", "event:", ":")):
            stream = Events()
            for stamp, chunk in self.body:
                stream.feed(stamp, chunk)
            stream.finish(self.last_ns or 0)
        if stream is not None and not begin.startswith(("{", "[", "<")) and (stream.events or self.is_event_stream):
            return stream, None, stream.invalid
        return None, text, invalid


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
        patience_s: float | None = None,
    ) -> Exchange:
        """Send one request (a GET when `body` is None) and record everything; never raises for what the server does.

        Connect errors, 429, 502, 503, 504 and a close before any byte are tried again within the deadline. With `patience_s`
        a server that refuses connections, breaks off or answers 500 is asked again for so long, each time with the whole deadline.
        """
        scheduled = scheduled_ns or time.perf_counter_ns()
        content = json.dumps(body, ensure_ascii=False).encode() if body is not None else None
        attempts: list[Attempt] = []
        slot = id(attempts)
        self._lag.open(slot)
        in_flight = self._lag.in_flight
        asked: Literal["stream", "plain", "get"]
        asked = "get" if body is None else "stream" if body.get("stream") else "plain"
        started_at, reply, fault, detail, pending = now(), _Reply(), None, "", False
        cpu, first_sent = time.process_time(), time.perf_counter_ns()
        at, sent = started_at, first_sent
        try:
            async with asyncio.timeout(deadline_s) as limit:
                for number in itertools.count():
                    reply, at, sent, pending = _Reply(asked), now(), time.perf_counter_ns(), True
                    fault, detail = await self._send(path, content, reply)
                    attempts.append(_attempt(at, sent, reply, fault, self._scrub(detail)))
                    pending = False
                    left_s = None if patience_s is None else patience_s - (time.perf_counter_ns() - first_sent) / 1e9
                    if not _worth_another(fault, reply, number < retries, left_s):
                        break
                    pause = _pause(number, reply)
                    if left_s is not None and reply.status not in BUSY:
                        pause = min(pause, left_s)
                        limit.reschedule(asyncio.get_running_loop().time() + pause + deadline_s)
                    await asyncio.sleep(pause)
        except TimeoutError:
            if pending and reply.done and reply.status == 200:
                reply.after_done = "open"
                reply.end()
                attempts.append(_attempt(at, sent, reply, None, ""))
            elif pending:
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
        stream, text, invalid = reply.read()
        events = None if stream is None else [(round((stamp - sent) / 1e6, 3), data) for stamp, data in stream.events]
        lines = [(before, self._scrub(line)) for before, line in stream.lines] if stream else []
        return Exchange(
            kind=kind, key=key, case=case, ask=ask, at=started_at, method="GET" if body is None else "POST", path=path,
            body=body, attempts=attempts, status=reply.status, headers=reply.headers,
            events=None if events is None else [(ms, self._scrub(data)) for ms, data in events],
            lines=lines or None, text=None if text is None else self._scrub(text), invalid_utf8=invalid,
            packing=reply.unpacker.packing if reply.unpacker else None, after_done=reply.after_done,
            fault=fault, detail=self._scrub(detail), timing=_timing(reply, events, scheduled, first_sent, sent), client=client,
        )  # fmt: skip

    async def _send(self, path: str, content: bytes | None, reply: _Reply) -> tuple[FaultKind | None, str]:
        method = "GET" if content is None else "POST"
        try:
            async with self._client.stream(method, self._url(path), content=content, headers=self._headers) as response:
                kept = {k: self._scrub(response.headers[k]) for k in KEPT_HEADERS if k in response.headers}
                reply.begin(time.perf_counter_ns(), response.status_code, kept)
                with suppress(TimeoutError):  # only that of the connection which stays open after [DONE]
                    async with asyncio.timeout(None) as patience:
                        async for chunk in response.aiter_raw():
                            if said := reply.take(time.perf_counter_ns(), chunk):
                                return "broken", said
                            if reply.done and patience.when() is None:
                                patience.reschedule(asyncio.get_running_loop().time() + AFTER_DONE_S)
                reply.after_done = "open" if patience.expired() else None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            return "connect", f"cannot connect: {error or type(error).__name__}"
        except (httpx.TransportError, httpx.InvalidURL) as error:
            said = str(error) or type(error).__name__
            if reply.headers_ns is None:
                return "no_byte", f"connection closed before any byte: {said}"
            if not reply.done:
                return "broken", f"connection broke off in the middle of the reply: {said}"
            reply.after_done = "broken"
        reply.end()
        if response.has_redirect_location:
            to = response.headers["location"][:200]
            return (
                "status",
                f"HTTP {reply.status}: redirects to {to!r}, and no host is asked that the profile does not name",
            )
        if reply.status != 200:
            stream, text, _ = reply.read()
            return (
                "status",
                f"HTTP {reply.status}: {error_message(stream.events[0][1] if stream and stream.events else text)}",
            )
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


def _worth_another(fault: FaultKind | None, reply: _Reply, more: bool, patience_s: float | None) -> bool:
    """Whether to send it again: `more` retries are left, `patience_s` is what is left of the patience (None: there is none)."""
    if fault == "status" and reply.status in BUSY:
        return more
    if patience_s is None:
        return more and fault in ("connect", "no_byte")
    return patience_s > 0 and (fault in ("connect", "no_byte", "broken") or (reply.status or 0) >= 500)


def _pause(number: int, reply: _Reply) -> float:
    """Seconds to wait: as Retry-After says, in seconds or as a date (RFC 9110, 10.2.3), else longer each time."""
    told = reply.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", told, re.ASCII):
        return float(told)
    with suppress(ValueError, TypeError, OverflowError):
        when = parsedate_to_datetime(told)
        left = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        if left > 0:
            return left
    return float(min(0.25 * 2**number, 4.0))


def _attempt(at: str, sent: int, reply: _Reply, fault: FaultKind | None, detail: str) -> Attempt:
    elapsed = (time.perf_counter_ns() - sent) / 1e6
    return Attempt(at=at, elapsed_ms=round(elapsed, 2), status=reply.status, fault=fault, detail=detail)


def _timing(reply: _Reply, events: list[tuple[float, str]] | None, scheduled: int, first: int, sent: int) -> Timing:
    tokens = [ms for ms, data in events or [] if is_token(data)]

    def since_sent(stamp: int | None) -> float | None:
        return None if stamp is None else round((stamp - sent) / 1e6, 3)

    return Timing(
        queued_ms=round((first - scheduled) / 1e6, 3),
        headers_ms=since_sent(reply.headers_ns),
        first_chunk_ms=since_sent(reply.first_ns),
        first_token_ms=tokens[0] if tokens else None,
        last_token_ms=tokens[-1] if tokens else None,
        end_ms=since_sent(reply.end_ns),
        from_schedule_ms=None if reply.end_ns is None else round((reply.end_ns - scheduled) / 1e6, 3),
    )


def normal_base_url(url: str) -> str:
    """`http://host:8000`, `http://host:8000/v1/` and `http://host:8000/v1/chat/completions` are the same server.

    Raises BadInput when it is no URL.
    """
    if not is_url(url):
        raise BadInput(f"--base-url has value {url!r}: must be a URL such as http://gpu-box:8000/v1")
    url = NO_BASE.sub(r"\1", url.rstrip("/"))
    return url if urlsplit(url).path.rstrip("/") else url + "/v1"
