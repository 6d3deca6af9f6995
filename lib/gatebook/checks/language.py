"""The language of an answer: told by checks/language_detection.py, measured by the scripts of its letters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gatebook.checks import language_detection as languages
from gatebook.checks import python
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import EMPTY, check

Asked = Annotated[languages.Language, Field(alias="is")]
Share = Annotated[float, Field(gt=0, le=1, description="Least share of its letters in the script of the language.")]
Where = Annotated[Literal["prose", "comments"], Field(description="The text without its code, or the code's comments.")]
Besides = Annotated[list[str], Field(description="Words that stay in any language: product names, identifiers.")]


@check(Stage.BEHAVIOUR)
def language(text: str, *, is_: Asked, share: Share = 0.8, where: Where = "prose", besides: Besides = EMPTY) -> Result:
    """The answer is in the asked language: share of its script first, then the detector; undetermined never fails.

    Source: research/science.md §3 and §4 (K4), FAULTS F40. Chinese answers keep English terms, so `share` is below 1.
    """
    said = "\n".join(c for b in python.blocks(text) for c in python.comments(b)) if where == "comments" else text
    measured, told = round(languages.share(said, is_, besides), 4), languages.tell(said)
    if not any(char.isalpha() for char in languages.prose(said, besides)):
        return Result("fail", f"the answer has no {where} to judge, only code or nothing", 0.0, share, "share")
    if measured < share:
        part = f"{measured:.0%} of the letters of the {where} are in the script of {is_}"
        return Result("fail", f"{part}, {share:.0%} expected; it reads as {told}", measured, share, "share")
    if told not in (is_, "undetermined"):
        return Result("fail", f"{is_} was asked, the {where} read as {told}", told, is_)
    return Result("pass", f"reads as {told}, {measured:.0%} in its script", measured, share, "share")
