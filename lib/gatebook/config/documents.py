"""Long documents from a seed: a handbook with needles in it, and the question for each. Same seed, same document, for ever.

All needles of a length share one document and the question stands last, so that a server with a prefix cache reads each
document once. Families after RULER (arXiv 2404.06654) and, for `hidden`, the idea of NoLiMa (arXiv 2502.05167): the
question has no word in common with its needle. Names, places and numbers are drawn anew for every seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from gatebook.config.files import Strict

Family = Literal["single", "lookalike", "hops", "hidden"]
FAMILIES: tuple[Family, ...] = ("single", "lookalike", "hops", "hidden")
DEPTHS = (0, 25, 50, 75, 100)
"""Per cent of the document before the needle."""
RULER_CHARS = {"en": 1500, "zh": 600}
PLACE, QUESTION = "{document}", "{question}"
"""Where a message takes the text and the question."""


class Document(Strict):
    """A document of a given length in the server's own tokens, and which of its questions is asked."""

    kind: Literal["needles", "specification"]
    language: Literal["en", "zh"] = "en"
    seed: int = 1
    tokens: int | None = Field(default=None, ge=500)
    """Length of the whole prompt, as the server counts it (`usage.prompt_tokens`)."""
    chars: int | None = Field(default=None, ge=2000)
    """Length in characters instead, where the story is about pages and not about tokens."""
    family: Family | None = None
    depth: int | None = None

    @model_validator(mode="after")
    def _whole(self) -> Document:
        if (self.tokens is None) == (self.chars is None):
            raise ValueError("takes either tokens or chars")
        if self.kind == "needles" and (self.family is None or self.depth not in DEPTHS):
            raise ValueError(f"kind needles takes a family ({', '.join(FAMILIES)}) and a depth ({DEPTHS})")
        if self.kind == "specification" and self.tokens and self.tokens < 1500:
            raise ValueError("kind specification takes at least 1500 tokens, because it has 14 sections")
        if self.kind == "specification" and (self.family is not None or self.depth is not None):
            raise ValueError("kind specification takes neither family nor depth")
        return self

    @property
    def counted_key(self) -> str:
        """The record of its draft, counted whole by /tokenize."""
        return f"tokens/{self.name}"

    @property
    def name(self) -> str:
        """The text that it shares with other cases: what a prefix cache reads once."""
        size = f"{self.tokens}-tokens" if self.tokens else f"{self.chars}-chars"
        return f"{self.kind}-{self.language}-{self.seed}-{size}"


@dataclass(frozen=True)
class Question:
    """What is asked of a document and what a right answer holds."""

    text: str
    answers: tuple[str, ...]
    """Every one must occur in the answer."""
    sentences: tuple[str, ...]
    """What the document says about it, line by line."""


@dataclass(frozen=True)
class Needle:
    depth: float
    sentence: str


def question(document: Document) -> Question:
    """The question of a case, from its seed alone."""
    from gatebook.config import specification

    if document.kind == "specification":
        return specification.question(document.language, document.seed)
    assert document.family is not None and document.depth is not None
    return _hidden_in(document)[document.family, document.depth][0]


def text(document: Document, chars: int) -> str:
    """The document: its needles among entries of about `chars` characters (a specification of `chars` in all).

    A longer one of the same seed holds the same needles at the same depths.
    """
    from gatebook.config import specification

    if document.kind == "specification":
        return specification.text(document.language, document.seed, chars)
    entries = _first(_entries(document.language, _random(document, "entries")), chars)
    places: dict[int, list[str]] = {}
    for needle in (n for _, hidden in _hidden_in(document).values() for n in hidden):
        places.setdefault(round(needle.depth / 100 * len(entries)), []).append(needle.sentence)
    lines = [line for i in range(len(entries) + 1) for line in [*places.get(i, []), *entries[i : i + 1]]]
    return "\n".join([_TITLE[document.language], *lines])


@dataclass(frozen=True)
class Ruler:
    """Two short texts that tell, once a server has counted their tokens, how long to make the document."""

    entries: str
    needles: str
    """A `times`-th part of all needles; empty where there are none."""
    times: int


