"""What the profile's waivers do in a run: judged on the day when the run was made, so that a replay says the same."""

from __future__ import annotations

from datetime import date, datetime

from gatebook.judge.finding import Outcome
from gatebook.judge.verdict import WaiverUse
from gatebook.plan.waivers import Waiver
from gatebook.record.run import Manifest

Outcomes = dict[str, dict[str, Outcome]]
"""group -> case -> outcome."""


def waivers(manifest: Manifest, outcomes: Outcomes) -> list[WaiverUse]:
    """Every waiver of the profile with its state.

    Expired is one whose last day lies before the run; it blocks. Stale is one that names cases of this run which all
    pass, as a rounding may have it; it is told and blocks nothing. Of a
    pattern or a group it is only said by a complete run of the profile's own suite or of `full`, since a smaller one
    may lack the case that fails.
    """
    day = datetime.fromisoformat(manifest.created).date()
    asked = {i for ids in manifest.expected.values() for i in ids}
    return [_use(waiver, day, manifest, asked, outcomes) for waiver in manifest.profile.waivers]


def _use(waiver: Waiver, day: date, manifest: Manifest, asked: set[str], outcomes: Outcomes) -> WaiverUse:
    named = [
        (case, outcome)
        for group, cases in outcomes.items()
        for case, outcome in cases.items()
        if case in asked and waiver.names(case, group)
    ]
    failing = list(dict.fromkeys(case for case, outcome in named if outcome == "fail"))
    complete = not manifest.partial and manifest.suite in ("full", manifest.profile.target.default_suite)

    def use(state: str, note: str, cases: list[str] | None = None) -> WaiverUse:
        return WaiverUse.model_validate({**waiver.model_dump(), "state": state, "note": note, "cases": cases or []})

    if not named:
        return use("unused", "names no case of this run")
    if day > waiver.expires:
        return use("expired", "expired before this run; renew it with a reason, or delete it")
    if failing:
        told = ", ".join(failing[:3]) + (f" and {len(failing) - 3} more" if len(failing) > 3 else "")
        return use("in use", f"{told} fail{'s' if len(failing) == 1 else ''}", failing)
    if any(outcome != "pass" for _, outcome in named):
        return use("unused", "what it names could not be judged in this run")
    if waiver.case in asked or complete:
        return use("stale", "unused, every case that it names passes now; delete it when that lasts")
    return use("unused", "nothing that it names fails in this run, which has not all cases")
