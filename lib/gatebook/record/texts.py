"""Long texts of requests: stored once in `texts/<sha256>.txt`, however many exchanges sent them, and put back when they are read."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gatebook.errors import BrokenRecord

LONG_BYTES = 4096
KEY = "$text"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Texts:
    """The folder of one run. Its name is the hash of the content, so the record's hash chain covers the content too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, str] = {}

    def put_away(self, value: Any) -> Any:
        """The value with every long text in it replaced by `{"$text": <sha256>}`; new ones are on disk before this returns."""
        return _walk(value, self._store)

    def put_back(self, value: Any) -> Any:
        """The value as it was. Raises BrokenRecord when a text is missing or was changed."""
        return _walk(value, self._fetch)

    def keep(self, text: str) -> None:
        """Store an answer that is long enough for a file of its own, so that a page can link to it."""
        self._store(text)

    def _store(self, value: Any) -> Any:
        name = long_name(value) if isinstance(value, str) else None
        if name is None:
            return value
        path = self._folder / f"{name}.txt"
        if not path.exists():
            self._folder.mkdir(exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}")
            fresh.write_bytes(value.encode("utf-8", "surrogatepass"))
            fresh.rename(path)
        return {KEY: name}

    def _fetch(self, value: Any) -> Any:
        if not (isinstance(value, dict) and value.keys() == {KEY} and _DIGEST.fullmatch(str(value[KEY]))):
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
        return self._read[name]


def long_name(text: str) -> str | None:
    """The name under which a text is stored, its SHA-256; None for one that stays where it is."""
    if len(text) * 4 <= LONG_BYTES or len(data := text.encode("utf-8", "surrogatepass")) <= LONG_BYTES:
        return None
    return hashlib.sha256(data).hexdigest()


def _walk(value: Any, change: Callable[[Any], Any]) -> Any:
    changed = change(value)
    if changed is not value:
        return changed
    if isinstance(value, dict):
        return {key: _walk(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_walk(inner, change) for inner in value]
    return value
