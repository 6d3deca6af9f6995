"""Keys stay out of files: values that look like one are refused wherever they are read, no message repeats them, and what a
server says of one that was sent to it is taken out before it is written."""

from __future__ import annotations

import json
import os
import re
import sys
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import accumulate, pairwise
from typing import Any

from gatebook.config.dresses import ESCAPED, dresses, readings
from gatebook.config.dresses import searched as searched
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
_SECRET_KEY = re.compile(r"(^|[_-])(api[_-]?key|apikey|token|secret|password|passwd|authorization)$", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)


def refuse_secrets(data: Any, where: str, path: str = "") -> None:
    """Raise BadInput where a value looks like a key, or a key of `target` names one. The message never repeats the value."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        here = f"{path}.{key}" if path else str(key)
        if here.endswith("api_key_env") and value is not None and not re.fullmatch(r"[A-Za-z_]\w*", str(value), re.A):
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
    return bool(_SECRET_KEY.search(key) or _SECRET_VALUE.search(str(value)) or _SECRET_URL.search(str(value)))


def is_secret_url(url: str) -> bool:
    """Whether it holds more than a place: a user, or a parameter that is a credential."""
    return bool(_SECRET_URL.search(url))


def holds_secret(value: Any) -> bool:
    """Whether any word of a text, or of the texts in a list or mapping, looks like a key: in prompts it may stand in a sentence."""
    if isinstance(value, dict | list | tuple):
        return any(map(holds_secret, (*value, *value.values()) if isinstance(value, dict) else value))
    text = str(value)
    words = re.split(r"[\s\"'`,;()<>\[\]{}=：，。；]+", text)
    return bool(re.search(r"\b(Bearer|Basic)\s+[\w.+/\-]{16,}", text)) or any(map(_SECRET_VALUE.search, words))


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


MASK = "[redacted]"
_BREAK = re.compile(r"=?(?:\\[rn]|[\r\n])+[ \t]*")
"""A line end inside of what was wrapped, with the indentation of the next line; `=` before it in quoted-printable."""
_UNFINISHED = re.compile(r"\\(?:[uU][0-9a-fA-F{]{0,8}|x[0-9a-fA-F]?)?|%(?:25)*[0-9a-fA-F]?|&(?:amp;)*#?\w{0,5}")
"""An escape at which a text was cut."""
BEGUN = 4
"""Characters of a secret at the end of a text that was cut which count as its beginning."""
_ALIKE = {"reasoning": "reasoning_content", "max_completion_tokens": "max_tokens"}
"""Names under which a reader joins one text."""
FAR = 1000
"""Positions of a list that are told apart."""


class _Texts:
    """Texts and lists of bytes in JSON documents, and which of them a reader may join. Numbers are none: nobody joins them."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.by_place: dict[int, array[int]] = defaultdict(lambda: array("L"))
        self.by_names: dict[int, array[int]] = defaultdict(lambda: array("L"))
        """A place, positions told apart or not -> which of the texts found stand there."""
        self._places: dict[tuple[int, str | int], int] = {}

    def collect(self, value: Any, place: int = 0, names: int = -1) -> None:
        if isinstance(value, str):
            self.by_place[place].append(len(self.found))
            self.by_names[names].append(len(self.found))
            self.found.append(value)
        elif isinstance(value, dict):
            for name, inner in value.items():
                if isinstance(inner, str | dict | list):
                    name = str(_ALIKE.get(name, name))
                    self.collect(inner, self._at(place, name), self._at(names, name))
        elif _is_bytes(value):
            self.collect(bytes(value).decode("latin-1"), self._at(place, "bytes"), self._at(names, "bytes"))
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                index = inner.get("index") if isinstance(inner, dict) else None
                position = index if isinstance(index, int) else number
                if isinstance(inner, str | dict | list):
                    self.collect(inner, self._at(place, min(position, FAR)), names)

    def read(self, group: Iterable[int]) -> str:
        return "".join(self.found[number] for number in group)

    def _at(self, place: int, name: str | int) -> int:
        return self._places.setdefault((place, name), len(self._places) + 1)


def _is_bytes(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and 0 <= item < 256 for item in value)


