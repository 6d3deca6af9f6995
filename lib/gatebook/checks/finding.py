"""What a check says: one outcome with what was measured, the limit and a reason a person can act on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema, model_validator

from gatebook.config.files import Lean
from gatebook.record.replies import whole

Outcome = Literal["pass", "fail", "error", "not_measured"]
Measure = str | float | int | None
NEVER_EXCUSED = frozenset({"ready", "recorded", "answered", "contract"})
"""Checks that are not_measured only where something was not asked, or was cut short: for want of time or tokens, or because of
the server. No excuse and no policy looks away from that."""
WORST_FIRST: tuple[Outcome, ...] = ("fail", "error", "not_measured", "pass")


class Stage(IntEnum):
    """What explains what: a reason of an earlier stage stands before those that follow from it (DESIGN §6)."""

    UNREACHABLE = 0
    GONE = 1
    REPLICAS = 2
    """More than one server answers at the address."""
    NOT_SERVED = 3
    REFUSED = 4
    """Also a limit: of the context, of a parameter."""
    REASONING = 5
    """The answer stands in the reasoning field, and the content is empty."""
    SWAPPED = 6
    """An answer reached the wrong asker."""
    ENVELOPE = 7
    SETTINGS = 8
    TEMPLATE = 9
    SAMPLING = 10
    WEIGHTS = 11
    CONSTRAINT = 12
    BEHAVIOUR = 13
    SPEED = 14


StageName = Annotated[
    Stage,
    BeforeValidator(lambda value: Stage.__members__.get(value.upper(), value) if isinstance(value, str) else value),
    PlainSerializer(lambda stage: stage.name.lower(), return_type=str),
    WithJsonSchema({"type": "string", "enum": [stage.name.lower() for stage in Stage]}),
]
"""A stage that is written as its name, so that another number in a later version changes no old file."""


@dataclass(frozen=True)
class Result:
    """What one check returns; the case, group and id are added where it was called."""

    outcome: Outcome
    reason: str
    measured: Measure = None
    limit: Measure = None
    unit: str = ""
    stage: Stage | None = None
    """Where it is not the check's own."""

    @classmethod
    def of(cls, ok: bool, reason: str, measured: Measure = None, limit: Measure = None, unit: str = "") -> Result:
        """A pass or a fail."""
        return cls("pass" if ok else "fail", reason, measured, limit, unit)

    @classmethod
    def of_parts(cls, lost: list[str], total: int, unit: str, kept: str, missing: str) -> Result:
        """A pass when none of the parts is lost: `all 3 <kept>`, else `1 of 3 <missing>: <the lost ones>`."""
        there = total - len(lost)
        if not lost:
            return cls("pass", f"all {total} {kept}", there, total, unit)
        return cls("fail", f"{len(lost)} of {total} {missing}: {', '.join(lost)}", there, total, unit)


class Finding(Lean):
    """The result of one check on one case."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    """`<case>.<check>`: stable from run to run."""
    notebook: str
    case: str
    group: str
    check: str
    outcome: Outcome
    measured: Measure = None
    limit: Measure = None
    unit: str = ""
    reason: str
    stage: StageName = Stage.BEHAVIOUR
    """What kind of cause it is when it is not green; verdicts from before there were stages have none."""

    @model_validator(mode="before")
    @classmethod
    def _can_be_told(cls, data: Any) -> Any:
        """A number that is none cannot have passed: NaN compares false with every limit. Text must be writable."""
        if not isinstance(data, dict):
            return data
        data = {k: whole(v) if isinstance(v, str) else v for k, v in data.items()}
        measured = data.get("measured")
        if isinstance(measured, float) and not math.isfinite(measured):
            data |= {"outcome": "error", "measured": None, "reason": f"measured {measured}: {data.get('reason')}"}
        return data


def worst(outcomes: list[Outcome]) -> Outcome:
    """The outcome of several findings together; of none it is `error`, because nothing was judged."""
    return next((o for o in WORST_FIRST if o in outcomes), "error")