def ruler(document: Document) -> Ruler:
    """Made of the same stuff as the document, so that a character costs the same."""
    from gatebook.config import specification

    if document.kind == "specification":
        whole = specification.text(document.language, document.seed, 0)
        return Ruler(whole[: RULER_CHARS[document.language]], "", 0)
    lines = _first(_entries(document.language, _random(document, "ruler")), RULER_CHARS[document.language])
    needles = [n.sentence for (_, depth), (_, hidden) in _hidden_in(document).items() for n in hidden if depth == 50]
    return Ruler("\n".join(lines), "\n".join(needles), len(DEPTHS))


def _first(entries: Iterator[str], chars: int) -> list[str]:
    """As many entries as fit, at least one."""
    found, size = [next(entries)], 0
    for entry in entries:
        size += len(found[-1]) + 1
        if size + len(entry) > chars:
            break
        found.append(entry)
    return found


def _random(document: Document, purpose: str) -> random.Random:
    digest = hashlib.sha256(f"{document.kind}/{document.language}/{document.seed}/{purpose}".encode()).hexdigest()
    return random.Random(int(digest[:16], 16))


def _hidden_in(document: Document) -> dict[tuple[Family, int], tuple[Question, list[Needle]]]:
    """Every question of the document with the sentences that answer it; the same for every length."""
    rng, words = _random(document, "needles"), _WORDS[document.language]
    names = rng.sample(words.names, len(DEPTHS))
    codes, weights = rng.sample(range(100_000, 1_000_000), len(DEPTHS)), rng.sample(range(1000, 10_000), len(DEPTHS))
    numbers = rng.sample(range(10_000, 100_000), 2 * len(DEPTHS))
    labels = rng.sample([f"{letter}{n}" for letter in "BCDFGHJKLMNPQRSTVWXZ" for n in range(10, 100)], 3 * len(DEPTHS))
    found: dict[tuple[Family, int], tuple[Question, list[Needle]]] = {}
    for number, depth in enumerate(DEPTHS):
        code = str(codes[number])
        said = words.single.format(thing=words.things[number], code=code)
        asked = words.ask_single.format(thing=words.things[number])
        found["single", depth] = Question(asked, (code,), (said,)), [Needle(depth, said)]

        serials = [str(n) for n in numbers[2 * number : 2 * number + 2]]
        ids = [f"{words.pumps[number]} {n}" for n in rng.sample(range(2, 10), 2)]
        sentences = [words.lookalike.format(id=i, serial=s) for i, s in zip(ids, serials, strict=True)]
        other = (depth + 50) % 125 if depth else 62
        found["lookalike", depth] = (
            Question(words.ask_lookalike.format(id=ids[0]), (serials[0],), (sentences[0],)),
            [Needle(depth, sentences[0]), Needle(min(other, 100), sentences[1])],
        )

        grams = str(weights[number])
        parcels = labels[3 * number : 3 * number + 3]
        chain = [words.weighs.format(a=parcels[0], grams=grams)]
        chain += [words.same.format(a=a, b=b) for a, b in zip(parcels[1:], parcels, strict=False)]
        found["hops", depth] = (
            Question(words.ask_hops.format(a=parcels[-1]), (grams,), tuple(chain)),
            [Needle((depth + shift) % 101, link) for link, shift in zip(chain, (0, 37, 71), strict=True)],
        )

        sentence, asked = words.hidden[number]
        said = sentence.format(name=names[number])
        found["hidden", depth] = Question(asked, (names[number],), (said,)), [Needle(depth, said)]
    return found


@dataclass(frozen=True)
class _Words:
    names: list[str]
    things: list[str]
    pumps: list[str]
    single: str
    ask_single: str
    lookalike: str
    ask_lookalike: str
    weighs: str
    same: str
    ask_hops: str
    hidden: list[tuple[str, str]]


