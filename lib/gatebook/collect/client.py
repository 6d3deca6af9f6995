"""One lane to the server: sends one request at a time and stamps every byte when it arrives."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import ssl
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from gatebook.config.profile import Profile, Target, api_key, extra_headers, is_url, scrubber
from gatebook.config.secrets import MASK, Scrubber, refuse_secrets
from gatebook.errors import BadInput
from gatebook.record.exchange import BUSY, Attempt, Client, Exchange, FaultKind, Kind, Packing, Timing
from gatebook.record.replies import error_message, is_token, parse, read_answer
from gatebook.record.run import now

MAX_REPLY_BYTES = 32 * 2**20
"""Of a chat, as sent, and unpacked: 20 alternatives for each of 4,096 tokens take 12 MiB."""
MAX_GET_BYTES = 8 * 2**20
"""Of everything else: models, settings, metrics, tokens."""
MAX_VALUES = 2_000_000
"""Of JSON in a reply: they take a hundred times the memory of their bytes. Those 12 MiB have 800,000."""
MAX_TEXT_CHARS = 2**20
"""Of an answer: 128K tokens are half of it."""
FEW_EVENTS = 100
HEAD_BYTES = 64 * 1024
"""What is kept of a reply that goes past a limit."""
AFTER_DONE_S = 5.0
"""How long a connection may stay open after [DONE]: longer than a busy server or machine takes to close it."""
AGAIN_S = 0.5
"""The same where the server has left one open before."""
CONNECT_S = 5.0
KEPT_HEADERS = (
    "content-type", "content-encoding", "transfer-encoding", "date", "server", "retry-after", "age", "x-cache", "cf-cache-status", "via",
    "x-litellm-version",
)  # fmt: skip
STREAMED = re.compile(rb"(\xef\xbb\xbf)?\s*(data:|event:|:)")
"""How a stream begins, whatever was asked."""
NO_BASE = re.compile(r"(/v1)/(chat/completions|completions|models|embeddings|responses)$")
"""What is appended to a base URL, and so is none of it."""


@dataclass
class _Reply:
    """What has arrived so far; kept when the connection breaks or the deadline strikes."""

    asked: Literal["stream", "plain", "get"] = "get"
    most_bytes: int = MAX_GET_BYTES
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    """Unpacked."""
    unpacker: Unpacker | None = None
    stream: Events | None = None
    """None where neither the request nor the header says that it is one, nor the first bytes of a chat's reply."""
    headers_ns: int | None = None
    first_ns: int | None = None
    last_ns: int | None = None
    end_ns: int | None = None
    after_done: Literal["open", "broken"] | None = None
    size: int = 0
    values: int = 0
    """Of its JSON, counted by their commas and brackets."""

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
        plain = self.unpacker.feed(chunk, self.most_bytes - len(self.body)) if self.unpacker else chunk
        self.body += plain
        if max(self.size, len(self.body)) > self.most_bytes:
            return self._cut(f"the reply is larger than {self.most_bytes >> 20} MiB")
        self.values += sum(plain.count(sign) for sign in (b",", b"{", b"["))
        if self.values > MAX_VALUES:
            return self._cut(f"the reply has more than {MAX_VALUES:,} values")
        if self.stream is None and self.asked == "plain" and STREAMED.match(self.body, 0, 256):
            self.stream, plain = Events(), bytes(self.body)
        if self.stream is not None:
            self.stream.feed(stamp, plain)
            if said := self.stream.excess:
                return self._cut(said)
        return None

    def _cut(self, said: str) -> str:
        """Nothing judges it any more: what is left shows what came."""
        del self.body[HEAD_BYTES:]
        if self.stream is not None:
            self.stream.cut(HEAD_BYTES)
        return said

    def end(self) -> None:
        """It is complete: closed in order, or [DONE] was said."""
        self.end_ns = self.last_ns if self.after_done else time.perf_counter_ns()
        if self.stream is not None:
            self.stream.finish(self.end_ns or 0)

    def text(self) -> tuple[str, bool]:
        """The body as `json.loads` of the official client decodes it, and whether it is invalid."""
        raw = bytes(self.body)
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
        self._scrubber = scrubber(target)
        self._base_url, self._lag, self._patience_s = base_url.rstrip("/"), lag, AFTER_DONE_S
        self._bare = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            **({"Connection": "close"} if close else {}),
        }
        self._headers = {**self._bare, **({"Authorization": f"Bearer {key}"} if key else {}), **extra}
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
        most = MAX_GET_BYTES if body is None or path.startswith("/") else MAX_REPLY_BYTES
        started_at, reply, fault, detail, pending = now(), _Reply(), None, "", False
        cpu, first_sent = time.process_time(), time.perf_counter_ns()
        at, sent = started_at, first_sent
        try:
            async with asyncio.timeout(deadline_s) as limit:
                for number in itertools.count():
                    reply, at, sent, pending = _Reply(asked, most), now(), time.perf_counter_ns(), True
                    fault, detail = await self._send(path, content, reply)
                    detail = self._scrubber.text(detail)
                    attempts.append(_attempt(at, sent, reply, fault, detail))
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
        exchange = Exchange(
            kind=kind, key=key, case=case, ask=ask, at=started_at, method="GET" if body is None else "POST", path=path,
            body=body, attempts=attempts, status=reply.status, headers=reply.headers, events=events,
            lines=(stream.lines if stream else None) or None, text=text, invalid_utf8=invalid,
            packing=reply.unpacker.packing if reply.unpacker else None, after_done=reply.after_done,
            fault=fault, detail=detail, timing=_timing(reply, events, scheduled, first_sent, sent), client=client,
        )  # fmt: skip
        if reply.size > MAX_TEXT_CHARS and fault is None and (long := _longest(exchange)) > MAX_TEXT_CHARS:
            exchange = exchange.model_copy(
                update={
                    "fault": "broken",
                    "detail": f"the answer has {long:,} characters, {MAX_TEXT_CHARS:,} at most are read",
                    "text": None if text is None else text[:HEAD_BYTES],
                    "events": None if events is None else events[:FEW_EVENTS],
                }
            )
        return scrubbed(exchange, self._scrubber)

    async def _send(self, path: str, content: bytes | None, reply: _Reply) -> tuple[FaultKind | None, str]:
        method = "GET" if content is None else "POST"
        try:
            url = self._url(path)
            own = urlsplit(url)[:2] == urlsplit(self._base_url)[:2]
            headers = self._headers if own else self._bare  # the key goes to the server under test and nowhere else
            async with self._client.stream(method, url, content=content, headers=headers) as response:
                kept = {k: response.headers[k] for k in KEPT_HEADERS if k in response.headers}
                reply.begin(time.perf_counter_ns(), response.status_code, kept)
                with suppress(TimeoutError):  # only that of the connection which stays open after [DONE]
                    async with asyncio.timeout(None) as patience:
                        async for chunk in response.aiter_raw():
                            if said := reply.take(time.perf_counter_ns(), chunk):
                                return "broken", said
                            if reply.done and patience.when() is None:
                                patience.reschedule(asyncio.get_running_loop().time() + self._patience_s)
                if patience.expired():
                    reply.after_done, self._patience_s = "open", AGAIN_S
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
            to = self._scrubber.text(response.headers["location"])[:200]
            return (
                "status",
                f"HTTP {reply.status}: redirects to {to!r}, and no host is asked that the profile does not name",
            )
        if reply.status != 200:
            stream, text, _ = reply.read()
            said = (stream.events[0][1] if stream and stream.events else text) or ""
            return "status", f"HTTP {reply.status}: {error_message(self._scrubber.documents([said], parse)[0])}"
        return None, ""

    def _url(self, path: str) -> str:
        """`/x` is on the host, `x` below the base URL (which ends in /v1); a whole URL is itself."""
        if path.startswith(("http://", "https://")):
            return path
        if not path.startswith("/"):
            return f"{self._base_url}/{path}"
        return self._base_url.removesuffix("/v1") + path


