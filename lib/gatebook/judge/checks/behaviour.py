"""Expected behaviour, never expected text: what one answer must be like."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import model_validator

from gatebook.judge.checks.registry import Params, Pattern, Words, check, each_text
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, Stage


class Length(Params):
    min: int = 1
    max: int = 10**9

    @model_validator(mode="after")
    def _in_order(self) -> Length:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


@check("length_chars", Length, stage=Stage.BEHAVIOUR)
def length_chars(evidence: Evidence, params: Length) -> Result:
    """Characters of the trimmed answer, between `min` and `max`."""

    def judge(text: str) -> Result:
        size = len(text.strip())
        ok = params.min <= size <= params.max
        return Result(
            "pass" if ok else "fail",
            f"{size} characters, {params.min} to {params.max} expected",
            size,
            f"{params.min}..{params.max}",
            "chars",
        )

    return each_text(evidence, judge)


@check("contains_any", Words, stage=Stage.BEHAVIOUR)
def contains_any(evidence: Evidence, words: list[str]) -> Result:
    """At least one of the words."""

    def judge(text: str) -> Result:
        found = [word for word in words if word in text]
        reason = f"has {', '.join(found)}" if found else f"has none of {', '.join(words)}"
        return Result("pass" if found else "fail", reason, len(found), 1, "words")

    return each_text(evidence, judge)


@check("contains_all", Words, stage=Stage.BEHAVIOUR)
def contains_all(evidence: Evidence, words: list[str]) -> Result:
    """Every one of the words."""

    def judge(text: str) -> Result:
        missing = [word for word in words if word not in text]
        reason = (
            f"{len(missing)} of {len(words)} missing: {', '.join(missing)}" if missing else f"all {len(words)} there"
        )
        return Result("fail" if missing else "pass", reason, len(words) - len(missing), len(words), "words")

    return each_text(evidence, judge)


@check("contains_none", Words, stage=Stage.BEHAVIOUR)
def contains_none(evidence: Evidence, words: list[str]) -> Result:
    """None of the words."""

    def judge(text: str) -> Result:
        found = [word for word in words if word in text]
        return Result(
            "fail" if found else "pass",
            f"has {', '.join(found)}" if found else "has none of them",
            len(found),
            0,
            "words",
        )

    return each_text(evidence, judge)


@check("regex", Pattern, stage=Stage.BEHAVIOUR)
def regex(evidence: Evidence, pattern: str) -> Result:
    """The pattern is found somewhere in the answer."""

    def judge(text: str) -> Result:
        found = re.search(pattern, text)
        return Result(
            "pass" if found else "fail", f"/{pattern}/ {'found' if found else 'not found'}", bool(found), True
        )

    return each_text(evidence, judge)


@check("not_degenerate", Literal[True], stage=Stage.BEHAVIOUR)
def not_degenerate(evidence: Evidence, _: Any) -> Result:
    """No character, phrase or script soup over and over: judged on prompts that a healthy model answers well."""
    from gatebook.judge.checks.text import degenerate

    def judge(text: str) -> Result:
        said = degenerate(text)
        return Result("fail" if said else "pass", said or "reads like text")

    return each_text(evidence, judge)
