"""What a run, and what the documents of a notebook would cost, before anything is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from gatebook.config.cases import Case
from gatebook.config.profile import Profile, Suite
from gatebook.config.selection import Look, told_languages
from gatebook.config.sending import asked_hash, cap, prompt_tokens, sent
from gatebook.record.exchange import Exchange
from gatebook.record.identity import asked_of_parent
from gatebook.record.logprobs import AT_ONCE, MOST_TOKENS
from gatebook.record.replies import read_answer
from gatebook.record.run import Run
from gatebook.verdict.baseline import Baseline
from gatebook.verdict.looking import DROPS, simulate, strata_of
from gatebook.verdict.policy import COMPARED
from gatebook.verdict.pooled import LEVEL, drop_of, flips_of, visible_drop
from gatebook.verdict.replicas import NOT_BY_THEMSELVES

NOTEBOOK_S = 6.0
"""Kernel, tables and pictures of one notebook, on two cores (docs/benchmarks.md)."""
ASSUMED_MS = {"ttft": 200.0, "tpot": 20.0, "prompt_token": 0.2}
"""A 4B model on one 24 GB card: 50 tokens/s a stream, 5,000 prompt tokens/s; documents are read once (prefix cache)."""
SHARE_OF_CAP = 0.6
"""How much of max_tokens an answer uses, where nothing was measured."""
VOCABULARY_TOKENS, LOGIT_BYTES = 151_936, 2 + 4 + 4
"""Qwen3's; the logits of a token in 16 bits, in 32, and their logarithms (vLLM 0.32, gpu_model_runner.py)."""
COLUMNS = ("cases", "requests", "prompt tokens", "answer tokens")
ROW = "{:<28}{:>7}{:>10}{:>15,.0f}{:>15,.0f}"


def estimate(
    profile: Profile, suite: Suite, cases: list[Case], baseline: Baseline | None, left_out: dict[str, int] | None = None,
    look: Look | None = None,
) -> str:  # fmt: skip
    """A table of notebooks with cases, requests, tokens and minutes; says what it rests on. Tokens are upper bounds."""
    speed = {**ASSUMED_MS, **(baseline.latency_ms if baseline else {})}
    limits, context_tokens, in_flight = profile.limits, profile.target.context_tokens, profile.in_flight(suite)
    rows = {name: Counter(cases=count) for name, count in Counter(case.notebook for case in cases).items()}
    fitting = [case for case in cases if not _beyond(case, context_tokens)]
    documents = {case.document.name: case.document.size for case in fitting if case.document}
    late: Counter[str] = Counter()
    ms, spent = sum(documents.values()) * speed["prompt_token"], 0.0
    for case in fitting:
        its = cost(profile, suite, case)
        rows[case.notebook].update(its)
        ms += (its["requests"] - case.canary) * speed["ttft"] + its["answer tokens"] * SHARE_OF_CAP * speed["tpot"]
        spent += its["prompt tokens"] + its["answer tokens"]
        if limits.tokens and spent > limits.tokens:
            late[case.group] += 1
    table = [ROW.replace(",.0f", "").format("notebook", *COLUMNS)]
    for name, row in (*sorted(rows.items()), ("total", sum(rows.values(), Counter()))):
        table.append(ROW.format(name, *(row[column] for column in COLUMNS)))
    minutes = (ms / 1000 / in_flight + NOTEBOOK_S * (len(rows) + 1)) / 60
    assumed = f"an assumed {speed['tpot']:g} ms a token (no baseline yet)"
    basis = f"latencies of the baseline {baseline.run}" if baseline else assumed
    table += [
        "",
        f"suite {suite} of {profile.name}: about {minutes:.1f} minutes with {in_flight} in flight, from {basis}",
        f"it ends after {limits.run_deadline_s / 60:g} minutes in any case; answer tokens are caps; nothing was asked",
        *_notes(profile, suite, cases, baseline, look),
    ]
    if late:
        named = ", ".join(f"{group} ({count})" for group, count in late.items())
        table.append(f"limits.tokens is {limits.tokens:,}: these may not fit and would not be measured: {named}")
    if beyond := len(cases) - len(fitting):
        table.append(f"{beyond} cases with a document beyond {context_tokens:,} tokens will not be asked")
    return "\n".join([*table, *filter(None, [told_languages(profile.languages, left_out or {})])])


def _beyond(case: Case, context_tokens: int | None) -> bool:
    return bool(context_tokens and case.document and case.document.size > context_tokens)


def cost(profile: Profile, suite: Suite, case: Case) -> dict[str, Any]:
    """Return the number of requests and the most tokens they take."""
    asks = case.requests()
    chats = [(ask, sent(profile.target, case, ask)) for ask in asks if ask.path is None]
    times = 1 + (len(profile.replicas(suite)) if case.fingerprints and not profile.not_offered(*case.needs) else 0)
    read = times * sum(prompt_tokens(ask.messages or [], options) for ask, options in chats)
    read += case.document.size if case.document else 0
    read += prompt_tokens([{"content": case.golden[0]}], {}) if case.scored else 0
    caps = times * sum(cap(options) for _, options in chats)
    return {"requests": times * len(asks) + case.canary, "prompt tokens": read, "answer tokens": caps}


