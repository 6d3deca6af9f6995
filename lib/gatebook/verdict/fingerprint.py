"""What is served, in values that do not change while the deployment does not; and the name of what moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from gatebook.checks import drift
from gatebook.checks.finding import Finding, Stage, StageName
from gatebook.config.cases import Case
from gatebook.record.exchange import Exchange, Recorded
from gatebook.record.identity import Identity
from gatebook.record.logprobs import TOKEN_ID, Scored, mean_shortfall, read_logprobs, read_scored
from gatebook.record.replies import SYSTEM, read_answer
from gatebook.record.run import Run
from gatebook.verdict.golden import value_of

Fingerprint = dict[str, Any]
SHOWN = 60
"""Characters of a value in a table."""
PARTS = {
    "model": ("served model", Stage.NOT_SERVED),
    "engine": ("engine", Stage.SETTINGS),
    "version": ("engine version", Stage.SETTINGS),
    "context_tokens": ("context limit", Stage.REFUSED),
    "metadata": ("weights or precision", Stage.WEIGHTS),
    "sampling": ("sampling defaults", Stage.SAMPLING),
    "defaults": ("sampling defaults", Stage.SAMPLING),
    "thinking": ("thinking", Stage.SETTINGS),
    "tokens": ("chat template or tokenizer", Stage.TEMPLATE),
    "keyword": ("constraint enforcement", Stage.CONSTRAINT),
    "logprobs": ("weights or precision", Stage.WEIGHTS),
    "greedy": ("weights or precision", Stage.WEIGHTS),
}
"""Kind of value -> what its change points to, and what that explains; causes first: a new template moves every log probability."""
REQUEST = "request"
"""What the profile adds to every request; none of it where a baseline has no such value (`asked_otherwise`)."""
THOUGHTS, NO_THOUGHTS = "thoughts before answers", "no thoughts"
HARMLESS = {"metadata.root", "metadata.owned_by", SYSTEM, REQUEST}
"""A path on the server's disk, a name of the house, a hash of the whole configuration: none of them is what is served.
The fingerprint of the engine is told when it moved; what the profile asks with is `asked_otherwise`."""
MEASURED_BY = {
    "prompt_tokens": "tokens",
    "first_token_logprobs": "logprobs",
    "greedy_logprobs": "greedy",
    "default_samples": "defaults",
    "golden_logprobs": "golden",
}
"""Check -> what its case adds to the fingerprint."""
MEASURED = (*MEASURED_BY.values(), "keyword")
BY_ID = ".ids"
"""Ends the name of a value whose tokens are named by the engine's ids."""


class Change(Recorded):
    """One value that is not what it was when the baseline was accepted."""

    name: str
    part: str
    """What moved, in the field's words."""
    was: Any
    now: Any
    stage: StageName = Stage.BEHAVIOUR
    cases: list[str] = []
    """The cases that measured it; none where the server told it."""

    def __str__(self) -> str:
        if self.part == "refused keyword":
            return f"constraint enforcement changed: {self.name} is refused now, was {self.was}"
        return f"{self.part} changed: {self.name} was {self.was}, is {self.now}"


def fingerprint(run: Run, identity: Identity, findings: list[Finding]) -> Fingerprint:
    """Return flat name -> value; what the server does not report is left out, not empty."""
    answered = (e.status == 200 for notebook in run.notebooks for e in run.exchanges(notebook))
    values: Fingerprint = {
        "model": run.manifest.profile.target.model,
        **told(identity),
        REQUEST: run.manifest.profile.target.asks_with or None,
        "thinking": _thinking(run),
    }
    if identity.engine == "unknown" and not any(answered):
        del values["engine"]  # a dead one is no other
    for notebook in run.notebooks:
        cases = run.expected(notebook)
        if any(case.fingerprints or case.scored for case in cases):
            values |= measured_values(cases, [e for e in run.exchanges(notebook) if e.kind == "ask"])
    values |= {f"keyword.{f.case}": f.measured for f in findings if f.check == "keyword"}
    return {name: value for name, value in values.items() if value is not None}


def told(identity: Identity) -> Fingerprint:
    """Return what the server reports about itself."""
    values = {
        "engine": identity.engine,
        "version": identity.version,
        "context_tokens": identity.context_tokens,
        **{f"metadata.{k}": v for k, v in sorted(identity.metadata.items()) if isinstance(v, str | int | float)},
        **{f"options.{k}": v for k, v in sorted(identity.options.items())},
        SYSTEM: identity.system_fingerprint,
        **{f"sampling.{k}": _rounded(v) for k, v in sorted(identity.sampling.items())},
    }
    return {name: value for name, value in values.items() if value is not None}


