"""Scenarios: to-dos against the truth of their minutes, nearness to golden answers, an early rule over a conversation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from gatebook.checks.evidence import Evidence
from gatebook.checks.facts import normal, states
from gatebook.checks.finding import Result, Stage
from gatebook.checks.language_detection import tell_chinese
from gatebook.checks.registry import Text, check, each_text, having
from gatebook.checks.similarity import answer_of
from gatebook.config.cases import Case
from gatebook.config.files import Strict
from gatebook.config.minutes import PRIORITIES, RANKS, Minutes, Priority, Todo

_WORDS: dict[str, Priority] = {word: rank for ranks in RANKS.values() for rank, word in ranks.items()}
_TAG = re.compile(
    rf"[【\[(|*「]\s*(?:优先级|priority)?[:\s]*({'|'.join(_WORDS)})\s*(?:优先级|priority)?\s*[】\])|*」]", re.IGNORECASE
)
SHOWN = 5


@dataclass
class Listed:
    """A list of to-dos against the truth; every field but `right` holds what is wrong, by name."""

    lost: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    untagged: list[str] = field(default_factory=list)
    misranked: list[str] = field(default_factory=list)
    wrong_owner: list[str] = field(default_factory=list)
    unsorted: bool = False
    right: int = 0
    """To-dos on a line of their own with the right tag and the right owner."""


def assess(text: str, truth: Minutes) -> Listed:
    """Read lines such as `【高】task（owner）` leniently: any bullet, bracket or table row, the owner also on the next line."""
    found, items = Listed(), _items(text, truth.truth)
    at: dict[str, list[str]] = {todo.task: [i for i in items if states(i, todo.mark)] for todo in truth.truth}
    found.lost = [task for task, lines in at.items() if not lines]
    found.twice = [task for task, lines in at.items() if len(lines) > 1]
    for item in items:
        here = [todo for todo in truth.truth if states(item, todo.mark)]
        if len(here) > 1:
            found.merged.append(" + ".join(todo.task for todo in here))
        elif not here:
            found.invented.append(_TAG.sub("", item).strip(" -*.0123456789"))
    for todo in truth.truth:
        if at[todo.task]:
            _one(todo, at[todo.task][0], truth.truth, found)
    ranks = [PRIORITIES.index(_WORDS[tag[1].casefold()]) for item in items if (tag := _TAG.search(item))]
    found.unsorted = ranks != sorted(ranks)
    wrong = {*found.lost, *found.twice, *found.untagged, *found.misranked, *found.wrong_owner}
    wrong |= {task for both in found.merged for task in both.split(" + ")}
    found.right = sum(todo.task not in wrong for todo in truth.truth)
    return found


def _items(text: str, truth: list[Todo]) -> list[str]:
    """The lines that list something, normalised; a line that only adds an owner belongs to the one before."""
    items: list[str] = []
    for line in (normal(raw) for raw in text.splitlines()):
        if _TAG.search(line) or any(states(line, todo.mark) for todo in truth):
            items.append(line)
        elif items and any(states(line, todo.owner) for todo in truth):
            items[-1] += " " + line
    return items


def _one(todo: Todo, item: str, truth: list[Todo], found: Listed) -> None:
    tag = _TAG.search(item)
    if not tag:
        found.untagged.append(todo.task)
    elif _WORDS[tag[1].casefold()] != todo.priority:
        found.misranked.append(todo.task)
    named = {other.owner for other in truth if states(item, other.owner)}
    sharing = {other.owner for other in truth if states(item, other.mark)}
    if todo.owner not in named or named - sharing - {todo.owner}:
        found.wrong_owner.append(todo.task)


HAS_MINUTES = having("minutes", "the case has no 'minutes' to compare with; add `minutes: {seed: 1}`")
HAS_GOLDEN = having("golden", "the case has no 'golden' answer to compare with; add one")


@check(Stage.BEHAVIOUR, HAS_MINUTES, judges_text=True)
def todos(evidence: Evidence) -> Result:
    """None lost, none merged, none twice or invented, each tagged with its priority and its owner, sorted by priority.

    Measured: to-dos that are right, of all in the truth.
    """
    truth = evidence.case.minutes
    assert truth is not None  # HAS_MINUTES has refused it
    return each_text(evidence, lambda text: _listed(text, truth))


def _listed(text: str, truth: Minutes) -> Result:
    found, total = assess(text, truth), len(truth.truth)
    said = [f"{len(found.lost)} of {total} to-dos missing: {_named(found.lost)}"] if found.lost else []
    for words, names in (
        ("merged into one line", found.merged),
        ("listed twice", found.twice),
        ("is no to-do of these minutes", found.invented),
        ("without 【高/中/低】" if truth.language == "zh" else "without [high/medium/low]", found.untagged),
        ("wrong priority", found.misranked),
        ("wrong owner", found.wrong_owner),
    ):
        said += [f"{words}: {_named(names)}"] if names else []
    said += ["not sorted by priority"] if found.unsorted else []
    reason = "; ".join(said) or f"all {total} to-dos there, each of its own, tagged, owned, sorted"
    return Result.of(not said, reason, found.right, total, "to-dos")


def _named(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


class Similar(Strict):
    cut: float | None = Field(default=None, ge=-1, le=1)
    """Smallest cosine of a good answer; default: the profile's."""


