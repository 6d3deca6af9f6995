"""Keys stay out of files: values that look like one are refused wherever they are read, no message repeats them, and what a
server says of one that was sent to it is taken out before it is written."""

from __future__ import annotations

import base64
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


def is_telling(secret: str) -> bool:
    """Whether a text that holds it must have leaked it: not `1`, `vllm` or `sk-no-key-required`, which stand in replies by chance."""
    parts = [part for part in re.split(r"[\W_]+", secret.casefold()) if part]
    common = all(part in _COMMON or len(set(part)) == 1 or part in "1234567890" for part in parts)
    return min(len(secret), len(_readings(secret)[-1])) >= SHORT and not common


MASK = "[redacted]"
_ESCAPED = re.compile(
    r"\\+u(?:00([0-9a-fA-F]{2})|\{0*([0-9a-fA-F]{1,2})\})|\\+x([0-9a-fA-F]{2})|%(?:25)*([0-9a-fA-F]{2})"
    r"|&(?:amp;)*#[xX]0*([0-9a-fA-F]{1,2});|&(?:amp;)*#0*([0-9]{1,3});|&(?:amp;)*(quot|apos|amp|lt|gt);|(\\+)([\"'/]?)"
)
"""Escapes of JSON, Python, URLs and HTML, however often they were applied. Each stands for one character."""
DEEPEST = 6
"""Escapes in escapes that are undone."""
_ENTITIES = {"quot": '"', "apos": "'", "amp": "&", "lt": "<", "gt": ">"}


def _unescape(found: re.Match[str]) -> str:
    *digits, decimal, entity, slashes, quoted = found.groups()
    for number in digits:
        if number is not None:
            return chr(int(number, 16))
    return chr(int(decimal)) if decimal is not None else _ENTITIES[entity] if entity else quoted or slashes[:1]


def _readings(text: str) -> list[str]:
    """Return the text, and what it reads as after each round of undoing escapes."""
    found = [text]
    while len(found) <= DEEPEST and any(sign in found[-1] for sign in "\\%&"):
        if (plain := _ESCAPED.sub(_unescape, found[-1])) == found[-1]:
            break
        found.append(plain)
    return found


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


class Scrubber:
    """Takes secrets out of whatever a server says, in every dress that a program gives them by habit: as they are, escaped,
    URL-encoded, in base64 at any of its three offsets, in hex. One that is common (`is_telling`) is not searched for."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._needles = tuple(dict.fromkeys(dress for secret in secrets for dress in _dresses(secret)))

    def __bool__(self) -> bool:
        return bool(self._needles)

    def holds(self, text: str) -> bool:
        return bool(self._spans(text))

    def text(self, text: str) -> str:
        """Mask the secrets in a text."""
        for start, end in reversed(self._spans(text)):
            text = f"{text[:start]}{MASK}{text[end:]}"
        return text

    def documents(self, texts: list[str], read: Callable[[str], Any] = json.loads) -> list[str]:
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
        if not self.holds("\n".join(texts)) and not any(self.holds(joined.read(group)) for group in groups):
            return texts
        for group in groups:
            self._mask(joined.found, group)
        parts = [joined.found[begin:end] for begin, end in pairwise(ends)]
        return [self._written(*document) for document in zip(texts, values, parts, strict=True)]

    def _written(self, text: str, value: Any, parts: list[str]) -> str:
        """Return the JSON text of a value with these parts in place of its own."""
        with suppress(RecursionError):
            told = _told(value, iter(parts), self.text)
            if told != value:
                text = json.dumps(told, ensure_ascii=False)
                text = json.dumps(told) if re.search("[\ud800-\udfff]", text) else text
        return self.text(text)

    def _mask(self, texts: list[str], group: Iterable[int]) -> None:
        """Mask secrets in these texts read one after the other."""
        group = [number for number in group if texts[number]]
        ends = list(accumulate(len(texts[number]) for number in group))
        begins = [0, *ends]
        for start, end in reversed(self._spans("".join(texts[number] for number in group))):
            first, last = bisect_left(ends, start + 1), bisect_left(ends, end)
            for i, piece in enumerate(_shared(last - first + 1), first):
                text, begin = texts[group[i]], begins[i]
                texts[group[i]] = text[: max(start - begin, 0)] + piece + text[end - begin :]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Return where secrets stand in a text, however escaped; spans that touch are joined."""
        if not self._needles:
            return []
        *escaped, plain = _readings(text)
        found = [m.span() for n in self._needles if n in plain for m in re.finditer(re.escape(n), plain)]
        for before in reversed(escaped if found else []):
            places, shifts = array("L"), array("L", [0])
            for escape in _ESCAPED.finditer(before):
                places.append(escape.start() - shifts[-1])
                shifts.append(shifts[-1] + escape.end() - escape.start() - 1)
            found = [(a + shifts[bisect_left(places, a)], b + shifts[bisect_left(places, b)]) for a, b in found]
        spans: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if spans and start <= spans[-1][1]:
                start, reached = spans.pop()
                end = max(end, reached)
            spans.append((start, end))
        return spans


def _shared(count: int) -> list[str]:
    """Cut the mask into this many pieces, none of them empty."""
    whole = f"{MASK[:-1]}{'*' * (count - len(MASK))}]"
    return [whole[a:b] for a, b in pairwise(len(whole) * number // count for number in range(count + 1))]


def searched(secret: str) -> list[str]:
    """Return the parts of a secret to search for: the whole, what follows `Bearer`, and what `Basic` packs."""
    words = secret.split()
    parts = [secret, *words]
    if len(words) == 2 and words[0].casefold() == "basic":
        with suppress(ValueError):
            plain = base64.b64decode(words[1], validate=True).decode("ascii")
            parts += [plain, plain.partition(":")[2]]
    return [part for part in dict.fromkeys(parts) if is_telling(part)]


def _dresses(secret: str) -> Iterator[str]:
    for part in searched(secret):
        raw = part.encode()
        yield from (_readings(part)[-1], raw.hex(), raw.hex().upper(), raw.hex(":"), raw.hex(" "))
        for offset in range(3):
            first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                yield encode(bytes(offset) + raw + bytes(3)).decode()[first:last]


def main() -> None:
    """Copy stdin to stdout without the values of environment variables that are called keys, tokens, secrets or passwords."""
    hidden = Scrubber(value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name))
    sys.stdout.write(hidden.text(sys.stdin.buffer.read().decode("utf-8", "replace")))


if __name__ == "__main__":
    main()
