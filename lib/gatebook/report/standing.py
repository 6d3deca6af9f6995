"""Where each case stands in a verdict: whether it blocks, and why or why not. Pages and JUnit say the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gatebook.checks.finding import Finding, Outcome, worst
from gatebook.config.cases import Case
from gatebook.errors import BrokenRecord
from gatebook.record.exchange import Exchange
from gatebook.record.run import Run
from gatebook.verdict.verdict import Cause, GroupVerdict, Reason, Verdict

Standing = Literal["fails", "unmeasured", "tolerated", "excused", "passes"]
WORST_FIRST: tuple[Standing, ...] = ("fails", "unmeasured", "tolerated", "excused", "passes")
FEW = 3
"""Lines under a reason; more of them are counted."""


@dataclass(frozen=True)
class CaseStanding:
    """One case, or the one-token chat that opens a notebook (`<notebook>.ready`)."""

    id: str
    notebook: str
    case: Case | None
    """None for the opening chat."""
    group: str
    findings: list[Finding]
    exchanges: list[Exchange]
    outcome: Outcome
    standing: Standing
    note: str
    """Why it does or does not block."""

    @property
    def blocks(self) -> bool:
        return self.standing in ("fails", "unmeasured")

    @property
    def red(self) -> list[Finding]:
        return [f for f in self.findings if f.outcome != "pass"]

    @property
    def reason(self) -> str:
        """What is not green, else what the case itself (rather than the contract) showed."""
        said = [f.reason for f in self.red] or [f.reason for f in self.findings if f.check != "contract"][-1:]
        return "; ".join(dict.fromkeys(said)) or "expected, but nothing was judged"


def standings(run: Run, verdict: Verdict, notebook: str) -> list[CaseStanding]:
    """The opening chat and every expected case of a notebook, in the order in which they were asked."""
    ready = f"{notebook}.ready"
    findings: dict[str, list[Finding]] = defaultdict(list)
    for finding in (f for f in verdict.findings if f.notebook == notebook):
        findings[finding.case].append(finding)
    asked: dict[str | None, list[Exchange]] = defaultdict(list)
    for exchange in recorded(run, notebook):
        asked[ready if exchange.kind == "ready" else exchange.case].append(exchange)
    cases: list[tuple[str, Case | None]] = [(ready, None)] if ready in findings else []
    cases += [(case.id, case) for case in run.expected(notebook)]
    return [_stands(verdict, notebook, name, case, findings[name], asked[name]) for name, case in cases]


def recorded(run: Run, notebook: str) -> list[Exchange]:
    """The exchanges of a notebook; none when its record is broken, which the verdict says already."""
    try:
        return run.exchanges(notebook)
    except BrokenRecord:
        return []


def _stands(
    verdict: Verdict, notebook: str, name: str, case: Case | None, findings: list[Finding], exchanges: list[Exchange]
) -> CaseStanding:
    by_group: dict[str, list[Outcome]] = defaultdict(list)
    for finding in findings:
        by_group[finding.group].append(finding.outcome)
    said = [_in_group(verdict, g, name, worst(by_group[g.group])) for g in verdict.groups if g.group in by_group]
    unjudged: tuple[Standing, str] = ("unmeasured", "blocks: it was not judged")
    standing, note = min(said or [unjudged], key=lambda s: WORST_FIRST.index(s[0]))
    return CaseStanding(
        id=name, notebook=notebook, case=case, group=case.group if case else findings[0].group, findings=findings,
        exchanges=exchanges, outcome=worst([f.outcome for f in findings]), standing=standing, note=note,
    )  # fmt: skip


def _in_group(verdict: Verdict, group: GroupVerdict, case: str, outcome: Outcome) -> tuple[Standing, str]:
    if outcome == "pass":
        return "passes", ""
    if group.policy == "watch":
        return "tolerated", f"does not block: {group.group} is only watched"
    if outcome == "not_measured" and (excuse := next((e for e in verdict.excused if e.id == case), None)):
        return "excused", f"does not block: excused by the profile, {excuse.reason}"
    if outcome == "fail" and (waiver := verdict.waiver_of(case, group.group)):
        return "excused", f"does not block: waived until {waiver.expires} by {waiver.owner}, {waiver.reason}"
    if outcome != "fail":
        return "unmeasured", f"blocks: {group.group} cannot be judged without it"
    if group.policy == "must":
        return "fails", f"blocks: every case of {group.group} must pass"
    return _compared(verdict, group, case)


def _compared(verdict: Verdict, group: GroupVerdict, case: str) -> tuple[Standing, str]:
    """Of a failing case whose group is compared with a baseline."""
    name, compared = group.group, group.comparison
    if compared is None or verdict.baseline is None:
        return "tolerated", f"does not block by itself: {name} is compared with a baseline, and there is none yet"
    if case in compared.changed:
        return "tolerated", "does not block by itself: the baseline has no result of this prompt"
    if case not in compared.worse:
        return "tolerated", "does not block: it failed in the baseline too"
    if group.word == "FAIL":
        return "fails", f"blocks: it passed in the baseline, and {name} is shown worse"
    return "tolerated", f"does not block by itself: it passed in the baseline, but {name} is not shown worse"


def excuses(verdict: Verdict) -> list[str]:
    """One line a reason of the profile: what it excuses, three by name."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for excuse in (e for e in verdict.excused if not e.reason.startswith("not offered: ")):  # a note has them
        by_reason[excuse.reason].append(excuse.id)
    return [f"{named(ids, 3)}: {reason}" for reason, ids in by_reason.items()]


def causes(verdict: Verdict) -> list[tuple[Cause, list[str]]]:
    """Every cause with the lines under it: what else moved, and what it explains."""
    changes = {str(change.name): str(change) for change in verdict.changes}
    return [
        (
            cause,
            few([changes[name] for name in cause.moved[1:] if name in changes], "also moved")
            + few([reason.text for reason in cause.explains], "explained by it"),
        )
        for cause in verdict.causes
    ]


def unexplained(verdict: Verdict) -> list[str]:
    """What changed since the baseline and stands under no cause."""
    under = {name for c in verdict.causes for r in (c, *c.explains) for name in r.moved}
    return few([str(c) for c in verdict.changes if str(c.name) not in under], "changed since the baseline")


def few(lines: list[str], label: str) -> list[str]:
    """The first lines with a label, and how many more there are."""
    more = [f"{label}: {len(lines) - FEW} more, in verdict.json"] if len(lines) > FEW else []
    return [f"{label}: {line}" for line in lines[:FEW]] + more


def named(names: list[str], most: int) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def by_todo(reasons: Iterable[Reason]) -> dict[str, list[str]]:
    """What to do -> what it is about, so that many groups with one remedy are one line."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for reason in reasons:
        found[reason.todo][reason.about] = None
    return {todo: list(about) for todo, about in found.items()}
