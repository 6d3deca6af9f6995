"""Two runs, case by case: which got worse, which were mended, and whether that is shown or could be chance.

Both runs are judged by the same code, and cases are paired by id, prompt and expectations. The rule is that of a verdict, with
the policies of the second run's profile and the first run in the place of the baseline.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from gatebook.checks import stats
from gatebook.checks.finding import Outcome
from gatebook.config.profile import Group, PolicyName
from gatebook.record.exchange import Timing
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.verdict import golden
from gatebook.verdict.golden import Golden
from gatebook.verdict.policy import COMPARED, Rule, compare, never_excused, outcomes_of, rule, shown
from gatebook.verdict.verdict import Comparison, Verdict

Word = Literal["worse", "error", "cannot tell", "better", "same", "watched"]
EXIT_CODES: dict[Word, int] = {"worse": 1, "error": 75, "cannot tell": 3, "better": 0, "same": 0, "watched": 0}
"""What decides first stands first."""
NOT_RULES: dict[str, Any] = {
    **dict.fromkeys(("why", "suites", "tags", "good", "bad", "notebook", "needs", "raw", "drawn"), True),
    "asks": {"__all__": {"language"}},
}
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
    comparison: Comparison
    word: Word
    reason: str

    @property
    def passed(self) -> tuple[int, int]:
        """Of the pairs, in the first and in the second run."""
        before = self.comparison.baseline_passed
        return before, before - len(self.comparison.worse) + len(self.comparison.better)


@dataclass(frozen=True)
class LatencyDifference:
    """One latency of the answers that both runs have, in ms."""

    name: str
    pairs: int
    medians: tuple[float, float] | None = None
    shift: tuple[float, float, float] | None = None
    """Hodges-Lehmann shift with its 95 % interval; negative where the second is faster."""
    not_compared: str = ""
    """Why there is none."""


@dataclass(frozen=True)
class Difference:
    """How the second run differs from the first."""

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
        rows = [(c, g.group, "newly failing") for g in self.groups for c in g.comparison.worse]
        return rows + [(c, g.group, "fixed") for g in self.groups for c in g.comparison.better]


def difference(first: Judged, second: Judged) -> Difference:
    """Compare two runs and their verdicts, without asking anything."""
    # of the cases and not of the chats that open notebooks
    before, after = (outcomes_of(f for f in s.verdict.findings if f.case in s.run.cases) for s in (first, second))
    rules, never = second.run.manifest.profile, never_excused(second.verdict.findings)
    alike = len({frozenset(s.run.manifest.profile.languages or ()) for s in (first, second)}) == 1
    then: dict[str, dict[str, Outcome]] = {group: {} for group, _ in sorted((*before, *after))}
    now: dict[str, dict[str, Outcome]] = defaultdict(dict)
    unjudged: dict[str, list[str]] = defaultdict(list)
    unpaired: list[Unpaired] = []
    for key in dict.fromkeys((*after, *before)):
        group, case = key
        old, new = before.get(key), after.get(key)
        if why := _other(first.run, second.run, case, old, new, alike):
            unpaired.append(Unpaired(case, group, why))
        elif old in ("pass", "fail") and new in ("pass", "fail"):
            then[group][case], now[group][case] = old, new
        else:
            a, b = ((outcome or "not there").replace("_", " ") for outcome in (old, new))
            unpaired.append(Unpaired(case, group, f"{a} in the first run, {b} in the second"))
            lacks = rules.not_offered(*second.run.cases[case].needs) if case in second.run.cases else None
            excused = new == "not_measured" and key not in never and (lacks or rules.excuse(case, group))
            if not excused and new != "pass":
                unjudged[group].append(case)
    policies = {group: rules.policy(group) for group in then}
    olds, prints = first.run.cases, (first.verdict.fingerprint, second.verdict.fingerprint)
    asked = {i: c for i, c in second.run.cases.items() if i in olds and olds[i].prompt_hash == c.prompt_hash}
    scores = golden.compared(rules, asked, *prints, second.run.manifest.run)
    compared = [group for group in then if policies[group].policy in COMPARED and group not in scores]
    found = {group: compare(then[group], now[group], policies[group], len(compared)) for group in then}
    fell = shown({g: found[g].p_value for g in compared}, len(compared))
    chances = {g: stats.mcnemar_worse(len(found[g].better), len(found[g].worse)) for g in compared}
    rose = shown(chances, len(compared))
    groups = []
    for g, c in found.items():
        word = _word(policies[g], c, unjudged[g], g in fell, g in rose, scores.get(g))
        groups.append(GroupDifference(g, policies[g].policy, c, *word))
    latencies = _latencies(first.run, second.run, {u.case for u in unpaired})
    return Difference(*_overall(first, second, groups), groups, unpaired, latencies)


def _other(first: Run, second: Run, case: str, before: Outcome | None, after: Outcome | None, alike: bool) -> str:
    """Return why a case is not the same in both runs; empty when it is. `alike`: both profiles name the same languages."""
    old, new = first.cases.get(case), second.cases.get(case)
    if old is None or new is None or before is None or after is None:
        return "only in the first run" if new is None or after is None else "only in the second run"
    if old.over and not alike:
        return "judged over cases of other languages"
    if first.asked(case) != second.asked(case):
        return "asked differently: the prompts or options are others"
    if old.model_dump(exclude=NOT_RULES) != new.model_dump(exclude=NOT_RULES):
        return "asked alike, but something else is expected"
    return ""


def _of_golden(policy: Group, scores: Golden, unjudged: list[str]) -> tuple[Word, str]:
    if policy.policy == "watch":
        return "watched", f"{scores}; watched, never decides"
    if scores.lost:
        return "worse", str(scores)
    if unjudged or scores.split or not scores.tested:
        return "cannot tell", f"{scores}; {len(unjudged)} could not be judged, {len(scores.split)} are split otherwise"
    return "same", str(scores)


def _word(
    policy: Group, than: Comparison, unjudged: list[str], fell: bool, rose: bool, scores: Golden | None = None
) -> tuple[Word, str]:
    """Apply the rule of verdicts to a group, in the words of a comparison; a newly failing case counts as a fail."""
    if scores is not None:
        return _of_golden(policy, scores, unjudged)
    holds = rule(policy, {"fail": than.worse, "error": [], "not_measured": unjudged}, than, fell)
    told = f"{len(than.worse)} newly failing, {len(than.better)} fixed of {than.paired} pairs"
    if rose and holds in ("blind", "margin", "not worse"):
        return "better", f"{told}: more than chance explains"
    words: dict[Rule, tuple[Word, str]] = {
        "watched": ("watched", f"{told}; watched, never decides"),
        "broken": ("worse", f"{told}; every case of it must pass"),
        "worse": ("worse", f"{told}: more than chance explains"),
        "unmeasured": ("cannot tell", f"{told}; {len(unjudged)} could not be judged: {', '.join(unjudged[:3])}"),
        "unpaired": ("cannot tell", "no case is the same in both runs"),
        "kept": ("better" if than.better else "same", told),
        "blind": ("cannot tell", f"{told}; too few passed before to show any drop"),
        "margin": ("cannot tell", f"{told}; a drop of up to {than.possible_drop or 0:.1%} is possible, the margin is {policy.margin or 0:.1%}"),
        "not worse": ("same", f"{told}; a drop of {than.visible_drop} would have been shown"),
    }  # fmt: skip
    return words[holds]


def _overall(first: Judged, second: Judged, groups: list[GroupDifference]) -> tuple[Word, str]:
    said: list[tuple[Word, str]] = [(g.word, f"{g.group}: {g.reason}") for g in groups if g.word != "watched"]
    for side, verdict in (("first", first.verdict), ("second", second.verdict)):
        if verdict.verdict == "ERROR":
            said.append(("error", f"the {side} run could not be measured: {verdict.reason}"))
    if not said:
        return "cannot tell", "the runs share no group that decides anything"
    word, reason = min(said, key=lambda one: [*EXIT_CODES].index(one[0]))
    pairs = sum(group.comparison.paired for group in groups)
    return word, f"nothing is shown worse in {pairs} pairs" if word == "same" else reason


def _latencies(first: Run, second: Run, unpaired: set[str]) -> list[LatencyDifference]:
    one, other = (run.manifest.profile.in_flight(run.manifest.suite) for run in (first, second))
    names = ("first token", "per further token", "complete, answers of equal length")
    if one != other:
        why = f"{one} requests in flight in the first run, {other} in the second"
        return [LatencyDifference(name, 0, not_compared=why) for name in names]
    before, after = _timed(first, unpaired), _timed(second, unpaired)
    pairs = [(*before[key], *after[key]) for key in sorted(before.keys() & after.keys())]
    return [
        _latency(names[0], ((a.first_token_ms, b.first_token_ms) for a, _, b, _ in pairs)),
        _latency(names[1], ((a.itl_ms(n), b.itl_ms(m)) for a, n, b, m in pairs)),
        _latency(names[2], ((a.last_token_ms, b.last_token_ms) for a, n, b, m in pairs if n == m)),
    ]


def _timed(run: Run, unpaired: set[str]) -> dict[str, tuple[Timing, int | None]]:
    """Return timing and completion tokens of answers streamed at the first attempt, by notebook and key."""
    asked = {f"{name}/{e.key}": e for name in run.notebooks for e in run.exchanges(name) if e.kind == "ask" and e.case}
    once = {key: e for key, e in asked.items() if e.case not in unpaired and not e.fault and len(e.attempts) == 1}
    return {
        key: (e.timing, read_answer(e).tokens("completion_tokens"))
        for key, e in once.items()
        if e.events is not None and e.timing and None not in (e.timing.first_token_ms, e.timing.last_token_ms)
    }


def _latency(name: str, values: Iterable[tuple[float | None, float | None]]) -> LatencyDifference:
    pairs = [(a, b) for a, b in values if a is not None and b is not None]
    if len(pairs) < stats.FEWEST_PAIRS:
        why = f"{len(pairs)} answers were timed in both runs, {stats.FEWEST_PAIRS} are needed"
        return LatencyDifference(name, len(pairs), not_compared=why)
    medians = median(a for a, _ in pairs), median(b for _, b in pairs)
    return LatencyDifference(name, len(pairs), medians, stats.shift([b - a for a, b in pairs]))
