"""The ONE rule: findings, policies and baseline in, verdict out. Every report and the exit code come from here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from gatebook.errors import BadInput
from gatebook.judge import stats
from gatebook.judge.baseline import Baseline
from gatebook.judge.finding import NEVER_EXCUSED, Finding, Outcome, worst
from gatebook.judge.fingerprint import Change, Fingerprint, changes
from gatebook.judge.verdict import (
    EXIT_CODES,
    PRECEDENCE,
    Comparison,
    Excuse,
    GroupVerdict,
    Served,
    Verdict,
    WaiverUse,
    Word,
)
from gatebook.judge.waiving import waivers
from gatebook.plan.cases import Case
from gatebook.plan.settings import Group, Profile
from gatebook.record.run import Manifest

COMPARED = ("no_worse", "proven_no_worse")


@dataclass(frozen=True)
class Judged:
    """What the policy judges: a run's plan, its findings and what it is compared with."""

    manifest: Manifest
    cases: dict[str, Case]
    findings: list[Finding]
    served: Served
    fingerprint: Fingerprint
    baseline: Baseline | None
    troubles: list[str]
    family: int
    """Compared groups of the whole run: one notebook alone is judged by the same steps."""


def decide(judged: Judged) -> Verdict:
    """Fold everything into one verdict; the first of FAIL, ERROR, INCONCLUSIVE, PASS that holds."""
    profile = judged.manifest.profile
    outcomes = _outcomes(judged.findings)
    said: list[tuple[Word, str]] = [("ERROR", text) for text in judged.troubles]
    said += _missing(judged) + _unasked(judged)
    moved = _moved(judged)
    if judged.baseline and judged.baseline.revision == profile.target.revision:
        said += [("FAIL", text) for text in _under_one_revision(moved, profile.target.revision or "none named")]
    used = waivers(judged.manifest, outcomes)
    said += [("INCONCLUSIVE", f"waiver of {w}") for w in used if w.blocks]
    groups = _groups(judged, outcomes, used)
    said += [(g.word, f"{g.group}: {g.reason}") for g in groups if g.word != "PASS"]
    said.sort(key=lambda item: PRECEDENCE.index(item[0]))
    word: Word = said[0][0] if said else "PASS"
    wants_baseline = [
        g
        for g in groups
        if g.word == "INCONCLUSIVE"
        and g.comparison
        and not g.comparison.paired
        and g.not_measured == len(_excused(judged, g.group, outcomes[g.group]))
    ]
    return Verdict(
        run=judged.manifest.run, profile=profile.name, suite=judged.manifest.suite, partial=judged.manifest.partial,
        served=judged.served, verdict=word, exit_code=EXIT_CODES[word],
        reason=said[0][1] if said else _counts(judged, outcomes), reasons=[text for _, text in said],
        groups=groups, findings=judged.findings, excused=_excuses(judged, outcomes), waivers=used,
        baseline=judged.baseline.run if judged.baseline else None,
        needs_baseline=word == "INCONCLUSIVE" and len(said) == len(wants_baseline),
        fingerprint=judged.fingerprint, changes=moved, troubles=judged.troubles,
    )  # fmt: skip


def check_plan(profile: Profile, cases: Iterable[Case], contract_groups: set[str]) -> None:
    """Refuse a plan that cannot be judged. Raises BadInput for a group without policy or too small ever to be shown worse."""
    sizes: dict[str, int] = defaultdict(int)
    for case in cases:
        sizes[case.group] += 1
    for group in (*sizes, *contract_groups):
        profile.policy(group)
    for group in contract_groups:
        if profile.groups[group].policy in COMPARED:
            raise BadInput(
                f"profile {profile.name!r}, key 'groups.{group}' has value {profile.groups[group].policy!r}: a contract is kept or "
                "broken and not compared; use must or watch"
            )
    family = compared_groups(profile, sizes)
    for group, size in sizes.items():
        if profile.groups[group].policy in COMPARED and stats.smallest_visible_drop(size, family) is None:
            raise BadInput(
                f"profile {profile.name!r}, key 'groups.{group}': {profile.groups[group].policy!r} with {size} selected cases could never be "
                f"shown worse (alpha {stats.ALPHA} over {family} compared groups); add cases, choose a larger suite, or use must or watch"
            )


def compared_groups(profile: Profile, groups: Iterable[str]) -> int:
    """How many of the groups are compared with the baseline: the family of Holm's correction."""
    return sum(profile.groups[group].policy in COMPARED for group in set(groups) if group in profile.groups)


