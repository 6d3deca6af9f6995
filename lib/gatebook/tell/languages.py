"""What 03_multilingual shows: properties by language, the instructions in the material, and how good the detector is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from gatebook.judge import language
from gatebook.judge.finding import Finding, worst
from gatebook.judge.language import LANGUAGES, Told, tell
from gatebook.judge.stats import wilson
from gatebook.plan.cases import Case
from gatebook.plan.strict import read_yaml
from gatebook.record.run import Run
from gatebook.tell.plots import canvas
from gatebook.tell.tables import headed


def language_of(case: Case) -> str:
    """The language that a case counts under, by its tag; `other` where it has none."""
    return str(case.tags.get("language", "other"))


def languages_table(run: Run, notebook: str, findings: list[Finding]) -> pd.DataFrame:
    """Group x language, each cell `passed/asked`; empty where nothing was asked."""
    cases = run.expected(notebook)
    columns = [name for name in (*LANGUAGES, "other") if any(language_of(case) == name for case in cases)]
    rows = {}
    for group in dict.fromkeys(case.group for case in cases):
        own = [case for case in cases if case.group == group]
        asked = Counter(language_of(case) for case in own)
        passed = Counter(language_of(case) for case in own if _outcome(case.id, group, findings) == "pass")
        cells = {name: f"{passed[name]}/{asked[name]}" if asked[name] else "" for name in columns}
        rows[group] = {**cells, "all": f"{passed.total()}/{asked.total()}"}
    return headed(pd.DataFrame.from_dict(rows, orient="index").rename_axis("group"))


def _outcome(case: str, group: str, findings: list[Finding]) -> str:
    return worst([f.outcome for f in findings if f.case == case and f.group == group])


def languages_plot(table: pd.DataFrame) -> Any:
    """The table as a heat map: share of cases passed, in [0, 1]; grey where nothing was asked."""
    shares = table.map(_share_of).astype(float)
    axes = canvas(len(table) * 2)
    image = axes.imshow(shares, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto", alpha=0.75)
    axes.set_facecolor("#e5e7eb")
    axes.set_xticks(range(len(table.columns)), table.columns)
    axes.set_yticks(range(len(table)), table.index)
    for y, group in enumerate(table.index):
        for x, name in enumerate(table.columns):
            axes.text(x, y, table.loc[group, name], ha="center", va="center", color="#111827")
    axes.figure.colorbar(image, ax=axes, label="share of cases")
    return axes.figure


def _share_of(cell: str) -> float | None:
    """`3/4` as 0.75; None for an empty cell."""
    passed, _, asked = cell.partition("/")
    return int(passed) / int(asked) if asked else None


def injections_table(run: Run, notebook: str, findings: list[Finding]) -> pd.DataFrame:
    """One row a case with an instruction in its material: what the pair of answers showed, and why."""
    rows = [
        (f.case, language_of(run.cases[f.case]), f.measured or f.outcome, f.reason)
        for f in findings
        if f.check == "not_obeyed"
    ]
    missing = {case.id for case in run.expected(notebook) if any("not_obeyed" in item for item in case.expect)}
    rows += [
        (i, language_of(run.cases[i]), "not judged", "no complete pair of answers")
        for i in sorted(missing - {r[0] for r in rows})
    ]
    return headed(pd.DataFrame(rows, columns=["case", "language", "effect", "shown by"]).set_index("case"))


def labelled_lines() -> dict[str, list[str]]:
    """Language -> lines that a reader gave it. We wrote them ourselves."""
    found: dict[str, list[str]] = read_yaml(Path(language.__file__).with_name("labelled_lines.yaml"))
    return found


def detector_table() -> pd.DataFrame:
    """How the detector does on the labelled lines: what it told of each language, and the share it told right.

    `right` has its 95 % Wilson interval; `wrong` is another language, told with certainty: only that can fail a case.
    """
    rows, total = {}, Counter[str]()
    told_names = get_args(Told)
    for name, lines in labelled_lines().items():
        told = Counter(str(tell(line)) for line in lines)
        rows[name] = {**{other: told[other] for other in told_names}, **_rates(len(lines), told[name], told)}
        total += Counter({"right": told[name], "n": len(lines), **told})
    rows["all"] = {**{other: total[other] for other in told_names}, **_rates(total["n"], total["right"], total)}
    return headed(pd.DataFrame.from_dict(rows, orient="index").rename_axis("labelled"))


def _rates(n: int, right: int, told: Counter[str]) -> dict[str, str]:
    low, high = wilson(right, n)
    unsure = told["undetermined"]
    return {
        "right": f"{right}/{n} = {right / n:.1%} ({low:.1%} to {high:.1%})",
        "undetermined rate": f"{unsure / n:.1%}",
        "wrong": f"{n - right - unsure}/{n}",
    }
