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
from typing import Any, Self

from gatebook.errors import BrokenRecord, CannotMeasure, os_reason
from gatebook.record.exchange import Exchange

SCHEMA = 1
LOCK_WAIT_S = 5.0
"""The kernel of a killed run needs a moment to notice that its parent is gone."""
MAX_RECORD_MIB = 256
"""Of one notebook; a full run makes 5 in all."""
MAX_VALUES = 8_000_000
"""Of one line of a record, and of one file of JSON in a bundle: they take a hundred times the memory of their bytes."""
LONG_BYTES = 4096
KEY, REST = "$text", "$then"


class LineFile:
    """An append-only file of lines with one writer at a time. What a crash left of a last line moves to `<file>.torn`."""

    on_sync: Callable[[Path, int], None] = staticmethod(lambda path, size: None)
    """Called with a file and its bytes on disk after each sync of a record or a long text."""

    def __init__(self, path: Path) -> None:
        """Raises BlockingIOError when another process writes the file, OSError when it cannot be opened."""
        self._lock = threading.Lock()
        self._file = path.open("ab", buffering=0)
        if not _locked(self._file.fileno()):
            self._file.close()
            raise BlockingIOError(f"{path.name}: another process is writing it")
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.with_name(path.name + ".torn").open("ab") as torn:
                torn.write(data[whole:] + b"\n")
            os.ftruncate(self._file.fileno(), whole)

    def _write(self, data: bytes, sync: bool = False) -> None:
        """All of the data, with `sync` on the disk, or nothing: half a line would cost the next writer its place. Raises OSError."""
        before = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fdatasync(self._file.fileno())
                self.on_sync(Path(self._file.name), before + len(data))
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), before)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock, suppress(OSError), self._file:  # the failed write is already on its way up
            os.fsync(self._file.fileno())


class Journal(LineFile):
    """Writes one record. `anchor` is the hash that the first line continues, that of cases.json, which ties a record to its
    cases. Raises CannotMeasure while another process writes it, BrokenRecord."""

    def __init__(self, path: Path, anchor: str) -> None:
        try:
            super().__init__(path)
        except BlockingIOError:
            raise CannotMeasure(
                f"{path}: another process is writing this record; wait for it or start a new run"
            ) from None
        try:
            self._texts = Texts(path.with_name("texts"))
            self._prev, self._seq = anchor, 0
            for line in _lines(path, anchor):
                self._prev, self._seq = line["hash"], self._seq + 1
        except BaseException:
            self._file.close()
            raise

    def append(self, *exchanges: Exchange) -> None:
        """Put all exchanges on disk with one sync, or none. Raises CannotMeasure when the disk does not take them."""
        bodies = [exchange.model_dump(exclude_none=True, mode="json") for exchange in exchanges]
        what = "a long text"
        with self._lock:
            try:
                for body in bodies:
                    if "body" in body:
                        body["body"] = self._texts.put_away(body["body"])
                what, data, prev = "the record", b"", self._prev
                for seq, body in enumerate(bodies, self._seq):
                    digest = _digest(prev, body)
                    line = {"v": SCHEMA, "seq": seq, "prev": prev, "exchange": body, "hash": digest}
                    data += json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
                    prev = digest
                self._write(data, sync=True)
            except OSError as error:
                raise CannotMeasure(
                    f"{self._file.name}: cannot write {what} ({os_reason(error)}); free space and resume"
                ) from None
            self._prev, self._seq = prev, self._seq + len(bodies)


def read_journal(path: Path, anchor: str) -> list[Exchange]:
    """All exchanges of a record, the chain checked. Raises BrokenRecord; a missing file is an empty list."""
    if not path.exists():
        return []
    texts = Texts(path.with_name("texts"))
    found = []
    try:
        for line in _lines(path, anchor):
            said = line["exchange"]
            if "body" in said:
                said["body"] = texts.put_back(said["body"])
            found.append(Exchange.model_validate(said))
        return found
    except ValueError as error:
        raise BrokenRecord(f"{path}: an exchange does not have its fields: {error}") from None


