"""Scenarios: to-dos against the truth of their minutes, nearness to golden answers, an early rule over a conversation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from gatebook.checks.evidence import Evidence
from gatebook.checks.facts import normal, states
from gatebook.checks.finding import Result, Stage
from gatebook.checks.language_detection import is_cantonese
from gatebook.checks.registry import Text, check, each_text, having
from gatebook.config.cases import Case
from gatebook.config.documents import PRIORITIES, RANKS, Minutes, Priority, Todo
from gatebook.config.files import Strict

_WORDS: dict[str, Priority] = {word: rank for ranks in RANKS.values() for rank, word in ranks.items()}
_TAG = re.compile(
    rf"[【\[(|*「]\s*(?:优先级|priority)?[:\s]*({'|'.join(_WORDS)})\s*(?:优先级|priority)?\s*[】\])|*」]", re.IGNORECASE
)
SHOWN = 5


@dataclass(frozen=True)
class Listed:
    """A list of to-dos against the truth; every field but `right` holds what is wrong, by name."""

    lost: list[str]
    merged: list[str]
    twice: list[str]
    invented: list[str]
    untagged: list[str]
    misranked: list[str]
    wrong_owner: list[str]
    unsorted: bool
    right: int
    """To-dos on a line of their own with the right tag and the right owner."""


def assess(text: str, minutes: Minutes) -> Listed:
    """Read lines such as `【高】task（owner）` leniently: any bullet, bracket or table row, the owner also on the next line."""
    truth = minutes.truth
    items = _items(text, truth)
    tasks = [[todo.task for todo in truth if states(item, todo.mark)] for item in items]
    lines = {todo.task: [item for item, here in zip(items, tasks, strict=True) if todo.task in here] for todo in truth}
    first = [(todo, found[0]) for todo in truth if (found := lines[todo.task])]
    wrong = {
        "lost": [task for task, found in lines.items() if not found],
        "twice": [task for task, found in lines.items() if len(found) > 1],
        "merged": [" + ".join(here) for here in tasks if len(here) > 1],
        "untagged": [todo.task for todo, item in first if not _rank(item)],
        "misranked": [todo.task for todo, item in first if _rank(item) not in (None, todo.priority)],
        "wrong_owner": [todo.task for todo, item in first if not _owned(todo, item, truth)],
    }
    tasks_wrong = {task for names in wrong.values() for name in names for task in name.split(" + ")}
    invented = [item for item, here in zip(items, tasks, strict=True) if not here]
    ranks = [PRIORITIES.index(rank) for item in items if (rank := _rank(item))]
    return Listed(
        **wrong,
        invented=[_TAG.sub("", item).strip(" -*.0123456789") for item in invented],
        unsorted=ranks != sorted(ranks),
        right=sum(todo.task not in tasks_wrong for todo in truth),
    )


def _items(text: str, truth: list[Todo]) -> list[str]:
    """The lines that list something, normalised; a line that only adds an owner belongs to the one before."""
    items: list[str] = []
    for line in map(normal, text.splitlines()):
        if _TAG.search(line) or any(states(line, todo.mark) for todo in truth):
            items.append(line)
        elif items and any(states(line, todo.owner) for todo in truth):
            items[-1] += " " + line
    return items


def _rank(item: str) -> Priority | None:
    tag = _TAG.search(item)
    return _WORDS[tag[1].casefold()] if tag else None


def _owned(todo: Todo, item: str, truth: list[Todo]) -> bool:
    """Whether a line names the owner of its to-do, and nobody else but owners of to-dos that share the line."""
    named = {other.owner for other in truth if states(item, other.owner)}
    sharing = {other.owner for other in truth if states(item, other.mark)}
    return todo.owner in named and not named - sharing - {todo.owner}


@check(
    Stage.BEHAVIOUR,
    having("minutes", "the case has no 'minutes' to compare with; add `minutes: {seed: 1}`"),
    judges_text=True,
)
def todos(evidence: Evidence) -> Result:
    """None lost, none merged, none twice or invented, each tagged with its priority and its owner, sorted by priority.

    Measured: to-dos that are right, of all in the truth.
    """
    minutes = evidence.case.minutes
    assert minutes is not None  # refused already
    total, tags = len(minutes.truth), "【高/中/低】" if minutes.language == "zh" else "[high/medium/low]"

    def judge(text: str) -> Result:
        found = assess(text, minutes)
        wrong = {
            f"{len(found.lost)} of {total} to-dos missing": found.lost,
            "merged into one line": found.merged,
            "listed twice": found.twice,
            "is no to-do of these minutes": found.invented,
            f"without {tags}": found.untagged,
            "wrong priority": found.misranked,
            "wrong owner": found.wrong_owner,
        }
        said = [f"{words}: {_named(names)}" for words, names in wrong.items() if names]
        said += ["not sorted by priority"] if found.unsorted else []
        reason = "; ".join(said) or f"all {total} to-dos there, each of its own, tagged, owned, sorted"
        return Result.of(not said, reason, found.right, total, "to-dos")

    return each_text(evidence, judge)


def _named(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


class Similar(Strict):
    cut: float | None = Field(default=None, ge=-1, le=1)
    """Smallest cosine of a good answer; default: the profile's."""


@check(Stage.BEHAVIOUR, having("golden", "the case has no 'golden' answer to compare with; add one"))
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
    answer = evidence.reply(evidence.case.requests()[-1].name).answer.text
    cosine, power = cosines.nearest(evidence.case, answer), cosines.power(cut)
    decides = power.meets(settings)
    reason = (
        f"cosine {cosine:.3f} (cut {cut:g}, {cosines.model}) {'decides' if decides else 'informs only'}: "
        f"kills {power.kills} of {power.mutants} mutants, floor {settings.floor_kill:g}"
    )
    return Result.of(cosine >= cut or not decides, reason, round(cosine, 3), cut, "cosine")


def _one_rule(case: Case, min_rate: float, **rules: str | None) -> str | None:
    one = sum(rule is not None for rule in rules.values()) == 1
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
    turns = evidence.replies
    lost = [reply.ask.name for reply in turns if not kept(reply.answer.text, language, begins, ends)]
    rate = round(1 - len(lost) / len(turns), 4)
    reason = f"kept in {len(turns) - len(lost)} of {len(turns)} turns"
    if lost:
        reason += f", lost in {', '.join(lost[:5])}{' ...' if len(lost) > 5 else ''}"
    return Result.of(rate >= min_rate, reason, rate, min_rate, "rate")


def kept(text: str, language: str | None = None, begins: str | None = None, ends: str | None = None) -> bool:
    """Whether one answer keeps the rule; letters' case and marks around the word do not matter."""
    if language:
        return is_cantonese(text)
    bare = text.strip(" \n\t.!*_\"'`。！").casefold()
    return bare.startswith(begins.casefold()) if begins else bare.endswith((ends or "").casefold())
