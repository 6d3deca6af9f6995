"""One reply as its bytes arrive: unpacked, split into server-sent events, and cut where a hostile server goes past a limit."""

from __future__ import annotations

import json
import re
import time
import zlib
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Literal

from gatebook.record.exchange import Packing

MAX_REPLY_BYTES = 32 * 2**20
"""Of a chat, as sent, and unpacked: 20 alternatives for each of 4,096 tokens take 12 MiB."""
MAX_OTHER_BYTES = 8 * 2**20
"""Of models, settings, metrics, tokens."""
MAX_VALUES = 2_000_000
"""Of JSON in a reply: they take a hundred times the memory of their bytes. Those 12 MiB have 800,000."""
MAX_EVENTS = 100_000
"""Events of a stream, with the lines that carry no data and those that no blank line has ended yet."""
MAX_LINES = 4 * MAX_EVENTS
"""Lines of a stream, blank ones too."""
MAX_CODINGS = 5
SLICE_BYTES = 64 * 1024
"""After so many bytes of a piece the limits of a stream are looked at."""
HEAD_BYTES = 64 * 1024
"""What is kept of a reply that goes past a limit."""
STREAMED = re.compile(rb"(\xef\xbb\xbf)?\s*(data:|event:|:)")
"""How a stream begins, whatever was asked."""
LINE_END = re.compile(rb"\r\n|\r|\n")
LOOKS_LIKE_TEXT = re.compile(rb"\s*[{\[<:]|data|event|id|retry|error|\xef\xbb\xbf")
ZLIB_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
Asked = Literal["stream", "plain", "other"]
"""A streamed chat, a plain one, or anything else."""


@dataclass
class Incoming:
    """What has arrived so far, also when the connection breaks or the deadline strikes. Stamps are `perf_counter_ns`."""

    asked: Asked
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    """Unpacked."""
    unpacker: Unpacker | None = None
    stream: Events | None = None
    """None where neither the request, the header nor the first bytes of a chat's reply say that it is one."""
    sent_ns: int | None = None
    """When the request began to leave on its connection."""
    headers_ns: int | None = None
    first_ns: int | None = None
    last_ns: int | None = None
    end_ns: int | None = None
    after_done: Literal["open", "broken"] | None = None
    size: int = 0
    cut: bool = False
    """Whether only its head is kept."""
    values: int = 0
    """Of its JSON, counted by their commas and brackets."""

    @property
    def done(self) -> bool:
        """Whether the stream has said its [DONE]; the official client reads no further."""
        return self.stream is not None and self.stream.done

    @property
    def is_event_stream(self) -> bool:
        return self.headers.get("content-type", "").lower().startswith("text/event-stream")

    def sent(self, stamp: int) -> None:
        """Its request begins to leave."""
        self.sent_ns = stamp

    def begin(self, stamp: int, status: int, headers: dict[str, str]) -> None:
        self.headers_ns, self.status, self.headers = stamp, status, headers
        self.unpacker = Unpacker.of(headers.get("content-encoding", ""))
        self.stream = Events() if self.asked == "stream" or self.is_event_stream else None

    def take(self, stamp: int, chunk: bytes) -> str | None:
        """Take the next bytes, stamped before anything looks at them. Returns the limit that they break, if any: only the head of
        the reply is kept then."""
        self.first_ns, self.last_ns = self.first_ns or stamp, stamp
        self.size += len(chunk)
        most = MAX_OTHER_BYTES if self.asked == "other" else MAX_REPLY_BYTES
        plain = self.unpacker.feed(chunk, most - len(self.body)) if self.unpacker else chunk
        self.body += plain
        self.values += sum(plain.count(sign) for sign in (b",", b"{", b"["))
        said = None
        if max(self.size, len(self.body)) > most:
            said = f"the reply is larger than {most >> 20} MiB"
        elif self.values > MAX_VALUES:
            said = f"the reply has more than {MAX_VALUES:,} values"
        else:
            if self.stream is None and self.asked == "plain" and STREAMED.match(self.body, 0, 256):
                self.stream, plain = Events(), bytes(self.body)
            if self.stream is not None:
                said = self.stream.feed(stamp, plain)
        if said is not None:
            self.cut = True
            del self.body[HEAD_BYTES:]
            if self.stream is not None:
                self.stream.cut(HEAD_BYTES)
        return said

    def end(self) -> None:
        """It is complete: closed in order, or [DONE] was said."""
        self.end_ns = self.last_ns if self.after_done else time.perf_counter_ns()
        if self.stream is not None:
            self.stream.finish(self.end_ns or 0)

    def read(self) -> tuple[Events | None, str | None, bool]:
        """The stream or the text, by what was asked and what came (a client looks at no content type), and whether it is invalid
        UTF-8. A text is decoded as `json.loads` of the official client does."""
        if self.status is None:
            return None, None, False
        raw, invalid = bytes(self.body), False
        try:
            text = raw.decode(json.detect_encoding(raw))
        except UnicodeDecodeError:
            text, invalid = raw.decode("utf-8", "replace"), True
        is_stream = self.stream is not None and bool(self.stream.events or self.is_event_stream)
        if self.stream is not None and is_stream and not text[:256].lstrip().startswith(("{", "[", "<")):
            return self.stream, None, self.stream.invalid
        return None, text, invalid