def measured_values(cases: Iterable[Case], exchanges: Iterable[Exchange]) -> Fingerprint:
    """Return what the fingerprint's cases measured in these replies."""
    names = [(case.id, name) for case in cases for item in case.expect for name in item]
    kinds = {case: MEASURED_BY[name] for case, name in names if name in MEASURED_BY}
    asked: dict[str, list[Exchange]] = defaultdict(list)
    for exchange in exchanges:
        scored = kinds.get(str(exchange.case)) == "golden"
        if exchange.case in kinds and (scored or _is_reply(exchange)):
            asked[exchange.case].append(exchange)
    values: Fingerprint = {}
    for case, found in asked.items():
        values |= _values(kinds[case], case, sorted(found, key=lambda e: e.key))
    return {name: value for name, value in values.items() if value is not None}


def _thinking(run: Run) -> str | None:
    """Return whether any answer came after thoughts; None where the profile expects none, or nothing was answered."""
    if not run.manifest.profile.target.thinks:
        return None
    said = [read_answer(e) for name in run.notebooks for e in run.exchanges(name) if e.kind == "ask" and _is_reply(e)]
    if any(answer.has_thoughts for answer in said):
        return THOUGHTS
    return NO_THOUGHTS if any(answer.text for answer in said) else None


def _is_reply(exchange: Exchange) -> bool:
    """Return whether a reply measures anything: not if it is no JSON, an error at HTTP 200 or a broken stream."""
    if exchange.status != 200 or exchange.fault:
        return False
    answer = read_answer(exchange)
    return answer.malformed is None and not answer.error and bool(answer.choices)


def _values(kind: str, case: str, exchanges: list[Exchange]) -> Fingerprint:
    if kind == "tokens":
        return {f"tokens.{case}.{e.ask}": read_answer(e).tokens("prompt_tokens") for e in exchanges}
    if kind == "defaults":
        texts = [read_answer(e).generated[: drift.PREFIX_CHARS] for e in exchanges]
        means = [_rounded(mean_shortfall(read_logprobs(e))) for e in exchanges]
        return {f"defaults.{case}": sorted(map(list, zip(texts, means, strict=True)), key=str)}
    if kind == "golden":
        return {f"golden.{case}": value_of(s) for e in exchanges if isinstance(s := read_scored(e), Scored)}
    found = [tokens for e in exchanges if (tokens := read_logprobs(e))]
    if not found:
        return {}
    if kind == "greedy":
        return {f"greedy.{case}": [[t.token, _rounded(t.logprob), _rounded(min(t.gap, 99.0))] for t in found[0]]}
    rows = [{token: _rounded(value) for token, value in tokens[0].top.items()} for tokens in found]
    by_id = all(TOKEN_ID.fullmatch(token) for row in rows for token in row)
    name = f"logprobs.{case}{BY_ID if by_id else ''}"  # names by id and by text are not compared
    return {name: {"times": len(rows), "rows": rows if any(r != rows[0] for r in rows) else rows[:1]}}


def changes(old: Fingerprint, new: Fingerprint, tolerance_nats: float = 0.0, seed: str = "") -> list[Change]:
    """What differs, by names that both know, each with the part of the deployment that it points to.

    A keyword that becomes enforced is no loss and no change of what is served; one that was not enforced may look
    enforced by luck, so only the loss counts, and an answer that was cut has lost nothing (`noted` has the rest).
    """
    moved: dict[str, drift.Moved] = {}
    noisy: dict[str, tuple[list[drift.Row], list[drift.Row]]] = {}
    for name in sorted((old.keys() & new.keys()) - HARMLESS):
        if name.startswith("logprobs.") and drift.noisy(*(rows := (rows_of(old[name]), rows_of(new[name])))):
            noisy[name] = rows
        elif found := _moved(_kind(name), old[name], new[name], tolerance_nats):
            moved[name] = found
    samples = [{n: v for n, v in side.items() if n.startswith("defaults.")} for side in (old, new)]
    drawn = drift.samples_moved(samples[0], samples[1], f"{seed}/defaults")
    for test in (drift.noisy_logprobs_moved(noisy, tolerance_nats, f"{seed}/logprobs"), drawn):
        moved |= test.moved if test and test.rejected else {}
    order, told = list(PARTS), []
    for name in sorted(moved, key=lambda n: (order.index(_kind(n)), n)):
        part, stage = _part(name, old, new, moved)
        measured_in = samples[1] if name == "defaults" else [name]  # all samples are compared in one test
        cases = [case for n in measured_in if (case := case_of(n))]
        was, now = moved[name].was, moved[name].now
        told.append(Change(name=name, part=part, was=was, now=now, stage=stage, cases=cases))
    return told


def _moved(kind: str, was: Any, now: Any, tolerance_nats: float) -> drift.Moved | None:
    """Return how a value moved; None where it did not, or is compared elsewhere."""
    if kind == "logprobs":
        return drift.logprobs_moved(rows_of(was), rows_of(now), tolerance_nats)
    if kind == "greedy":
        return drift.greedy_moved(was, now, tolerance_nats)
    unlost = kind == "keyword" and (was != "enforced" or now == "unfinished")
    return None if was == now or unlost or kind in ("options", "defaults", "golden") else drift.Moved(was, now)


