"""Meeting minutes with known truth, from a seed: how many to-dos there are, whose, how urgent, and what is no to-do.

Every minutes hold at least one pair of near-duplicates (two prices, two reports) that must stay two to-dos, decisions, and
things that are done already. The truth is written into the case, so that a run keeps its own truth when this file changes.
"""

from __future__ import annotations

import random
from functools import reduce
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from gatebook.config.files import Strict, material
from gatebook.config.rows import changed
from gatebook.errors import BadInput

Language = Literal["zh", "en"]
Priority = Literal["high", "medium", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
RANKS: dict[Language, dict[Priority, str]] = {
    "zh": {"high": "高", "medium": "中", "low": "低"},
    "en": {"high": "high", "medium": "medium", "low": "low"},
}
MOST = 8


class Todo(Strict):
    task: str
    mark: str
    """Words of the task that no other task has: how it is found in an answer. `re:` opens a regular expression."""
    owner: str
    priority: Priority


class Minutes(Strict):
    """What a case says of its minutes, and after reading also the truth."""

    seed: int
    todos: int = Field(default=5, ge=2, le=MOST)
    language: Language = "zh"
    truth: list[Todo] = Field(default_factory=list)
    settled: list[str] = Field(default_factory=list)
    """Marks of what was mentioned and is no to-do."""


def minutes(seed: int, todos: int, language: Language) -> tuple[str, Minutes]:
    """The text of a meeting's minutes and its truth; the same for the same arguments, on every machine."""
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
    """The perfect answer, and one with each mistake: what `good` and `bad` of a case are filled with."""
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
    """A case as it stands in its file, with `{minutes}` and `{todos...}` replaced and the truth added. Raises BadInput."""
    if "minutes" not in case:
        return case
    try:
        asked = Minutes.model_validate(case["minutes"])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["minutes", *map(str, first["loc"])])
        raise BadInput(f"{where}: key {key!r} has value {first['input']!r}: {first['msg']}; correct it") from None
    text, found = minutes(asked.seed, asked.todos, asked.language)
    texts = {"{minutes}": text, **{f"{{{name}}}": answer for name, answer in answers(found).items()}}
    filled = changed(case, lambda said: reduce(lambda text, place: text.replace(place, texts[place]), texts, said))
    return {**filled, "minutes": found.model_dump()}
