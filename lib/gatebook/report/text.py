"""Text of a model or a server, made safe to look at: what is invisible or turns the direction is shown as an escape."""

from __future__ import annotations

from gatebook.errors import visible as visible


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
