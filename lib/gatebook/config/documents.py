"""Long documents from a seed, and what is asked of them. Same seed, same document, for ever.

`needles`: a handbook with sentences hidden in it. All needles of a length share one document and the question stands last,
so that a server with a prefix cache reads each document once. Families after RULER (arXiv 2404.06654) and, for `hidden`,
the idea of NoLiMa (arXiv 2502.05167): the question has no word in common with its needle. Names, places and numbers are
drawn anew for every seed.

`specification`: numbered sections, in which some modules implement the limits of section 12. Clauses of other modules
mention section 12 without implementing it, so that a search for the number is not enough.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from gatebook.config.files import Strict, material

Family = Literal["single", "lookalike", "hops", "hidden"]
FAMILIES: tuple[Family, ...] = get_args(Family)
DEPTHS = (0, 25, 50, 75, 100)
"""Per cent of the document before the needle."""
RULER_CHARS = {"en": 1500, "zh": 600}
PLACE, QUESTION = "{document}", "{question}"
"""Where a message takes the text and the question."""
LIMITS_SECTION, LEAST_SECTIONS = 12, 14
"""Of a specification."""


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
class Ruler:
    """Two short texts that tell, once a server has counted their tokens, how long to make the document."""

    entries: str
    needles: str
    """A `times`-th part of all needles; empty where there are none."""
    times: int


def question(document: Document) -> Question:
    """The question of a case, from its seed alone."""
    if document.kind == "needles":
        return _hidden_in(document)[str(document.family), document.depth or 0][0]
    found = [(_module(document, i), f"{i}.{_clause(document, i)}") for i in _implementing(document)]
    answers = tuple(word for pair in found for word in pair)
    return Question(_words(document)["ask"], answers, tuple(f"{clause} {module}" for module, clause in found))


def text(document: Document, chars: int) -> str:
    """The document: its needles among entries of about `chars` characters (a specification of `chars` in all).

    A longer one of the same seed holds the same needles at the same depths.
    """
    if document.kind == "specification":
        return _specification(document, chars)
    entries = _entries(document, "entries", chars)
    places: dict[int, list[str]] = {}
    for _, needles in _hidden_in(document).values():
        for depth, needle in needles:
            places.setdefault(round(depth / 100 * len(entries)), []).append(needle)
    lines = [line for i in range(len(entries) + 1) for line in [*places.get(i, []), *entries[i : i + 1]]]
    return "\n".join([_words(document)["title"], *lines])


def ruler(document: Document) -> Ruler:
    """Made of the same stuff as the document, so that a character costs the same."""
    chars = RULER_CHARS[document.language]
    if document.kind == "specification":
        return Ruler(_specification(document, 0)[:chars], "", 0)
    needles = [n for (_, depth), (_, hidden) in _hidden_in(document).items() for _, n in hidden if depth == 50]
    return Ruler("\n".join(_entries(document, "ruler", chars)), "\n".join(needles), len(DEPTHS))


def _words(document: Document) -> Any:
    return material(document.kind)[document.language]


def _random(document: Document, purpose: str) -> random.Random:
    """The dice for one purpose; those of a specification fall alike in both languages."""
    kind = f"needles/{document.language}" if document.kind == "needles" else document.kind
    return random.Random(int(hashlib.sha256(f"{kind}/{document.seed}/{purpose}".encode()).hexdigest()[:16], 16))


def _entries(document: Document, purpose: str, chars: int) -> list[str]:
    """As many entries as fit, at least one, that say nothing of what is asked."""
    endless = _endless(_words(document), _random(document, purpose))
    found, size = [next(endless)], 0
    for entry in endless:
        size += len(found[-1]) + 1
        if size + len(entry) > chars:
            break
        found.append(entry)
    return found


def _endless(words: dict[str, Any], rng: random.Random) -> Iterator[str]:
    drawn = {**words, "crates": range(11, 99)}
    for number in count(1):
        entry = words["entry"].replace("{number}", str(number))
        yield re.sub(r"\{(\w+)\}", lambda name: str(rng.choice(drawn[name[1]])), entry)


def _hidden_in(document: Document) -> dict[tuple[str, int], tuple[Question, list[tuple[float, str]]]]:
    """Every question of the document, and (depth, sentence) of what answers it; the same for every length."""
    rng, words = _random(document, "needles"), _words(document)
    names = rng.sample(words["names"], len(DEPTHS))
    codes, weights = rng.sample(range(100_000, 1_000_000), len(DEPTHS)), rng.sample(range(1000, 10_000), len(DEPTHS))
    numbers = rng.sample(range(10_000, 100_000), 2 * len(DEPTHS))
    labels = rng.sample([f"{letter}{n}" for letter in "BCDFGHJKLMNPQRSTVWXZ" for n in range(10, 100)], 3 * len(DEPTHS))
    found: dict[tuple[str, int], tuple[Question, list[tuple[float, str]]]] = {}
    for number, depth in enumerate(DEPTHS):
        thing, code = words["things"][number], str(codes[number])
        said = words["single"].format(thing=thing, code=code)
        found["single", depth] = Question(words["ask_single"].format(thing=thing), (code,), (said,)), [(depth, said)]

        serials = [str(n) for n in numbers[2 * number : 2 * number + 2]]
        ids = [f"{words['pumps'][number]} {n}" for n in rng.sample(range(2, 10), 2)]
        said, beside = (words["lookalike"].format(id=i, serial=s) for i, s in zip(ids, serials, strict=True))
        other = min((depth + 50) % 125, 100) if depth else 62
        asked = words["ask_lookalike"].format(id=ids[0])
        found["lookalike", depth] = Question(asked, (serials[0],), (said,)), [(depth, said), (other, beside)]

        grams, parcels = str(weights[number]), labels[3 * number : 3 * number + 3]
        chain = [words["weighs"].format(a=parcels[0], grams=grams)]
        chain += [words["same"].format(a=a, b=b) for a, b in zip(parcels[1:], parcels, strict=False)]
        found["hops", depth] = (
            Question(words["ask_hops"].format(a=parcels[-1]), (grams,), tuple(chain)),
            [((depth + shift) % 101, link) for link, shift in zip(chain, (0, 37, 71), strict=True)],
        )

        sentence, asked = words["hidden"][number]
        said = sentence.format(name=names[number])
        found["hidden", depth] = Question(asked, (names[number],), (said,)), [(depth, said)]
    return found


def _specification(document: Document, chars: int) -> str:
    """About `chars` characters, never fewer sections than the question needs."""
    sections, words = LEAST_SECTIONS + document.seed % 3, _words(document)
    limits = [words["limits_section"].format(i=LIMITS_SECTION)]
    limits += [words["limit"].format(c=f"{LIMITS_SECTION}.{k}", x=x) for k, x in enumerate(words["limits"], 1)]
    each = (chars - len("\n".join(limits)) - len(words["title"])) // (sections - 1)
    made, used = [words["title"]], 0
    for i in range(1, sections + 1):
        if i == LIMITS_SECTION:
            made += limits
            continue
        room = each * (i if i < LIMITS_SECTION else i - 1) - used  # what one section lacks, the next one has
        made.append(_section(document, i, room))
        used += len(made[-1]) + 1
    return "\n".join(made)


def _section(document: Document, i: int, size: int) -> str:
    words, rng, module = _words(document), _random(document, f"section {i}"), _module(document, i)
    implements = i in _implementing(document)
    telling = (_clause(document, i), "enforces") if implements else (2 if i % 4 == 0 else 0, "unaffected")
    lines = [words["section"].format(i=i, m=module)]
    used = len(lines[0]) + 1
    for k in count(1):
        limit = rng.randrange(len(words["limits"]))
        line = f"{i}.{k} " + rng.choice(words["fillers"]).format(m=module, n=rng.randrange(3, 60))
        if k == telling[0]:
            clauses = {"c": f"{i}.{k}", "l": f"{LIMITS_SECTION}.{limit + 1}"}
            line = words[telling[1]].format(**clauses, m=module, x=words["limits"][limit])
        if k > 3 and used + len(line) > size:
            break
        lines.append(line)
        used += len(line) + 1
    return "\n".join(lines)


def _implementing(document: Document) -> list[int]:
    """Section numbers: one before, one around and one after the middle, never section 12 itself."""
    rng = _random(document, "implementing")
    return [rng.randrange(1, 5), rng.randrange(6, 11), rng.randrange(13, LEAST_SECTIONS + 1)]


def _clause(document: Document, i: int) -> int:
    return _random(document, f"clause {i}").randrange(1, 4)


def _module(document: Document, i: int) -> str:
    modules: list[str] = _words(document)["modules"]
    order = _random(document, "modules").sample(range(len(modules)), len(modules))
    return modules[order[(i - 1) % len(order)]] + ("" if i <= len(order) else f" {i}")
