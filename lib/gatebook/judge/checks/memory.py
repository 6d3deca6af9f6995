"""An early rule over a long conversation: how often it is still kept, turn by turn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gatebook.judge import cantonese
from gatebook.judge.checks.registry import Params, check
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, Stage


class Rule(Params):
    """What every answer must do, and in which share of the turns it must do it. Exactly one of the rules."""

    language: Literal["cantonese"] | None = None
    begins: Annotated[str, Field(min_length=1)] | None = None
    ends: Annotated[str, Field(min_length=1)] | None = None
    min_rate: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _one(self) -> Rule:
        if sum(rule is not None for rule in (self.language, self.begins, self.ends)) != 1:
            raise ValueError("takes exactly one of language, begins and ends")
        return self


def kept(text: str, rule: Rule) -> bool:
    """Whether one answer keeps the rule; letters' case and marks around the word do not matter."""
    if rule.language:
        return cantonese.tell(text)[0] == rule.language
    bare = text.strip(" \n\t.!*_\"'`。！").casefold()
    word = (rule.begins or rule.ends or "").casefold()
    return bare.startswith(word) if rule.begins else bare.endswith(word)


@check("rule_kept", Rule, stage=Stage.BEHAVIOUR)
def rule_kept(evidence: Evidence, rule: Rule) -> Result:
    """The share of turns whose answer keeps the rule that the first message set."""
    turns = [(reply.ask.name, kept(reply.answer.text, rule)) for reply in evidence.replies]
    lost = [name for name, ok in turns if not ok]
    rate = round(1 - len(lost) / len(turns), 4)
    reason = f"kept in {len(turns) - len(lost)} of {len(turns)} turns"
    if lost:
        reason += f", lost in {', '.join(lost[:5])}{' ...' if len(lost) > 5 else ''}"
    return Result("pass" if rate >= rule.min_rate else "fail", reason, rate, rule.min_rate, "rate")
