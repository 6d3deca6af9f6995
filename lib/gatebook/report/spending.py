"""The budget for a reader: where the time went, what was spent in tokens, and what did not fit."""

from __future__ import annotations

import pandas as pd

from gatebook.errors import BrokenRecord
from gatebook.record.executed import execution
from gatebook.record.run import Run
from gatebook.report.tables import headed
from gatebook.verdict.spending import Spent, spent, total, unfit

OVERALL = "90_verdict"


def parts(run: Run) -> list[Spent]:
    """One entry a notebook; none of a notebook whose record is broken, which the verdict says."""
    found = []
    for notebook in run.notebooks:
        try:
            found.append(spent(run, notebook))
        except BrokenRecord:
            continue
    return found


def altogether(run: Run) -> Spent:
    """All notebooks, the verdict's own included when it has ended."""
    ran = execution(run.path / f"{OVERALL}.ipynb")
    return total(parts(run), ran[1] if ran else None)


def spending_table(run: Run) -> pd.DataFrame:
    """One row a notebook: seconds at the server, waiting, in the harness; tokens in, out and from the cache."""
    found = parts(run)
    rows = [
        (s.notebook, s.requests, f"{s.server_s:.1f}", f"{s.waiting_s:.1f}", _seconds(s.harness_s), f"{s.prompt_tokens:,}",
         f"{s.completion_tokens:,}", "not told" if s.cached_tokens is None else f"{s.cached_tokens:,}")
        for s in (*found, total(found))
    ]  # fmt: skip
    columns = ["notebook", "requests", "server s", "waiting s", "harness s", "prompt tokens", "answer tokens", "cached"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("notebook"))


def spending_lines(run: Run) -> list[str]:
    """What `gatebook run` prints: one line of time, one of tokens, and one for every reason for which cases were not asked."""
    all_ = altogether(run)
    limits = run.manifest.profile.limits
    harness = "" if all_.harness_s is None else f", {all_.harness_s:.1f} s the harness"
    tokens = f"tokens: {all_.prompt_tokens:,} prompt"
    tokens += "" if all_.cached_tokens is None else f" ({all_.cached_tokens:,} from the cache)"
    tokens += f" + {all_.completion_tokens:,} answer in {all_.requests:,} requests"
    tokens += f" of a budget of {limits.tokens:,}" if limits.tokens else ""
    tokens += f"; {all_.uncounted} answers told no usage" if all_.uncounted else ""
    lines = [f"time: {all_.server_s:.1f} s the server, {all_.waiting_s:.1f} s waiting for it{harness}", tokens]
    return [*lines, *(f"not asked: {line}" for line in left_out(run))]


def left_out(run: Run) -> list[str]:
    """Reason: groups with their cases."""
    try:
        found = unfit(run)
    except BrokenRecord:
        return []
    return [
        f"{one.why}: {', '.join(f'{group} ({count})' for group, count in one.groups.items())}: {_some(one.cases)}"
        for one in found
    ]


def _some(cases: list[str]) -> str:
    more = f" and {len(cases) - 5} more" if len(cases) > 5 else ""
    return ", ".join(cases[:5]) + more


def _seconds(value: float | None) -> str:
    return "not told" if value is None else f"{value:.1f}"
