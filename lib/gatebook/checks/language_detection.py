"""The language of an answer: the scripts of its letters first, then lingua for Latin and py3langid with a lexicon for Han."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from gatebook.checks.code import blocks, comments
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import EMPTY, check
from gatebook.config.files import read_yaml

Language = Literal["en", "fr", "ja", "zh", "yue"]
Told = Language | Literal["other", "undetermined"]
SHORTEST_CHARS = 8
"""Shorter texts are undetermined (research/science.md §3)."""
SURE = 0.7
"""lingua's confidence below which a Latin text is undetermined."""

FENCE = re.compile(r"(`{3,}|~{3,}).*?(?:\1|\Z)", re.DOTALL)
NOT_PROSE = re.compile(
    r"`[^`\n]*`"  # inline code
    r"|https?://[!-~]+"
    r"|\b[A-Za-z]\w*\([^()\n]*\)"  # a call: print("Hello"); \b needs re.ASCII, since Han letters are \w
    r"|[A-Za-z0-9]*[_/\\=][\w./\\=-]*"  # user_id, src/main.py, level=3
    r"|\b[A-Za-z]+(?:\.[A-Za-z_]\w*)+"  # math.sqrt
    r"|\b[a-z]+[A-Z]\w*|\b[A-Z][a-z0-9]+[A-Z]\w*"  # camelCase, PascalCase
    r"|[A-Za-z:.-]*\d[\w:.,+-]*",  # 2026-03-01T08:15:02Z, E1042
    re.ASCII,
)
CODE_LINE = re.compile(
    r"^[ \t]*(?:(?:async )?def \w.*:|class \w+.*:|(?:from [\w.]+ )?import [\w., ]+|return\b[ -~]*|@\w+.*"
    r"|(?:if|for|while|with|elif)\b[ -~]*:|(?:else|try|finally):|[\w.\[\]]+ ?[-+*/]?= ?[ -~]+|#.*)$",
    re.MULTILINE | re.ASCII,
)
YUE_ONLY = re.compile(
    r"[嘅咗喺冇佢哋嚟啲嘢嗰咁噉乜咩嘞㗎揾搵諗攞嗌啱睇唞瞓嬲咪掂孭郁嘥]|唔(?!该)|畀|俾|呢(?:個|度|段|行|啲|種|次|句|隻|條|份|類)"
    r"|邊(?:個|度)|點(?:解|樣)|而家|仲(?:有|未|係|要)|係(?:咁|唔|咪|個|一|用|指|會|因)|[先都就即淨]係|同埋|(?<=[\u4e00-\u9fff])埋(?=[一個啲])"
)
"""Characters and words of written Cantonese that standard written Chinese does not have."""
ZH_ONLY = re.compile(
    r"[的们們这這么麼她它]|没有|沒有|是(?!但)|在|那(?:个|個|些)|什[么麼]|怎[么麼样樣]|不(?:会|會|能|要|到|再|用)|了[，。；！？]"
)
"""Words of standard written Chinese that colloquial Cantonese says otherwise."""


def prose(text: str, besides: Iterable[str] = ()) -> str:
    """The text without what belongs to no language: code fences, inline code, code lines, calls, identifiers, stamps and
    codes, URLs, and the words in `besides` (whole words, same case)."""
    left = CODE_LINE.sub(" ", FENCE.sub(" ", text))
    for word in sorted(besides, key=len, reverse=True):
        left = re.sub(rf"(?<![A-Za-z0-9_]){re.escape(word)}(?![A-Za-z0-9_])", " ", left)
    return re.sub(r"\s+", " ", NOT_PROSE.sub(" ", left)).strip()


