"""Long texts of requests: stored once in `texts/<sha256>.txt`, however many exchanges sent them, and put back when they are read.

What stands behind the last blank line stays in the record: the questions that share a document share its file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gatebook.errors import BrokenRecord

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