def _part(name: str, old: Fingerprint, new: Fingerprint, moved: Collection[str]) -> tuple[str, Stage]:
    """What a moved value points to, in the light of the others.

    Token counts that all move by the same amount are the template's; the tokens of one text alone (`<case>.long` with an
    unmoved `<case>.short`) are the tokenizer's. A greedy text that moves while every first token stays is steered by sampling
    (repetition penalty, forced temperature). When the prompt's tokens moved, other weights are not shown.
    """
    kind, known = _kind(name), old.keys() & new.keys()
    if kind == "keyword" and new[name] == "refused":
        return "refused keyword", Stage.REFUSED
    if kind == "tokens":
        steps = {n: new[n] - old[n] for n in known if n.startswith("tokens.")}
        longs = [name.removesuffix("long") for name, step in steps.items() if name.endswith(".long") and step]
        lone = any(steps.get(f"{name}short") == 0 for name in longs)
        template = len(steps) > 1 and len({*steps.values()}) == 1
        return "chat template" if template else "tokenizer" if lone else PARTS[kind][0], Stage.TEMPLATE
    if kind in ("logprobs", "greedy") and _any("tokens", moved):
        return "answers, as the prompt's tokens changed,", Stage.BEHAVIOUR
    steered = kind == "greedy" and _any("logprobs", known) and not _any("logprobs", moved)
    return PARTS["sampling" if steered else kind]


def asked_otherwise(old: Fingerprint, new: Fingerprint) -> str | None:
    """Return which of the profile's request options changed since the baseline was accepted; None where none did."""
    was, now = old.get(REQUEST, {}), new.get(REQUEST, {})
    names = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    moved = [f"{name} was {was.get(name, 'not set')}, is {now.get(name, 'not set')}" for name in names]
    return f"request options changed: {'; '.join(moved)}" if moved else None


def noted(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Return what moved and never blocks, one line each."""
    names = [name for name in sorted(old.keys() & new.keys()) if old[name] != new[name]]
    moved, lines = {name: f"was {old[name]}, is {new[name]}" for name in names}, []
    if SYSTEM in moved and old[SYSTEM] and new[SYSTEM]:
        lines.append(f"{SYSTEM} moved: {moved[SYSTEM]}; it is a hash of the configuration and alone no fault")
    for name in (name for name in names if name.startswith("options.")):
        lines.append(f"{name.removeprefix('options.')} {moved[name]}: what follows from it is judged by itself")
    for name in (name for name in old if name.startswith("keyword.")):
        if (old[name], new.get(name)) == ("ignored", "refused"):
            lines.append(f"{name} is refused now, was silently ignored: clients that send it get an error")
    return lines


def measured(values: Fingerprint) -> set[str]:
    """Return the kinds of values that cases measured, without golden answers, which are compared by group."""
    found = {(_kind(name), BY_ID if name.endswith(BY_ID) else "") for name in values}
    return {kind + by_id for kind, by_id in found if kind in MEASURED and kind != "golden"}


def case_of(name: str) -> str | None:
    """Return the case that measured a value; None where the server reported it."""
    kind, _, rest = name.partition(".")
    return rest.split(".")[0] if rest and kind in MEASURED else None


def rows_of(value: dict[str, Any]) -> list[drift.Row]:
    """Return every request's first-token logprobs from a `logprobs.` value, which keeps equal rows once."""
    return list(value["rows"]) if len(value["rows"]) > 1 else list(value["rows"]) * int(value["times"])


def summary(name: str, value: Any) -> str:
    """Return one value of a fingerprint as a line for tables."""
    if value is None:
        return "–"
    kind, told = _kind(name), ""
    if kind == "logprobs":
        rows = rows_of(value)
        best = max(rows[0], key=lambda token: rows[0][token])
        return f"{best!r} {rows[0][best]:.3f}, noise {drift.noise_nats(rows):.4f} over {len(rows)}"
    if kind == "defaults":
        short = [mean for _, mean in value if mean is not None]
        told = f", {sum(short) / len(short):.2f} nats a token behind the likeliest" if short else ""
        return f"{len({text for text, _ in value})} different of {len(value)}{told}"
    if kind == "greedy":
        told = f", mean {sum(row[1] for row in value) / len(value):.3f}"
        value = "".join(str(row[0]) for row in value)
    text = " ".join(str(value).split())
    return (text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…") + told


def _kind(name: str) -> str:
    return name.partition(".")[0]


def _any(kind: str, names: Iterable[str]) -> bool:
    return any(name.startswith(f"{kind}.") for name in names)


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
