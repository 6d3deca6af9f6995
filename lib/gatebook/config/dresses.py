"""In which forms programs write a secret down: the texts to search for, and the escapes to undo before."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

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


ESCAPED = re.compile(
    r"\\+[uU](?:(?:0000)?00([0-9a-fA-F]{2})|\{0*([0-9a-fA-F]{1,2})\})|\\+x([0-9a-fA-F]{2})|%(?:25)*([0-9a-fA-F]{2})"
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


def readings(text: str) -> list[str]:
    """Return the text, and what it reads as after each round of undoing escapes."""
    found = [text]
    while len(found) <= DEEPEST and any(sign in found[-1] for sign in "\\%&"):
        if (plain := ESCAPED.sub(_unescape, found[-1])) == found[-1]:
            break
        found.append(plain)
    return found


def is_telling(secret: str) -> bool:
    """Whether a text that holds it must have leaked it: not `1`, `vllm` or `sk-no-key-required`, which stand in replies by chance."""
    parts = [part for part in re.split(r"[\W_]+", secret.casefold()) if part]
    common = all(part in _COMMON or len(set(part)) == 1 or part in "1234567890" for part in parts)
    return min(len(secret), len(readings(secret)[-1])) >= SHORT and not common


def searched(secret: str) -> list[str]:
    """Return the parts of a secret to search for: the whole, what follows `Bearer`, and what `Basic` packs."""
    words = secret.split()
    parts = [secret, *words]
    if len(words) == 2 and words[0].casefold() == "basic":
        with suppress(ValueError):
            plain = base64.b64decode(words[1], validate=True).decode("ascii")
            parts += [plain, plain.partition(":")[2]]
    return [part for part in dict.fromkeys(parts) if is_telling(part)]


def dresses(secret: str) -> Iterator[str]:
    """A secret as it is, in capitals, in code numbers of some bases, in base64 (once or twice, of UTF-16 too) and base32, each at any
    offset from where the encoding began."""
    for part in searched(secret):
        raw, wide = part.encode(), part.encode("utf-16-le")[:-1]  # which is in the other byte order too
        yield readings(part)[-1]
        if len(part) >= 2 * SHORT:
            yield from (readings(part.upper())[-1], readings(part.lower())[-1])
        yield from (part.replace("=", "=3D"), *_numbers(raw, wide))
        once = [*_in_base(64, raw), *_in_base(64, raw, b"-_")]
        yield from (*once, *_in_base(64, wide), *_in_base(32, raw), *map(str.lower, _in_base(32, raw)))
        for packed in once:
            yield from _in_base(64, packed.encode())


def _numbers(raw: bytes, wide: bytes) -> Iterator[str]:
    """The bytes as numbers; what single escapes stand for is undone elsewhere."""
    for case in (str.lower, str.upper):
        yield from (
            case(wide.hex()),
            *(case(raw.hex(sign) if sign else raw.hex()) for sign in ("", ":", " ", "-", "=", ",")),
        )
        yield from (sign.join(f"0x{case(f'{byte:02x}')}" for byte in raw) for sign in (",", ", ", " "))
    yield from (sign.join(map(str, raw)) for sign in (",", ", ", " "))
    yield "".join(f"\\{byte:03o}" for byte in raw)


def _in_base(base: Literal[32, 64], raw: bytes, last_signs: bytes = b"+/") -> Iterator[str]:
    """The characters that depend on these bytes alone, wherever they stand in what was encoded."""
    group, bits = (3, 6) if base == 64 else (5, 5)
    for offset in range(group):
        data = bytes(offset) + raw + bytes(group)
        said = base64.b64encode(data, last_signs) if base == 64 else base64.b32encode(data)
        yield said.decode()[-(-offset * 8 // bits) : (offset + len(raw)) * 8 // bits]