@cache
def certificates(ca_bundle: str | None) -> ssl.SSLContext:
    """One TLS context for all lanes: reading the certificates costs 30 ms each time."""
    if ca_bundle is None:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"target.ca_bundle has value {ca_bundle!r}: cannot be read ({error}); name a PEM file") from None


def scrubbed(exchange: Exchange, scrubber: Scrubber) -> Exchange:
    """What may be written of an exchange: no reply holds a secret that was sent, in no part and in none that a reader joins."""
    if not scrubber:
        lines = [(before, Events.shown(line)) for before, line in exchange.lines or []]
        return exchange.model_copy(update={"lines": lines or None})
    update: dict[str, Any] = {
        "headers": {name: scrubber.text(value) for name, value in exchange.headers.items()},
        "lines": [(before, Events.shown(scrubber.documents([line], parse)[0])) for before, line in exchange.lines or []]
        or None,
        "text": None if exchange.text is None else scrubber.documents([exchange.text], parse)[0],
    }
    if exchange.events is not None:
        told = scrubber.documents([data for _, data in exchange.events], parse)
        update["events"] = [(ms, data) for (ms, _), data in zip(exchange.events, told, strict=True)]
    made = exchange.model_copy(update=update)
    if not any(scrubber.holds(text) for text in read_answer(made).texts()):
        return made
    # joined in a way that no JSON path shows: nothing of it is kept but when it came
    hidden = None if made.events is None else [(ms, MASK) for ms, _ in made.events]
    return made.model_copy(update={"events": hidden, "text": None if made.text is None else MASK, "lines": None})