def _moved(judged: Judged) -> list[Change]:
    if judged.baseline is None:
        return []
    tolerance = judged.manifest.profile.limits.logprob_tolerance_nats
    return changes(judged.baseline.fingerprint, judged.fingerprint, tolerance, judged.manifest.run)


def _under_one_revision(moved: list[Change], revision: str) -> list[str]:
    """One line a part of the deployment, with the first value that shows it."""
    parts: dict[str, list[Change]] = {}
    for change in moved:
        parts.setdefault(change.part, []).append(change)
    return [
        f"{found[0]}{f' (and {len(found) - 1} more values)' if len(found) > 1 else ''}, under the same revision ({revision}); "
        "a new one is told with --revision"
        for found in parts.values()
    ]


def _outcomes(findings: list[Finding]) -> dict[str, dict[str, Outcome]]:
    """group -> case -> outcome."""
    grouped: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for finding in findings:
        grouped[finding.group][finding.case].append(finding.outcome)
    return {group: {case: worst(found) for case, found in cases.items()} for group, cases in sorted(grouped.items())}


def _missing(judged: Judged) -> list[tuple[Word, str]]:
    have = {finding.case for finding in judged.findings}
    lost = [i for ids in judged.manifest.expected.values() for i in ids if i not in have]
    if not any(judged.manifest.expected.values()):
        return [("ERROR", "no case was expected, so nothing was judged")]
    return [("ERROR", f"{len(lost)} expected cases were not judged: {', '.join(lost[:5])}")] if lost else []


def _unasked(judged: Judged) -> list[tuple[Word, str]]:
    """What no policy may look away from, not even `watch`: a server that was not ready, a case without an answer or a record."""
    words: dict[Outcome, Word] = {"fail": "FAIL", "error": "ERROR", "not_measured": "INCONCLUSIVE"}
    return [
        (words[f.outcome], f"{f.case}: {f.reason}")
        for f in judged.findings
        if judged.manifest.profile.policy(f.group).policy == "watch"
        and (
            f.outcome == "error"
            or (f.outcome != "pass" and f.check in ("ready", "recorded"))
            or (f.outcome == "not_measured" and f.check in NEVER_EXCUSED)
        )
    ]  # fmt: skip


def _groups(judged: Judged, outcomes: dict[str, dict[str, Outcome]], used: list[WaiverUse]) -> list[GroupVerdict]:
    profile, family = judged.manifest.profile, judged.family
    waived = {
        g: [
            c for c, outcome in cases.items() if outcome == "fail" and any(c in w.cases and w.names(c, g) for w in used)
        ]
        for g, cases in outcomes.items()
    }
    compared = {
        g: _compare(judged, g, {c: o for c, o in cases.items() if c not in waived[g]}, family)
        for g, cases in outcomes.items()
        if profile.policy(g).policy in COMPARED
    }
    rejected = dict(zip(compared, stats.holm([c.p_value for c in compared.values()], family), strict=True))
    return [
        _group(judged, g, cases, waived[g], compared.get(g), rejected.get(g, False)) for g, cases in outcomes.items()
    ]


def _group(
    judged: Judged,
    group: str,
    cases: dict[str, Outcome],
    waived: list[str],
    comparison: Comparison | None,
    rejected: bool,
) -> GroupVerdict:
    policy = judged.manifest.profile.policy(group)
    excused = _excused(judged, group, cases)
    found = {o: [c for c, outcome in cases.items() if outcome == o] for o in ("pass", "fail", "error", "not_measured")}
    word, reason = _word(
        judged,
        policy,
        {
            **found,
            "fail": [c for c in found["fail"] if c not in waived],
            "not_measured": [c for c in found["not_measured"] if c not in excused],
        },
        comparison,
        rejected,
    )
    if set(cases) == {*excused, *waived}:
        word, reason = "PASS", "excused: nothing of it could be measured here" if excused else "nothing else was judged"
    elif word == "PASS" and not found["pass"] and policy.policy != "watch":
        word, reason = "INCONCLUSIVE", "no case of the group could be judged"
    if waived:
        reason += f"; waived: {_named(judged, waived)}"
    return GroupVerdict(
        group=group, policy=policy.policy, passed=len(found["pass"]), failed=len(found["fail"]), error=len(found["error"]),
        not_measured=len(found["not_measured"]), word=word, reason=reason, comparison=comparison,
    )  # fmt: skip


