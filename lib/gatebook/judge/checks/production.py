"""Whether the server under test is started as production is."""

from __future__ import annotations

from gatebook.judge.checks.registry import check
from gatebook.judge.evidence import Evidence
from gatebook.judge.finding import Result, Stage
from gatebook.judge.production import compare
from gatebook.plan.cases import Case
from gatebook.plan.production import Item


def _looks_at_settings(case: Case, _: object) -> str | None:
    return (
        None if case.over == "settings" else "the case does not look at settings; write key 'over' with value settings"
    )


@check("like_production", Item, _looks_at_settings, judges_text=False, stage=Stage.SETTINGS)
def like_production(evidence: Evidence, item: Item) -> Result:
    """One item of the profile's `production:` block is what the server says of itself. What is not stated, or not told, is not
    measured."""
    found = next(
        row
        for row in compare(evidence.profile.production, evidence.identity, evidence.watched.gauges)
        if row.item == item
    )
    measured = " / ".join(dict.fromkeys(str(s.value) for s in found.said)) or None
    limit = None if found.production is None else str(found.production)
    return Result(found.outcome, found.reason, measured, limit)
