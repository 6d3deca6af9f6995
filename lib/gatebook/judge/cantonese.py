"""Written Cantonese told from written Mandarin by words that only one of them has."""

from __future__ import annotations

import re
from typing import Literal

CANTONESE = re.compile(
    r"[嘅咗喺冇啲嗰佢哋嚟嘢咁噉乜咩嘞㗎喎啩揾搵諗谂攞嗌睇瞓嬲咪孭嘥掟]|唔(?!知所)|畀|俾|係咪|系咪|點解|点解|點樣|點先|而家|仲有|仲係|同埋|邊度|边度|邊個|边个|呢個|呢啲|啱啱|即係|淨係"
)
"""Source: the characters and words that Hong Kong's written vernacular has and standard written Chinese has not."""
MANDARIN = re.compile(
    r"[的们們这這么麼她]|没有|沒有|他(?=[的们們是在])|什么|什麼|怎么|怎麼|不是|不(?:会|會|能|要|用|知道)|是(?!但|非)|在(?=[\u4e00-\u9fff])|了(?=[，。！？,.!?\n]|$)|那(?:个|個|些)|为什么"
)
HAN = re.compile(r"[\u3400-\u9fff]")

Told = Literal["cantonese", "mandarin", "neither"]


def tell(text: str) -> tuple[Told, int, int]:
    """(which, Cantonese words, Mandarin words). `neither` is no Chinese, or Chinese that shows nothing of either.

    Cantonese needs at least one word of its own and as many as Mandarin's: a Mandarin answer that quotes 唔該 is Mandarin.
    """
    ours, theirs = len(CANTONESE.findall(text)), len(MANDARIN.findall(text))
    if len(HAN.findall(text)) < 2 or not ours + theirs:
        return "neither", ours, theirs
    return ("cantonese" if ours and ours >= theirs else "mandarin"), ours, theirs
