"""Where each case stands in a verdict, whether it blocks and why; what the run cost, and what it had no room for. Every report says the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from gatebook.checks.finding import Finding, Outcome, worst
from gatebook.config.cases import Case
from gatebook.errors import BrokenRecord
from gatebook.record.exchange import Exchange
from gatebook.record.executed import execution
from gatebook.record.run import Run
from gatebook.verdict.spending import Spent, spent, total, unfit
from gatebook.verdict.verdict import Cause, GroupVerdict, Reason, Verdict

Standing = Literal["fails", "unmeasured", "tolerated", "excused", "passes"]
WORST_FIRST: tuple[Standing, ...] = ("fails", "unmeasured", "tolerated", "excused", "passes")
OVERALL = "90_verdict"
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


def standings(run: Run, verdict: Verdict, notebook: str = "") -> list[CaseStanding]:
    """The opening chat and every expected case, in the order asked, of a notebook; of all where it asks nothing, as 90_verdict."""
    findings: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in verdict.findings:
        findings[finding.notebook, finding.case].append(finding)
    stands = []
    for book in [notebook] if notebook in run.notebooks else run.notebooks:
        ready = f"{book}.ready"
        asked: dict[str | None, list[Exchange]] = defaultdict(list)
        for exchange in recorded(run, book):
            asked[ready if exchange.kind == "ready" else exchange.case].append(exchange)
        cases: list[tuple[str, Case | None]] = [(ready, None)] if (book, ready) in findings else []
        for name, case in [*cases, *((case.id, case) for case in run.expected(book))]:
            own = findings[book, name]
            group, outcome = case.group if case else own[0].group, worst([f.outcome for f in own])
            standing, note = _standing(verdict, name, own)
            stands.append(CaseStanding(name, book, case, group, own, asked[name], outcome, standing, note))
    return stands


def recorded(run: Run, *notebooks: str) -> list[Exchange]:
    """The exchanges of these notebooks (default: all); none where a record is broken, which the verdict says already."""
    found = []
    for notebook in notebooks or run.notebooks:
        with suppress(BrokenRecord):
            found += run.exchanges(notebook)
    return found


def _standing(verdict: Verdict, case: str, findings: list[Finding]) -> tuple[Standing, str]:
    """The worst over the groups that judge the case, and why."""
    said: list[tuple[Standing, str]] = [
        _in_group(verdict, group, case, worst(outcomes))
        for group in verdict.groups
        if (outcomes := [f.outcome for f in findings if f.group == group.group])
    ]
    said = said or [("unmeasured", "blocks: it was not judged")]
    return min(said, key=lambda s: WORST_FIRST.index(s[0]))


def _in_group(verdict: Verdict, group: GroupVerdict, case: str, outcome: Outcome) -> tuple[Standing, str]:
    """Return the first rule that holds."""
    if outcome == "pass":
        return "passes", ""
    name, compared = group.group, group.comparison
    excuse = verdict.excuses.get(case) if outcome == "not_measured" else None
    waiver = verdict.waiver_of(case, name) if outcome == "fail" else None
    waived = waiver and f"waived until {waiver.expires} by {waiver.owner}, {waiver.reason}"
    rules: list[tuple[object, Standing, str]] = [
        (group.policy == "watch", "tolerated", f"does not block: {name} is only watched"),
        (excuse, "excused", f"does not block: excused by the profile, {excuse and excuse.reason}"),
        (waiver, "excused", f"does not block: {waived}"),
        (outcome != "fail", "unmeasured", f"blocks: {name} cannot be judged without it"),
        (group.policy == "must", "fails", f"blocks: every case of {name} must pass"),
    ]
    by_itself = "does not block by itself:"
    if compared is None or verdict.baseline is None:
        rules.append((True, "tolerated", f"{by_itself} {name} is compared with a baseline, and there is none yet"))
    else:
        rules += [
            (case in compared.sets[0], "tolerated", f"{by_itself} the baseline has no result of this prompt"),
            (case not in compared.sets[1], "tolerated", "does not block: it failed in the baseline too"),
            (group.word == "FAIL", "fails", f"blocks: it passed in the baseline, and {name} is shown worse"),
            (True, "tolerated", f"{by_itself} it passed in the baseline, but {name} is not shown worse"),
        ]
    return next((standing, note) for holds, standing, note in rules if holds)


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
    """Return remedy -> what it is about, so that many groups with one remedy are one line."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for reason in reasons:
        found[reason.todo][reason.about] = None
    return {todo: list(about) for todo, about in found.items()}


def parts(run: Run) -> list[Spent]:
    """One entry a notebook; none of a notebook whose record is broken, which the verdict says."""
    found = []
    for notebook in run.notebooks:
        with suppress(BrokenRecord):
            found.append(spent(run, notebook))
    return found


def altogether(run: Run) -> Spent:
    """All notebooks, the verdict's own included when it has ended."""
    ran = execution(run.path / f"{OVERALL}.ipynb")
    return total(parts(run), ran[1] if ran else None)


def spending_lines(run: Run) -> list[str]:
    """Return what `gatebook run` prints: a line of time, a line of tokens, and a line a reason why cases were not asked."""
    whole, limit = altogether(run), run.manifest.profile.limits.tokens
    harness = "" if whole.harness_s is None else f", {whole.harness_s:.1f} s the harness"
    cached = "" if whole.cached_tokens is None else f" ({whole.cached_tokens:,} from the cache)"
    budget = f" of a budget of {limit:,}" if limit else ""
    uncounted = f"; {whole.uncounted} answers told no usage" if whole.uncounted else ""
    return [
        f"time: {whole.server_s:.1f} s the server, {whole.waiting_s:.1f} s waiting for it{harness}",
        f"tokens: {whole.prompt_tokens:,} prompt{cached} + {whole.completion_tokens:,} answer in {whole.requests:,} requests{budget}{uncounted}",
        *(f"not asked: {line}" for line in left_out(run)),
    ]


def left_out(run: Run) -> list[str]:
    """List each reason with its groups and cases; empty where a record is broken."""
    with suppress(BrokenRecord):
        return [
            f"{one.why}: {', '.join(f'{group} ({count})' for group, count in one.groups.items())}: {named(one.cases, 5)}"
            for one in unfit(run)
        ]
    return []
