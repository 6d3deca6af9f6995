"""A waiver: a failing case that a person answers for until a day. What could not be measured is `excused` instead."""

from __future__ import annotations

from datetime import date
from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field, field_validator

from gatebook.plan.strict import Strict


class Waiver(Strict):
    """One entry of a profile's `waivers`."""

    case: str
    """Case id or group; `*` stands for anything in it."""
    owner: str = Field(min_length=1)
    """Who answers for it."""
    reason: str = Field(min_length=1)
    expires: date
    """The last day (UTC) on which a run may be excused by it."""

    @field_validator("case")
    @classmethod
    def _names_something(cls, value: str) -> str:
        if not any(letter.isalnum() for letter in value):
            raise ValueError("a waiver names a case or a group; one that excuses everything would leave no gate")
        return value

    @field_validator("owner", "reason")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is blank; a waiver says who answers for it and why")
        return value.strip()

    @field_validator("expires", mode="before")
    @classmethod
    def _day(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a day such as 2027-01-31") from None

    def names(self, *names: str) -> bool:
        """Whether it names one of these: a case's id, its group."""
        return any(fnmatchcase(name, self.case) for name in names)
