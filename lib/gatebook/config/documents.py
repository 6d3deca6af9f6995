"""Texts from a seed: long documents and what is asked of them, minutes with known truth. Same seed, same text, for ever.

`needles`: a handbook with sentences hidden in it. All needles of a length share one document and the question stands last,
so that a server with a prefix cache reads each document once. Families after RULER (arXiv 2404.06654) and, for `hidden`,
the idea of NoLiMa (arXiv 2502.05167): the question has no word in common with its needle. Names, places and numbers are
drawn anew for every seed.

`specification`: numbered sections, in which some modules implement the limits of section 12. Clauses of other modules
mention section 12 without implementing it, so that a search for the number is not enough.

`minutes`: the minutes of a meeting: how many to-dos there are, whose, how urgent, and what is no to-do. At least one pair of
near-duplicates (two prices, two reports) must stay two to-dos. The truth is written into the case, so that a run keeps its own
when this file changes.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from itertools import count
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field, ValidationError

from gatebook.config.files import Strict, material
from gatebook.config.rows import filled
from gatebook.errors import BadInput

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

    def mistakes(self) -> Iterator[str]:
        if (self.tokens is None) == (self.chars is None):
            yield "takes either tokens or chars"
        if self.kind == "needles" and (self.family is None or self.depth not in DEPTHS):
            yield f"kind needles takes a family ({', '.join(FAMILIES)}) and a depth ({DEPTHS})"
        if self.kind == "specification" and self.tokens and self.tokens < 1500:
            yield "kind specification takes at least 1500 tokens, because it has 14 sections"
        if self.kind == "specification" and (self.family is not None or self.depth is not None):
            yield "kind specification takes neither family nor depth"

    @property
    def size(self) -> int:
        """Its length in tokens or characters, whichever it is given in."""
        return self.tokens or self.chars or 0

    @property
    def counted_key(self) -> str:
        """Key of the record in which /tokenize counts its whole draft."""
        return f"tokens/{self.name}"

    @property
    def name(self) -> str:
        """The text that it shares with other cases: what a prefix cache reads once."""
        size = f"{self.tokens}-tokens" if self.tokens else f"{self.chars}-chars"
        return f"{self.kind}-{self.language}-{self.seed}-{size}"


class Question(NamedTuple):
    """What is asked of a document, what a right answer must hold, and what the document says about it, line by line."""

    text: str
    answers: tuple[str, ...]
    sentences: tuple[str, ...]


class Ruler(NamedTuple):
    """Two short texts whose tokens, once a server has counted them, tell how long to make the document.
    `needles` is a `times`-th part of all needles; empty where there are none."""

    entries: str
    needles: str
    times: int


def question(document: Document) -> Question:
    """The question of a case, from its seed alone."""
    if document.kind == "needles":
        assert document.family is not None and document.depth is not None
        return _hidden_in(document)[document.family, document.depth][0]
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
    """Return short texts made like the document, so that a character costs the same."""
    chars = RULER_CHARS[document.language]
    if document.kind == "specification":
        return Ruler(_specification(document, 0)[:chars], "", 0)
    needles = [n for (_, depth), (_, hidden) in _hidden_in(document).items() for _, n in hidden if depth == 50]
    return Ruler("\n".join(_entries(document, "ruler", chars)), "\n".join(needles), len(DEPTHS))


def _words(document: Document) -> Any:
    return material(document.kind)[document.language]


def _random(document: Document, purpose: str) -> random.Random:
    """Return the random generator for one purpose; a specification has the same in both languages."""
    kind = f"needles/{document.language}" if document.kind == "needles" else document.kind
    return random.Random(int(hashlib.sha256(f"{kind}/{document.seed}/{purpose}".encode()).hexdigest()[:16], 16))


def _entries(document: Document, purpose: str, chars: int) -> list[str]:
    """Return as many entries as fit, at least one; they say nothing about what is asked."""
    words, rng = _words(document), _random(document, purpose)
    drawn, found, size = {**words, "crates": range(11, 99)}, list[str](), 0
    for number in count(1):
        entry = words["entry"].replace("{number}", str(number))
        entry = re.sub(r"\{(\w+)\}", lambda name: str(rng.choice(drawn[name[1]])), entry)
        if found and size + len(entry) > chars:
            break
        found.append(entry)
        size += len(entry) + 1
    return found


def _hidden_in(document: Document) -> dict[tuple[Family, int], tuple[Question, list[tuple[int, str]]]]:
    """Every question of the document, and (depth, sentence) of what is hidden for it; the same for every length."""
    rng, words, few = _random(document, "needles"), _words(document), len(DEPTHS)
    names = rng.sample(words["names"], few)
    codes, weights = rng.sample(range(100_000, 1_000_000), few), rng.sample(range(1000, 10_000), few)
    serials = rng.sample(range(10_000, 100_000), 2 * few)
    labels = rng.sample([f"{letter}{n}" for letter in "BCDFGHJKLMNPQRSTVWXZ" for n in range(10, 100)], 3 * few)
    found: dict[tuple[Family, int], tuple[Question, list[tuple[int, str]]]] = {}
    for i, depth in enumerate(DEPTHS):
        drawn = {"name": names[i], "thing": words["things"][i], "code": codes[i], "grams": weights[i]}
        drawn |= {"pump": words["pumps"][i], "model": rng.sample(range(2, 10), 2)}
        drawn |= {"serial": serials[2 * i : 2 * i + 2], "parcel": labels[3 * i : 3 * i + 3]}
        apart = min((depth + 50) % 125, 100) if depth else 62
        for family in FAMILIES:
            made = words[family][i] if family == "hidden" else words[family]
            said = tuple(sentence.format(**drawn) for sentence in made["says"])
            hidden = [((depth + shift) % 101, sentence) for shift, sentence in zip((0, 37, 71), said, strict=False)]
            hidden += [(apart, sentence.format(**drawn)) for sentence in made.get("beside", ())]
            answer = made["answer"].format(**drawn)
            found[family, depth] = Question(made["ask"].format(**drawn), (answer,), said), hidden
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


Language = Literal["zh", "en"]
Priority = Literal["high", "medium", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
RANKS: dict[Language, dict[Priority, str]] = {
    "zh": {"high": "高", "medium": "中", "low": "低"},
    "en": {"high": "high", "medium": "medium", "low": "low"},
}
MOST_TODOS = 8


class Todo(Strict):
    task: str
    mark: str
    """Words of the task that no other task has: how it is found in an answer. `re:` opens a regular expression."""
    owner: str
    priority: Priority


class Minutes(Strict):
    """What a case says of its minutes, and after reading also the truth."""

    seed: int
    todos: int = Field(default=5, ge=2, le=MOST_TODOS)
    language: Language = "zh"
    truth: list[Todo] = Field(default_factory=list)
    settled: list[str] = Field(default_factory=list)
    """Marks of what was mentioned and is no to-do."""


def minutes(seed: int, todos: int, language: Language) -> tuple[str, Minutes]:
    """Return the text of a meeting's minutes and its truth; the same for the same arguments on every machine."""
    dice, words = random.Random(f"{language}/{todos}/{seed}"), material("minutes")[language]
    rows = dice.sample([row for row in words["tasks"] if len(row) == 2], 1 + todos // 4)
    chosen = [entry for row in rows for entry in row]
    rest = [entry for row in words["tasks"] for entry in row if entry not in chosen]
    chosen = (chosen + dice.sample(rest, max(todos - len(chosen), 0)))[:todos]
    dice.shuffle(chosen)
    owners = dice.sample(words["owners"], len(words["owners"]))
    ranks: list[Priority] = ["high", "low", *dice.choices(PRIORITIES, k=todos - 2)]
    dice.shuffle(ranks)
    truth = [Todo(task=t, mark=m, owner=o, priority=p) for (t, m), o, p in zip(chosen, owners, ranks, strict=False)]
    lines = [
        dice.choice(words["says"]).format(who=t.owner, task=t.task, rank=RANKS[language][t.priority]) for t in truth
    ]
    settled = dice.sample(words["settled"], 2)
    for said, _ in settled:
        lines.insert(dice.randint(0, len(lines)), said.format(who=owners[-1]))
    found = Minutes(seed=seed, todos=todos, language=language, truth=truth, settled=[mark for _, mark in settled])
    return "\n".join(lines), found


def line(todo: Todo, language: Language) -> str:
    """【高】跟进客户反馈（小李）, or [high] follow up on customer feedback (Ana)."""
    rank = RANKS[language][todo.priority]
    return f"【{rank}】{todo.task}（{todo.owner}）" if language == "zh" else f"[{rank}] {todo.task} ({todo.owner})"


def ordered(truth: list[Todo]) -> list[Todo]:
    return sorted(truth, key=lambda todo: PRIORITIES.index(todo.priority))


def answers(found: Minutes) -> dict[str, str]:
    """Return the perfect answer and one with each mistake, for `good` and `bad` of a case."""
    todos, language = ordered(found.truth), found.language
    lines = [line(todo, language) for todo in todos]
    a, b = todos[0], todos[-1]
    both = a.model_copy(update={"task": f"{a.task}{'并' if language == 'zh' else ' and '}{b.task}"})
    swapped = [a.model_copy(update={"owner": b.owner}), *todos[1:-1], b.model_copy(update={"owner": a.owner})]
    made = {
        "todos": lines,
        "todos-lost": lines[:-1],
        "todos-merged": [line(both, language), *lines[1:-1]],
        "todos-unsorted": lines[::-1],
        "todos-untagged": [f"{todo.task}（{todo.owner}）" for todo in todos],
        "todos-swapped": [line(todo, language) for todo in swapped],
    }
    return {name: "\n".join(listed) for name, listed in made.items()}


def with_minutes(case: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a case of a file with `{minutes}` and `{todos...}` replaced and the truth added. Raises BadInput."""
    if "minutes" not in case:
        return case
    try:
        asked = Minutes.model_validate(case["minutes"])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["minutes", *map(str, first["loc"])])
        raise BadInput(f"{where}: key {key!r} has value {first['input']!r}: {first['msg']}; correct it") from None
    text, found = minutes(asked.seed, asked.todos, asked.language)
    for name, said in {"minutes": text, **answers(found)}.items():
        case = filled(case, said, f"{{{name}}}")
    return {**case, "minutes": found.model_dump()}
