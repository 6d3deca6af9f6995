"""08_load for a reader: what each level measured, where the knee is, which decisions flipped, how long prompts fared together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from gatebook.judge.finding import Finding
from gatebook.judge.load import Step, knee, percentile, restarts_of, steps_of
from gatebook.plan.load import level_of
from gatebook.record.answer import read_answer
from gatebook.record.exchange import Exchange
from gatebook.record.run import Run
from gatebook.tell.tables import headed

STEPS, GRADED, LONG = "load.steps", "load.graded", "load.long_prompts"
THROUGHPUT, GOODPUT, FIRST, SLOW, BAD = "#1f5fa8", "#2e7d4f", "#1f5fa8", "#8a5a00", "#b3261e"


def levels(run: Run, notebook: str, group: str) -> list[Step]:
    """The levels of one group, the lowest first."""
    recorded = run.exchanges(notebook)
    return steps_of(_asked(run, recorded, group), run.manifest.profile.load, restarts_of(recorded))


def load_table(steps: list[Step]) -> pd.DataFrame:
    """One row a level: answers, rates, percentiles with their n, and why it is no measure where it is none."""
    rows = [
        (
            step.at_once, f"{step.answered} of {step.asked}", _number(step.mean_in_flight, 1), _number(step.requests_per_s, 2),
            _number(step.tokens_per_s, 1), *_spread(step.ttft_ms), *_spread(step.itl_ms), f"{step.good} of {step.asked}",
            _number(step.goodput_per_s, 2), _number(step.lag_ms, 1), step.invalid or "yes",
        )
        for step in steps
    ]  # fmt: skip
    columns = [
        "in flight", "answered", "mean in flight", "requests/s", "tokens/s", "TTFT n", "TTFT P50 ms", "TTFT P90 ms", "TTFT P99 ms",
        "ITL n", "ITL P50 ms", "ITL P90 ms", "ITL P99 ms", "good", "good/s", "client lag ms", "valid",
    ]  # fmt: skip
    return headed(pd.DataFrame(rows, columns=columns).set_index("in flight"))


def load_plot(steps: list[Step], gain: float) -> Any:
    """Throughput and goodput, and time to first token, by requests in flight; the knee as a line, the limit as another."""
    import matplotlib.pyplot as plt

    told = [s for s in steps if s.tokens_per_s]
    figure, (rate, wait) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    plt.close(figure)
    x = [s.at_once for s in told]
    rate.plot(x, [s.tokens_per_s for s in told], marker="o", color=THROUGHPUT, label="throughput")
    good = [(s.tokens_per_s or 0) * s.good / s.asked for s in told]
    rate.plot(x, good, marker="o", color=GOODPUT, linestyle="--", label="goodput: within the limits")
    rate.set_ylabel("generated tokens/s")
    for per_cent, colour in ((50, FIRST), (90, SLOW)):
        points = [(s.at_once, p) for s in told if (p := percentile(s.ttft_ms, per_cent)) is not None]
        wait.plot([p[0] for p in points], [p[1] for p in points], marker="o", color=colour, label=f"TTFT P{per_cent}")
    if told:
        limits = told[0].settings.goodput
        wait.axhline(limits.ttft_ms, color=BAD, linestyle="--", linewidth=1, label=f"limit, {limits.ttft_ms:g} ms")
    wait.set_ylabel("ms to the first token")
    found = knee(steps, gain)
    figure.suptitle(headline(steps, found), fontsize=10, x=0.01, ha="left")
    for axes in (rate, wait):
        if found is not None:
            axes.axvline(found, color="#6b7280", linewidth=1, linestyle=":", label=f"knee: {found} in flight")
        for step in told:
            if step.invalid:
                axes.axvspan(step.at_once * 0.93, step.at_once * 1.07, color="#d1d5db", alpha=0.6, lw=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(n) for n in x])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(
            "requests in flight (grey: not a valid measure)" if any(s.invalid for s in told) else "requests in flight"
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    return figure


def headline(steps: list[Step], found: int | None) -> str:
    """What the picture says, in one line."""
    if not steps:
        return "nothing was asked"
    share = steps[0].settings.goodput.share
    late = next((s.at_once for s in steps if s.good < share * s.asked), None)
    good = [s.at_once for s in steps if late is None or s.at_once < late]
    told = (
        f"{share:.0%} of answers in time up to {good[-1]} in flight"
        if good
        else f"not {share:.0%} of answers in time at any level"
    )
    return f"{told}; {'no knee can be told' if found is None else f'throughput stops growing at {found}'}"


def flips_table(run: Run, notebook: str, findings: list[Finding]) -> pd.DataFrame:
    """One row a graded question: what was said alone and in company, and whether the words are the same; the verdict on all comes last."""
    rows: list[tuple[str, str, str, str]] = []
    by_case: dict[str, list[Exchange]] = {}
    for exchange in _asked(run, run.exchanges(notebook), GRADED):
        by_case.setdefault(str(exchange.case), []).append(exchange)
    for case, found in by_case.items():
        found.sort(key=lambda e: level_of(e.ask))
        alone, loaded = _said(found[0]), _said(found[-1])
        rows.append((case, alone, loaded, "yes" if alone == loaded else "no"))
    rows += [(f.case, "", f.reason, f.outcome) for f in findings if f.check == "decision_flips"]
    return headed(pd.DataFrame(rows, columns=["question", "alone", "under load", "same words"]).set_index("question"))


def long_table(run: Run, notebook: str, findings: list[Finding]) -> pd.DataFrame:
    """One row a long prompt: how many were in flight with it, the tokens that the server counted, how long it took, and what came of it."""
    rows = []
    for exchange in _asked(run, run.exchanges(notebook), LONG):
        own = [f for f in findings if f.case == exchange.case]
        bad = next((f for f in own if f.outcome != "pass"), None)
        timing = exchange.timing
        rows.append((
            exchange.case, exchange.client.in_flight if exchange.client else None, read_answer(exchange).tokens("prompt_tokens"),
            _number(timing.first_token_ms if timing else None, 0), _number(timing.end_ms if timing else None, 0),
            bad.outcome if bad else "pass", bad.reason if bad else next((f.reason for f in own if f.check == "needle_found"), ""),
        ))  # fmt: skip
    columns = ["prompt", "in flight when sent", "prompt tokens", "TTFT ms", "total ms", "outcome", "reason"]
    return headed(pd.DataFrame(rows, columns=columns).set_index("prompt").astype(str))


def _asked(run: Run, recorded: Iterable[Exchange], group: str) -> list[Exchange]:
    cases = {name for name, case in run.cases.items() if case.load and case.group == group}
    return [e for e in recorded if e.kind == "ask" and e.case in cases]


def _said(exchange: Exchange) -> str:
    return exchange.detail if exchange.fault else " ".join(read_answer(exchange).text.split())


def _spread(values: list[float]) -> tuple[int, str, str, str]:
    """n, P50, P90, P99; a percentile that its n cannot carry is left out."""
    found = [_number(percentile(values, p), 0 if max(values) >= 100 else 1) if values else "" for p in (50, 90, 99)]
    return len(values), found[0], found[1], found[2]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
