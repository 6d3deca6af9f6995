"""Scenarios: to-dos against the truth of their minutes, and nearness to golden answers as a guard with known power."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from gatebook.judge.checks.facts import normal, states
from gatebook.judge.checks.registry import Params, check, each_text
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, Stage
from gatebook.judge.similarity import answer_of
from gatebook.plan.cases import Case
from gatebook.plan.minutes import PRIORITIES, RANKS, Minutes, Priority, Todo

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


def _has_minutes(case: Case, _: Any) -> str | None:
    return None if case.minutes else "the case has no 'minutes' to compare with; add `minutes: {seed: 1}`"


@check("todos", Literal[True], needs=_has_minutes, stage=Stage.BEHAVIOUR)
def todos(evidence: Evidence, _: Any) -> Result:
    """None lost, none merged, none twice or invented, each tagged with its priority and its owner, sorted by priority.

    Measured: to-dos that are right, of all in the truth.
    """
    truth = evidence.case.minutes
    assert truth is not None  # `needs` has refused it

    def judge(text: str) -> Result:
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
        return Result("fail" if said else "pass", reason, found.right, total, "to-dos")

    return each_text(evidence, judge)


def _named(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


class Similar(Params):
    cut: float | None = Field(default=None, ge=-1, le=1)
    """Smallest cosine of a good answer; default: the profile's."""


def _has_golden(case: Case, _: Any) -> str | None:
    return None if case.golden else "the case has no 'golden' answer to compare with; add one"


@check("similar", Literal[True] | Similar, needs=_has_golden, judges_text=False, stage=Stage.BEHAVIOUR)
def similar(evidence: Evidence, params: Literal[True] | Similar) -> Result:
    """Cosine of the last answer with the nearest golden answer.

    It decides only where its measured power meets the profile's floor: most mutants of the golden answers below the
    cut, and few correct paraphrases. Otherwise it informs. Source: research/science.md §9 (0.82 with MiniLM passes
    wrong answers more often than right ones).
    """
    settings = evidence.profile.similarity
    cut = settings.cut if params is True or params.cut is None else params.cut
    if evidence.cosines is None:
        return Result("error", "no cosine was computed: there is no run to measure the power of this guard in")
    try:
        cosines = evidence.cosines()
    except ImportError as error:
        return Result("error", f"the cosine cannot be computed ({error}); install what requirements.txt lists")
    cosine, power = cosines.nearest(evidence.case, answer_of(evidence.case, evidence)), cosines.power(cut)
    said = f"cosine {cosine:.3f} (cut {cut:g}, {cosines.model})"
    known = f"kills {power.kills} of {power.mutants} mutants, floor {settings.floor_kill:g}"
    if not power.meets(settings):
        return Result("pass", f"{said} informs only: {known}", round(cosine, 3), cut, "cosine")
    return Result("pass" if cosine >= cut else "fail", f"{said} decides: {known}", round(cosine, 3), cut, "cosine")
