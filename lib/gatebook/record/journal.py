"""The append-only record of one notebook: JSON lines, locked, each chained to the one before."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from gatebook.errors import BrokenRecord, CannotMeasure, os_reason
from gatebook.record.exchange import Exchange

SCHEMA = 1
LOCK_WAIT_S = 5.0
MAX_RECORD_MIB = 256
"""Of one notebook; a full run makes 5 in all."""


def _digest(prev: str, exchange: dict[str, Any]) -> str:
    return hashlib.sha256((prev + json.dumps(exchange, sort_keys=True)).encode()).hexdigest()


class Journal:
    """Writes one record file; a single writer at a time.

    `anchor` is the hash that the first line continues (the hash of cases.json), so that a record
    belongs to the cases it was asked for. Opening a file whose last line was cut by a crash sets the torn bytes
    aside in `<file>.torn` and goes on after the last whole line.
    """

    def __init__(self, path: Path, anchor: str) -> None:
        self._lock = threading.Lock()
        self._file = path.open("ab", buffering=0)
        try:
            if not locked(self._file.fileno()):
                raise CannotMeasure(f"{path}: another process is writing this record; wait for it or start a new run")
            set_torn_line_aside(path, self._file.fileno())
            self._texts = texts_beside(path)
            self._prev, self._seq = anchor, 0
            for line in _lines(path, anchor):
                self._prev, self._seq = line["hash"], self._seq + 1
        except BaseException:
            self._file.close()
            raise

    def append(self, exchange: Exchange) -> None:
        """Put one exchange on disk before returning. Raises CannotMeasure when the disk does not take it."""
        body = exchange.model_dump(exclude_none=True, mode="json")
        with self._lock:
            try:
                if "body" in body:
                    body["body"] = self._texts.put_away(body["body"])
            except OSError as error:
                raise CannotMeasure(
                    f"{self._file.name}: cannot write a long text ({os_reason(error)}); free space and resume"
                ) from None
            digest = _digest(self._prev, body)
            line = {"v": SCHEMA, "seq": self._seq, "prev": self._prev, "exchange": body, "hash": digest}
            data = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
            before = os.fstat(self._file.fileno()).st_size
            try:
                if self._file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fdatasync(self._file.fileno())
            except OSError as error:
                with suppress(OSError):  # half a line would cost the next writer its place
                    os.ftruncate(self._file.fileno(), before)
                raise CannotMeasure(
                    f"{self._file.name}: cannot write the record ({os_reason(error)}); free space and resume"
                ) from None
            self._prev, self._seq = digest, self._seq + 1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with suppress(OSError):  # the failed write is already on its way up
            self._file.close()


def locked(descriptor: int) -> bool:
    """Wait a little: the kernel of a killed run needs a moment to notice that its parent is gone."""
    for _ in range(int(LOCK_WAIT_S * 10)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.1)
    return False


def set_torn_line_aside(path: Path, descriptor: int) -> None:
    """Move what a crash left of a last line to `<file>.torn`."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.with_name(path.name + ".torn").open("ab") as torn:
            torn.write(data[whole:] + b"\n")
        os.ftruncate(descriptor, whole)


def _lines(path: Path, anchor: str) -> Iterator[dict[str, Any]]:
    prev = anchor
    try:
        raw = path.read_bytes().split(b"\n")
    except OSError as error:
        raise BrokenRecord(f"{path}: cannot be read ({os_reason(error)})") from None
    if raw.pop() != b"":
        raise BrokenRecord(f"{path}: its last line is cut off; `gatebook run --resume` recovers it")
    for number, text in enumerate(raw):
        try:
            line = json.loads(text)
            intact = line.keys() == {"v", "seq", "prev", "exchange", "hash"} and line["seq"] == number
            intact = (
                intact
                and isinstance(line["exchange"], dict)
                and line["prev"] == prev
                and line["hash"] == _digest(prev, line["exchange"])
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            intact = False
        if not intact:
            raise BrokenRecord(f"{path}, line {number + 1}: the record was edited or damaged; its hash does not fit")
        if line["v"] != SCHEMA:
            raise BrokenRecord(f"{path}, line {number + 1}: schema {line['v']}, this Gatebook reads {SCHEMA}")
        prev = line["hash"]
        yield line


def texts_beside(path: Path) -> Texts:
    """The long texts of the run whose record `path` is."""
    return Texts(path.with_name("texts"))


def read_journal(path: Path, anchor: str) -> list[Exchange]:
    """All exchanges of a record, the chain checked. Raises BrokenRecord; a missing file is an empty list."""
    if not path.exists():
        return []
    texts = texts_beside(path)
    try:
        return [_exchange(line["exchange"], texts) for line in _lines(path, anchor)]
    except ValueError as error:
        raise BrokenRecord(f"{path}: an exchange does not have its fields: {error}") from None


def _exchange(data: dict[str, Any], texts: Texts) -> Exchange:
    return Exchange.model_validate({**data, "body": texts.put_back(data["body"])} if "body" in data else data)


LONG_BYTES = 4096
KEY, REST = "$text", "$then"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Texts:
    """The folder of one run. Its name is the hash of the content, so the record's hash chain covers the content too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, str] = {}

    def put_away(self, value: Any) -> Any:
        """The value with every long text in it replaced by `{"$text": <sha256>, "$then": <its end>}`; new ones are on disk before this returns."""
        return _walk(value, self._store)

    def put_back(self, value: Any) -> Any:
        """The value as it was. Raises BrokenRecord when a text is missing or was changed."""
        return _walk(value, self._fetch)

    def keep(self, text: str) -> None:
        """Store an answer that is long enough for a file of its own, so that a page can link to it."""
        self._store(text)

    def _store(self, value: Any) -> Any:
        if not isinstance(value, str) or (name := long_name(value)) is None:
            return value
        path, (head, rest) = self._folder / f"{name}.txt", _parts(value)
        if not path.exists():
            self._folder.mkdir(exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}")
            try:
                fresh.write_bytes(_bytes(head))
                fresh.rename(path)
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise
        return {KEY: name, REST: rest}

    def _fetch(self, value: Any) -> Any:
        if not (isinstance(value, dict) and value.keys() == {KEY, REST} and _DIGEST.fullmatch(str(value[KEY]))):
            return value
        name = value[KEY]
        if name not in self._read:
            path = self._folder / f"{name}.txt"
            try:
                data = path.read_bytes()
            except OSError:
                raise BrokenRecord(f"{path}: a text that the record refers to is missing") from None
            if hashlib.sha256(data).hexdigest() != name:
                raise BrokenRecord(f"{path}: the text was changed; its hash is not its name")
            self._read[name] = data.decode("utf-8", "surrogatepass")
        return self._read[name] + str(value[REST])


def long_name(text: str) -> str | None:
    """The name under which a text is stored, the SHA-256 of its long part; None for one that stays where it is."""
    head = _parts(text)[0] if len(text) * 4 > LONG_BYTES else ""
    return hashlib.sha256(_bytes(head)).hexdigest() if head else None


def _parts(text: str) -> tuple[str, str]:
    """(what is stored, what stays beside it); nothing is stored of a text that is not long."""
    for cut in (text.rfind("\n\n"), len(text)):
        if cut > 0 and len(_bytes(text[:cut])) > LONG_BYTES:
            return text[:cut], text[cut:]
    return "", text


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _walk(value: Any, change: Callable[[Any], Any]) -> Any:
    changed = change(value)
    if changed is not value:
        return changed
    if isinstance(value, dict):
        return {key: _walk(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_walk(inner, change) for inner in value]
    return value