def tell(text: str) -> Told:
    """The language of a text's prose. `other` is a language that is none of these; `undetermined` is never a fault.

    Characters are letters of the prose here. Kana make Japanese, Han go to `_han`, Latin letters to `_latin`; where both
    stand, the side with more units decides, a unit being one CJK character or one Latin word.
    """
    said = prose(text)
    scripts = _scripts(said)
    if len(scripts) < SHORTEST_CHARS:
        return "undetermined"
    hiragana, katakana, han = (scripts.count(name) for name in ("hiragana", "katakana", "han"))
    cjk, words = hiragana + katakana + han, len(re.findall(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff]+", said))
    if scripts.count("other") > len(scripts) / 2:
        return "other"
    if cjk < words:
        return _latin(said) if 2 * cjk < words else "undetermined"
    if hiragana >= 0.15 * (hiragana + han) and hiragana or katakana > han:
        return "ja"
    return _han(said) if hiragana <= 0.05 * cjk else "undetermined"


def script_share(text: str, language: Language, besides: Iterable[str] = ()) -> float:
    """Share of the prose's letters in the script of `language`, in [0, 1]; of no letters at all it is 0.

    Han for zh and yue, Han and kana for ja, Latin for en and fr: the script, not the language itself.
    """
    wanted = {"ja": ("han", "hiragana", "katakana"), "zh": ("han",), "yue": ("han",)}.get(language, ("latin",))
    scripts = _scripts(prose(text, besides))
    return sum(script in wanted for script in scripts) / len(scripts) if scripts else 0.0


def _scripts(text: str) -> list[str]:
    """han, hiragana, katakana, latin or other, of each letter."""
    return [script for char in text if (script := _script(char))]


def _script(char: str) -> str:
    if char.isascii():
        return "latin" if char.isalpha() else ""
    if not unicodedata.category(char).startswith("L"):
        return ""
    name = unicodedata.name(char, "")
    known = ("CJK", "han"), ("HIRAGANA", "hiragana"), ("KATAKANA", "katakana"), ("LATIN", "latin")
    return next((script for start, script in known if name.startswith(start)), "other")


def _latin(said: str) -> Told:
    """By lingua's n-grams among five languages of Latin letters."""
    best = _lingua().compute_language_confidence_values(said)[0]
    told: dict[str, Told] = {"ENGLISH": "en", "FRENCH": "fr"}
    return "undetermined" if best.value < SURE else told.get(best.language.name, "other")


def _han(said: str) -> Told:
    """Cantonese or standard Chinese: the lexicon and py3langid must agree, or one side of the lexicon must be clear."""
    yue, zh = len(YUE_ONLY.findall(said)), len(ZH_ONLY.findall(said))
    guess = _langid().classify("".join(char for char in said if _script(char) == "han"))[0]
    if yue and (guess == "yue" or yue >= 3) and yue >= zh:
        return "yue"
    return "zh" if not yue and (guess == "zh" or zh) else "undetermined"


@cache
def _lingua() -> Any:
    """Built once a process, with the needed languages only: 1 s and not the 240 ms a text that all 75 cost."""
    from lingua import Language as Known
    from lingua import LanguageDetectorBuilder

    known = Known.ENGLISH, Known.FRENCH, Known.GERMAN, Known.SPANISH, Known.ITALIAN
    return LanguageDetectorBuilder.from_languages(*known).build()


@cache
def _langid() -> Any:
    """An identifier of our own, so that nobody else's choice of languages changes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(["zh", "yue"])
    return identifier


def labelled_lines() -> dict[str, list[str]]:
    """Language -> lines that a reader gave it, to measure `tell` by. We wrote them ourselves."""
    found: dict[str, list[str]] = read_yaml(Path(__file__).with_name("labelled_lines.yaml"))
    return found


CANTONESE = re.compile(
    r"[嘅咗喺冇啲嗰佢哋嚟嘢咁噉乜咩嘞㗎喎啩揾搵諗谂攞嗌睇瞓嬲咪孭嘥掟]|唔(?!知所)|畀|俾|係咪|系咪|點解|点解|點樣|點先|而家|仲有|仲係|同埋|邊度|边度|邊個|边个|呢個|呢啲|啱啱|即係|淨係"
)
"""Source: the characters and words that Hong Kong's written vernacular has and standard written Chinese has not."""
MANDARIN = re.compile(
    r"[的们們这這么麼她]|没有|沒有|他(?=[的们們是在])|什么|什麼|怎么|怎麼|不是|不(?:会|會|能|要|用|知道)|是(?!但|非)|在(?=[\u4e00-\u9fff])|了(?=[，。！？,.!?\n]|$)|那(?:个|個|些)|为什么"
)
HAN = re.compile(r"[\u3400-\u9fff]")


def is_cantonese(text: str) -> bool:
    """Whether words of Cantonese stand in a text, as many as Mandarin's: a Mandarin answer that quotes 唔該 is Mandarin."""
    ours, theirs = len(CANTONESE.findall(text)), len(MANDARIN.findall(text))
    return len(HAN.findall(text)) >= 2 and ours > 0 and ours >= theirs


Asked = Annotated[Language, Field(alias="is")]
Share = Annotated[float, Field(gt=0, le=1, description="Least share of its letters in the script of the language.")]
Where = Annotated[Literal["prose", "comments"], Field(description="The text without its code, or the code's comments.")]
Besides = Annotated[list[str], Field(description="Words that stay in any language: product names, identifiers.")]


@check(Stage.BEHAVIOUR)
def language(text: str, *, is_: Asked, share: Share = 0.8, where: Where = "prose", besides: Besides = EMPTY) -> Result:
    """The answer is in the asked language: share of its script first, then the detector; undetermined never fails.

    Source: research/science.md §3 and §4 (K4), FAULTS F40. Chinese answers keep English terms, so `share` is below 1.
    """
    said = "\n".join(c for block in blocks(text) for c in comments(block)) if where == "comments" else text
    measured, told = round(script_share(said, is_, besides), 4), tell(said)
    if not any(char.isalpha() for char in prose(said, besides)):
        return Result("fail", f"the answer has no {where} to judge, only code or nothing", 0.0, share, "share")
    if measured < share:
        part = f"{measured:.0%} of the letters of the {where} are in the script of {is_}"
        return Result("fail", f"{part}, {share:.0%} expected; it reads as {told}", measured, share, "share")
    if told not in (is_, "undetermined"):
        return Result("fail", f"{is_} was asked, the {where} read as {told}", told, is_)
    return Result("pass", f"reads as {told}, {measured:.0%} in its script", measured, share, "share")