def _word(
    judged: Judged, policy: Group, found: dict[str, list[str]], comparison: Comparison | None, rejected: bool
) -> tuple[Word, str]:
    total = sum(map(len, found.values()))
    if policy.policy == "watch":
        return "PASS", f"{len(found['pass'])} of {total} pass; watched, never blocks"
    if policy.policy == "must" and found["fail"]:
        return "FAIL", f"{len(found['fail'])} of {total} must-pass cases fail: {_named(judged, found['fail'])}"
    if comparison is not None and rejected:
        return "FAIL", f"shown worse than the baseline: {comparison}: {_named(judged, comparison.worse)}"
    if found["error"]:
        return "ERROR", f"{len(found['error'])} of {total} could not be measured: {_named(judged, found['error'])}"
    if found["not_measured"]:
        return (
            "INCONCLUSIVE",
            f"{len(found['not_measured'])} of {total} not measured: {_named(judged, found['not_measured'])}",
        )
    if comparison is None:
        return "PASS", f"all {total} pass"
    if judged.baseline is not None and not comparison.paired:
        return (
            "INCONCLUSIVE",
            f"the baseline has none of its cases as they are asked now ({len(found['pass'])} of {total} pass); accept this run to take them in",
        )
    if judged.baseline is None:
        return (
            "INCONCLUSIVE",
            f"no baseline to compare with ({len(found['pass'])} of {total} pass); accept this run as the baseline",
        )
    if stats.smallest_visible_drop(comparison.baseline_passed, comparison.family) is None:
        return (
            "INCONCLUSIVE",
            f"only {comparison.baseline_passed} of {comparison.paired} paired cases passed in the baseline: too few to show a drop",
        )
    if policy.margin is not None and (comparison.possible_drop or 0) >= policy.margin:
        return (
            "INCONCLUSIVE",
            f"a drop of up to {comparison.possible_drop:.1%} is possible, the margin is {policy.margin:.1%}; more cases are needed",
        )
    return "PASS", f"not shown worse: {comparison}"


def _compare(judged: Judged, group: str, outcomes: dict[str, Outcome], family: int) -> Comparison:
    old = judged.baseline.cases if judged.baseline else {}
    judged_now = [c for c, outcome in outcomes.items() if outcome in ("pass", "fail")]
    same = [
        c
        for c in judged_now
        if c in old
        and c in judged.cases
        and old[c].prompt == judged.cases[c].prompt_hash
        and old[c].outcome in ("pass", "fail")
    ]
    worse = [c for c in same if old[c].outcome == "pass" and outcomes[c] == "fail"]
    better = [c for c in same if old[c].outcome == "fail" and outcomes[c] == "pass"]
    passed = sum(old[c].outcome == "pass" for c in same)
    margin = judged.manifest.profile.policy(group).margin
    return Comparison(
        paired=len(same), baseline_passed=passed, worse=worse, better=better,
        changed=[c for c in judged_now if c not in same] if judged.baseline else [],
        p_value=stats.mcnemar_worse(len(worse), len(better)), family=family,
        visible_drop=stats.smallest_visible_drop(passed, family),
        possible_drop=stats.largest_possible_drop(len(worse), len(same)) if margin is not None and same else None,
    )  # fmt: skip


def _named(judged: Judged, cases: list[str]) -> str:
    """The first cases with their reason, then how many more."""
    reasons = {f.case: f.reason for f in reversed(judged.findings) if f.outcome != "pass"}
    shown = "; ".join(f"{case} ({reasons.get(case, 'no reason')})" for case in cases[:3])
    return shown + (f"; and {len(cases) - 3} more" if len(cases) > 3 else "")


def _counts(judged: Judged, outcomes: dict[str, dict[str, Outcome]]) -> str:
    """What a PASS rests on."""
    expected = [case for cases in judged.manifest.expected.values() for case in cases]
    unmeasured = sum(outcomes.get(judged.cases[c].group, {}).get(c) == "not_measured" for c in expected)
    told = f"{len(expected) - unmeasured} cases asked, recorded and judged"
    return f"{told}; {unmeasured} not measured, excused or watched" if unmeasured else told


def _excused(judged: Judged, group: str, cases: dict[str, Outcome]) -> list[str]:
    """Cases of a group that were not measured and that the profile excuses, by the case's name or the group's."""
    found = [f for f in judged.findings if f.group == group and f.outcome == "not_measured"]
    never = {f.case for f in found if f.check in NEVER_EXCUSED}
    profile = judged.manifest.profile
    return [c for c, o in cases.items() if o == "not_measured" and c not in never and profile.excuse(c, group)]


def _excuses(judged: Judged, outcomes: dict[str, dict[str, Outcome]]) -> list[Excuse]:
    return [
        Excuse(id=case, reason=judged.manifest.profile.excuse(case, group) or "")
        for group, cases in outcomes.items()
        for case in _excused(judged, group, cases)
    ]
