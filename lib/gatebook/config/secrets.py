"""Keys stay out of files: values that look like one are refused wherever they are read, no message repeats them, and what a
server says of one that was sent to it is taken out before it is written."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import accumulate
from typing import Any

from gatebook.errors import BadInput

_SECRET_VALUE = re.compile(
    r"^(sk-|hf_|glpat-|ghp_|xox[bp]-|AKIA|ey[JK][\w-]+\.[\w-]+\.)[\w.\-]{6,}|^(Bearer|Basic)\s+\S{6,}$"
    r"|://[^/\s@]*:[^/\s@]+@|[?&](api[_-]?key|key|token|access_token|password)=[^&\s]",
    re.IGNORECASE,
)
_SECRET_URL = re.compile(
    r"://[^/?#\s]*@"
    r"|[?&;#]([\w.\-]*[_.\-])?(api[_-]?key|apikey|key|token|password|passwd|secret|sig|signature|auth|authorization|credentials?)=[^&;\s]",
    re.IGNORECASE,
)
"""A URL with a user in it, or a parameter that carries a credential."""
SECRET_NAME = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)
"""Of an environment variable."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SHORT = 8
"""A key of fewer characters is found in texts by chance."""
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a abc abc123 an and any anything api bar basic bearer change changeme default demo dev dummy empty example fake foo free here insert key keys "
        "litellm llama lm local localhost me mock my needed no nokey none not null of ollama open openai password placeholder proj put "
        "redacted replace required secret sglang sk some something string studio test testing the this token undefined unused used value vllm "
        "whatever with without xinference xyz you your",
    )
)
"""Words that placeholders in public code and manuals are made of."""
_SECRET_KEY = re.compile(r"(^|[_-])(api[_-]?key|apikey|token|secret|password|passwd|authorization)$", re.IGNORECASE)


