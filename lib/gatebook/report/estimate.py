"""What a run would cost, before anything is asked."""

from __future__ import annotations

from collections import defaultdict

from gatebook.config.cases import Case, cap, prompt_tokens
from gatebook.config.profile import Profile, Suite
from gatebook.verdict.baseline import Baseline

NOTEBOOK_S = 6.0
"""Kernel, tables and pictures of one notebook, on two cores (docs/benchmarks.md)."""
ASSUMED_MS = {"ttft": 200.0, "tpot": 20.0, "prompt_token": 0.2}
"""A 4B model on one 24 GB card: 50 tokens/s a stream, 5,000 prompt tokens/s; documents are read once (prefix cache)."""
SHARE_OF_CAP = 0.6
"""How much of max_tokens an answer uses, where nothing was measured."""


def estimate(profile: Profile, suite: Suite, cases: list[Case], baseline: Baseline | None) -> str:
    """A table of notebooks with cases, requests, tokens and minutes; says what it rests on. Tokens are upper bounds."""
    rows: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0, 0])
    speed = {**ASSUMED_MS, **(baseline.latency_ms if baseline else {})}
    seconds, spent, beyond, read = 0.0, 0.0, 0, set()
    late: dict[str, list[str]] = {}
    for case in cases:
        row = rows[case.notebook]
        row[0] += 1
        if case.document:
            long = case.document.tokens or case.document.chars or 0
            if long > (profile.target.context_tokens or long):
                beyond += 1
                continue
            row[2] += long
            spent += long
            seconds += 0 if case.document.name in read else long * speed["prompt_token"] / 1000
            read.add(case.document.name)
        for ask in case.requests():
            chat = ask.path is None
            most = cap(ask.options) if chat else 0
            read_in = prompt_tokens(ask.messages or [], ask.options) if chat else 0
            row[1] += 1
            row[2] += read_in
            row[3] += most
            spent += read_in + most
            seconds += (speed["ttft"] + most * SHARE_OF_CAP * speed["tpot"]) / 1000
        if spent > (profile.limits.tokens or spent):
            late.setdefault(case.group, []).append(case.id)
        row[1] += case.canary
    lines = [f"{'notebook':<28}{'cases':>7}{'requests':>10}{'prompt tokens':>15}{'answer tokens':>15}"]
    lines += [
        f"{name:<28}{row[0]:>7.0f}{row[1]:>10.0f}{row[2]:>15,.0f}{row[3]:>15,.0f}" for name, row in sorted(rows.items())
    ]
    total = [sum(row[i] for row in rows.values()) for i in range(4)]
    lines.append(f"{'total':<28}{total[0]:>7.0f}{total[1]:>10.0f}{total[2]:>15,.0f}{total[3]:>15,.0f}")
    minutes = (seconds / profile.limits.in_flight + NOTEBOOK_S * (len(rows) + 1)) / 60
    basis = (
        f"latencies of the baseline {baseline.run}"
        if baseline
        else f"an assumed {speed['tpot']:g} ms a token (no baseline yet)"
    )
    lines += [
        "",
        f"suite {suite} of {profile.name}: about {minutes:.1f} minutes with {profile.limits.in_flight} in flight, from {basis}",
    ]
    lines.append(
        f"it ends after {profile.limits.run_deadline_s / 60:g} minutes in any case; answer tokens are caps; nothing was asked"
    )
    if late:
        named = ", ".join(f"{group} ({len(ids)})" for group, ids in late.items())
        lines.append(
            f"limits.tokens is {profile.limits.tokens:,}: these may not fit and would not be measured: {named}"
        )
    if beyond:
        lines.append(
            f"{beyond} cases with a document beyond {profile.target.context_tokens:,} tokens will not be asked"
        )
    return "\n".join(lines)
