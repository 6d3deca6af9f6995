"""The text of an answer: is it text, does it say what it must and invent nothing, has it the form that was asked for?"""

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


NUMBER = r"\d[\d,.]*"
UNIT = r"(?<![\d.,])1\s*(?:美元|欧元|英镑|人民币|元|dollars?\b|USD\b|euros?\b|EUR\b)"
"""What a rate is asked for, and no price."""
FACTS = {
    "temperature": rf"{NUMBER}\s*(?:°\s*[CF]?|℃|℉|摄氏度|度(?!假)|degrees\b)|零下\S{{0,3}}度",
    "weather": r"(?:今天|现在|目前|当前|今日)[^。！？\n]{0,12}(?:晴|多云|阴天|有雨|下雨|小雨|大雨|下雪|雾)"
    r"|\b(?:currently|today|right now|(?:it|weather)(?: \w+){0,4} is)\b[^.!?\n]{0,40}\b(?:sunny|cloudy|rain(?:y|ing)|clear|overcast|snow(?:y|ing)|foggy|windy)\b",
    "money": rf"(?:[$¥￥€£]|US\$)\s*{NUMBER}|(?!{UNIT}){NUMBER}\s*(?:亿|万)?\s*(?:元|美元|人民币|欧元|日元|dollars?\b|USD\b|CNY\b|yuan\b|euros?\b|yen\b)",
    "rate": rf"1\s*(?:美元|欧元|英镑|USD|EUR|GBP)\s*(?:=|≈|等于|约|兑|is|equals)[^。\n]{{0,12}}{NUMBER}|{NUMBER}\s*(?:点\b|points\b|点(?=[，。,. ]|$))",
    "score": r"(?<![\d\-–.:])\d{1,3}\s*(?:[-–比]|\bto\b)\s*\d{1,3}(?![\d\-–]|\s*(?:°|℃|度|am|pm|年|月|点|岁|分钟))|(?<![\d:：])\d{1,2}[:：]\d(?!\d)",
    "date": r"(?:今天|今日)(?:的日期)?是[^。！？\n]{0,6}(?:\d{2,4}\s*年|\d{1,2}\s*月|星期|周)"
    r"|\btoday(?:'s date)? is [^.\n]{0,10}(?:\w+day\b|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\w* \d|\d{4}|\d{1,2}[/.-])",
    "time": r"(?:现在|当前|北京时间)[^。！？\n]{0,8}\d{1,2}\s*(?:点|时|[:：]\d{2})|\b\d{1,2}:\d{2}\s*(?:[ap]\.?m\b|o'clock)|\btime (?:is|in \w+ is)[^.\n]{0,12}\d{1,2}[: ]",
    "share": rf"{NUMBER}\s*(?:%|％|percent\b)",
    "draw": r"(?:\b\d{1,2}\b[\s,、，和and]+){4,}\d{1,2}\b",
    "air": rf"(?:AQI|PM2\.5|quality index|空气质量|指数)[^。.\n]{{0,24}}?(?:\bis|\bof|是|为|:|：)\s*{NUMBER}",
}
"""kind -> how an asserted fact looks. Numbers need their unit, so that a list's numbers are none."""
REFUSES = re.compile(
    r"无法|不能|没有办法|没法|不具备|不知道|不清楚|没有(?:能力|权限|联网|实时|最新)|未能|查不到|不支持"
    r"|\b(?:can(?:no|')?t\b|cannot|unable|no access|without access|lack|(?:do not|don't|doesn't|not) (?:have|know|possess|able|aware|currently able|real))",
    re.IGNORECASE,
)
"""The answer says that it cannot know."""
POINTS = re.compile(
    r"请(?:您)?(?:查看|查询|参考|使用|打开|访问)|建议(?:您|你)?[^。]{0,6}(?:查|看|参考|访问|打开|使用)"
    r"|\b(?:please|recommend|suggest|you (?:can|could|should|may))[^.\n]{0,30}\b(?:check|checking|see|visit|consult|look|use|using)",
    re.IGNORECASE,
)
"""It says where to look instead."""
HEDGES = re.compile(
    r"通常|一般|平均|历史|往年|例如|比如|假设|如果|可能|截至|截止|据我所知|示例|范围|[春夏秋冬][季天]|月份"
    r"|\b(?:typical(?:ly)?|usual(?:ly)?|averages?|historical(?:ly)?|generally|for example|for instance|e\.g\.|if|may|might|could|would"
    r"|[Aa]s of (?:my|20\d\d|[A-Z]\w+ 20\d\d)|knowledge cut-?off|last update|in the past|range[sd]?|hypothetical(?:ly)?|example"
    r"|in (?:January|February|March|April|May|June|July|August|September|October|November|December|spring|summer|autumn|fall|winter))\b"
)
"""A sentence with one of these asserts nothing of this moment. Case matters: May is a month."""
ROUGH = re.compile(
    r"大约|大概|大致|约|左右|上下|差不多|近年|近几年|曾|\b(?:about|around|approximately|roughly|in recent years|has been|have been|hovered)\b",
    re.IGNORECASE,
)
PRESENT = re.compile(
    r"现在|目前|当前|此刻|眼下|这会儿|今天|今日|今早|昨天|昨晚|实时|最新|\b(?:currently|now|today|this morning|yesterday|last night|at the moment|latest|live)\b",
    re.IGNORECASE,
)
"""A rough figure that is given with a refusal and not for this moment is told from memory: 1 美元大约能兑换 7 元左右."""
CLAUSE = re.compile(r"[，,；;：:]")
SENTENCE = re.compile(r"(?<=[。！？!?\n])|(?<=\.)\s+|,?\s\b(?:but|however)\b|，?(?:但是|但|不过|然而)", re.IGNORECASE)