class Texts:
    """The long texts of one run, in a folder: files named by the hash of their content, so that the record's chain covers them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, str] = {}

    def put_away(self, value: Any) -> Any:
        """The value with every long text replaced by `{"$text": <sha256>, "$then": <its end>}`; new ones are on disk then."""
        return _walk(value, self._store)

    def put_back(self, value: Any) -> Any:
        """The original value. Raises BrokenRecord when a text is missing or was changed."""
        return _walk(value, self._fetch)

    def _store(self, value: Any) -> Any:
        head = _long_part(value) if isinstance(value, str) else ""
        if not head:
            return value
        data = _bytes(head)
        name = hashlib.sha256(data).hexdigest()
        path = self._folder / f"{name}.txt"
        if not path.exists():
            self._folder.mkdir(exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}")
            try:
                with fresh.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())  # the line that refers to it is synced, and so must it be
                fresh.rename(path)
                LineFile.on_sync(path, len(data))
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise
        return {KEY: name, REST: value[len(head) :]}

    def _fetch(self, value: Any) -> Any:
        name = value[KEY] if isinstance(value, dict) and value.keys() == {KEY, REST} else None
        if not re.fullmatch("[0-9a-f]{64}", str(name)):
            return value
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
    """The name under which a text is stored, the SHA-256 of its long part; None for one that stays in the record."""
    head = _long_part(text)
    return hashlib.sha256(_bytes(head)).hexdigest() if head else None


def _long_part(text: str) -> str:
    """The part of a text that is stored: up to its last blank line where that is long, else all; "" when none is long."""
    cuts = (text.rfind("\n\n"), len(text)) if len(text) * 4 > LONG_BYTES else ()
    return next((text[:cut] for cut in cuts if cut > 0 and len(_bytes(text[:cut])) > LONG_BYTES), "")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _walk(value: Any, change: Callable[[Any], Any]) -> Any:
    changed = change(value)
    if changed is not value:
        return changed
    if isinstance(value, dict):
        return {key: _walk(inner, change) for key, inner in value.items()}
    return [_walk(inner, change) for inner in value] if isinstance(value, list) else value


def has_too_many_values(data: bytes) -> bool:
    """Whether JSON has more than MAX_VALUES values, by its commas and brackets; those in texts count too."""
    return len(data) > MAX_VALUES < sum(map(data.count, (b",", b"{", b"[")))


def _digest(prev: str, exchange: dict[str, Any]) -> str:
    return hashlib.sha256((prev + json.dumps(exchange, sort_keys=True)).encode()).hexdigest()


def _locked(descriptor: int) -> bool:
    for _ in range(int(LOCK_WAIT_S * 10)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.1)
    return False


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The present lines, one at a time, of up to hundreds of megabytes. Raises BrokenRecord, at once where the last is cut off."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            if file.read(1) not in (b"", b"\n"):
                raise BrokenRecord(f"{path}: its last line is cut off; `gatebook run --resume` recovers it")
            file.seek(0)
            while file.tell() < size:
                yield file.readline()[:-1]
    except OSError as error:
        raise BrokenRecord(f"{path}: cannot be read ({os_reason(error)})") from None


def _lines(path: Path, anchor: str) -> Iterator[dict[str, Any]]:
    """The lines of a record, each as it was written after the one before. Raises BrokenRecord."""
    prev = anchor
    for number, text in enumerate(_whole_lines(path)):
        try:
            line = json.loads(b"" if has_too_many_values(text) else text)
            said, version = line["exchange"], line["v"]
            written = {"v": version, "seq": number, "prev": prev, "exchange": said, "hash": _digest(prev, said)}
            intact = line == written and isinstance(said, dict)
        except (ValueError, LookupError, TypeError, RecursionError):
            intact = False
        if not intact:
            raise BrokenRecord(f"{path}, line {number + 1}: the record was edited or damaged; its hash does not fit")
        if version != SCHEMA:
            raise BrokenRecord(f"{path}, line {number + 1}: schema {version}, this Gatebook reads {SCHEMA}")
        prev = line["hash"]
        yield line
