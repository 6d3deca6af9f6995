"""The ONE rule for a group of cases: findings, policy and baseline in, a word with its reason out. A/B comparisons use it too."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from operator import attrgetter, itemgetter
from typing import Literal

from gatebook.checks import stats
from gatebook.checks.finding import NEVER_EXCUSED, WORST_FIRST, Finding, Outcome, Stage, worst
from gatebook.config.cases import Case
from gatebook.config.policies import Waiver
from gatebook.config.profile import Group, Profile
from gatebook.config.sending import asked_hash
from gatebook.errors import BadInput
from gatebook.record.exchange import Exchange
from gatebook.record.manifest import Manifest
from gatebook.verdict import golden
from gatebook.verdict.baseline import Baseline, values_asked_alike
from gatebook.verdict.causes import ACCEPT, Said
from gatebook.verdict.fingerprint import Fingerprint
from gatebook.verdict.verdict import Comparison, GroupVerdict, Served, WaiverUse, Word

COMPARED = ("no_worse", "proven_no_worse")
WORDS: dict[Outcome, Word] = {"fail": "FAIL", "error": "ERROR", "not_measured": "INCONCLUSIVE", "pass": "PASS"}
OUTCOMES = {word: outcome for outcome, word in WORDS.items()}
MEND = "mend the deployment, or waive the cases until a day (`waivers`)"
AGAIN = "run it again, or go on with `gatebook run --resume`"
FEW = "add cases, or set the group to no_worse or watch"
EXCUSE = "raise the limit that cut it, or excuse the cases by name and reason (`excused`)"
Outcomes = dict[str, dict[str, Outcome]]
"""group -> case -> outcome."""
Rule = Literal["watched", "broken", "worse", "error", "unmeasured", "unpaired", "kept", "blind", "margin", "not worse"]
BLIND = "only {than.baseline_passed} of {than.paired} paired cases passed in the baseline: too few to show a drop"
TEXTS: dict[str, tuple[Word, str, str]] = {
    "watched": ("PASS", "{passed} of {total} pass; watched, never blocks", ""),
    "broken": ("FAIL", "{count} of {total} must-pass cases fail", MEND),
    "worse": ("FAIL", "shown worse than the baseline: {than}", "mend the deployment, or accept the group by itself, with the reason (--group)"),
    "error": ("ERROR", "{count} of {total} could not be measured", AGAIN),
    "unmeasured": ("INCONCLUSIVE", "{count} of {total} not measured", EXCUSE),
    "unpaired": ("INCONCLUSIVE", "{none} ({passed} of {total} pass); accept this run to take them in{few}", ACCEPT),
    "unpaired, too few": ("INCONCLUSIVE", "only {passed} of {total} pass: too few ever to exclude a drop", FEW),
    "kept": ("PASS", "all {total} pass", ""),
    "blind": ("PASS", f"{BLIND}, so nothing is compared", ""),
    "blind, to be proven": ("INCONCLUSIVE", BLIND, FEW),
    "blind, more are new": ("INCONCLUSIVE", f"{BLIND}; accept this run to take in {{new}} more, which are new or asked differently", ACCEPT),
    "margin": ("INCONCLUSIVE", "a drop of up to {than.possible_drop:.1%} is possible, the margin is {margin:.1%}; more cases are needed", "add cases, or widen the margin"),
    "not worse": ("PASS", "not shown worse: {than}", ""),
    "golden lost": ("FAIL", "{golden}", "mend the deployment, or accept the group by itself, with the reason (--group)"),
    "golden split": ("INCONCLUSIVE", "the tokenizer splits {golden.split_names} otherwise than in the baseline, so they are not compared; {golden}", ACCEPT),
    "golden few": ("INCONCLUSIVE", "{golden}", FEW),
    "golden kept": ("PASS", "{golden}", ""),
    "excused": ("PASS", "excused: nothing of it could be measured here", ""),
    "waived": ("PASS", "nothing else was judged", ""),
    "unjudged": ("INCONCLUSIVE", "no case of the group could be judged", EXCUSE),
}  # fmt: skip
"""What holds of a group -> the verdict, the reason, what to do."""


def check_plan(profile: Profile, cases: list[Case], contract_groups: set[str]) -> None:
    """Refuse a plan that cannot be judged. Raises BadInput for a compared contract, or a group too small ever to be shown worse."""
    sizes = Counter(case.group for case in cases)
    scored = golden.groups_of(cases)
    family = compared_groups(profile, (group for group in sizes if group not in scored))
    for group in (*contract_groups, *sizes):
        policy, where = profile.policy(group).policy, f"{profile.place}, key 'groups.{group}'"
        if policy in COMPARED and group in contract_groups:
            raise BadInput(
                f"{where} has value {policy!r}: a contract is kept or broken and not compared; use must or watch"
            )
        if group in scored:
            golden.check_policy(policy, sizes[group], where)
        elif policy in COMPARED and stats.smallest_visible_drop(sizes[group], family) is None:
            raise BadInput(
                f"{where}: {policy!r} with {sizes[group]} selected cases could never be shown worse (alpha {stats.ALPHA} over "
                f"{family} compared groups); add cases, choose a larger suite, or use must or watch"
            )


def compared_groups(profile: Profile, groups: Iterable[str]) -> int:
    """Return the number of groups that are compared with the baseline: the family of Holm's correction."""
    return sum(profile.policy(group).policy in COMPARED for group in set(groups))


