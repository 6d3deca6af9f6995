"""The verdict of a fleet as data: what its verdict.json, page, JUnit, metrics and exit code are made from."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from gatebook.fleet.plan import Plan
from gatebook.record.exchange import Recorded
from gatebook.verdict.verdict import EXIT_CODES, PRECEDENCE, Word

SHOWN = 8
"""Deployments that one line names."""


class Row(Recorded):
    """One deployment of a fleet run."""

    deployment: str
    labels: dict[str, str] = {}
    base_url: str = ""
    model: str = ""
    revision: str | None = None
    verdict: Word
    reason: str
    """One line: the first reason of its own verdict."""
    notebooks: dict[str, Word] = {}
    bundle: str | None = None
    """Its run folder, from that of the fleet; None where nothing could be recorded."""
    needs_baseline: bool = False
    """INCONCLUSIVE for want of a baseline and for nothing else."""
    moved_on: int = 0
    """How often it went on elsewhere, because its worker was gone."""
    seconds: float = 0.0


class FleetVerdict(Recorded):
    """The judgement of a fleet run. Schema: docs/schema/fleet-verdict.schema.json."""

    schema_version: int = 1
    run: str
    fleet: str
    suite: str
    created: str
    verdict: Word
    """The worst of its deployments: FAIL, ERROR, INCONCLUSIVE, PASS."""
    exit_code: int
    reason: str
    deployments: list[Row]
    accepted: str | None = None
    """The fleet run that was accepted last."""
    changes: list[str] = Field(default_factory=list)
    """What is not as in that run, a line each."""


def worst(words: Iterable[Word]) -> Word:
    """The first of FAIL, ERROR, INCONCLUSIVE, PASS that is among them; ERROR where there is none."""
    found = set(words)
    return next((word for word in PRECEDENCE if word in found), "ERROR")


def fold(plan: Plan, rows: dict[str, Row], accepted: FleetVerdict | None) -> FleetVerdict:
    """One verdict of all deployments, in the order of the plan; one without a row is ERROR."""
    labels = {one.name: one.labels for one in plan.fleet.deployments}
    lost = Row(deployment="", verdict="ERROR", reason="nothing is known of it: the fleet run did not come to its end")
    found = [rows.get(name, lost).model_copy(update={"deployment": name, "labels": labels[name]}) for name in labels]
    word = worst(row.verdict for row in found)
    return FleetVerdict(
        run=plan.run, fleet=plan.fleet.name, suite=plan.fleet.suite, created=plan.created, verdict=word,
        exit_code=EXIT_CODES[word], reason=_reason(word, found), deployments=found,
        accepted=accepted.run if accepted else None, changes=changes(accepted, found) if accepted else [],
    )  # fmt: skip


def _reason(word: Word, rows: list[Row]) -> str:
    own = [row for row in rows if row.verdict == word]
    if word == "PASS":
        return f"all {len(rows)} deployments pass"
    named = ", ".join(row.deployment for row in own[:SHOWN])
    more = f" and {len(own) - SHOWN} more" if len(own) > SHOWN else ""
    return f"{len(own)} of {len(rows)} deployments are {word}: {named}{more}; {own[0].deployment}: {own[0].reason}"


def changes(before: FleetVerdict, rows: list[Row]) -> list[str]:
    """What is not as it was accepted: deployments that came and went, and words of notebooks that turned."""
    old, new = {row.deployment: row for row in before.deployments}, {row.deployment: row for row in rows}
    found = [f"{name}: is new" for name in new if name not in old]
    found += [f"{name}: is gone" for name in old if name not in new]
    for name in (name for name in new if name in old):
        was, now = ({"verdict": row.verdict, **row.notebooks} for row in (old[name], new[name]))
        found += [
            f"{name}, {what}: was {was.get(what, 'not asked')}, is {now.get(what, 'not asked')}"
            for what in dict.fromkeys([*was, *now])
            if was.get(what) != now.get(what)
        ]
    return found
