"""What explains what: many reasons become few causes, each with what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gatebook.checks.finding import Stage
from gatebook.verdict.verdict import PRECEDENCE, Cause, Reason, Verdict, Word

ACCEPT = "accept this run"
ALLOW = "allow load beside other users with --yes-load, or resume the run when they are done"
EVERYTHING = (Stage.UNREACHABLE, Stage.GONE, Stage.NOT_SERVED)
"""Where one of these holds, nothing later means anything."""
BY_CASE = (Stage.REFUSED, Stage.REASONING, Stage.SWAPPED, Stage.ENVELOPE, Stage.CONSTRAINT)
"""These explain what else is wrong with the same cases."""
BY_CHANGE: dict[Stage, tuple[Stage, ...]] = {
    Stage.REPLICAS: tuple(stage for stage in Stage if stage > Stage.REPLICAS),
    Stage.SETTINGS: (Stage.SAMPLING, Stage.WEIGHTS, Stage.CONSTRAINT, Stage.BEHAVIOUR, Stage.SPEED),
    Stage.TEMPLATE: (Stage.SAMPLING, Stage.WEIGHTS, Stage.BEHAVIOUR),
    Stage.SAMPLING: (Stage.BEHAVIOUR,),
    Stage.WEIGHTS: (Stage.WEIGHTS, Stage.BEHAVIOUR),
}
"""What a change of what is served explains, whatever the cases. A case of the stage of weights (an adapter that answers as
its parent) says what is served by itself, and stands before what moved because of it."""


@dataclass(frozen=True)
class Said:
    """One reason before it is known what explains it."""

    word: Word
    stage: Stage | None
    about: str
    text: str
    todo: str
    cases: frozenset[str] = frozenset()
    moved: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[int, bool, bool, int, bool]:
        """By verdict, then by stage. What accepting mends stands last, since it is no news once anything else is wrong."""
        stage, later = -1 if self.stage is None else self.stage, self.stage == Stage.WEIGHTS and bool(self.moved)
        return PRECEDENCE.index(self.word), self.todo == ACCEPT, self.about != "baseline", stage, later

    def explains(self, other: Said) -> bool:
        """Return whether this reason, which ranks before the other, explains it."""
        if self.todo == ACCEPT:
            return self.about == "baseline" and other.todo == ACCEPT
        if self.todo == ALLOW:
            return bool(other.cases) and other.cases <= self.cases
        if self.stage is None or other.stage is None or self.word == "INCONCLUSIVE":
            return False
        if self.stage in EVERYTHING:
            return other.stage >= self.stage or other.word == "INCONCLUSIVE"
        if self.stage in BY_CASE and other.stage >= self.stage and other.cases and other.cases <= self.cases:
            return True
        changed = bool(self.moved) or self.stage in (Stage.REPLICAS, Stage.WEIGHTS)
        return changed and other.stage in BY_CHANGE.get(self.stage, ())

    def fields(self) -> dict[str, Any]:
        """Return the fields of a `Reason`."""
        told = {name: value for name, value in vars(self).items() if name != "cases"}
        return {**told, "moved": list(self.moved), "accepts": self.todo == ACCEPT}


def causes(said: list[Said]) -> list[Cause]:
    """Return causes in the order of `rank`, equals as given; what one explains stands under the first that does."""
    found: list[tuple[Said, list[Reason]]] = []
    for one in sorted(said, key=lambda one: one.rank):
        explained = next((under for cause, under in found if cause.explains(one)), None)
        if explained is None:
            found.append((one, []))
        else:
            explained.append(Reason(**one.fields()))
    return [Cause(**cause.fields(), explains=under) for cause, under in found]


def refusals(verdict: Verdict) -> list[Reason]:
    """Everything for which `gatebook accept` refuses a run, each with what to do; none where it takes it.

    A PASS is taken, and an INCONCLUSIVE that lacks nothing but what accepting it gives. What a change of the deployment explains
    is red still once that change is named by a new revision.
    """
    narrowed = {}
    if verdict.partial:
        todo = "run the suite whole, without --only, or merge all shards with `gatebook merge`"
        narrowed["it is PARTIAL (narrowed by --only or --shard)"] = todo
    if verdict.effort == "quick":
        narrowed["it is of effort quick, which looks early"] = "run it with --effort normal"
    about = [Reason(word="INCONCLUSIVE", about="this run", text=text, todo=todo) for text, todo in narrowed.items()]
    after = [r for cause in verdict.causes if cause.moved for r in cause.explains if r.word in ("FAIL", "ERROR")]
    return [*about, *(one for one in (*verdict.causes, *after) if not one.accepts)]
