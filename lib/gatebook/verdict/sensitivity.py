"""Prompt sensitivity: how much an answer hangs on the phrasing of a prompt, and whether it hangs on it more than before.

Source: FormatSpread (Sclar et al., arXiv 2310.11324) for the spread; ProSA (Zhuo et al., arXiv 2410.12405) for the
PromptSensiScore: the mean absolute difference of the scores of all pairs of phrasings of one task.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import fmean
from typing import Any

from gatebook.checks.finding import Finding, Outcome, worst
from gatebook.checks.stats import mean_interval
from gatebook.config.cases import Case
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.verdict.baseline import Baseline

SCORES: dict[Outcome, int] = {"pass": 1, "fail": 0}


@dataclass(frozen=True)
class Task:
    """One task in all its phrasings."""

    name: str
    outcomes: dict[str, Outcome]
    """Case id -> outcome, in the order of the phrasings."""
    before: dict[str, Outcome]
    """The same of the baseline, where the prompt was the same and both could be judged."""

    @property
    def judged(self) -> dict[str, int]:
        """Case id -> 1 (pass) or 0 (fail); what was not measured has no score."""
        return {case: SCORES[outcome] for case, outcome in self.outcomes.items() if outcome in SCORES}

    @property
    def passed(self) -> int:
        return sum(self.judged.values())

    @property
    def spread(self) -> int | None:
        """Best minus worst phrasing: 0 or 1, since each phrasing is asked once."""
        return max(self.judged.values()) - min(self.judged.values()) if self.judged else None

    @property
    def pss(self) -> float | None:
        return pss(list(self.judged.values()))

    @property
    def pss_before(self) -> float | None:
        return pss([SCORES[outcome] for outcome in self.before.values()])

    @property
    def change(self) -> float | None:
        """Change of the PSS over the phrasings that are in both; above 0 is more sensitive than the baseline."""
        now, before = pss([self.judged[case] for case in self.before]), self.pss_before
        return None if now is None or before is None else now - before

    @property
    def worst(self) -> str | None:
        """The phrasing to look at first: one that passed in the baseline and fails now, else the first that fails."""
        failing = [case for case, score in self.judged.items() if not score]
        return next((case for case in failing if self.before.get(case) == "pass"), failing[0] if failing else None)


@dataclass(frozen=True)
class Change:
    """Mean PSS now and in the baseline, over the tasks that are in both."""

    tasks: int
    now: float
    before: float
    upper: float | None
    """Upper 95 % bound of the change (one-sided), tasks resampled; None where all changes are equal."""

    @property
    def difference(self) -> float:
        return self.now - self.before

    def __str__(self) -> str:
        if self.upper is None:
            return f"{self.difference:+.3f} ({'no task' if not self.difference else 'each task alike'} of {self.tasks} changed)"
        return f"{self.difference:+.3f} (upper 95 % bound {self.upper:+.3f}, {self.tasks} tasks)"


def pss(scores: list[int]) -> float | None:
    """Mean of |s_a - s_b| over all pairs of phrasings, in [0, 1]; None for fewer than two."""
    return fmean(abs(a - b) for a, b in combinations(scores, 2)) if len(scores) > 1 else None


def tasks(cases: list[Case], findings: list[Finding], baseline: Baseline | None) -> list[Task]:
    """The tasks among the cases with tags `task` and `phrasing`, each with its phrasings in their order."""
    grouped: dict[str, list[Case]] = {}
    for case in sorted((c for c in cases if "phrasing" in c.tags), key=lambda c: int(c.tags["phrasing"])):
        grouped.setdefault(str(case.tags.get("task", case.group)), []).append(case)
    return [_task(name, found, findings, baseline) for name, found in grouped.items()]


def change(found: list[Task], run: str) -> Change | None:
    """Paired by task against the baseline; None when there is nothing to compare with. `run` seeds the resampling."""
    paired = [(task, difference) for task in found if (difference := task.change) is not None]
    if not paired:
        return None
    before = fmean(task.pss_before or 0.0 for task, _ in paired)
    differences = [difference for _, difference in paired]
    interval = mean_interval(differences, run, confidence=0.90)  # its upper end is the one-sided 95 % bound
    return Change(len(paired), before + fmean(differences), before, interval[1] if interval else None)


def _task(name: str, cases: list[Case], findings: list[Finding], baseline: Baseline | None) -> Task:
    outcomes = {
        case.id: worst([f.outcome for f in findings if f.case == case.id and f.group == case.group]) for case in cases
    }
    old = baseline.cases if baseline else {}
    before = {
        case.id: old[case.id].outcome
        for case in cases
        if case.id in old
        and old[case.id].prompt == case.prompt_hash
        and old[case.id].outcome in SCORES
        and outcomes[case.id] in SCORES
    }
    return Task(name, outcomes, before)


TOP = 10
FACTS_GROUP = "fingerprint.facts"
IDENTIFIER = re.compile(r"([A-Za-z0-9_]+(?:[._:/+#-]+[A-Za-z0-9_]+)*)")
"""What segmentation would tear apart: calculate_score, v2.4.1, 08:42, east-2."""


def keywords(text: str) -> list[str]:
    """The ten words with the highest TF-IDF (jieba's corpus), best first, in lower case; identifiers and numbers stay whole."""
    return [str(word) for word in _extractor().extract_tags(text.casefold(), topK=TOP)]


def jaccard(one: list[str], other: list[str]) -> float | None:
    """Words in both over words in either, in [0, 1]; None when neither has any."""
    either = set(one) | set(other)
    return len(set(one) & set(other)) / len(either) if either else None


def answer_keywords(run: Run) -> dict[str, list[str]]:
    """Case id -> key words of its answer, for the cases that ask for key information."""
    keys = {f"{c.id}/{c.requests()[0].name}": c for c in run.cases.values() if c.group == FACTS_GROUP}
    notebooks = sorted({case.notebook for case in keys.values()} & set(run.notebooks))
    replies = (e for notebook in notebooks for e in run.exchanges(notebook) if e.key in keys and not e.fault)
    return {keys[e.key].id: keywords(text) for e in replies if (text := read_answer(e).text)}


class _Whole:
    """jieba's segmentation of what lies between identifiers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def cut(self, text: str) -> Iterator[str]:
        for number, piece in enumerate(IDENTIFIER.split(text)):
            if number % 2:
                yield piece
            else:
                yield from self._tokenizer.cut(piece)


@cache
def _extractor() -> Any:
    """jieba loads its dictionary in a second and warns of unclosed files, old escapes and pkg_resources while it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba.analyse

        jieba.setLogLevel("ERROR")
        jieba.initialize()
        extractor = jieba.analyse.TFIDF()
    extractor.tokenizer = _Whole(jieba.dt)
    return extractor