def outcomes_of(findings: Iterable[Finding]) -> dict[tuple[str, str], Outcome]:
    """(group, case) -> the worst of its findings, in the order of the findings."""
    grouped: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for finding in findings:
        grouped[finding.group, finding.case].append(finding.outcome)
    return {key: worst(found) for key, found in grouped.items()}


def never_excused(findings: Iterable[Finding]) -> set[tuple[str, str]]:
    """Return (group, case) of what was not asked or was cut short, which no excuse covers."""
    return {(f.group, f.case) for f in findings if f.outcome == "not_measured" and f.check in NEVER_EXCUSED}


def compare(
    before: dict[str, Outcome], now: dict[str, Outcome], policy: Group, family: int, asked_before: bool = True,
    alpha: float = stats.ALPHA,
) -> Comparison:  # fmt: skip
    """Compare a group then and now, over the cases judged in both. `before`: outcomes of those that are asked alike."""
    judged = [case for case, outcome in now.items() if outcome in ("pass", "fail")]
    same = [case for case in judged if before.get(case) in ("pass", "fail")]
    worse = [case for case in same if (before[case], now[case]) == ("pass", "fail")]
    better = [case for case in same if (before[case], now[case]) == ("fail", "pass")]
    passed = sum(before[case] == "pass" for case in same)
    return Comparison(
        paired=len(same), baseline_passed=passed, worse=worse, better=better,
        changed=[case for case in judged if before.get(case) not in ("pass", "fail")] if asked_before else [],
        p_value=stats.mcnemar_worse(len(worse), len(better)), family=family,
        visible_drop=stats.smallest_visible_drop(passed, family, alpha),
        possible_drop=stats.largest_possible_drop(len(worse), len(same)) if policy.margin and same else None,
    )  # fmt: skip


def shown(p_values: dict[str, float], family: int, alpha: float = stats.ALPHA) -> set[str]:
    """Return the groups whose p-values Holm's step-down rejects."""
    rejected = stats.holm([*p_values.values()], family, alpha)
    return {group for group, shown in zip(p_values, rejected, strict=True) if shown}


def rule(policy: Group, cases: dict[Outcome, list[str]], comparison: Comparison | None, shown_worse: bool) -> Rule:
    """What holds of a group, the first in this order. `cases`: by outcome, without those that are waived or excused.

    A verdict has no comparison of a group under `must`, whose cases must pass whatever they did before.
    """
    if policy.policy == "watch":
        return "watched"
    if policy.policy == "must" and cases["fail"]:
        return "broken"
    if shown_worse:
        return "worse"
    if cases["error"] or cases["not_measured"]:
        return "error" if cases["error"] else "unmeasured"
    if comparison is not None and not comparison.paired:
        return "unpaired"
    if comparison is None or policy.policy == "must":
        return "kept"
    if comparison.visible_drop is None:
        return "blind"
    return "margin" if policy.margin and (comparison.possible_drop or 0) >= policy.margin else "not worse"


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
    record: dict[str, list[Exchange]] = field(default_factory=dict)
    """Notebook -> its exchanges."""
    servers: list[Said] = field(default_factory=list)
    """Why it is not one server that answers."""

    @property
    def profile(self) -> Profile:
        return self.manifest.profile

    @property
    def alpha(self) -> float:
        """What the comparisons of groups may spend at this stage."""
        return stats.ALPHA * self.manifest.level_share

    def asks_alike(self, case: str) -> bool:
        """Whether the baseline has the case's outcome of the same question: of the same prompts, over a group in the same languages."""
        assert self.baseline is not None
        now, same = self.cases[case], {*(self.baseline.languages or ())} == {*(self.profile.languages or ())}
        return self.baseline.cases[case].prompt == asked_hash(self.profile.target, now) and (now.over is None or same)

    @cached_property
    def outcomes(self) -> Outcomes:
        """In the order of the profile's groups; those that it does not name stand last."""
        grouped: Outcomes = defaultdict(dict)
        for (group, case), outcome in outcomes_of(self.findings).items():
            grouped[group][case] = outcome
        rank = {group: number for number, group in enumerate(self.profile.groups)}
        return dict(sorted(grouped.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0])))

    @cached_property
    def accepted(self) -> Fingerprint:
        """The baseline's fingerprint, without the values of cases that are asked differently now."""
        prompts = {i: asked_hash(self.profile.target, case) for i, case in self.cases.items()}
        return values_asked_alike(self.baseline, prompts) if self.baseline else {}

    @cached_property
    def golden(self) -> dict[str, golden.Golden]:
        """Golden answers beside the baseline's, by group."""
        return golden.compared(self.profile, self.cases, self.accepted, self.fingerprint, self.manifest.run)

    @cached_property
    def excused(self) -> dict[tuple[str, str], str]:
        """(group, case) -> why it may be not measured here: it needs what is not offered, or the profile excuses it."""
        found, never = {}, never_excused(self.findings)
        for group, case in (
            (g, c) for g, cases in self.outcomes.items() for c, o in cases.items() if o == "not_measured"
        ):
            missing = self.profile.not_offered(*self.cases[case].needs) if case in self.cases else None
            why = f"not offered: {missing}" if missing else self.profile.excuse(case, group)
            if why and (group, case) not in never:
                found[group, case] = why
        return found


