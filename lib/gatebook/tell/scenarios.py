"""Tables and the picture of 06: what each scenario lost, and what its guards are worth."""

from __future__ import annotations

from typing import Any

import pandas as pd

from gatebook.errors import BrokenRecord
from gatebook.judge.checks.facts import states_all
from gatebook.judge.checks.scenario import assess
from gatebook.judge.finding import Finding, worst
from gatebook.judge.similarity import MUTATIONS, Cosines, auc, computed, cosines_of, differences, guarded, stored
from gatebook.judge.stats import wilson
from gatebook.plan.cases import Case
from gatebook.record.answer import read_answer
from gatebook.record.run import Run
from gatebook.tell.plots import canvas
from gatebook.tell.tables import headed

COLUMNS = ["cases", "pass", "facts stated", "to-dos right", "lost", "merged", "twice", "invented", "untagged", "misranked", "owner", "unsorted"]  # fmt: skip


def scenario_table(run: Run, notebook: str, findings: list[Finding]) -> pd.DataFrame:
    """One row a scenario (a case's tag `task`): share of the facts that were stated, and what happened to the to-dos."""
    rows = {}
    for scenario in dict.fromkeys(_scenario(case) for case in run.expected(notebook)):
        cases = [case for case in run.expected(notebook) if _scenario(case) == scenario]
        own = {case.id: [f for f in findings if f.case == case.id] for case in cases}
        passed = sum(worst([f.outcome for f in found]) == "pass" for found in own.values())
        shares = [f.measured for found in own.values() for f in found if f.unit == "coverage"]
        stated = [share for share in shares if isinstance(share, int | float)]
        rows[scenario] = [
            len(cases), passed, f"{sum(stated) / len(stated):.0%}" if stated else "", *_todos(run, notebook, cases)
        ]  # fmt: skip
    return headed(pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS).rename_axis("scenario"))


def _scenario(case: Case) -> str:
    return str(case.tags.get("task", case.group))


def _todos(run: Run, notebook: str, cases: list[Case]) -> list[Any]:
    said = {e.case: read_answer(e).text for e in run.exchanges(notebook) if e.kind == "ask"}
    judged = [(assess(said[c.id], c.minutes), len(c.minutes.truth)) for c in cases if c.minutes and c.id in said]
    if not judged:
        return [""] * 9
    found = [one for one, _ in judged]
    counts = [
        sum(len(getattr(one, name)) for one in found)
        for name in ("lost", "merged", "twice", "invented", "untagged", "misranked", "wrong_owner")
    ]
    right = f"{sum(one.right for one in found)} of {sum(total for _, total in judged)}"
    return [right, *counts, sum(one.unsorted for one in found)]


def power_table(run: Run, notebook: str) -> pd.DataFrame:
    """Cosine and facts against the same mutants, paraphrases and off-topic answers, with 95 % Wilson intervals.

    Recomputes every cosine from the record. Raises BrokenRecord when the run folder says another.
    """
    if not any(guarded(case) for case in run.expected(notebook)):
        return pd.DataFrame({"guard": ["no case of this selection has golden answers"]})
    kept, again = stored(run, notebook), computed(run, notebook)
    if kept and (wrong := differences(kept, again)):
        raise BrokenRecord(f"{run.similarity_file(notebook).name} is not what the record says: {'; '.join(wrong)}")
    cosines, settings = Cosines(run.expected(notebook), kept or again), run.manifest.profile.similarity
    by_id = {case.id: case for case in cosines.cases}
    rows = []
    for kind in (*MUTATIONS, "off_topic", "paraphrase"):
        texts = [(sample, cosine) for sample, cosine in cosines.samples if sample.kind == kind]
        if not texts:
            continue
        below = sum(cosine < settings.cut for _, cosine in texts)
        untrue = sum(not states_all(by_id[sample.case], sample.text) for sample, _ in texts)
        area = auc(cosines.of("paraphrase"), cosines.of(kind)) if kind != "paraphrase" else None
        rows.append((
            kind.replace("_", "-"), len(texts), "accept" if kind == "paraphrase" else "reject",
            _rate(below, len(texts)), _rate(untrue, len(texts)), "" if area is None else f"{area:.2f}",
        ))  # fmt: skip
    power = cosines.power(settings.cut)
    word = "decides" if power.meets(settings) else "informs only"
    print(
        f"{cosines.model} {cosines.kept.model.version}, cut {settings.cut:g}: the cosine {word}; it kills {power.kills} of "
        f"{power.mutants} mutants (floor {settings.floor_kill:.0%}) and rejects {power.alarms} of {power.paraphrases} "
        f"correct paraphrases (ceiling {settings.ceiling_false_alarm:.0%})"
    )
    columns = ["answers", "n", "should", "rejected by cosine", "rejected by facts", "AUC against paraphrases"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("answers"))


def _rate(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{count / n:.0%} ({low:.0%} to {high:.0%})"


def power_plot(run: Run, notebook: str) -> Any:
    """Where the cosines of right and wrong answers lie, and the cut between them."""
    cosines = cosines_of(run, notebook)
    kinds = [kind for kind in ("paraphrase", *MUTATIONS, "off_topic") if cosines.of(kind)]
    axes = canvas(2 * len(kinds))
    colours = {"paraphrase": "#2e7d4f", "off_topic": "#6b7280"}
    for row, kind in enumerate(kinds):
        values = cosines.of(kind)
        axes.scatter(values, [row] * len(values), s=140, marker="|", color=colours.get(kind, "#b3261e"), alpha=0.6)
    cut = run.manifest.profile.similarity.cut
    axes.axvline(cut, color="#1f5fa8", linestyle="--", linewidth=1, label=f"cut {cut:g}")
    axes.set_yticks(range(len(kinds)), [kind.replace("_", "-") for kind in kinds])
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_xlabel(f"cosine with the nearest golden answer, {cosines.model}")
    axes.legend(frameon=False, fontsize=8)
    return axes.figure
