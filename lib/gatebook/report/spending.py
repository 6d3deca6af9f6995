"""The budget for a reader: where the time went, what was spent in tokens, and what did not fit."""

from __future__ import annotations

from contextlib import suppress

from gatebook.errors import BrokenRecord
from gatebook.record.executed import execution
from gatebook.record.run import Run
from gatebook.report.standing import named
from gatebook.verdict.spending import Spent, spent, total, unfit

OVERALL = "90_verdict"


def parts(run: Run) -> list[Spent]:
    """One entry a notebook; none of a notebook whose record is broken, which the verdict says."""
    found = []
    for notebook in run.notebooks:
        with suppress(BrokenRecord):
            found.append(spent(run, notebook))
    return found


def altogether(run: Run) -> Spent:
    """All notebooks, the verdict's own included when it has ended."""
    ran = execution(run.path / f"{OVERALL}.ipynb")
    return total(parts(run), ran[1] if ran else None)


def spending_lines(run: Run) -> list[str]:
    """What `gatebook run` prints: one line of time, one of tokens, and one for every reason for which cases were not asked."""
    whole, limit = altogether(run), run.manifest.profile.limits.tokens
    harness = "" if whole.harness_s is None else f", {whole.harness_s:.1f} s the harness"
    cached = "" if whole.cached_tokens is None else f" ({whole.cached_tokens:,} from the cache)"
    budget = f" of a budget of {limit:,}" if limit else ""
    uncounted = f"; {whole.uncounted} answers told no usage" if whole.uncounted else ""
    return [
        f"time: {whole.server_s:.1f} s the server, {whole.waiting_s:.1f} s waiting for it{harness}",
        f"tokens: {whole.prompt_tokens:,} prompt{cached} + {whole.completion_tokens:,} answer in {whole.requests:,} requests{budget}{uncounted}",
        *(f"not asked: {line}" for line in left_out(run)),
    ]


def left_out(run: Run) -> list[str]:
    """Reason: groups with their cases. None where a record is broken."""
    with suppress(BrokenRecord):
        return [
            f"{one.why}: {', '.join(f'{group} ({count})' for group, count in one.groups.items())}: {named(one.cases, 5)}"
            for one in unfit(run)
        ]
    return []