def judge_groups(judged: Judged, used: list[WaiverUse]) -> tuple[list[GroupVerdict], list[Said]]:
    """Every group's verdict, and what is said of those that are not green: in the order of the notebooks that ask them."""
    groups = [_Group(judged, name, used) for name in judged.outcomes]
    compared = [g for g in groups if g.policy.policy in COMPARED and g.name not in judged.golden]
    worse = shown({g.name: g.than.p_value for g in compared}, judged.family, judged.alpha)
    found = [group.decide(group.name in worse) for group in groups]
    notebooks = {i: case.notebook for i, case in judged.cases.items()}
    first = [min(notebooks.get(i, i.partition(".")[0]) for i in group.outcomes) for group in groups]
    said = sorted(zip(first, (said for _, said in found), strict=True), key=itemgetter(0))
    return [verdict for verdict, _ in found], [one for _, one in said if one.word != "PASS"]


class _Group:
    """One group of a run: its cases by outcome, and what of them is excused, waived and compared."""

    def __init__(self, judged: Judged, name: str, used: list[WaiverUse]) -> None:
        self.judged, self.name, self.policy = judged, name, judged.profile.policy(name)
        self.outcomes, self.excused = judged.outcomes[name], [c for group, c in judged.excused if group == name]
        failing = [case for case, outcome in self.outcomes.items() if outcome == "fail"]
        self.waived = [c for c in failing if any(c in w.cases and w.names(c, name) for w in used)]
        left = {c: had for c, had in self.outcomes.items() if c not in {*self.excused, *self.waived}}
        self.cases = {outcome: [c for c, had in left.items() if had == outcome] for outcome in WORST_FIRST}
        old, asked = judged.baseline.cases if judged.baseline else {}, judged.cases
        alike = {c: old[c].outcome for c in left if c in old and c in asked and judged.asks_alike(c)}
        self.than = compare(alike, left, self.policy, judged.family, judged.baseline is not None, judged.alpha)
        self.total, self.passed = len(left), len(self.cases["pass"])
        self.too_few = stats.smallest_visible_drop(self.passed, judged.family) is None
        """Whether a later run could not be shown worse than this one."""

    def decide(self, shown_worse: bool) -> tuple[GroupVerdict, Said]:
        scores = self.judged.golden.get(self.name)
        than = self.than if self.policy.policy in COMPARED and scores is None else None
        holds = self._holds(rule(self.policy, self.cases, than, scores.lost if scores else shown_worse))
        word, text, todo = TEXTS[holds]
        own = self.cases[OUTCOMES[word]] if holds in ("broken", "error", "unmeasured") else []
        cases = self.than.worse if holds == "worse" else own
        reason = text.format(
            count=len(cases), passed=self.passed, total=self.total, than=self.than, margin=self.policy.margin, new=len(self.than.changed),
            none="the baseline has none of its cases as they are asked now" if self.judged.baseline else "no baseline to compare with",
            golden=scores,
            few="; too few pass to show a drop, so nothing of it will be compared" if self.too_few else "",
        )  # fmt: skip
        stage, named = self._named(cases, OUTCOMES[word]) if holds != "golden lost" else (Stage.BEHAVIOUR, "")
        reason += f": {named}" if cases else ""
        reason += f"; waived: {self._named(self.waived, 'fail')[1]}" if self.waived else ""
        counts = Counter(self.outcomes.values())
        verdict = GroupVerdict(
            group=self.name, policy=self.policy.policy, passed=counts["pass"], failed=counts["fail"], error=counts["error"],
            not_measured=counts["not_measured"], word=word, reason=reason, comparison=than, blind=holds == "blind",
        )  # fmt: skip
        return verdict, Said(word, stage, self.name, f"{self.name}: {reason}", todo, frozenset(cases))

    def _holds(self, by_rule: Rule) -> str:
        """What holds, a key of TEXTS: the rule, and what it comes to for a group that may be new or small."""
        if self.total and (scores := self.judged.golden.get(self.name)) and by_rule in ("worse", "kept"):
            return _of_golden(scores)
        to_be_proven = self.policy.policy == "proven_no_worse"
        if not self.total:
            return "excused" if self.excused else "waived"
        if by_rule == "unpaired" and to_be_proven and self.too_few:
            return "unpaired, too few"
        if by_rule == "blind" and self.than.changed and not self.too_few:
            return "blind, more are new"
        if by_rule == "blind" and to_be_proven:
            return "blind, to be proven"
        if by_rule in ("kept", "not worse") and not self.passed:
            return "unjudged"
        return by_rule

    def _named(self, cases: list[str], outcome: Outcome) -> tuple[Stage | None, str]:
        """The earliest stage, and the first cases: each with the finding of this outcome that explains its others."""
        by_stage = attrgetter("stage")
        own: dict[str, list[Finding]] = defaultdict(list)
        for finding in (f for f in self.judged.findings if f.group == self.name and f.outcome == outcome):
            own[finding.case].append(finding)
        red = sorted((min(own[case], key=by_stage) for case in cases), key=by_stage)
        first = "; ".join(f"{f.case} ({f.reason})" for f in red[:3])
        return red[0].stage if red else None, first + (f"; and {len(red) - 3} more" if len(red) > 3 else "")