_TITLE = {"en": "Handbook of the harbour office", "zh": "港务办公室手册"}
_WORDS = {
    "en": _Words(
        names=["Odile", "Bertram", "Ysolde", "Casimir", "Philippa", "Anselm", "Marguerite", "Tobias", "Henrike", "Ruben"],
        things=["harbour crane", "north greenhouse", "clock tower", "ferry office", "bakery vault"],
        pumps=["Heron", "Otter", "Badger", "Falcon", "Marten"],
        single="The access code of the {thing} is {code}.",
        ask_single="What is the access code of the {thing}? Answer with the number only.",
        lookalike="The serial number of pump {id} is {serial}.",
        ask_lookalike="What is the serial number of pump {id}? Answer with the serial number only.",
        weighs="Parcel {a} weighs {grams} grams.",
        same="Parcel {a} weighs exactly as much as parcel {b}.",
        ask_hops="How many grams does parcel {a} weigh? Answer with the number only.",
        hidden=[
            ("{name} once slipped on the marble stairs of the Hermitage.", "Who has been to Saint Petersburg? Answer with the name only."),
            ("{name} photographed wild kangaroos all summer long.", "Who has travelled to Australia? Answer with the name only."),
            ("{name} cannot touch anything that contains peanuts.", "Who has an allergy? Answer with the name only."),
            ("{name} played the cello for two hours last night.", "Who is a musician? Answer with the name only."),
            ("{name} buys a bone for Rex every Saturday.", "Who owns a dog? Answer with the name only."),
        ],
    ),
    "zh": _Words(
        names=["程远舟", "陆青禾", "沈若溪", "韩牧野", "顾南乔", "叶知秋", "苏砚", "白栀", "宋屿", "何望舒"],
        things=["港口吊机", "北侧温室", "钟楼", "渡轮办公室", "面包房保险柜"],
        pumps=["苍鹭", "水獭", "獾", "游隼", "紫貂"],
        single="{thing}的门禁码是{code}。",
        ask_single="{thing}的门禁码是多少？只回答数字。",
        lookalike="水泵“{id}”的序列号是{serial}。",
        ask_lookalike="水泵“{id}”的序列号是多少？只回答序列号。",
        weighs="包裹{a}重{grams}克。",
        same="包裹{a}和包裹{b}一样重。",
        ask_hops="包裹{a}重多少克？只回答数字。",
        hidden=[
            ("{name}有一回在冬宫的大理石台阶上滑倒了。", "谁去过圣彼得堡？只回答姓名。"),
            ("{name}整个夏天都在拍野生袋鼠。", "谁到过澳大利亚？只回答姓名。"),
            ("{name}一点花生都不能碰。", "谁对食物过敏？只回答姓名。"),
            ("{name}昨晚拉了两个小时大提琴。", "谁会乐器？只回答姓名。"),
            ("{name}每到周六都给旺财买骨头。", "谁养狗？只回答姓名。"),
        ],
    ),
}  # fmt: skip


def _entries(language: str, rng: random.Random) -> Iterator[str]:
    """Entries that say nothing of what is asked; they never end."""
    make: Callable[[int, random.Random], str] = _english if language == "en" else _chinese
    number = 0
    while True:
        number += 1
        yield make(number, rng)


_PLACES = (
    "east quay",
    "old mill",
    "customs shed",
    "fish market",
    "rope yard",
    "lower dock",
    "tram depot",
    "salt store",
)
_GOODS = (
    "lamp oil",
    "oak planks",
    "tinned pears",
    "wool blankets",
    "roof tiles",
    "garden seeds",
    "paper rolls",
    "glass jars",
)
_STATES = ("was repainted", "stayed closed", "was swept twice", "had a new roof", "was let for a fair", "was inspected")
_REASONS = (
    "because of the tide",
    "after the holidays",
    "as in other years",
    "on the advice of the council",
    "before the frost",
)
_PLACES_ZH = ("东码头", "旧磨坊", "海关棚", "鱼市", "绳索场", "下船坞", "电车库", "盐仓")
_GOODS_ZH = ("灯油", "橡木板", "梨罐头", "羊毛毯", "瓦片", "菜籽", "纸卷", "玻璃罐")
_STATES_ZH = ("重新刷了漆", "一直没有开门", "打扫了两遍", "换了新屋顶", "租给了集市", "接受了检查")
_REASONS_ZH = ("因为潮水", "在节日之后", "和往年一样", "按照议会的建议", "赶在霜冻之前")


def _english(number: int, rng: random.Random) -> str:
    return (
        f"Entry {number}: the {rng.choice(_PLACES)} {rng.choice(_STATES)} {rng.choice(_REASONS)}; {rng.randrange(11, 99)} crates of "
        f"{rng.choice(_GOODS)} went to the {rng.choice(_PLACES)}."
    )


def _chinese(number: int, rng: random.Random) -> str:
    return (
        f"第{number}条：{rng.choice(_PLACES_ZH)}{rng.choice(_REASONS_ZH)}{rng.choice(_STATES_ZH)}，{rng.randrange(11, 99)}箱"
        f"{rng.choice(_GOODS_ZH)}运到了{rng.choice(_PLACES_ZH)}。"
    )
