"""From bytes on the wire to what a client reads: content codings and server-sent events, piece by piece as they arrive.

Both do what the official `openai` client does with the same bytes (httpx2's decoders, `openai._streaming.SSEDecoder`), in time
linear in the bytes, and keep what it throws away.
"""

from __future__ import annotations

import re
import zlib

from gatebook.record.exchange import Packing

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