def _of_golden(scores: golden.Golden) -> str:
    """Return what holds of golden answers that were all scored, a key of TEXTS."""
    if scores.lost:
        return "golden lost"
    if scores.split:
        return "golden split"
    if not scores.texts:
        return "unpaired"
    return "golden kept" if scores.tested else "golden few"


def waivers(manifest: Manifest, outcomes: Outcomes) -> list[WaiverUse]:
    """Return every waiver of the profile with its state.

    Expired is one whose last day lies before the run; it blocks. Stale is one that names cases of this run which all pass,
    as a rounding may have it; it is told and blocks nothing. Of a pattern or a group it is only said by a complete run of
    the profile's own suite or of `full`, since a smaller one may lack the case that fails.
    """
    return [_use(waiver, manifest, outcomes) for waiver in manifest.profile.waivers]


def _use(waiver: Waiver, manifest: Manifest, outcomes: Outcomes) -> WaiverUse:
    asked = {case for cases in manifest.expected.values() for case in cases}
    had = [(c, o, group) for group, cases in outcomes.items() for c, o in cases.items() if c in asked]
    named = [(case, outcome) for case, outcome, group in had if waiver.names(case, group)]
    failing = list(dict.fromkeys(case for case, outcome in named if outcome == "fail"))
    whole = manifest.suite in ("full", manifest.profile.target.default_suite)
    complete = whole and not manifest.partial and not manifest.early
    state: Literal["in use", "unused", "stale", "expired"] = "unused"
    if not named:
        note = "names no case of this run"
    elif datetime.fromisoformat(manifest.created).date() > waiver.expires:
        state, note = "expired", "expired before this run; renew it with a reason, or delete it"
    elif failing:
        more = f" and {len(failing) - 3} more" if len(failing) > 3 else ""
        state, note = "in use", f"{', '.join(failing[:3])}{more} fail{'s' if len(failing) == 1 else ''}"
    elif any(outcome != "pass" for _, outcome in named):
        note = "what it names could not be judged in this run"
    elif waiver.case in asked or complete:
        state, note = "stale", "unused, every case that it names passes now; delete it when that lasts"
    else:
        note = "nothing that it names fails in this run, which has not all cases"
    return WaiverUse(**waiver.model_dump(), state=state, note=note, cases=failing if state == "in use" else [])
