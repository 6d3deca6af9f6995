"""Is it text at all? Degenerate answers, broken characters, leaked markup."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator

from ftfy.badness import is_bad

SPECIAL = re.compile(
    r"<\|[\w ]{2,30}\|>|<｜[^｜]{2,30}｜>|\[/?INST\]|<</?SYS>>|^\s*<s>|</s>\s*$|<(?:start|end)_of_turn>|<(?:unk|eos|bos|pad)>|</?tool_call>"
)
ROLE_LEAK = re.compile(r"^\s*(?:assistant|user|system)\s*\n", re.IGNORECASE)
THINK = re.compile(r"</?think(?:ing)?>", re.IGNORECASE)
CJK = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC", "BOPOMOFO")
SIGNS_AGAIN = re.compile(r"([^\w]{2,8}?)\1{5,}")
"""Signs without a letter or a digit, over and over."""
LOOP = re.compile(r"(.{1,80}?)\1{3,}", re.DOTALL)


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
    return _soup(dense)


def degenerate(text: str) -> str | None:
    """Why a text is no answer, whatever was asked: noise, or a phrase that repeats (vllm#25977). Small models loop on some
    prompts when they are healthy. Short answers, numbers and tables are no reason."""
    squeezed = re.sub(r"\s+", " ", text).strip()
    if blank := re.search(r"\s{40,}", text):
        return f"{len(blank[0])} characters of white space in a row"
    if said := noise(text):
        return said
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


def _soup(text: str) -> str | None:
    scripts = list(_scripts(text))
    for start in range(0, max(len(scripts) - 31, 0), 16):
        window = scripts[start : start + 64]
        switches = sum(a != b for a, b in zip(window, window[1:], strict=False))
        if len(set(window)) >= 3 and switches > 0.2 * len(window):
            return f"{len(set(window))} scripts are mixed letter by letter ({', '.join(sorted(set(window)))})"
    return None


def _scripts(text: str) -> Iterator[str]:
    """Script of every letter, from its Unicode name. Chinese, kana and bopomofo count as one, since they are mixed; Greek
    letters and the micro sign are symbols in any language; modifier letters belong to the letter before."""
    for char in text:
        if unicodedata.category(char) in ("Lu", "Ll", "Lt", "Lo") and not ("α" <= char.lower() <= "ω" or char == "µ"):
            script = "LATIN" if char.isascii() else unicodedata.name(char, "?").split(" ")[0]
            yield "CJK" if script in CJK else script


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
    for pattern, what in (
        (SPECIAL, "special token"),
        (THINK, "thinking block"),
        (ROLE_LEAK, "role header of the chat template"),
    ):
        if found := pattern.search(text):
            return f"{what} in the answer: {found[0].strip()!r}"
    return None