def refuse_secrets(data: Any, where: str, path: str = "") -> None:
    """Raise BadInput where a value looks like a key, or a key of `target` names one. The message never repeats the value."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        here = f"{path}.{key}" if path else str(key)
        if here.endswith("api_key_env") and value is not None and not _VARIABLE.fullmatch(str(value)):
            raise BadInput(f"{where}: key {here!r} must be the NAME of an environment variable, not the key itself")
        user_in_url = str(key).endswith("url") and "@" in str(value)
        if user_in_url or _is_secret(str(key) if here.startswith("target") or not path else "", value):
            raise BadInput(
                f"{where}: key {here!r} holds what looks like a secret; put it in an environment variable and "
                "name that variable in target.api_key_env (headers: `env:NAME`)"
            )
        refuse_secrets(value, where, here)


def _is_secret(key: str, value: Any) -> bool:
    if value in (None, "") or isinstance(value, dict | list) or str(value).startswith("env:"):
        return False
    return bool(_SECRET_KEY.search(key) or any(p.search(str(value)) for p in (_SECRET_VALUE, _SECRET_URL)))


def is_secret_url(url: str) -> bool:
    """Whether it holds more than a place: a user, or a parameter that is a credential."""
    return bool(_SECRET_URL.search(url))


def holds_secret(text: str) -> bool:
    """Whether any word of a text looks like a key: for prompts and tables, where it may stand inside a sentence."""
    words = re.split(r"[\s\"'`,;()<>\[\]{}=：，。；]+", text)
    return bool(re.search(r"\b(Bearer|Basic)\s+[\w.+/\-]{16,}", text)) or any(_SECRET_VALUE.search(w) for w in words)


def is_sendable(value: str, blanks: bool) -> bool:
    """Whether it fits an HTTP header: printable ASCII, one line, and blanks only where they are allowed and never at an end."""
    return bool(re.fullmatch(r"[!-~]([ -~]*[!-~])?" if blanks else r"[!-~]+", value))


def sendable(value: str, variable: str, blanks: bool = False) -> str:
    """The value of an environment variable, fit for an HTTP header. Raises BadInput, which names the variable only."""
    if is_sendable(value, blanks):
        return value
    raise BadInput(
        f"environment variable {variable} cannot be sent as a header: it is empty or holds a line break, "
        "a blank or a character that is not ASCII; export it again, without them"
    )


def is_telling(secret: str) -> bool:
    """Whether a text that holds it must have leaked it: not `1`, `vllm` or `sk-no-key-required`, which stand in replies by chance."""
    parts = [part for part in re.split(r"[\W_]+", secret.casefold()) if part]
    common = all(part in _COMMON or len(set(part)) == 1 or part in "1234567890" for part in parts)
    return min(len(secret), len(_Unescaped(secret).text)) >= SHORT and not common


MASK = "[redacted]"
_ESCAPED = re.compile(
    r"\\+u(?:00([0-9a-fA-F]{2})|\{0*([0-9a-fA-F]{1,2})\})|\\+x([0-9a-fA-F]{2})|%(?:25)*([0-9a-fA-F]{2})"
    r"|&(?:amp;)*#[xX]0*([0-9a-fA-F]{1,2});|&(?:amp;)*#0*([0-9]{1,3});|&(?:amp;)*(quot|apos|amp|lt|gt);|(\\+)([\"'/]?)"
)
"""Escapes of JSON, Python, URLs and HTML, however often they were applied."""
DEEPEST = 6
"""Escapes in escapes that are undone."""
_ENTITIES = {"quot": '"', "apos": "'", "amp": "&", "lt": "<", "gt": ">"}


def _unescaped(found: re.Match[str]) -> str:
    *digits, decimal, entity, slashes, quoted = found.groups()
    for number in digits:
        if number is not None:
            return chr(int(number, 16))
    return chr(int(decimal)) if decimal is not None else _ENTITIES[entity] if entity else quoted or slashes[:1]


class _Unescaped:
    """A text with every escape undone, those that come out of others too, and where its characters stood before."""

    def __init__(self, text: str) -> None:
        self._before: list[str] = []
        self.text = text
        while len(self._before) < DEEPEST and any(sign in self.text for sign in "\\%&"):
            plain = _ESCAPED.sub(_unescaped, self.text)
            if plain == self.text:
                break
            self._before.append(self.text)
            self.text = plain

    def spans(self, needles: Iterable[str]) -> list[tuple[int, int]]:
        """Where any of them stands in the text as it was; those that meet are one."""
        found = [m.span() for n in needles if n in self.text for m in re.finditer(re.escape(n), self.text)]
        for before in reversed(self._before if found else []):
            places, shifts, shift = [], [0], 0
            for match in _ESCAPED.finditer(before):
                places.append(match.start() - shift)
                shift += match.end() - match.start() - 1
                shifts.append(shift)
            found = [(a + shifts[bisect_left(places, a)], b + shifts[bisect_left(places, b)]) for a, b in found]
        spans: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if spans and start <= spans[-1][1]:
                spans[-1] = spans[-1][0], max(end, spans[-1][1])
            else:
                spans.append((start, end))
        return spans


class Scrubber:
    """Takes secrets out of whatever a server says, in every dress that a program gives them by habit: as they are, escaped,
    URL-encoded, in base64 at any of its three offsets, in hex. One that is common (`is_telling`) is not searched for."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._needles = tuple(dict.fromkeys(dress for secret in secrets for dress in _dresses(secret)))

    def __bool__(self) -> bool:
        return bool(self._needles)

    def holds(self, text: str) -> bool:
        return bool(self._needles) and bool(_Unescaped(text).spans(self._needles))

    def text(self, text: str) -> str:
        """One text, whatever it is."""
        spans = _Unescaped(text).spans(self._needles) if self._needles else []
        for start, end in reversed(spans):
            text = f"{text[:start]}{MASK}{text[end:]}"
        return text

    def documents(self, texts: list[str], read: Callable[[str], Any] = json.loads) -> list[str]:
        """Texts of which each is JSON or not, and whose values a reader joins: the events of a stream, or one reply.

        A secret that is cut over several of them loses its part of each, and what is left of a part is never empty, so that
        an event which carried text still does. A text without any part of one comes back as it was.
        """
        if not self._needles:
            return texts
        values = [_read(text, read) for text in texts]
        if not self.holds("\n".join(texts)) and not self._joins(values):
            return texts
        leaves: list[_Leaf] = []
        for number, value in enumerate(values):
            try:
                leaves += list(_leaves(value, number))
            except RecursionError:
                values[number] = None
        changed: dict[int, str] = {}
        for by_position in (True, False):
            groups: dict[tuple[str | int, ...], list[int]] = {}
            for index, leaf in enumerate(leaves):
                path = leaf.path if by_position else tuple(p for p in leaf.path if isinstance(p, str))
                groups.setdefault(path, []).append(index)
            for group in groups.values():
                self._joined(leaves, group, changed)
        touched = {leaves[index].document for index in changed}
        told = [
            _written(
                value, iter([changed.get(i, leaf.text) for i, leaf in enumerate(leaves) if leaf.document == number])
            )
            if number in touched
            else text
            for number, (text, value) in enumerate(zip(texts, values, strict=True))
        ]
        return [self.text(text) for text in told]

    def _joins(self, values: list[Any]) -> bool:
        """Whether any of the values that a reader may join holds one: the quick look, which nearly always ends it."""
        exact, by_name = _Place(), _Place()
        for value in values:
            with suppress(RecursionError):
                _placed(value, exact, by_name)
        return any(self.holds("".join(place.parts)) for top in (exact, by_name) for place in top.all() if place.parts)

    def _joined(self, leaves: list[_Leaf], group: list[int], changed: dict[int, str]) -> None:
        """Mask what the values of a group hold when they are read one after the other."""
        group = [index for index in group if changed.get(index, leaves[index].text)]
        parts = [changed.get(index, leaves[index].text) for index in group]
        spans = _Unescaped("".join(parts)).spans(self._needles)
        if not spans:
            return
        ends = list(accumulate(map(len, parts)))
        begins = [0, *ends]
        for start, end in reversed(spans):
            first, last = bisect_left(ends, start + 1), bisect_left(ends, end)
            pieces = _shared(last - first + 1)
            for number in range(first, last + 1):
                before = parts[number][: start - begins[number]] if number == first else ""
                after = parts[number][end - begins[number] :] if number == last else ""
                parts[number] = before + pieces[number - first] + after
                changed[group[number]] = parts[number]


