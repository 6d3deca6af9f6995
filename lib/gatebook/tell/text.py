"""Text of a model or a server, made safe to look at: what is invisible or turns the direction is shown as an escape."""

from __future__ import annotations

_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROL = (*(c for c in range(0x20) if chr(c) not in "\n\t"), *range(0x7F, 0xA0))
_NO_CHARACTER = (*range(0xD800, 0xE000), 0xFFFE, 0xFFFF)
_ESCAPES = {c: f"\\x{c:02x}" for c in _CONTROL} | {c: f"\\u{c:04x}" for c in (*_BIDI, *_NO_CHARACTER)}


def visible(text: str) -> str:
    """Control characters, bidi overrides and lone surrogates as `\\x1b`, `\\u202e`, `\\ud83d`; the rest as it is.

    What comes out can be encoded in UTF-8 and stands in XML 1.0. Markup stays Markup.
    """
    return text.translate(_ESCAPES)


def excerpt(text: str, most: int) -> tuple[str, int]:
    """The first `most` characters, and how many more there are."""
    return text[:most], max(len(text) - most, 0)


def both_ends(text: str, most: int) -> tuple[str, int]:
    """An excerpt with the beginning and the end, where the question of a long prompt stands; and how much is left out."""
    if len(text) <= most:
        return text, 0
    tail = most // 3
    more = len(text) - most
    return f"{text[: most - tail]}\n[… {more:,} characters left out …]\n{text[-tail:]}", more