def _longest(exchange: Exchange) -> int:
    """Characters of the longest text of an answer."""
    return max((len(text) for text in read_answer(exchange).texts()), default=0)


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
        left = (when.replace(tzinfo=when.tzinfo or UTC) - _server_now(reply)).total_seconds()
        if left > 0:
            return left
    return float(min(0.25 * 2**number, 4.0))


def _server_now(reply: _Reply) -> datetime:
    """By its own clock, where it tells it: ours may be another."""
    with suppress(KeyError, ValueError, TypeError, OverflowError):
        told = parsedate_to_datetime(reply.headers["date"])
        return told.replace(tzinfo=told.tzinfo or UTC)
    return datetime.now(UTC)


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


def normal_base_url(url: str, source: str = "--base-url") -> str:
    """`http://host:8000`, `http://host:8000/v1/` and `http://host:8000/v1/chat/completions` are the same server.

    Raises BadInput, which names the `source`, when it is no URL or holds more than a place: a user, a key, a query.
    """
    refuse_secrets({"target": {"base_url": url}}, source)
    if not is_url(url):
        raise BadInput(f"{source} has value {url!r}: must be a URL such as http://gpu-box:8000/v1")
    if "?" in url or "#" in url:
        raise BadInput(f"{source} has a query or a fragment, and paths are appended to it; end it with /v1")
    url = NO_BASE.sub(r"\1", url.rstrip("/"))
    return url if urlsplit(url).path.rstrip("/") else url + "/v1"


LINE_END = re.compile(rb"\r\n|\r|\n")
LOOKS_LIKE_TEXT = re.compile(rb"\s*[{\[<:]|data|event|id|retry|error|\xef\xbb\xbf")
ZLIB_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
MAX_CODINGS = 5
MAX_EVENTS = 100_000
"""Events of a stream, with the lines that carry no data and those that no blank line has ended yet."""
MAX_LINES = 4 * MAX_EVENTS
"""Lines of a stream, blank ones too."""
SLICE_BYTES = 64 * 1024
"""After so many bytes of a piece the limit is looked at."""
KEPT_LINE_CHARS = 500
NOT_READ = ("", "event", "id", "retry")
"""Fields of which clients read no answer."""


class Unpacker:
    """Takes one content coding away; those under it first. `packing` says what the body was found to be."""

    def __init__(self, codings: list[str]) -> None:
        self._coding = codings[-1]
        self._under = Unpacker(codings[:-1]) if len(codings) > 1 else None
        self._inflate: zlib._Decompress | None = None
        self._head = b""
        self._packing: Packing | None = None

    @classmethod
    def of(cls, header: str) -> Unpacker | None:
        """For a Content-Encoding header; None where it names none (or `identity`)."""
        codings = [c for part in header.lower().split(",") if (c := part.strip()) not in ("", "identity")]
        return cls(codings[:MAX_CODINGS]) if codings else None

    @property
    def packing(self) -> Packing | None:
        """None where no byte has come."""
        if self._packing != "packed" or self._under is None:
            return self._packing
        return self._under.packing

    def feed(self, chunk: bytes, most: int) -> bytes:
        """The next bytes of the body, `most` + 1 at most; as they came where they are not packed as told."""
        if self._packing is None:
            self._head += chunk
            if len(self._head) < 2:
                return b""
            chunk, self._packing = self._head, self._recognised()
        if self._packing == "not packed" or self._inflate is None:
            return chunk
        if self._packing == "broken":
            return b""
        if self._inflate.eof:
            self._packing = "more"
            return b""
        try:
            plain = self._inflate.decompress(chunk, most + 1)
        except zlib.error:
            self._packing = "broken"
            return b""
        if self._inflate.unused_data:
            self._packing = "more"
        return self._under.feed(plain, most) if self._under and plain else plain

    def _recognised(self) -> Packing:
        """By the first two bytes. Of codings that the client cannot undo nothing is known but that they are no text."""
        head = self._head
        if self._coding == "gzip" and head[:2] != b"\x1f\x8b":
            return "not packed"
        if LOOKS_LIKE_TEXT.match(head):
            return "not packed"
        if self._coding not in ZLIB_BITS:
            return "unknown"
        has_zlib_header = head[0] & 0x0F == 8 and (head[0] << 8 | head[1]) % 31 == 0
        bits = ZLIB_BITS[self._coding] if self._coding == "gzip" or has_zlib_header else -zlib.MAX_WBITS
        self._inflate = zlib.decompressobj(bits)
        return "packed"