def _notes(
    profile: Profile, suite: Suite, cases: list[Case], baseline: Baseline | None, look: Look | None
) -> Iterator[str]:
    """What the requests say in place of the profile, what the run could see, and what costs more than it seems."""
    chats = [ask for case in cases for ask in case.requests() if ask.path is None]
    for name in profile.target.request_options:
        if count := sum(name in ask.options for ask in chats):
            yield f"target.request.{name}: {count:,} of {len(chats):,} requests say their own"
    if pooled := _pooled(profile, cases, baseline):
        yield pooled
    if look and baseline:
        yield from _stages(profile, cases, look, baseline)
    if deeper := [case for case in cases if case.drawn]:
        yield f"effort deep: {len(deeper)} sampled cases are drawn {deeper[0].drawn} times in place of {deeper[0].draws}"
    if profile.target.replicas and not profile.replicas(suite):
        yield NOT_BY_THEMSELVES
    if beside := list(asked_of_parent(cases, profile)):
        tokens = sum(prompt_tokens(ask.messages or [], ask.options) + cap(ask.options) for _, ask in beside)
        yield f"if the model is an adapter, its parent is asked {len(beside)} requests more of {tokens:,.0f} tokens at most"
    if texts := sum(case.scored for case in cases):
        at_once = min(AT_ONCE, profile.in_flight(suite))
        gib = at_once * MOST_TOKENS * VOCABULARY_TOKENS * LOGIT_BYTES / 2**30
        yield (
            f"{texts} golden answers, {at_once} at a time: up to {gib:.1f} GiB on the server beside its cache, for the logits of "
            f"{at_once * MOST_TOKENS:,} tokens over a vocabulary of {VOCABULARY_TOKENS:,} (llama.cpp: none)"
        )


def _pooled(profile: Profile, cases: list[Case], baseline: Baseline | None) -> str:
    """How small a drop of all compared cases together would be shown; empty where nothing is compared."""
    compared = [
        case
        for case in cases
        if profile.policy(case.group).policy in COMPARED
        and not (case.scored or _beyond(case, profile.target.context_tokens))
    ]
    if not compared or profile.pooled is None:
        return ""
    told = f"pooled: {len(compared)} compared cases in {len({case.cluster for case in compared})} independent clusters"
    (rate, said), passed, basis = flips_of(baseline, profile.flip_rate), len(compared), "if all pass in the baseline"
    if baseline:
        old = baseline.cases
        compared = [c for c in compared if c.id in old and old[c.id].prompt == asked_hash(profile.target, c)]
        passed, basis = sum(old[c.id].outcome == "pass" for c in compared), f"of the baseline {baseline.run}"
    drop = visible_drop(passed, len(compared), rate)
    return f"{told}; the smallest drop that they would show together: {drop_of(drop, passed, rate, said)}, {basis}"


def _stages(profile: Profile, cases: list[Case], look: Look, baseline: Baseline) -> list[str]:
    """What effort quick asks when, how much that spares, and how often it errs."""
    strata = [*strata_of(profile, cases, look.later, baseline).values()]
    waiting = {*look.later}
    requests, spared = (sum(len(c.requests()) for c in some) for some in (cases, [c for c in cases if c.id in waiting]))
    (rate, said), passed = flips_of(baseline, profile.flip_rate), sum(s.passed[0] for s in strata)
    at_look = passed + sum(s.failed[0] for s in strata)
    healthy = simulate(strata, 0.0, rate, spent=look.spent, margin=look.margin)
    lost = {drop: simulate(strata, drop, rate, spent=look.spent, margin=look.margin) for drop in DROPS}
    seen = "; ".join(f"{drop:.0%}: {s.red:.0%} red ({s.whole_red:.0%} where all is asked)" for drop, s in lost.items())
    drop = visible_drop(passed, at_look, rate, LEVEL * look.spent)
    return [
        f"effort quick: {len(cases) - len(waiting)} cases first, a look at the {at_look} compared clusters among them, then {len(waiting)} more where it settles nothing",
        f"  at the look: could see a drop of {drop_of(drop, passed, rate, said)}; a PASS there excludes one of more than {look.margin:.0%}",
        f"  healthy runs, simulated: {healthy.early:.0%} end at the look, so {1 - healthy.early * spared / requests:.0%} of the requests are expected; "
        f"red by chance {healthy.red:.2%} ({healthy.whole_red:.2%} where all is asked)",
        f"  loss spread over all, simulated: {seen}",
    ]


def document_cost(run: Run, notebook: str, ruled: list[Exchange]) -> str:
    """What the documents of a notebook will cost, in prompt tokens and in seconds at the speed of the ruler (`ruled`)."""
    documents = [case.document for case in run.expected(notebook) if case.document]
    tokens = {document.name: document.size for document in documents}
    once, every = sum(tokens.values()), sum(tokens[document.name] for document in documents)
    found = [(read_answer(e).tokens("prompt_tokens") or 0, e.attempts[-1].elapsed_ms) for e in ruled if not e.fault]
    longest, ms = max(found, default=(0, 0.0))
    seconds = "at a speed that the ruler does not tell"
    if longest > 50 and ms > 0:
        speed = longest / ms * 1000
        seconds = f"about {once / speed:,.0f} s at {speed:,.0f} prompt tokens/s"
    budget = run.manifest.profile.limits.document_budget_tokens
    limit = "no budget is set" if budget is None else f"the budget is {budget:,}"
    return (
        f"{len(tokens)} documents of {once:,} tokens in all for {len(documents)} questions: {seconds} where a prefix cache reads each "
        f"once, {every:,} tokens without one; {limit}"
    )
