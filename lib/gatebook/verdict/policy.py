"""The ONE rule: findings, policies and baseline in, verdict out. Every report and the exit code come from here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from gatebook.checks import stats
from gatebook.checks.finding import NEVER_EXCUSED, Finding, Outcome, Stage, worst
from gatebook.config.cases import Case
from gatebook.config.policies import Waiver
from gatebook.config.profile import Group, Profile
from gatebook.errors import BadInput
from gatebook.record.run import Manifest
from gatebook.verdict.baseline import Baseline, values_asked_alike
from gatebook.verdict.causes import ACCEPT, Said, causes, flat
from gatebook.verdict.fingerprint import Change, Fingerprint, changes, measured, noted
from gatebook.verdict.verdict import EXIT_CODES, Comparison, Excuse, GroupVerdict, Served, Verdict, WaiverUse, Word

COMPARED = ("no_worse", "proven_no_worse")
WORDS: dict[Outcome, Word] = {"fail": "FAIL", "error": "ERROR", "not_measured": "INCONCLUSIVE", "pass": "PASS"}
MEND = "mend the deployment, or waive the cases until a day (`waivers`)"
AGAIN = "run it again, or go on with `gatebook run --resume`"
FEW = "add cases, or set the group to no_worse or watch"
EXCUSE = "raise the limit that cut it, or excuse the cases by name and reason (`excused`)"


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
    alone: bool = False
    """One notebook of the run, which is not asked for what only the whole run has."""
    behind_s: float = 0.0
    """How far the server's clock is behind ours, where they disagree."""


def decide(judged: Judged) -> Verdict:
    """Fold everything into one verdict; the first of FAIL, ERROR, INCONCLUSIVE, PASS that holds."""
    profile = judged.manifest.profile
    outcomes = _outcomes(judged.findings, profile)
    moved = _moved(judged)
    used = waivers(judged.manifest, outcomes)
    groups = _groups(judged, outcomes, used)
    said = [Said("ERROR", None, "this run", text, "mend what broke on our side; " + AGAIN) for text in judged.troubles]
    said += _missing(judged) + _unasked(judged)
    if judged.baseline and judged.baseline.revision == profile.target.revision:
        said += _under_one_revision(moved, profile.target.revision or "none named")
    said += [
        Said(
            "INCONCLUSIVE",
            None,
            f"waiver of {w.case}",
            f"waiver of {w}",
            "renew the waiver with a reason, or delete it",
        )
        for w in used
        if w.blocks
    ]
    said += [item for _, item in sorted(groups, key=lambda decided: _notebook(judged, decided[0])) if item]
    said += _without_baseline(judged)
    found = causes(said)
    word: Word = found[0].word if found else "PASS"
    return Verdict(
        run=judged.manifest.run, profile=profile.name, suite=judged.manifest.suite, partial=judged.manifest.partial,
        served=judged.served, verdict=word, exit_code=EXIT_CODES[word],
        reason=found[0].text if found else _counts(judged, outcomes), reasons=flat(found), causes=found,
        notes=_notes(judged, [group for group, _ in groups]),
        groups=[group for group, _ in groups], findings=judged.findings, excused=_excuses(judged, outcomes), waivers=used,
        baseline=judged.baseline.run if judged.baseline else None,
        needs_baseline=word == "INCONCLUSIVE" and all(one.todo == ACCEPT for one in said),
        fingerprint=judged.fingerprint, changes=moved, troubles=judged.troubles,
    )  # fmt: skip


def check_plan(profile: Profile, cases: Iterable[Case], contract_groups: set[str]) -> None:
    """Refuse a plan that cannot be judged. Raises BadInput for a compared contract, or a group too small ever to be shown worse."""
    sizes: dict[str, int] = defaultdict(int)
    for case in cases:
        sizes[case.group] += 1
    for group in contract_groups:
        if profile.policy(group).policy in COMPARED:
            raise BadInput(
                f"profile {profile.name!r}, key 'groups.{group}' has value {profile.policy(group).policy!r}: a contract is kept or "
                "broken and not compared; use must or watch"
            )
    family = compared_groups(profile, sizes)
    for group, size in sizes.items():
        if profile.policy(group).policy in COMPARED and stats.smallest_visible_drop(size, family) is None:
            raise BadInput(
                f"profile {profile.name!r}, key 'groups.{group}': {profile.policy(group).policy!r} with {size} selected cases could never be "
                f"shown worse (alpha {stats.ALPHA} over {family} compared groups); add cases, choose a larger suite, or use must or watch"
            )