class Events:
    """Server-sent events, each with the arrival of its last byte, and the lines that carry no data."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str]] = []
        """(perf_counter_ns, data joined by line feeds). An event without data is one too: a client reads it."""
        self.lines: list[tuple[int, str]] = []
        """(number of events before it, line), each text once: comments, event, id, retry, and what is no field; all of it."""
        self.invalid = False
        """A line is not UTF-8."""
        self.done = False
        self._rest = bytearray()
        self._after_cr = False
        self._seen: set[str] = set()
        self._data: list[str] = []
        self._event = self._id = ""
        self._retry = False
        self._count = 0

    @property
    def excess(self) -> str | None:
        """Which limit it breaks, in words."""
        if len(self.events) + len(self.lines) + len(self._data) > MAX_EVENTS:
            return f"the reply has more than {MAX_EVENTS:,} events"
        return f"the reply has more than {MAX_LINES:,} lines" if self._count > MAX_LINES else None

    def feed(self, stamp: int, chunk: bytes) -> None:
        for at in range(0, len(chunk), SLICE_BYTES):
            if self.excess:
                return
            self._feed(stamp, chunk[at : at + SLICE_BYTES])

    def _feed(self, stamp: int, chunk: bytes) -> None:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        *lines, rest = LINE_END.split(chunk)
        self._count += len(lines)
        for line in lines:
            self._line(stamp, bytes(self._rest + line))
            self._rest.clear()
        self._rest += rest

    def finish(self, stamp: int) -> None:
        """No more bytes come. What no blank line ended is no event: clients lose it, unless it is [DONE] and so the end anyway."""
        if self._rest:
            self._line(stamp, bytes(self._rest))
            self._rest.clear()
        if self._data and self._data[0].startswith("[DONE]"):
            self._dispatch(stamp)
        for data in self._data:
            self._keep(f"data: {data}")

    def cut(self, most: int) -> None:
        """Keep about the first `most` characters of the events, and no lines."""
        kept = 0
        for number, (_, data) in enumerate(self.events):
            kept += len(data)
            if kept > most:
                del self.events[number:]
                break
        del self.events[most // 64 :]
        self.lines, self._data = [], []
        self._rest.clear()
        self._seen.clear()

    @staticmethod
    def shown(line: str) -> str:
        """What the record keeps of a line: all of one that may carry an answer, else its beginning."""
        return line[:KEPT_LINE_CHARS] if line.partition(":")[0] in NOT_READ else line

    def _line(self, stamp: int, raw: bytes) -> None:
        if not raw:
            if self._data or self._event or self._id or self._retry:
                self._dispatch(stamp)
            return
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            line, self.invalid = raw.decode("utf-8", "replace"), True
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            return
        if name == "event":
            self._event = value
        elif name == "id":
            self._id = self._id if "\0" in value else value
        elif name == "retry":
            self._retry = self._retry or value.strip().isdecimal()
        elif name:
            self._keep(line)  # no field: clients do not read it
            return
        self._keep(line)

    def _dispatch(self, stamp: int) -> None:
        data = "\n".join(self._data)
        self.done = self.done or data.startswith("[DONE]")
        self.events.append((stamp, data))
        self._data, self._event, self._retry = [], "", False  # an id stays (the SSE standard)

    def _keep(self, line: str) -> None:
        if line not in self._seen:
            self._seen.add(line)
            self.lines.append((len(self.events), line))


def ask_once(profile: Profile, base_url: str, body: dict[str, Any], case: str, ask: str) -> Exchange:
    """Send one chat completion and return what came back; never raises for what the server does.

    The model comes from the profile unless the body names one, and `user` is one that no other request has.
    """
    sent = {"model": profile.target.model, "user": f"gatebook-explore-{secrets.token_hex(8)}", **body}

    async def send() -> Exchange:
        async with Lane(profile.target, base_url, LoopLag()) as lane:
            return await lane.ask(
                kind="ask", key=f"{case}/{ask}", case=case, ask=ask, body=sent,
                deadline_s=profile.limits.request_deadline_s, retries=profile.limits.transport_retries,
            )  # fmt: skip

    with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a running event loop
        return pool.submit(asyncio.run, send()).result()
