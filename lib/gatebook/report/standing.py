"""Where each case stands in a verdict: whether it blocks, and why or why not. Pages and JUnit tell the same."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from gatebook.checks.finding import Finding, Outcome, worst
from gatebook.config.cases import Case
from gatebook.errors import BrokenRecord
from gatebook.record.exchange import Exchange
from gatebook.record.run import Run
from gatebook.verdict.verdict import GroupVerdict, Reason, Verdict

Standing = Literal["fails", "unmeasured", "tolerated", "excused", "passes"]
WORST_FIRST: tuple[Standing, ...] = ("fails", "unmeasured", "tolerated", "excused", "passes")
BLOCKING: tuple[Standing, ...] = ("fails", "unmeasured")


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
        return self.standing in BLOCKING

    @property
    def red(self) -> list[Finding]:
        return [f for f in self.findings if f.outcome != "pass"]

    @property
    def reason(self) -> str:
        """What is not green, else what the case itself (rather than the contract) showed."""
        told = [f.reason for f in self.red] or [f.reason for f in self.findings if f.check != "contract"][-1:]
        return "; ".join(dict.fromkeys(told)) or "expected, but nothing was judged"


def standings(run: Run, verdict: Verdict, notebook: str) -> list[CaseStanding]:
    """The opening chat and every expected case of a notebook, in the order in which they were asked."""
    findings: dict[str, list[Finding]] = defaultdict(list)
    for finding in verdict.findings:
        if finding.notebook == notebook:
            findings[finding.case].append(finding)
    ready = f"{notebook}.ready"
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
    groups = {group.group: group for group in verdict.groups}
    by_group: dict[str, list[Outcome]] = defaultdict(list)
    for finding in findings:
        by_group[finding.group].append(finding.outcome)
    said: list[tuple[Standing, str]] = [
        _in_group(verdict, groups[g], name, worst(found)) for g, found in by_group.items() if g in groups
    ]
    unjudged: tuple[Standing, str] = ("unmeasured", "blocks: it was not judged")
    standing, note = min(said or [unjudged], key=lambda s: WORST_FIRST.index(s[0]))
    return CaseStanding(
        id=name, notebook=notebook, case=case,
        group=case.group if case else findings[0].group, findings=findings, exchanges=exchanges,
        outcome=worst([f.outcome for f in findings]), standing=standing, note=note,
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
    compared = group.comparison
    if compared is None or verdict.baseline is None:
        return (
            "tolerated",
            f"does not block by itself: {group.group} is compared with a baseline, and there is none yet",
        )
    if case in compared.changed:
        return "tolerated", "does not block by itself: the baseline has no result of this prompt"
    if case not in compared.worse:
        return "tolerated", "does not block: it failed in the baseline too"
    if group.word == "FAIL":
        return "fails", f"blocks: it passed in the baseline, and {group.group} is shown worse"
    return "tolerated", f"does not block by itself: it passed in the baseline, but {group.group} is not shown worse"


def excuses(verdict: Verdict) -> list[str]:
    """One line a reason of the profile: what it excuses, three by name."""
    by_reason: dict[str, list[str]] = {}
    for excuse in (e for e in verdict.excused if not e.reason.startswith("not offered: ")):  # a note has them
        by_reason.setdefault(excuse.reason, []).append(excuse.id)
    return [
        f"{', '.join(ids[:3])}{f' and {len(ids) - 3} more' if len(ids) > 3 else ''}: {reason}"
        for reason, ids in by_reason.items()
    ]


FEW = 3
"""Lines under a reason; more of them are counted."""


def why(verdict: Verdict) -> list[str]:
    """The causes after the first one, and under each, the first too, what moved and what it explains."""
    told = {str(change.name): str(change) for change in verdict.changes}
    lines, under_reasons = [], {name for c in verdict.causes for r in (c, *c.explains) for name in r.moved}
    for number, cause in enumerate(verdict.causes[:6]):
        under = few([told[name] for name in cause.moved[1:] if name in told], "also moved")
        under += few([reason.text for reason in cause.explains], "explained by it")
        if number or under:
            lines += [f"{'also' if number else 'because'}: {cause.text}", *(f"  {line}" for line in under)]
    if len(verdict.causes) > 6:
        lines.append(f"and {len(verdict.causes) - 6} more reasons in verdict.json")
    return lines + few([text for name, text in told.items() if name not in under_reasons], "changed since the baseline")


def few(lines: list[str], label: str) -> list[str]:
    """The first lines with a label, and how many more there are."""
    more = [f"{label}: {len(lines) - FEW} more, in verdict.json"] if len(lines) > FEW else []
    return [f"{label}: {line}" for line in lines[:FEW]] + more


def by_todo(reasons: list[Reason]) -> dict[str, list[str]]:
    """What to do -> what it is about, so that many groups with one remedy are one line."""
    found: dict[str, list[str]] = defaultdict(list)
    for reason in reasons:
        found[reason.todo].append(reason.about)
    return {todo: list(dict.fromkeys(about)) for todo, about in found.items()}