FAR = 1000
"""Positions of a list that are told apart."""


class _Place:
    """A place in the values of a stream, and the texts that stood there."""

    __slots__ = ("inner", "parts")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.inner: dict[Any, _Place] = {}

    def at(self, name: Any) -> _Place:
        name = min(name, FAR) if isinstance(name, int) else name
        if (place := self.inner.get(name)) is None:
            place = self.inner[name] = _Place()
        return place

    def all(self) -> Iterator[_Place]:
        waiting = [self]
        while waiting:
            place = waiting.pop()
            yield place
            waiting += place.inner.values()


def _placed(value: Any, exact: _Place, by_name: _Place) -> None:
    if isinstance(value, str):
        exact.parts.append(value)
        by_name.parts.append(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, str | dict | list):
                name = ALIKE.get(name, name)
                _placed(inner, exact.at(name), by_name.at(name))
    elif isinstance(value, list) and _is_bytes(value):
        _placed(_said(value), exact.at(0), by_name.at(0))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            told = inner.get("index") if isinstance(inner, dict) else None
            _placed(inner, exact.at(told if isinstance(told, int) else number), by_name)


class _Leaf:
    """A value of a JSON text: its place, its document, and what it says."""

    __slots__ = ("document", "path", "text")

    def __init__(self, path: tuple[str | int, ...], document: int, text: str) -> None:
        self.path, self.document, self.text = path, document, text


ALIKE = {"reasoning": "reasoning_content", "max_completion_tokens": "max_tokens"}
"""Names under which a reader joins one text."""


def _read(text: str, read: Callable[[str], Any]) -> Any:
    try:
        value = read(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _is_bytes(value: Any) -> bool:
    return bool(value) and all(type(item) is int and 0 <= item < 256 for item in value)


def _leaves(value: Any, document: int, path: tuple[str | int, ...] = ()) -> Iterator[_Leaf]:
    """The texts, numbers, and lists of bytes in the order in which `_written` puts them back. Numbers are not joined."""
    if isinstance(value, str):
        yield _Leaf(path, document, value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, document, (*path, str(ALIKE.get(name, name))))
    elif isinstance(value, list) and not _is_bytes(value):
        for number, inner in enumerate(value):
            told = inner.get("index") if isinstance(inner, dict) else None
            yield from _leaves(inner, document, (*path, told if isinstance(told, int) else number))
    elif isinstance(value, list):
        yield _Leaf((*path, "bytes"), document, _said(value))
    elif value is not None:
        yield _Leaf((*path, f"number {document}"), document, str(value))


def _said(value: Any) -> str:
    return bytes(value).decode("latin-1") if isinstance(value, list) else str(value)


def _written(value: Any, told: Iterator[str]) -> str:
    """The JSON of a value whose leaves say what is told."""

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(inner) for name, inner in value.items()}
        if value is None:
            return None
        if isinstance(value, list) and not _is_bytes(value):
            return [filled(inner) for inner in value]
        said = next(told)
        return (
            value
            if said == _said(value)
            else list(said.encode("latin-1", "replace"))
            if isinstance(value, list)
            else said
        )

    whole = filled(value)
    text = json.dumps(whole, ensure_ascii=False)
    return text if _is_text(text) else json.dumps(whole)


def _is_text(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _shared(count: int) -> list[str]:
    """The mask in so many pieces, none of them empty."""
    whole = MASK if count <= len(MASK) else f"{MASK[:-1]}{'*' * (count - len(MASK))}]"
    cuts = [len(whole) * number // count for number in range(count + 1)]
    return [whole[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]


def searched(secret: str) -> list[str]:
    """The parts of a secret that are searched for: it, what stands behind `Bearer`, and what `Basic` packs."""
    words = secret.split()
    parts = [secret, *words]
    if len(words) == 2 and words[0].casefold() == "basic":
        try:
            plain = base64.b64decode(words[1], validate=True).decode("ascii")
            parts += [plain, plain.partition(":")[2]]
        except ValueError:
            pass
    return [part for part in dict.fromkeys(parts) if is_telling(part)]


def _dresses(secret: str) -> Iterator[str]:
    for part in searched(secret):
        raw = part.encode()
        yield _Unescaped(part).text
        yield raw.hex()
        yield raw.hex().upper()
        yield from (raw.hex(sign) for sign in ": ")
        for offset in range(3):
            first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                yield encode(bytes(offset) + raw + bytes(3)).decode()[first:last]


def main() -> None:
    """Copy stdin to stdout without the values of environment variables that are called keys, tokens, secrets or passwords."""
    hidden = Scrubber(value for name, value in os.environ.items() if SECRET_NAME.search(name))
    sys.stdout.write(hidden.text(sys.stdin.buffer.read().decode("utf-8", "replace")))


if __name__ == "__main__":
    main()
