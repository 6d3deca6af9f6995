"""Wrong answers made from right ones: a number, a negation or an entity changed. The same text gives the same mutants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "negation", "entity"]
MOST_NUMBERS = 2
MOST_ENTITIES = 2

_NUMBER = re.compile(r"\d+")
_CHINESE_NUMBER = re.compile(r"[一二两三四五六七八九十](?=[个天次件台条份周月年元人点小分项把张套])")
_CHINESE_DIGITS = "一二三四五六七八九十"
_WITHOUT = [  # taken out first: a text with a negation loses it
    (r"没有", "有"), (r"无法|不能", "可以"), (r"尚未|还没|未", "已"), (r"不再|并不|不(?!同|过|仅|但)", ""),
    (r"\bcannot\b|\bcan't\b", "can"), (r"\b(is|are|was|were|does|do|did|has|have|can|will|must|should) not\b", r"\1"),
    (r"\bno longer\b", "still"), (r"\bnot\b ?", ""),
]  # fmt: skip
_WITH = [
    (r"(?=希望|需要|要求|可以|支持|能够|必须|应该|属于|会|能)", "不"), (r"已经|已", "未"), (r"(?=是|在|要|请|用|为)", "不"), (r"有", "没有"),
    (r"\b(is|are|was|were|can|will|must|should|may)\b", r"\1 not"), (r"\bhas\b", "has not"), (r"\bhave\b", "do not have"),
    (r"\bwants\b", "does not want"), (r"(\b(?!this\b)[a-z]{3,}(?<!s)s)(?= (?:the|a|an|to|on|after|every|at|in|for|from)\b)", r"never \1"),
]  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    kind: Kind
    text: str


def mutants(golden: str, own: list[str], other: list[str]) -> list[Mutant]:
    """Wrong answers, each one edit away from a golden one.

    `own` and `other` are the entities of this case and of another one, slot by slot (order number, product, ...): an
    entity goes where the answer names the case's own. At most 2 numbers, 1 negation and 2 entities.
    """
    found = [Mutant("number", text) for text in _numbers(golden)]
    found += [Mutant("negation", text) for text in [_negated(golden)] if text]
    found += [Mutant("entity", text) for text in _entities(golden, own, other)]
    return [m for n, m in enumerate(found) if m.text != golden and m.text not in [e.text for e in found[:n]]]


def _numbers(text: str) -> list[str]:
    spots = [(m, str(int(m[0]) + 1).zfill(len(m[0]))) for m in _NUMBER.finditer(text)]
    spots += [(m, _next_digit(m[0])) for m in _CHINESE_NUMBER.finditer(text)]
    return [text[: m.start()] + new + text[m.end() :] for m, new in spots[:MOST_NUMBERS]]


def _next_digit(digit: str) -> str:
    where = _CHINESE_DIGITS.index("二" if digit == "两" else digit)
    return _CHINESE_DIGITS[(where + 1) % len(_CHINESE_DIGITS)]


def _negated(text: str) -> str | None:
    """The text with its first negation taken out, or with one put in; None where neither can be done by rule."""
    for pattern, new in (*_WITHOUT, *_WITH):
        if re.search(pattern, text, re.IGNORECASE):
            return re.sub(pattern, new, text, count=1, flags=re.IGNORECASE)
    return None


def _entities(text: str, own: list[str], other: list[str]) -> list[str]:
    swaps = [
        (mine, theirs)
        for mine, theirs in zip(own, other, strict=False)
        if mine in text and theirs.casefold() != mine.casefold() and theirs not in text and not _NUMBER.fullmatch(mine)
    ]
    return [text.replace(mine, theirs) for mine, theirs in swaps[:MOST_ENTITIES]]
