"""The text of an answer: is it text at all, does it say what it must, has it the form that was asked for?"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from typing import Annotated, Literal

from ftfy.badness import is_bad
from pydantic import Field

from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import Pattern, Text, Words, check
from gatebook.record.answer import THOUGHT

ROLE = "role header of the chat template"
LEAKS = {
    "special token": re.compile(
        r"<\|[\w ]{2,30}\|>|<｜[^｜]{2,30}｜>|\[/?INST\]|<</?SYS>>|^\s*<s>|</s>\s*$|<(?:start|end)_of_turn>|<(?:unk|eos|bos|pad)>|</?tool_call>"
    ),
    "thinking block": THOUGHT,
    ROLE: re.compile(r"^\s*(?:assistant|user|system)\s*\n", re.IGNORECASE),
}
CJK = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC", "BOPOMOFO")
SIGNS_AGAIN = re.compile(r"([^\w]{2,8}?)\1{5,}")
"""Signs without a letter or a digit, over and over."""
LOOP = re.compile(r"(.{1,80}?)\1{3,}", re.DOTALL)
SEPARATOR = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?")
ITEM = re.compile(r"\s*(?:[-*+•]\s+|\d{1,3}[.)](?!\d)\s*|\d{1,3}、\s*|[（(]\d{1,3}[)）]\s*)(?=\S)")
MOST_CHARS = 10**9


def noise(text: str) -> str | None:
    """Why a text is no language at all: one character over and over (NaN logits: vllm#14126), or scripts mixed letter by
    letter (broken KV cache: llama.cpp#23693). A healthy small model does it on some prompts it cannot answer, so the
    policy of the case's group decides; None for anything else."""
    dense = re.sub(r"[\s=_|:~—-]+", "", text)  # the rulers of tables are drawn, not said
    if len(dense) < 16:
        return None
    char, count = Counter(dense).most_common(1)[0]
    if count > 0.6 * len(dense):
        return f"{char!r} is {count} of {len(dense)} characters"
    for match in SIGNS_AGAIN.finditer(dense):
        if len(match[0]) > 0.6 * len(dense):
            return f"{match[1]!r} is repeated {len(match[0]) // len(match[1])} times"
    scripts = [script for char in dense if (script := _script(char))]
    for start in range(0, max(len(scripts) - 31, 0), 16):
        window = scripts[start : start + 64]
        switches = sum(a != b for a, b in zip(window, window[1:], strict=False))
        if len(set(window)) >= 3 and switches > 0.2 * len(window):
            return f"{len(set(window))} scripts are mixed letter by letter ({', '.join(sorted(set(window)))})"
    return None


def degenerate(text: str) -> str | None:
    """Why a text is no answer, whatever was asked: noise, or a phrase that repeats (vllm#25977). Small models loop on some
    prompts when they are healthy. Short answers, numbers and tables are no reason."""
    if blank := re.search(r"\s{40,}", text):
        return f"{len(blank[0])} characters of white space in a row"
    if said := noise(text):
        return said
    squeezed = " ".join(text.split())
    for match in LOOP.finditer(squeezed):
        repeated = len(match[0])
        shortest = 48 if any(c.isalnum() for c in match[1]) else 200  # the ruler of a table has no letters
        if repeated >= shortest and len(set(match[1])) > 1 and repeated > 0.3 * len(squeezed):
            return f"{match[1][:40]!r} is repeated {repeated // len(match[1])} times"
    words = squeezed.split(" ")
    tens = Counter(tuple(words[i : i + 10]) for i in range(len(words) - 9))
    for ten, times in tens.most_common(1):
        if times >= 4 and any(c.isalnum() for word in ten for c in word):
            return f"the same ten words occur {times} times: {' '.join(ten)[:60]!r}"
    raw = squeezed.encode()
    if len(raw) >= 400 and len(zlib.compress(raw, 9)) < 0.15 * len(raw):
        return f"{len(raw)} bytes compress to {len(zlib.compress(raw, 9))}: the text repeats itself"
    return None


def _script(char: str) -> str:
    """Script of a letter, from its Unicode name; empty for all else. Chinese, kana and bopomofo count as one, since they are
    mixed; Greek letters and the micro sign are symbols in any language; modifier letters belong to the letter before."""
    if unicodedata.category(char) not in ("Lu", "Ll", "Lt", "Lo") or "α" <= char.lower() <= "ω" or char == "µ":
        return ""
    script = "LATIN" if char.isascii() else unicodedata.name(char, "?").split(" ")[0]
    return "CJK" if script in CJK else script


def broken_characters(text: str, cut: bool) -> str | None:
    """U+FFFD or mojibake. `cut`: the answer ended by max_tokens, where the last character may be half."""
    body = text.rstrip("\ufffd") if cut else text
    if "\ufffd" in body:
        at = body.index("\ufffd")
        return f"U+FFFD (a broken character) at position {at}: …{body[max(0, at - 12) : at + 6]!r}"
    if is_bad(body):
        return f"mojibake (UTF-8 read as Latin-1): {body[:40]!r}"
    return None


def leaked_markup(text: str) -> str | None:
    """Special tokens, a role header or a thinking block in what the user sees."""
    found = ((what, leak) for what, pattern in LEAKS.items() if (leak := pattern.search(text)))
    return next((f"{what} in the answer: {leak[0].strip()!r}" for what, leak in found), None)


@check(
    Stage.BEHAVIOUR,
    lambda case, min=1, max=MOST_CHARS: f"min {min} is above max {max}; correct it" if min > max else None,
)
def length_chars(text: str, *, min: int = 1, max: int = MOST_CHARS) -> Result:
    """Characters of the trimmed answer, between `min` and `max`."""
    size = len(text.strip())
    return Result.of(min <= size <= max, f"{size} characters, {min} to {max} expected", size, f"{min}..{max}", "chars")


@check(Stage.BEHAVIOUR, names={f"contains_{which}": {"which": which} for which in ("any", "all", "none")})
def contains(text: str, words: Words, which: Literal["any", "all", "none"]) -> Result:
    """At least one of the words (`contains_any`), every one (`contains_all`) or none of them (`contains_none`)."""
    found = [word for word in words if word in text]
    has = f"has {', '.join(found)}"
    if which == "any":
        return Result.of(bool(found), has if found else f"has none of {', '.join(words)}", len(found), 1, "words")
    if which == "none":
        return Result.of(not found, has if found else "has none of them", len(found), 0, "words")
    return Result.of_parts([word for word in words if word not in text], len(words), "words", "there", "missing")


@check(Stage.BEHAVIOUR)
def regex(text: str, pattern: Pattern) -> Result:
    """The pattern is found somewhere in the answer."""
    found = re.search(pattern, text) is not None
    return Result.of(found, f"/{pattern}/ {'found' if found else 'not found'}", found, True)


@check(Stage.BEHAVIOUR)
def not_degenerate(text: str) -> Result:
    """No character, phrase or script soup over and over: judged on prompts that a healthy model answers well."""
    said = degenerate(text)
    return Result.of(not said, said or "reads like text")


COLUMNS = "Each in the header row, in any order; of several names one is enough. Case and emphasis do not count."


@check(Stage.BEHAVIOUR)
def markdown_table(
    text: str, *, columns: Annotated[list[Text | Words], Field(min_length=1, description=COLUMNS)]
) -> Result:
    """A table with a header row that names the columns, a separator row under it and at least one row of data.

    Source: GitHub Flavored Markdown, 4.10 Tables: header and separator must have as many cells as each other.
    """
    names = [[name] if isinstance(name, str) else name for name in columns]
    limit = " | ".join(name[0] for name in names)
    lines = [line.strip() for line in text.splitlines()]
    at = next((n for n, line in enumerate(lines) if "|" in line and SEPARATOR.fullmatch(line)), None)
    header = _cells(lines[at - 1]) if at and "|" in lines[at - 1] else []
    shown = " | ".join(header)
    plain = {re.sub(r"[*_`\s]+", " ", cell).strip().casefold() for cell in header}
    missing = [name[0] for name in names if not plain & {one.casefold() for one in name}]
    if at is None:
        drawn = any(line.count("|") >= 2 for line in lines)
        said = "a table without a separator row under a header" if drawn else "no Markdown table"
    elif not header:
        said = "the table has no header row"
    elif len(header) != len(_cells(lines[at])):
        said = f"the separator does not fit the header {shown!r}"
    elif missing:
        said = f"{len(missing)} of {len(names)} columns missing in the header: {', '.join(missing)}"
    elif at + 1 >= len(lines) or "|" not in lines[at + 1]:
        said = f"nothing stands under the header {shown!r}"
    else:
        return Result("pass", f"header row {shown!r}", shown, limit)
    return Result("fail", said, shown if header else None, limit)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@check(Stage.BEHAVIOUR)
def list_items(text: str, *, count: Annotated[int, Field(ge=1)]) -> Result:
    """So many list items (`-`, `*`, `1.`, `1)`, `1、`), each on a line of its own; lines between them do not count."""
    found = sum(ITEM.match(line) is not None for line in text.splitlines())
    return Result.of(found == count, f"{found} list items, {count} expected", found, count, "items")