def compared_groups(profile: Profile, groups: Iterable[str]) -> int:
    """How many of the groups are compared with the baseline: the family of Holm's correction."""
    return sum(profile.policy(group).policy in COMPARED for group in set(groups))


def _moved(judged: Judged) -> list[Change]:
    """What is not as it was accepted. Of a model that is not served nothing is compared with what was served then."""
    if judged.baseline is None:
        return []
    tolerance = judged.manifest.profile.limits.logprob_tolerance_nats
    old = values_asked_alike(judged.baseline, {i: case.prompt_hash for i, case in judged.cases.items()})
    if any(f.outcome == "fail" and f.stage == Stage.NOT_SERVED for f in judged.findings):
        old = {name: value for name, value in old.items() if name != "model"}
    return changes(old, judged.fingerprint, tolerance, judged.manifest.run)


def _under_one_revision(moved: list[Change], revision: str) -> list[Said]:
    """One line a part of the deployment, with the first value that shows it."""
    parts: dict[str, list[Change]] = {}
    for change in moved:
        parts.setdefault(change.part, []).append(change)
    return [
        Said(
            "FAIL", found[0].stage, part.rstrip(","),
            f"{found[0]}{f' (and {len(found) - 1} more values)' if len(found) > 1 else ''}, under the same revision ({revision}); "
            "a new one is told with --revision",
            "find out who changed it, or name the new revision (--revision)",
            frozenset(case for change in found for case in change.cases), tuple(change.name for change in found),
        )
        for part, found in parts.items()
    ]  # fmt: skip


def _without_baseline(judged: Judged) -> list[Said]:
    """A complete run is green only beside what was accepted: of the fingerprint's values at least some of each kind."""
    if judged.alone or judged.manifest.partial or not judged.findings:
        return []
    if judged.baseline is None:
        text = "no baseline yet: nothing was accepted that this run could be compared with; accept it as the baseline"
        return [Said("INCONCLUSIVE", None, "baseline", text, ACCEPT)]
    old = values_asked_alike(judged.baseline, {i: case.prompt_hash for i, case in judged.cases.items()})
    lacking = measured(judged.fingerprint) - measured(old)
    if not lacking:
        return []
    text = f"fingerprint: the baseline has no {' and no '.join(sorted(lacking))} as they are asked now; accept this run to take them in"
    return [Said("INCONCLUSIVE", None, "fingerprint", text, ACCEPT)]


def _notes(judged: Judged, groups: list[GroupVerdict]) -> list[str]:
    """What stands beside every verdict and never blocks."""
    profile, notes = judged.manifest.profile, []
    if unnamed := [g.group for g in groups if g.group not in profile.groups and g.group != "contract"]:
        loud = "; NO CONTRACT IS HELD in them" if any(g.endswith(".contract") for g in unnamed) else ""
        notes.append(
            f"the profile is older than {', '.join(unnamed)}: watched, they never block{loud}; "
            f"add under `groups` of {profile.name}: {', '.join(f'{g}: must' for g in unnamed)} (or no_worse, or watch)"
        )
    if blind := [g for g in groups if g.blind]:
        told = ", ".join(
            f"{g.group} ({g.comparison.baseline_passed} of {g.comparison.paired})" for g in blind if g.comparison
        )
        notes.append(f"nothing is compared where too few cases passed in the baseline to show a drop: {told}")
    if judged.behind_s:
        which = "behind" if judged.behind_s > 0 else "ahead of"
        notes.append(
            f"the server's clock is {abs(judged.behind_s):,.0f} s {which} ours by what its replies tell; set this machine's clock "
            "if it is the wrong one. The freshest reply is the measure of what came from a cache"
        )
    if not judged.alone:
        lacks: dict[str, list[str]] = {}
        for feature, said in profile.offers.items():
            if said is not True:
                lacks.setdefault(said, []).append(feature)
        if lacks:
            told = "; ".join(f"{', '.join(features)} ({said})" for said, features in lacks.items())
            notes.append(f"not offered by this server, so not asked: {told}")
        if judged.baseline:
            notes += noted(judged.baseline.fingerprint, judged.fingerprint)
    return notes