def _told(value: Any, texts: Iterator[str], scrub: Callable[[str], str]) -> Any:
    """Return the value with its texts replaced in the order collected, and no secret in a number."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, dict):
        return {name: _told(inner, texts, scrub) for name, inner in value.items()}
    if _is_bytes(value):
        return list(next(texts).encode("latin-1", "replace"))
    if isinstance(value, list):
        return [_told(inner, texts, scrub) for inner in value]
    said = scrub(str(value))
    return value if said == str(value) else said


def _mapped(found: list[tuple[int, int]], before: str, undone: re.Pattern[str], left: int) -> list[tuple[int, int]]:
    """Return where spans stood before each match of `undone` became `left` characters."""
    places, shifts = array("L"), array("L", [0])
    for match in undone.finditer(before if found else ""):
        places.append(match.start() - shifts[-1])
        shifts.append(shifts[-1] + match.end() - match.start() - left)
    return [(a + shifts[bisect_left(places, a)], b + shifts[bisect_left(places, b)]) for a, b in found]


class Scrubber:
    """Takes secrets out of whatever a server says, in every dress that a program gives them by habit (`dresses`), escaped or
    wrapped. One that is common (`is_telling`) is not searched for. `cut`: the text goes on where it ends, so that the beginning
    of a secret there is one."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._needles = tuple(dict.fromkeys(dress for secret in secrets for dress in dresses(secret)))

    def __bool__(self) -> bool:
        return bool(self._needles)

    def holds(self, text: str, cut: bool = False) -> bool:
        return bool(self._spans(text, cut))

    def text(self, text: str, cut: bool = False) -> str:
        """Mask the secrets in a text."""
        for start, end in reversed(self._spans(text, cut)):
            text = f"{text[:start]}{MASK}{text[end:]}"
        return text

    def documents(self, texts: list[str], read: Callable[[str], Any] = json.loads, cut: bool = False) -> list[str]:
        """Texts of which each is JSON or not, and whose values a reader joins: the events of a stream, or one reply.

        A secret that is cut over several of them loses its part of each, and what is left of a part is never empty, so that
        an event which carried text still does. A text without any part of one comes back as it was.
        """
        if not self._needles:
            return texts
        joined, values, ends = _Texts(), list[Any](), [0]
        for text in texts:
            values.append(None)
            with suppress(ValueError, RecursionError):
                if isinstance(value := read(text), dict | list):
                    joined.collect(value)
                    values[-1] = value
            ends.append(len(joined.found))
        groups = [*joined.by_place.values(), *joined.by_names.values()]
        if not self.holds("\n".join(texts), cut) and not any(self.holds(joined.read(group), cut) for group in groups):
            return texts
        for group in groups:
            self._mask(joined.found, group, cut)
        parts = [joined.found[begin:end] for begin, end in pairwise(ends)]
        return [self._written(*document, cut) for document in zip(texts, values, parts, strict=True)]

    def _written(self, text: str, value: Any, parts: list[str], cut: bool) -> str:
        """Return the JSON text of a value with these parts in place of its own."""
        with suppress(RecursionError):
            told = _told(value, iter(parts), self.text)
            if told != value:
                text = json.dumps(told, ensure_ascii=False)
                text = json.dumps(told) if re.search("[\ud800-\udfff]", text) else text
        return self.text(text, cut)

    def _mask(self, texts: list[str], group: Iterable[int], cut: bool) -> None:
        """Mask secrets in these texts read one after the other."""
        group = [number for number in group if texts[number]]
        ends = list(accumulate(len(texts[number]) for number in group))
        begins = [0, *ends]
        for start, end in reversed(self._spans("".join(texts[number] for number in group), cut)):
            first, last = bisect_left(ends, start + 1), bisect_left(ends, end)
            for i, piece in enumerate(_shared(last - first + 1), first):
                text, begin = texts[group[i]], begins[i]
                texts[group[i]] = text[: max(start - begin, 0)] + piece + text[end - begin :]

    def _spans(self, text: str, cut: bool) -> list[tuple[int, int]]:
        """Return where secrets stand in a text, however escaped; spans that touch are joined."""
        if not self._needles:
            return []
        whole, text = len(text), _finished(text) if cut else text
        *escaped, plain = readings(text)
        found = self._found(plain, cut)
        if (unwrapped := _BREAK.sub("", plain)) != plain:
            found += _mapped(self._found(unwrapped, cut), plain, _BREAK, 0)
        for before in reversed(escaped):
            found = _mapped(found, before, ESCAPED, 1)
        spans: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if spans and start <= spans[-1][1]:
                start, reached = spans.pop()
                end = max(end, reached)
            spans.append((start, whole if cut and end == len(text) else end))
        return spans

    def _found(self, plain: str, cut: bool) -> list[tuple[int, int]]:
        found = [m.span() for n in self._needles if n in plain for m in re.finditer(re.escape(n), plain)]
        sizes = (s for n in self._needles for s in range(BEGUN, len(n)) if plain.endswith(n[:s])) if cut else ()
        return [*found, *((len(plain) - size, len(plain)) for size in sizes)]


def _finished(text: str) -> str:
    """Return a text that was cut without the escape that it ends in."""
    at = max(map(text.rfind, "\\%&"))
    return text[:at].rstrip("\\") if at >= 0 and _UNFINISHED.fullmatch(text, at) else text


def _shared(count: int) -> list[str]:
    """Cut the mask into this many pieces, none of them empty."""
    whole = f"{MASK[:-1]}{'*' * (count - len(MASK))}]"
    return [whole[a:b] for a, b in pairwise(len(whole) * number // count for number in range(count + 1))]


def main() -> None:
    """Copy stdin to stdout without the values of environment variables that are called keys, tokens, secrets or passwords."""
    hidden = Scrubber(value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name))
    sys.stdout.write(hidden.text(sys.stdin.buffer.read().decode("utf-8", "replace")))


if __name__ == "__main__":
    main()