@check(Stage.BEHAVIOUR, HAS_GOLDEN)
def similar(evidence: Evidence, to: Literal[True] | Similar) -> Result:
    """Cosine of the last answer with the nearest golden answer.

    It decides only where its measured power meets the profile's floor: most mutants of the golden answers below the
    cut, and few correct paraphrases. Otherwise it informs. Source: research/science.md §9 (0.82 with MiniLM passes
    wrong answers more often than right ones).
    """
    settings = evidence.profile.similarity
    cut = settings.cut if to is True or to.cut is None else to.cut
    if evidence.cosines is None:
        return Result("error", "no cosine was computed: there is no run to measure the power of this guard in")
    try:
        cosines = evidence.cosines()
    except ImportError as error:
        return Result("error", f"the cosine cannot be computed ({error}); install what requirements.txt lists")
    cosine, power = cosines.nearest(evidence.case, answer_of(evidence.case, evidence)), cosines.power(cut)
    decides = power.meets(settings)
    reason = (
        f"cosine {cosine:.3f} (cut {cut:g}, {cosines.model}) {'decides' if decides else 'informs only'}: "
        f"kills {power.kills} of {power.mutants} mutants, floor {settings.floor_kill:g}"
    )
    return Result.of(cosine >= cut or not decides, reason, round(cosine, 3), cut, "cosine")


def _one_rule(
    case: Case, language: str | None = None, begins: str | None = None, ends: str | None = None, **_: Any
) -> str | None:
    one = sum(rule is not None for rule in (language, begins, ends)) == 1
    return None if one else "takes exactly one of language, begins and ends; correct it"


@check(Stage.BEHAVIOUR, _one_rule, judges_text=True)
def rule_kept(
    evidence: Evidence,
    *,
    language: Literal["cantonese"] | None = None,
    begins: Text | None = None,
    ends: Text | None = None,
    min_rate: Annotated[float, Field(gt=0, le=1)],
) -> Result:
    """The share of turns whose answer keeps the rule that the first message set."""
    turns = [(reply.ask.name, kept(reply.answer.text, language, begins, ends)) for reply in evidence.replies]
    lost = [name for name, ok in turns if not ok]
    rate = round(1 - len(lost) / len(turns), 4)
    reason = f"kept in {len(turns) - len(lost)} of {len(turns)} turns"
    if lost:
        reason += f", lost in {', '.join(lost[:5])}{' ...' if len(lost) > 5 else ''}"
    return Result.of(rate >= min_rate, reason, rate, min_rate, "rate")


def kept(text: str, language: str | None = None, begins: str | None = None, ends: str | None = None) -> bool:
    """Whether one answer keeps the rule; letters' case and marks around the word do not matter."""
    if language:
        return tell_chinese(text)[0] == language
    bare = text.strip(" \n\t.!*_\"'`。！").casefold()
    return bare.startswith(begins.casefold()) if begins else bare.endswith((ends or "").casefold())