def _outcomes(findings: list[Finding], profile: Profile) -> dict[str, dict[str, Outcome]]:
    """group -> case -> outcome, in the order of the profile's groups; those that it does not name stand last."""
    grouped: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for finding in findings:
        grouped[finding.group][finding.case].append(finding.outcome)
    order = {group: number for number, group in enumerate(profile.groups)}
    return {
        group: {case: worst(found) for case, found in grouped[group].items()}
        for group in sorted(grouped, key=lambda group: (order.get(group, len(order)), group))
    }


def _notebook(judged: Judged, decided: GroupVerdict) -> str:
    """The first notebook that asks cases of the group: of one stage, what was asked first is said first."""
    ids = [finding.case for finding in judged.findings if finding.group == decided.group]
    return min((judged.cases[i].notebook if i in judged.cases else i.partition(".")[0] for i in ids), default="")


def _missing(judged: Judged) -> list[Said]:
    have = {finding.case for finding in judged.findings}
    lost = [i for ids in judged.manifest.expected.values() for i in ids if i not in have]
    if not any(judged.manifest.expected.values()):
        return [Said("ERROR", None, "this run", "no case was expected, so nothing was judged", "select some cases")]
    text = f"{len(lost)} expected cases were not judged: {', '.join(lost[:5])}"
    return [Said("ERROR", None, "this run", text, AGAIN)] if lost else []


def _unasked(judged: Judged) -> list[Said]:
    """What no policy may look away from, not even `watch`: a server that was not ready, a case without an answer or a record."""
    return [
        Said(
            WORDS[f.outcome], f.stage, f.case, f"{f.case}: {f.reason}",
            {"fail": MEND, "error": AGAIN}.get(f.outcome, EXCUSE), frozenset([f.case]),
        )
        for f in judged.findings
        if judged.manifest.profile.policy(f.group).policy == "watch"
        and (
            f.outcome == "error"
            or (f.outcome != "pass" and f.check in ("ready", "recorded"))
            or (f.outcome == "not_measured" and f.check in NEVER_EXCUSED)
        )
    ]  # fmt: skip


Decided = tuple[GroupVerdict, Said | None]


def _groups(judged: Judged, outcomes: dict[str, dict[str, Outcome]], used: list[WaiverUse]) -> list[Decided]:
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
) -> Decided:
    policy = judged.manifest.profile.policy(group)
    excused = _excused(judged, group, cases)
    found = {o: [c for c, outcome in cases.items() if outcome == o] for o in ("pass", "fail", "error", "not_measured")}
    counted = {
        **found,
        "fail": [c for c in found["fail"] if c not in waived],
        "not_measured": [c for c in found["not_measured"] if c not in excused],
    }
    ruling = _ruling(judged, group, policy, counted, comparison, rejected)
    if set(cases) == {*excused, *waived}:
        text = "excused: nothing of it could be measured here" if excused else "nothing else was judged"
        ruling = _Ruling("PASS", text)
    elif ruling.word == "PASS" and not found["pass"] and policy.policy != "watch" and not ruling.blind:
        ruling = _Ruling("INCONCLUSIVE", "no case of the group could be judged", EXCUSE)
    reason = ruling.reason + (f"; waived: {_named(judged, group, waived, 'fail')}" if waived else "")
    verdict = GroupVerdict(
        group=group, policy=policy.policy, passed=len(found["pass"]), failed=len(found["fail"]), error=len(found["error"]),
        not_measured=len(found["not_measured"]), word=ruling.word, reason=reason, comparison=comparison, blind=ruling.blind,
    )  # fmt: skip
    if ruling.word == "PASS":
        return verdict, None
    stage = min((_red(judged, group, c, ruling.outcome).stage for c in ruling.cases), default=None)
    return verdict, Said(ruling.word, stage, group, f"{group}: {reason}", ruling.todo, frozenset(ruling.cases))


@dataclass(frozen=True)
class _Ruling:
    """What the policy says of one group, and the cases that made it say so."""

    word: Word
    reason: str
    todo: str = ""
    cases: tuple[str, ...] = ()
    outcome: Outcome = "fail"
    blind: bool = False