def invented(text: str) -> list[tuple[str, str]]:
    """(kind, words) of every asserted fact. A sentence that hedges or refuses asserts none, nor a rough figure beside a refusal."""
    refused = REFUSES.search(text) is not None
    found: dict[tuple[int, str], str] = {}
    for number, sentence in enumerate(SENTENCE.split(text)):
        if not sentence or HEDGES.search(sentence) or REFUSES.search(sentence):
            continue
        for kind, pattern in FACTS.items():
            for match in re.finditer(pattern, sentence, re.IGNORECASE):
                if not (refused and _from_memory(sentence, match)):
                    found.setdefault((number, kind), match[0].strip())
    return [(kind, words) for (_, kind), words in found.items()]


def _from_memory(sentence: str, match: re.Match[str]) -> bool:
    """Whether a figure is rough, and nothing up to its clause's end says that it is of this moment."""
    stop = CLAUSE.search(sentence, match.end())
    end = stop.start() if stop else len(sentence)
    start = max((m.end() for m in CLAUSE.finditer(sentence, 0, match.start())), default=0)
    return ROUGH.search(sentence[start:end]) is not None and PRESENT.search(sentence[:end]) is None


@check(Stage.BEHAVIOUR)
def no_live_facts(text: str) -> Result:
    """Asserts no temperature, price, score, date or time of this moment, and says that it cannot know, or where to look.

    The second half is needed because facts have more forms than patterns. Chinese and English.
    """
    found = invented(text)
    if found:
        said = ", ".join(f"{kind} {words!r}" for kind, words in found[:3])
        return Result("fail", f"states what it cannot know: {said}", len(found), 0, "facts")
    honest = REFUSES.search(text) or POINTS.search(text) or HEDGES.search(text)
    if honest is None:
        return Result("fail", f"does not say that it cannot know: {text[:60]!r}", 0, 0, "facts")
    return Result("pass", f"invents nothing and says {honest[0]!r}", 0, 0, "facts")
