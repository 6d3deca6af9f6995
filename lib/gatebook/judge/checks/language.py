"""The language of an answer: told by judge/language.py, measured by the scripts of its letters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gatebook.judge import code as python
from gatebook.judge.checks.registry import Params, check, each_text
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, Stage
from gatebook.judge.language import Language, prose, share, tell


class Asked(Params):
    is_: Language = Field(alias="is")
    share: float = Field(default=0.8, gt=0, le=1)
    """Least share of the prose's letters in the script of the language."""
    where: Literal["prose", "comments"] = "prose"
    """Judge the prose with the code stripped, or the comments of the code."""
    besides: list[str] = Field(default_factory=list)
    """Words that stay as they are in any language (identifiers without an underscore, product names)."""


@check("language", Asked, stage=Stage.BEHAVIOUR)
def language(evidence: Evidence, params: Asked) -> Result:
    """The answer is in the asked language: share of its script first, then the detector; undetermined never fails.

    Source: research/science.md §3 and §4 (K4), FAULTS F40. Chinese answers keep English terms, so `share` is below 1.
    """

    def judge(text: str) -> Result:
        said = (
            "\n".join(c for b in python.blocks(text) for c in python.comments(b))
            if params.where == "comments"
            else text
        )
        measured, told = round(share(said, params.is_, params.besides), 4), tell(said)
        if not any(char.isalpha() for char in prose(said, params.besides)):
            return Result(
                "fail", f"the answer has no {params.where} to judge, only code or nothing", 0.0, params.share, "share"
            )
        if measured < params.share:
            part = f"{measured:.0%} of the letters of the {params.where} are in the script of {params.is_}"
            reason = f"{part}, {params.share:.0%} expected; it reads as {told}"
            return Result("fail", reason, measured, params.share, "share")
        if told not in (params.is_, "undetermined"):
            return Result("fail", f"{params.is_} was asked, the {params.where} read as {told}", told, params.is_)
        return Result("pass", f"reads as {told}, {measured:.0%} in its script", measured, params.share, "share")

    return each_text(evidence, judge)