def _ruling(
    judged: Judged,
    group: str,
    policy: Group,
    found: dict[str, list[str]],
    comparison: Comparison | None,
    rejected: bool,
) -> _Ruling:
    total = sum(map(len, found.values()))

    def bad(word: Word, said: str, todo: str, cases: list[str], outcome: Outcome) -> _Ruling:
        named = f"{said}: {_named(judged, group, cases, outcome)}"
        return _Ruling(word, named, todo, tuple(cases), outcome)

    if policy.policy == "watch":
        return _Ruling("PASS", f"{len(found['pass'])} of {total} pass; watched, never blocks")
    if policy.policy == "must" and found["fail"]:
        said = f"{len(found['fail'])} of {total} must-pass cases fail"
        return bad("FAIL", said, MEND, found["fail"], "fail")
    if comparison is not None and rejected:
        todo = "mend the deployment, or accept the group by itself, with the reason (--group)"
        return bad("FAIL", f"shown worse than the baseline: {comparison}", todo, comparison.worse, "fail")
    if found["error"]:
        return bad("ERROR", f"{len(found['error'])} of {total} could not be measured", AGAIN, found["error"], "error")
    if found["not_measured"]:
        said = f"{len(found['not_measured'])} of {total} not measured"
        return bad("INCONCLUSIVE", said, EXCUSE, found["not_measured"], "not_measured")
    if comparison is None:
        return _Ruling("PASS", f"all {total} pass")
    return _compared(judged, policy, comparison, len(found["pass"]), total)


def _compared(judged: Judged, policy: Group, comparison: Comparison, passed: int, total: int) -> _Ruling:
    """A compared group whose cases were all judged, and that is not shown worse."""

    def blind(count: int) -> bool:
        return stats.smallest_visible_drop(count, comparison.family) is None

    if not comparison.paired:
        if policy.policy == "proven_no_worse" and blind(passed):
            return _Ruling("INCONCLUSIVE", f"only {passed} of {total} pass: too few ever to exclude a drop", FEW)
        few = "; too few pass to show a drop, so nothing of it will be compared" if blind(passed) else ""
        told = (
            "the baseline has none of its cases as they are asked now"
            if judged.baseline
            else "no baseline to compare with"
        )
        return _Ruling(
            "INCONCLUSIVE", f"{told} ({passed} of {total} pass); accept this run to take them in{few}", ACCEPT
        )
    if blind(comparison.baseline_passed):
        few = f"only {comparison.baseline_passed} of {comparison.paired} paired cases passed in the baseline: too few to show a drop"
        if comparison.changed and not blind(passed):
            more = f"accept this run to take in {len(comparison.changed)} more, which are new or asked differently"
            return _Ruling("INCONCLUSIVE", f"{few}; {more}", ACCEPT)
        if policy.policy == "no_worse":
            return _Ruling("PASS", f"{few}, so nothing is compared", blind=True)
        return _Ruling("INCONCLUSIVE", few, FEW)
    if policy.margin is not None and (comparison.possible_drop or 0) >= policy.margin:
        said = f"a drop of up to {comparison.possible_drop:.1%} is possible, the margin is {policy.margin:.1%}; more cases are needed"
        return _Ruling("INCONCLUSIVE", said, "add cases, or widen the margin")
    return _Ruling("PASS", f"not shown worse: {comparison}")


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


def _named(judged: Judged, group: str, cases: list[str], outcome: Outcome) -> str:
    """The first cases with the group's own reason, causes before what follows from them; then how many more."""
    red = sorted((_red(judged, group, case, outcome) for case in cases), key=lambda f: f.stage)
    shown = "; ".join(f"{f.case} ({f.reason})" for f in red[:3])
    return shown + (f"; and {len(cases) - 3} more" if len(cases) > 3 else "")


def _red(judged: Judged, group: str, case: str, outcome: Outcome) -> Finding:
    """What of a case's findings in a group explains the others; the first of several."""
    found = [f for f in judged.findings if (f.case, f.group, f.outcome) == (case, group, outcome)]
    return min(found, key=lambda f: f.stage)


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
    return [c for c, o in cases.items() if o == "not_measured" and c not in never and _why_not(judged, c, group)]


def _why_not(judged: Judged, case: str, group: str) -> str | None:
    """Why a case may be not measured here: it needs what is not offered, or the profile excuses it."""
    profile = judged.manifest.profile
    missing = profile.not_offered(*judged.cases[case].needs) if case in judged.cases else None
    return f"not offered: {missing}" if missing else profile.excuse(case, group)


def _excuses(judged: Judged, outcomes: dict[str, dict[str, Outcome]]) -> list[Excuse]:
    return [
        Excuse(id=case, reason=_why_not(judged, case, group) or "")
        for group, cases in outcomes.items()
        for case in _excused(judged, group, cases)
    ]


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
