"""Key information and sensitivity, in tables and pictures: now, in the baseline, and the change."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from gatebook.judge.baseline import Baseline
from gatebook.judge.bootstrap import mean_interval
from gatebook.judge.checks.facts import COVERAGE, normal
from gatebook.judge.finding import Finding
from gatebook.judge.keywords import FACTS_GROUP, answer_keywords, jaccard
from gatebook.judge.sensitivity import Task, change
from gatebook.plan.cases import Case
from gatebook.record.answer import read_answer
from gatebook.record.run import Run
from gatebook.tell.plots import OUTCOME_COLOURS, canvas
from gatebook.tell.tables import headed

NO_BASELINE = "not measured: no baseline"
NOT_IN_IT = "not measured: not in the baseline"


@dataclass(frozen=True)
class Coverage:
    """Stated / required facts of one case, in [0, 1]; None where it could not be measured."""

    case: str
    now: float | None
    before: float | None
    density: float | None
    """Facts stated per 100 characters of the answer."""

    @property
    def difference(self) -> float | None:
        return None if self.now is None or self.before is None else self.now - self.before


def coverages(run: Run, notebook: str, findings: list[Finding], baseline: Baseline | None) -> list[Coverage]:
    """The cases that ask for key information, paired with the baseline where the prompt is the same."""
    lengths = {e.case: len(normal(read_answer(e).text)) for e in run.exchanges(notebook) if e.kind == "ask"}
    found = []
    for case in _facts_cases(run, notebook):
        now = _number(next((f.measured for f in findings if f.case == case.id and f.unit == COVERAGE), None))
        old = baseline.cases.get(case.id) if baseline else None
        stated = None if now is None else now * _required(case)
        density = 100 * stated / lengths[case.id] if stated is not None and lengths.get(case.id) else None
        found.append(Coverage(case.id, now, old.measured if old and old.prompt == case.prompt_hash else None, density))
    return found


def facts_table(found: list[Coverage], run: str, compared: bool) -> pd.DataFrame:
    """One row a case, then the mean of all pairs with a 95 % interval (prompts resampled, seeded by the run's name)."""
    rows = [
        (
            c.case,
            _ratio(c.now),
            _ratio(c.before),
            _signed(c.difference),
            "" if c.density is None else f"{c.density:.1f}",
        )
        for c in found
    ]
    pairs = [(c.now or 0.0, c.before or 0.0) for c in found if c.difference is not None]
    if pairs:
        differences = [now - before for now, before in pairs]
        interval = mean_interval(differences, run)
        told = f"{fmean(differences):+.3f} " + (
            f"[{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "(every pair alike)"
        )
        means = (_ratio(fmean(now for now, _ in pairs)), _ratio(fmean(before for _, before in pairs)))
        rows.append((f"mean of {len(pairs)} pairs", *means, told, ""))
    else:
        rows.append(("mean", "", "", NOT_IN_IT if compared else NO_BASELINE, ""))
    columns = ["case", "coverage", "baseline", "difference", "facts per 100 characters"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("case"))


def drift_table(run: Run, notebook: str, baseline: Baseline | None) -> pd.DataFrame:
    """Key words of each answer and their overlap with the baseline's (Jaccard): topic and not truth, so it decides nothing."""
    now, rows = answer_keywords(run), []
    for case in _facts_cases(run, notebook):
        old = baseline.cases.get(case.id) if baseline else None
        before = baseline.keywords.get(case.id) if baseline and old and old.prompt == case.prompt_hash else None
        words = now.get(case.id, [])
        gone = [word for word in before or [] if word not in words]
        overlap = _ratio(jaccard(words, before)) if before is not None else NOT_IN_IT if baseline else NO_BASELINE
        rows.append((case.id, overlap, ", ".join(words), ", ".join(gone)))
    columns = ["case", "overlap", "key words now", "gone since the baseline"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("case"))


def sensitivity_table(found: list[Task], run: Run, compared: bool) -> pd.DataFrame:
    """One row a task: phrasings that pass, spread, PSS now and in the baseline, and the phrasing to look at first."""
    rows = [
        (
            task.name, f"{task.passed} of {len(task.judged)}", "" if task.spread is None else str(task.spread),
            _ratio(task.pss), _ratio(task.pss_before), _signed(task.change), _worst(task, run),
        )
        for task in found
    ]  # fmt: skip
    measured = [task.pss for task in found if task.pss is not None]
    moved = change(found, run.manifest.run)
    rows.append((
        "mean", f"{sum(t.passed for t in found)} of {sum(len(t.judged) for t in found)}", "", _ratio(fmean(measured)) if measured else "",
        _ratio(moved.before) if moved else "", str(moved) if moved else NOT_IN_IT if compared else NO_BASELINE, "",
    ))  # fmt: skip
    columns = ["task", "passed", "spread", "PSS", "PSS of the baseline", "change", "worst phrasing"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("task"))


def sensitivity_plot(found: list[Task]) -> Any:
    """Task by phrasing, coloured by outcome; a ring where the baseline had another outcome."""
    axes = canvas(len(found) + 2)
    for y, task in enumerate(found):
        for x, (case, outcome) in enumerate(task.outcomes.items(), 1):
            axes.scatter(x, y, s=260, marker="s", color=OUTCOME_COLOURS[outcome])
            axes.text(x, y, {"pass": "", "fail": "×"}.get(outcome, "?"), ha="center", va="center", color="white")
            if task.before.get(case, outcome) != outcome:
                axes.scatter(x, y, s=420, marker="o", facecolors="none", edgecolors="#111827", linewidths=1.5)
    axes.set_yticks(range(len(found)), [task.name for task in found])
    axes.set_xticks(range(1, max((len(task.outcomes) for task in found), default=1) + 1))
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlabel("phrasing (× fails, ? could not be judged; a ring: the baseline had another outcome)")
    return axes.figure


def facts_plot(found: list[Coverage]) -> Any:
    """Coverage of the required facts, now against the baseline."""
    axes = canvas(len(found))
    names = [c.case for c in reversed(found)]
    axes.barh(names, [c.now or 0.0 for c in reversed(found)], color="#c7d2e0", label="now")
    paired = [(n, c.before) for n, c in enumerate(reversed(found)) if c.before is not None]
    axes.scatter([x for _, x in paired], [n for n, _ in paired], marker="|", s=90, color="#b3261e", label="baseline")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("required facts stated (share)")
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return axes.figure


def _facts_cases(run: Run, notebook: str) -> list[Case]:
    return [case for case in run.expected(notebook) if case.group == FACTS_GROUP]


def _required(case: Case) -> int:
    return next((len(item["facts"].get("required", [])) for item in case.expect if "facts" in item), 0)


def _worst(task: Task, run: Run) -> str:
    if task.worst is None:
        return ""
    said = " ".join(str(run.cases[task.worst].requests()[0].messages[-1]["content"]).split())  # type: ignore[index]
    return f"{task.worst}: {said if len(said) <= 48 else said[:45] + '...'}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