class Unpacker:
    """Undoes one content coding, and those under it. `packing` is the state of the body."""

    def __init__(self, codings: list[str]) -> None:
        *under, self._coding = codings
        self._under = Unpacker(under) if under else None
        self._inflate: zlib._Decompress | None = None
        self._head = b""
        self._found: Packing | None = None

    @classmethod
    def of(cls, header: str) -> Unpacker | None:
        """For a Content-Encoding header; None where it names none (or `identity`)."""
        codings = [c for part in header.lower().split(",") if (c := part.strip()) not in ("", "identity")]
        return cls(codings[:MAX_CODINGS]) if codings else None

    @property
    def packing(self) -> Packing | None:
        """None where no byte has come."""
        return self._under.packing if self._under and self._found == "packed" else self._found

    def feed(self, chunk: bytes, most: int) -> bytes:
        """The next bytes of the body, `most` + 1 at most; as they came where they are not packed as told."""
        if self._found is None:
            self._head += chunk
            if len(self._head) < 2:
                return b""
            chunk, self._found = self._head, self._recognise(self._head)
        if self._inflate is None:
            return chunk
        if self._found == "packed" and self._inflate.eof:
            self._found = "more"
        if self._found != "packed":
            return b""
        try:
            plain = self._inflate.decompress(chunk, most + 1)
        except zlib.error:
            self._found = "broken"
            return b""
        if self._inflate.unused_data:
            self._found = "more"
        return self._under.feed(plain, most) if self._under and plain else plain

    def _recognise(self, head: bytes) -> Packing:
        """By the first two bytes; a coding that the client cannot undo is unknown unless the body is text."""
        if LOOKS_LIKE_TEXT.match(head) or (self._coding == "gzip" and head[:2] != b"\x1f\x8b"):
            return "not packed"
        if self._coding not in ZLIB_BITS:
            return "unknown"
        is_raw = self._coding == "deflate" and (head[0] & 0x0F != 8 or (head[0] << 8 | head[1]) % 31 != 0)
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS if is_raw else ZLIB_BITS[self._coding])
        return "packed"


class Events:
    """Server-sent events, each with the arrival of its last byte, and the lines that carry no data."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str]] = []
        """(perf_counter_ns, data joined by line feeds). An event without data is one too: a client reads it."""
        self.invalid = False
        """A line is not UTF-8."""
        self.done = False
        self._others: dict[str, int] = {}
        """Line -> number of events before it: comments, event, id, retry, and what is no field; all of it."""
        self._rest = bytearray()
        self._after_cr = False
        self._data: list[str] = []
        self._is_set = {"event": False, "id": False, "retry": False}
        self._count = 0

    @property
    def lines(self) -> list[tuple[int, str]]:
        """(number of events before it, line), each text once."""
        return [(before, line) for line, before in self._others.items()]

    def feed(self, stamp: int, chunk: bytes) -> str | None:
        """Which limit it breaks, in words."""
        for at in range(0, len(chunk), SLICE_BYTES):
            self._feed(stamp, chunk[at : at + SLICE_BYTES])
            if len(self.events) + len(self._others) + len(self._data) > MAX_EVENTS:
                return f"the reply has more than {MAX_EVENTS:,} events"
            if self._count > MAX_LINES:
                return f"the reply has more than {MAX_LINES:,} lines"
        return None

    def _feed(self, stamp: int, chunk: bytes) -> None:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        *lines, rest = LINE_END.split(chunk)
        self._count += len(lines)
        if lines and self._rest:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        for line in lines:
            self._line(stamp, line)
        self._rest += rest

    def finish(self, stamp: int) -> None:
        """At the last byte. Data that no blank line ended is no event, and clients lose it, unless it is [DONE]."""
        if self._rest:
            self._line(stamp, bytes(self._rest))
            self._rest.clear()
        if self._data and self._data[0].startswith("[DONE]"):
            self._dispatch(stamp)
        for data in self._data:
            self._others.setdefault(f"data: {data}", len(self.events))

    def cut(self, most: int) -> None:
        """Keep about the first `most` characters of the events, and no lines."""
        sizes = accumulate(len(data) for _, data in self.events)
        fit = sum(size <= most for size in islice(sizes, most // 64))
        del self.events[fit:]
        self._others, self._data = {}, []
        self._rest.clear()

    def _line(self, stamp: int, raw: bytes) -> None:
        if not raw:
            if self._data or any(self._is_set.values()):
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
        if name == "event" or (name == "id" and "\0" not in value):
            self._is_set[name] = bool(value)
        elif name == "retry" and value.strip().isdecimal():
            self._is_set[name] = True
        self._others.setdefault(line, len(self.events))  # of what is no field too: clients do not read it

    def _dispatch(self, stamp: int) -> None:
        data = "\n".join(self._data)
        self.done = self.done or data.startswith("[DONE]")
        self.events.append((stamp, data))
        self._data = []
        if any(self._is_set.values()):
            self._is_set |= {"event": False, "retry": False}  # an id stays (the SSE standard)
