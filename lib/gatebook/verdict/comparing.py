"""Two runs, case by case: which got worse, which were mended, and whether that is shown or could be chance.

Both runs are judged by the same code, and cases are paired by id, prompt and expectations. The policies are those of the
second run's profile. One-sided exact McNemar, Holm over the compared groups, as in a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from gatebook.checks import stats
from gatebook.checks import stats as paired
from gatebook.checks.finding import NEVER_EXCUSED, Finding, Outcome, worst
from gatebook.config.cases import Case
from gatebook.config.profile import PolicyName
from gatebook.record.exchange import Exchange, Timing
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.verdict.policy import COMPARED
from gatebook.verdict.verdict import Verdict

Word = Literal["worse", "error", "cannot tell", "better", "same", "watched"]
EXIT_CODES: dict[Word, int] = {"worse": 1, "error": 75, "cannot tell": 3, "better": 0, "same": 0, "watched": 0}
PRECEDENCE: tuple[Word, ...] = ("worse", "error", "cannot tell", "better", "same")
NOT_RULES = {"why", "suites", "good", "bad", "notebook", "needs"}
"""Fields of a case that neither ask nor judge."""


@dataclass(frozen=True)
class Judged:
    """A run with the verdict that was computed from it now."""

    run: Run
    verdict: Verdict


@dataclass(frozen=True)
class Unpaired:
    """A case that one run alone can be judged by."""

    case: str
    group: str
    why: str


@dataclass(frozen=True)
class GroupDifference:
    """One group in both runs, over the pairs."""

    group: str
    policy: PolicyName
    pairs: int
    passed: tuple[int, int]
    """Of the pairs, in the first and in the second run."""
    worse: list[str]
    better: list[str]
    p_worse: float
    p_better: float
    interval: tuple[float, float] | None
    """Two-sided 95 % of the second pass rate less the first; None without pairs."""
    visible_drop: int | None
    """The fewest newly failing cases that would have been shown worse; None when no number could, and for `must`, where one is enough."""
    word: Word
    reason: str


@dataclass(frozen=True)
class LatencyDifference:
    """One latency of the answers that both runs have, in ms."""

    name: str
    pairs: int
    medians: tuple[float, float] | None
    shift: tuple[float, float, float] | None
    """Hodges-Lehmann shift with its 95 % interval; negative where the second is faster."""
    not_compared: str = ""
    """Why there is none."""


@dataclass(frozen=True)
class Difference:
    """What the second run is beside the first."""

    word: Word
    reason: str
    groups: list[GroupDifference]
    unpaired: list[Unpaired]
    latencies: list[LatencyDifference]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.word]

    @property
    def changed(self) -> list[tuple[str, str, str]]:
        """(case, group, `newly failing` or `fixed`): failures first."""
        rows = [(c, g.group, "newly failing") for g in self.groups for c in g.worse]
        return rows + [(c, g.group, "fixed") for g in self.groups for c in g.better]


def difference(first: Judged, second: Judged) -> Difference:
    """A pure function of two run folders and their verdicts."""
    before, after = _outcomes(first), _outcomes(second)
    rules = second.run.manifest.profile
    cut = [f for f in second.verdict.findings if f.outcome == "not_measured" and f.check in NEVER_EXCUSED]
    never = {(f.group, f.case) for f in cut}
    pairs: dict[str, list[str]] = {}
    unpaired: list[Unpaired] = []
    open_ends: dict[str, list[str]] = {}
    for group, case in dict.fromkeys((*after, *before)):
        old, new = before.get((group, case)), after.get((group, case))
        if why := _other(first.run.cases.get(case), second.run.cases.get(case), old, new):
            unpaired.append(Unpaired(case, group, why))
        elif old in ("pass", "fail") and new in ("pass", "fail"):
            pairs.setdefault(group, []).append(case)
        else:
            unpaired.append(Unpaired(case, group, f"{_said(old)} in the first run, {_said(new)} in the second"))
            excused = new == "not_measured" and (group, case) not in never and rules.excuse(case, group)
            if not excused and new != "pass":
                open_ends.setdefault(group, []).append(case)
    names = sorted({group for group, _ in (*before, *after)})
    policies: dict[str, PolicyName] = {g: rules.groups[g].policy if g in rules.groups else "watch" for g in names}
    family = sum(policies[g] in COMPARED for g in names)
    found = {g: _counts(g, pairs.get(g, []), before, after) for g in names}
    compared = [g for g in names if policies[g] in COMPARED]
    fell = stats.holm([stats.mcnemar_worse(len(found[g].worse), len(found[g].better)) for g in compared], family)
    rose = stats.holm([stats.mcnemar_worse(len(found[g].better), len(found[g].worse)) for g in compared], family)
    shown = {g: (down, up) for g, down, up in zip(compared, fell, rose, strict=True)}
    groups = [
        _group(second, g, policies[g], found[g], open_ends.get(g, []), family, *shown.get(g, (False, False)))
        for g in names
    ]
    word, reason = _overall(first, second, groups)
    latencies = _latencies(first.run, second.run, {u.case for u in unpaired})
    return Difference(word, reason, groups, unpaired, latencies)


@dataclass(frozen=True)
class _Counts:
    pairs: list[str]
    worse: list[str]
    better: list[str]
    both: int


def _counts(
    group: str, pairs: list[str], before: dict[tuple[str, str], Outcome], after: dict[tuple[str, str], Outcome]
) -> _Counts:
    sides = {case: (before[group, case], after[group, case]) for case in pairs}
    return _Counts(
        pairs,
        [c for c, s in sides.items() if s == ("pass", "fail")],
        [c for c, s in sides.items() if s == ("fail", "pass")],
        sum(s == ("pass", "pass") for s in sides.values()),
    )


def _outcomes(judged: Judged) -> dict[tuple[str, str], Outcome]:
    """(group, case) -> outcome, of the cases and not of the chats that open notebooks."""
    by: dict[tuple[str, str], list[Finding]] = {}
    for finding in judged.verdict.findings:
        if finding.case in judged.run.cases:
            by.setdefault((finding.group, finding.case), []).append(finding)
    return {key: worst([f.outcome for f in found]) for key, found in by.items()}


def _other(old: Case | None, new: Case | None, before: Outcome | None, after: Outcome | None) -> str:
    """Why a case is not the same in both runs; empty when it is."""
    if old is None or new is None or before is None or after is None:
        return "only in the first run" if new is None or after is None else "only in the second run"
    if old.prompt_hash != new.prompt_hash:
        return "asked differently: the prompts or options are others"
    if old.model_dump(exclude=NOT_RULES) != new.model_dump(exclude=NOT_RULES):
        return "asked alike, but something else is expected"
    return ""


def _said(outcome: Outcome | None) -> str:
    return "not there" if outcome is None else outcome.replace("_", " ")


def _group(
    second: Judged, group: str, policy: PolicyName, counts: _Counts, open_ends: list[str], family: int, worse: bool, better: bool
) -> GroupDifference:  # fmt: skip
    n, lost, won = len(counts.pairs), len(counts.worse), len(counts.better)
    before = counts.both + lost
    drop = stats.smallest_visible_drop(before, family) if policy in COMPARED else None
    word, reason = _word(second, group, policy, counts, open_ends, drop, worse, better)
    return GroupDifference(
        group=group, policy=policy, pairs=n, passed=(before, counts.both + won), worse=counts.worse, better=counts.better,
        p_worse=stats.mcnemar_worse(lost, won), p_better=stats.mcnemar_worse(won, lost),
        interval=paired.rate_difference(counts.both, lost, won, n - counts.both - lost - won) if n else None,
        visible_drop=drop, word=word, reason=reason,
    )  # fmt: skip


def _word(
    second: Judged, group: str, policy: PolicyName, counts: _Counts, open_ends: list[str], drop: int | None, worse: bool, better: bool
) -> tuple[Word, str]:  # fmt: skip
    lost, won, n = len(counts.worse), len(counts.better), len(counts.pairs)
    told = f"{lost} newly failing, {won} fixed of {n} pairs"
    if policy == "watch":
        return "watched", f"{told}; watched, never decides"
    if policy == "must" and lost:
        return "worse", f"{told}; every case of it must pass"
    if worse:
        return "worse", f"{told}: more than chance explains"
    if open_ends:
        return "cannot tell", f"{told}; {len(open_ends)} could not be judged: {', '.join(open_ends[:3])}"
    if not n:
        return "cannot tell", "no case is the same in both runs"
    if policy == "must":
        return ("better" if won else "same"), told
    if better:
        return "better", f"{told}: more than chance explains"
    if drop is None:
        return "cannot tell", f"{told}; too few passed before to show any drop"
    margin = second.run.manifest.profile.groups[group].margin
    possible = stats.largest_possible_drop(lost, n)
    if margin is not None and possible >= margin:
        return "cannot tell", f"{told}; a drop of up to {possible:.1%} is possible, the margin is {margin:.1%}"
    return "same", f"{told}; a drop of {drop} would have been shown"


def _overall(first: Judged, second: Judged, groups: list[GroupDifference]) -> tuple[Word, str]:
    said: list[tuple[Word, str]] = [(g.word, f"{g.group}: {g.reason}") for g in groups if g.word != "watched"]
    for side, judged in (("first", first), ("second", second)):
        if judged.verdict.verdict == "ERROR":
            said.append(("error", f"the {side} run could not be measured: {judged.verdict.reason}"))
    if not said:
        return "cannot tell", "the runs share no group that decides anything"
    word = min((w for w, _ in said), key=PRECEDENCE.index)
    if word == "same":
        return word, f"nothing is shown worse in {sum(g.pairs for g in groups)} pairs"
    return word, next(reason for w, reason in said if w == word)


def _latencies(first: Run, second: Run, unpaired: set[str]) -> list[LatencyDifference]:
    one, other = first.manifest.profile.limits.in_flight, second.manifest.profile.limits.in_flight
    names = ("first token", "per further token", "complete, answers of equal length")
    if one != other:
        why = f"{one} requests in flight in the first run, {other} in the second"
        return [LatencyDifference(name, 0, None, None, why) for name in names]
    both = [_timed(run, unpaired) for run in (first, second)]
    shared = both[0].keys() & both[1].keys()
    pairs = [(both[0][key], both[1][key]) for key in sorted(shared)]
    return [
        _latency(names[0], [(a.first_token_ms, b.first_token_ms) for (a, _), (b, _) in pairs]),
        _latency(names[1], [(a.itl_ms(n), b.itl_ms(m)) for (a, n), (b, m) in pairs]),
        _latency(names[2], [(a.last_token_ms, b.last_token_ms) for (a, n), (b, m) in pairs if n == m]),
    ]


def _timed(run: Run, unpaired: set[str]) -> dict[str, tuple[Timing, int | None]]:
    """Times and completion tokens of the streamed answers of the first attempt, by notebook and key."""
    return {
        f"{notebook}/{e.key}": (e.timing, read_answer(e).tokens("completion_tokens"))
        for notebook in run.notebooks
        for e in run.exchanges(notebook)
        if _counts_as_timed(e) and e.case not in unpaired and e.timing and e.timing.first_token_ms is not None and e.timing.last_token_ms is not None
    }  # fmt: skip


def _counts_as_timed(exchange: Exchange) -> bool:
    asked = exchange.kind == "ask" and exchange.case is not None
    return asked and not exchange.fault and exchange.events is not None and len(exchange.attempts) == 1


def _latency(name: str, values: Iterable[tuple[float | None, float | None]]) -> LatencyDifference:
    pairs = [(a, b) for a, b in values if a is not None and b is not None]
    if len(pairs) < paired.FEWEST_PAIRS:
        why = f"{len(pairs)} answers were timed in both runs, {paired.FEWEST_PAIRS} are needed"
        return LatencyDifference(name, len(pairs), None, None, why)
    medians = (median(a for a, _ in pairs), median(b for _, b in pairs))
    return LatencyDifference(name, len(pairs), medians, paired.shift([b - a for a, b in pairs]))
