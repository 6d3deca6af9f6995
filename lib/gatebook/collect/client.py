"""One lane to the server: sends one request at a time and stamps every byte when it arrives."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from gatebook.collect.reply import HEAD_BYTES, Asked, Incoming
from gatebook.collect.transport import ARRIVED, SENT, Transport, certificates
from gatebook.config.profile import Profile, Target, is_url
from gatebook.config.secrets import MASK, Scrubber, refuse_secrets
from gatebook.config.sending import api_key, extra_headers, scrubber
from gatebook.errors import BadInput
from gatebook.record.exchange import BUSY, Attempt, Client, Exchange, FaultKind, Kind, Timing
from gatebook.record.replies import NO_ANSWER, error_message, is_token, parse, read_answer
from gatebook.record.run import now

MAX_TEXT_CHARS = 2**20
"""Of an answer: 128K tokens are half of it."""
FEW_EVENTS = 100
KEPT_LINE_CHARS = 500
"""Of a line of a stream with one of NO_ANSWER."""
AFTER_DONE_S = 5.0
"""How long a connection may stay open after [DONE]: longer than a busy server or machine takes to close it."""
AGAIN_S = 0.5
"""The same where the server has left one open before."""
CONNECT_S, KEPT_S = 5.0, 4.0
"""How long a connection may take to be made, and stay unused."""
KEPT_HEADERS = (
    "content-type", "content-encoding", "transfer-encoding", "date", "server", "retry-after", "age", "x-cache", "cf-cache-status", "via",
    "x-litellm-version",
)  # fmt: skip
STRING = re.compile(r'"((?:[^"\\]|\\.)*)(?:"|\\?\Z)(\s*:)?', re.DOTALL)
"""Of JSON, the last one without its end; and the colon behind a name."""
NO_BASE = re.compile(r"(/v1)/(chat/completions|completions|models|embeddings|responses)$")
"""What is appended to a base URL, and so is none of it."""


class LoopLag:
    """A 10 ms ticker; its largest delay while a request is open says whether our own timings can be trusted."""

    def __init__(self) -> None:
        self.worst_ms: dict[int, float] = {}  # by open request

    async def run(self) -> None:
        while True:
            asked = time.perf_counter_ns()
            await asyncio.sleep(0.01)
            lag_ms = (time.perf_counter_ns() - asked) / 1e6 - 10
            self.worst_ms |= {key: max(worst, lag_ms) for key, worst in self.worst_ms.items()}


class Lane:
    """One httpx client with a connection of its own. `close` opens a new one for each request: llama.cpp hangs up after every
    streamed reply while promising keep-alive, which loses one request in eight otherwise."""

    def __init__(self, target: Target, base_url: str, lag: LoopLag, close: bool = True, *others: Target) -> None:
        """`others`: targets whose secrets are masked in replies too; a gateway may know them all."""
        self._scrubber = scrubber(target, *others)
        self._base_url, self._lag, self._patience_s = base_url.rstrip("/"), lag, AFTER_DONE_S
        self._bare = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._bare |= {"Connection": "close"} if close else {}
        key = api_key(target)
        self._headers = {**self._bare, **({"Authorization": f"Bearer {key}"} if key else {}), **extra_headers(target)}
        self._places: dict[str, tuple[httpx.URL, dict[str, str]]] = {}
        self._transport = Transport(certificates(target.ca_bundle), CONNECT_S, KEPT_S)
        self._client = httpx.AsyncClient(transport=self._transport, trust_env=False)

    async def __aenter__(self) -> Lane:
        return self

    async def __aexit__(self, *_: object) -> None:
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
        patience_s: float | None = None,
    ) -> Exchange:
        """Send one request (a GET when `body` is None) and return everything; never raises for what the server does.

        Connect errors, 429, 502, 503, 504 and a close before any byte are retried within the deadline. For `patience_s`, also
        refused connections, broken replies and 500s are, each time with the whole deadline.
        """
        scheduled, loop = time.perf_counter_ns(), asyncio.get_running_loop()
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        asked: Asked = "stream" if body and body.get("stream") else "plain"
        asked = "other" if body is None or path.startswith("/") else asked
        attempts: list[Attempt] = []
        slot = id(attempts)
        self._lag.worst_ms[slot] = 0.0
        in_flight = len(self._lag.worst_ms)
        cpu_s, begun, ends_s = time.process_time(), time.perf_counter_ns(), loop.time() + deadline_s
        for number in itertools.count():
            reply, at, sent = Incoming(asked), now(), time.perf_counter_ns()
            fault, said = await self._send(path, content, reply, ends_s, deadline_s)
            detail = self._scrubber.text(said)
            elapsed_ms = round((time.perf_counter_ns() - sent) / 1e6, 2)
            attempts.append(Attempt(at=at, elapsed_ms=elapsed_ms, status=reply.status, fault=fault, detail=detail))
            left_s = None if patience_s is None else patience_s - (time.perf_counter_ns() - begun) / 1e9
            if not _worth_another(fault, reply.status, number < retries, left_s):
                break
            pause_s = _pause_s(number, reply.headers)
            if left_s is not None and reply.status not in BUSY:
                pause_s = min(pause_s, left_s)
                ends_s = loop.time() + pause_s + deadline_s
            await asyncio.sleep(min(pause_s, room_s := ends_s - loop.time()))
            if pause_s >= room_s:
                detail += f"; still so after {len(attempts)} attempts in {round(deadline_s, 2):g} s"
                break
        wall_s = (time.perf_counter_ns() - begun) / 1e9
        client = Client(
            in_flight=in_flight,
            cpu_share=round((time.process_time() - cpu_s) / wall_s, 4) if wall_s > 0 else None,
            loop_lag_ms=round(self._lag.worst_ms.pop(slot), 2),
        )
        stream, text, invalid = reply.read()
        sent = reply.sent_ns or sent
        events = None if stream is None else [(round((stamp - sent) / 1e6, 3), data) for stamp, data in stream.events]
        exchange = Exchange(
            kind=kind, key=key, case=case, ask=ask, at=attempts[0].at, method="GET" if body is None else "POST", path=path,
            body=body, attempts=attempts, status=reply.status, headers=reply.headers, events=events,
            lines=(stream.lines if stream else None) or None, text=text, invalid_utf8=invalid,
            packing=reply.unpacker.packing if reply.unpacker else None, after_done=reply.after_done,
            fault=fault, detail=detail, timing=_timing(reply, events, scheduled, begun, sent), client=client,
        )  # fmt: skip
        kept = _bounded(exchange) if max(reply.size, len(reply.body)) > MAX_TEXT_CHARS else exchange
        return _scrubbed(kept, self._scrubber, cut=reply.cut or kept is not exchange)

    async def _send(
        self, path: str, content: bytes | None, reply: Incoming, ends_s: float, deadline_s: float
    ) -> tuple[FaultKind | None, str]:
        """Send it once, until the loop's time is `ends_s`: (fault, detail)."""
        method = "GET" if content is None else "POST"
        try:
            url, headers = self._places.get(path) or self._place(path)
            asked = self._client.build_request(
                method, url, content=content, headers=headers, extensions={SENT: reply.sent}
            )
            async with asyncio.timeout_at(ends_s), self._answer(asked) as response:
                given = dict(response.headers)
                kept = {k: given[k] for k in KEPT_HEADERS if k in given}
                reply.begin(response.extensions[ARRIVED](), response.status_code, kept)
                if broken := await self._receive(response, reply):
                    return "broken", broken
        except TimeoutError:
            if not reply.done or reply.status != 200:
                return "deadline", f"no complete reply within {round(deadline_s, 2):g} s"
            reply.after_done = "open"
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
            what = f"redirects to {to!r}, and no host is asked that the profile does not name"
            return "status", f"HTTP {reply.status}: {what}"
        if reply.status == 200:
            return None, ""
        events, text, _ = reply.read()
        said = (events.events[0][1] if events and events.events else text) or ""
        return "status", f"HTTP {reply.status}: {error_message(self._scrubber.documents([said], parse)[0])}"

    @asynccontextmanager
    async def _answer(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """As `httpx.AsyncClient.stream`, which makes objects for redirects, cookies and authentication of every reply."""
        response = await self._transport.handle_async_request(request)
        response.request = request
        try:
            if "set-cookie" in response.headers:
                self._client.cookies.extract_cookies(response)
            yield response
        finally:
            await response.aclose()

    def _place(self, path: str) -> tuple[httpx.URL, dict[str, str]]:
        """Return where a path is and the headers for it, made once: `/x` is on the host, `x` below the base URL (which ends in /v1),
        a whole URL is itself. Raises InvalidURL."""
        base = self._base_url.removesuffix("/v1") if path.startswith("/") else f"{self._base_url}/"
        url = path if path.startswith(("http://", "https://")) else base + path
        own = urlsplit(url)[:2] == urlsplit(self._base_url)[:2]
        # the key goes to the server under test and nowhere else
        place = self._places[path] = httpx.URL(url), self._headers if own else self._bare
        return place

    async def _receive(self, response: httpx.Response, reply: Incoming) -> str | None:
        """Read the body to its end. Returns the limit that it breaks, if any."""
        arrived = response.extensions[ARRIVED]
        with suppress(TimeoutError):  # only that of the connection which stays open after [DONE]
            async with asyncio.timeout(None) as patience:
                async for chunk in response.aiter_raw():
                    if said := reply.take(arrived(), chunk):
                        return said
                    if reply.done and patience.when() is None:
                        patience.reschedule(asyncio.get_running_loop().time() + self._patience_s)
        if patience.expired():
            reply.after_done = "open"
        if patience.when() is not None:
            self._patience_s = AGAIN_S if patience.expired() else AFTER_DONE_S
        return None


def _worth_another(fault: FaultKind | None, status: int | None, more: bool, patience_s: float | None) -> bool:
    """Whether to send it again: `more` retries are left, `patience_s` is what is left of the patience (None: there is none)."""
    if fault == "status" and status in BUSY:
        return more
    if patience_s is None:
        return more and fault in ("connect", "no_byte")
    gone = fault in ("connect", "no_byte", "broken") or (fault == "status" and (status or 0) >= 500)
    return gone and patience_s > 0


def _pause_s(number: int, headers: dict[str, str]) -> float:
    """By Retry-After, in seconds or as a date (RFC 9110, 10.2.3) by the server's own clock; else longer each time."""
    told = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", told, re.ASCII):
        return float(told)
    when, server_now = _date(told), _date(headers.get("date", "")) or datetime.now(UTC)
    left_s = (when - server_now).total_seconds() if when else 0.0
    return left_s if left_s > 0 else 0.25 * 2 ** min(number, 4)


def _date(text: str) -> datetime | None:
    with suppress(ValueError, TypeError, OverflowError):
        found = parsedate_to_datetime(text)
        return found.replace(tzinfo=found.tzinfo or UTC)
    return None


def _timing(reply: Incoming, events: list[tuple[float, str]] | None, scheduled: int, begun: int, sent: int) -> Timing:
    def ms(stamp: int | None, since: int = sent) -> float | None:
        return None if stamp is None else round((stamp - since) / 1e6, 3)

    return Timing(
        queued_ms=ms(begun, scheduled) or 0.0,
        headers_ms=ms(reply.headers_ns),
        first_chunk_ms=ms(reply.first_ns),
        first_token_ms=next((at for at, data in events or () if is_token(data)), None),
        last_token_ms=next((at for at, data in reversed(events or ()) if is_token(data)), None),
        end_ms=ms(reply.end_ns),
        from_schedule_ms=ms(reply.end_ns, scheduled),
    )


def _bounded(exchange: Exchange) -> Exchange:
    """A reply whose answer is too long to be judged is broken, and only its beginning is kept."""
    longest = 0 if exchange.fault else max(map(len, read_answer(exchange).texts()))
    if longest <= MAX_TEXT_CHARS:
        return exchange
    said = f"the answer has {longest:,} characters, {MAX_TEXT_CHARS:,} at most are read"
    text, events = exchange.text and exchange.text[:HEAD_BYTES], exchange.events and exchange.events[:FEW_EVENTS]
    return exchange.model_copy(update={"fault": "broken", "detail": said, "text": text, "events": events})


def _scrubbed(exchange: Exchange, scrubber: Scrubber, cut: bool) -> Exchange:
    """The exchange as it may be written: no secret that was sent is in the reply, nor in parts that a reader joins, nor the
    beginning of one where the reply was cut."""

    if not scrubber and not exchange.lines:
        return exchange

    def kept(line: str) -> str:
        return line[:KEPT_LINE_CHARS] if line.partition(":")[0] in NO_ANSWER else line

    lines = [(before, scrubber.documents([line], parse)[0]) for before, line in exchange.lines or []]
    wrapped = scrubber.holds("\n".join(line for _, line in lines))
    told = scrubber.documents([data for _, data in exchange.events or []], parse, cut)
    events = [(ms, data) for (ms, _), data in zip(exchange.events or [], told, strict=True)]
    update = {
        "headers": {name: scrubber.text(value) for name, value in exchange.headers.items()},
        "lines": [(0, MASK)] if wrapped else [(before, kept(line)) for before, line in lines] or None,
        "text": None if exchange.text is None else scrubber.documents([exchange.text], parse, cut)[0],
        "events": None if exchange.events is None else events,
    }
    made = exchange.model_copy(update=update)
    loose = _loose(made.text or "") if scrubber else ()
    if not scrubber or not any(scrubber.holds(text, cut) for text in (*read_answer(made).texts(), *loose)):
        return made
    # joined in a way that no JSON path shows: only the times of arrival are kept
    hidden = None if made.events is None else [(ms, MASK) for ms, _ in made.events]
    return made.model_copy(update={"events": hidden, "text": None if made.text is None else MASK, "lines": None})


def _loose(text: str) -> Iterator[str]:
    """The strings of JSON that has no end, those of each name joined; of whole JSON none, since its values are searched joined."""
    if parse(text) is not None:
        return
    found, name = defaultdict[str, list[str]](list), ""
    for said, colon in STRING.findall(text):
        name = said if colon else name
        found[name] += [] if colon else [said]
    yield from map("".join, found.values())


def normal_base_url(url: str, source: str = "--base-url") -> str:
    """`http://host:8000/v1` for that, `http://host:8000` and `http://host:8000/v1/chat/completions`. Raises BadInput, which
    names the `source`, for what is no URL or holds more than a place: a user, a key, a query."""
    refuse_secrets({"target": {"base_url": url}}, source)
    if not is_url(url):
        raise BadInput(f"{source} has value {url!r}: must be a URL such as http://gpu-box:8000/v1")
    if "?" in url or "#" in url:
        raise BadInput(f"{source} has a query or a fragment, and paths are appended to it; end it with /v1")
    url = NO_BASE.sub(r"\1", url.rstrip("/"))
    return url if urlsplit(url).path.rstrip("/") else url + "/v1"


def ask_once(profile: Profile, base_url: str, body: dict[str, Any], case: str, ask: str) -> Exchange:
    """Send one chat completion with the profile's model, unless the body names one, and a unique `user`; never raises for
    what the server does."""
    sent = {"model": profile.target.model, "user": f"gatebook-explore-{secrets.token_hex(8)}", **body}

    async def send() -> Exchange:
        async with Lane(profile.target, base_url, LoopLag()) as lane:
            return await lane.ask(
                kind="ask", key=f"{case}/{ask}", case=case, ask=ask, body=sent,
                deadline_s=profile.limits.request_deadline_s, retries=profile.limits.transport_retries,
            )  # fmt: skip

    with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a running event loop
        return pool.submit(asyncio.run, send()).result()
