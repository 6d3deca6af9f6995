"""What is served, in values that do not change while the deployment does not; and the name of what moved."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from gatebook.checks import drift
from gatebook.checks.drift import Moved
from gatebook.checks.finding import Finding, Stage, StageName
from gatebook.record.exchange import Exchange
from gatebook.record.identity import Identity
from gatebook.record.logprobs import TOKEN_ID, mean_shortfall, read_logprobs
from gatebook.record.replies import read_answer
from gatebook.record.run import Run

Fingerprint = dict[str, Any]
SHOWN = 60
"""Characters of a value in a table."""
PART = {
    "model": "served model",
    "engine": "engine",
    "version": "engine version",
    "context_tokens": "context limit",
    "metadata": "weights or precision",
    "system_fingerprint": "server configuration",
    "options": "server configuration",
    "sampling": "sampling defaults",
    "defaults": "sampling defaults",
    "tokens": "chat template or tokenizer",
    "keyword": "constraint enforcement",
    "logprobs": "weights or precision",
    "greedy": "weights or precision",
}
STAGES = {
    "served model": Stage.NOT_SERVED,
    "engine": Stage.SETTINGS,
    "engine version": Stage.SETTINGS,
    "context limit": Stage.REFUSED,
    "sampling defaults": Stage.SAMPLING,
    "chat template or tokenizer": Stage.TEMPLATE,
    "chat template": Stage.TEMPLATE,
    "tokenizer": Stage.TEMPLATE,
    "weights or precision": Stage.WEIGHTS,
    "constraint enforcement": Stage.CONSTRAINT,
    "refused keyword": Stage.REFUSED,
}
"""Part -> what its change explains; whatever else moved is behaviour."""
SYSTEM = "system_fingerprint"
HARMLESS = ("metadata.root", "metadata.owned_by", SYSTEM)
"""A path on the server's disk, a name of the house, a hash of the whole configuration: none of them is what is served.
The last is told when it moved."""
MEASURED_BY = {
    "prompt_tokens": "tokens",
    "first_token_logprobs": "logprobs",
    "greedy_logprobs": "greedy",
    "default_samples": "defaults",
}
"""Check -> what its case adds to the fingerprint."""
MEASURED = (*MEASURED_BY.values(), "keyword")
BY_ID = ".ids"
"""Ends the name of a value whose tokens are named by the engine's ids."""


class Change(BaseModel):
    """One value that is not what it was when the baseline was accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    """Flat name -> value. What the server does not tell is left out, not empty."""
    values: Fingerprint = {
        "model": run.manifest.profile.target.model,
        "engine": identity.engine if identity.engine != "unknown" or _answered(run) else None,
        "version": identity.version,
        "context_tokens": identity.context_tokens,
    }
    values |= {f"metadata.{k}": v for k, v in sorted(identity.metadata.items()) if isinstance(v, str | int | float)}
    values |= {f"options.{k}": v for k, v in sorted(identity.options.items())}
    values["system_fingerprint"] = identity.system_fingerprint
    values |= {f"sampling.{k}": _rounded(v) for k, v in sorted(identity.sampling.items())}
    for notebook in run.notebooks:
        wanted = {c.id: kind for c in run.expected(notebook) for kind in _kinds(c.expect)}
        asked: dict[str, list[Exchange]] = {}
        for exchange in run.exchanges(notebook) if wanted else []:
            if exchange.case in wanted and exchange.kind == "ask" and _readable(exchange):
                asked.setdefault(exchange.case, []).append(exchange)
        for case, exchanges in asked.items():
            values |= _values(wanted[case], case, exchanges)
    values |= {f"keyword.{f.case}": f.measured for f in findings if f.check == "keyword" and f.measured is not None}
    return {name: value for name, value in values.items() if value is not None}


def _answered(run: Run) -> bool:
    """Whether anything was: a dead server is no other engine."""
    return any(e.status == 200 for notebook in run.notebooks for e in run.exchanges(notebook))


def _readable(exchange: Exchange) -> bool:
    """Whether it is a reply at all: a body that is no JSON, an error at HTTP 200 or a broken stream measures nothing."""
    if exchange.status != 200 or exchange.fault:
        return False
    answer = read_answer(exchange)
    return answer.malformed is None and not answer.error and bool(answer.choices)


def _kinds(expect: list[dict[str, Any]]) -> list[str]:
    return [MEASURED_BY[name] for item in expect for name in item if name in MEASURED_BY]


def _values(kind: str, case: str, exchanges: list[Exchange]) -> Fingerprint:
    exchanges = sorted(exchanges, key=lambda e: e.key)
    if kind == "tokens":
        return {f"tokens.{case}.{e.ask}": read_answer(e).tokens("prompt_tokens") for e in exchanges}
    if kind == "defaults":
        samples = [(read_answer(e).text[: drift.PREFIX_CHARS], mean_shortfall(read_logprobs(e))) for e in exchanges]
        return {f"defaults.{case}": sorted(([text, _rounded(mean)] for text, mean in samples), key=str)}
    found = [tokens for e in exchanges if (tokens := read_logprobs(e))]
    if not found:
        return {}
    if kind == "greedy":
        return {f"greedy.{case}": [[t.token, _rounded(t.logprob), _rounded(min(t.gap, 99.0))] for t in found[0]]}
    rows = [{token: _rounded(value) for token, value in tokens[0].top.items()} for tokens in found]
    by_id = all(TOKEN_ID.fullmatch(token) for row in rows for token in row)
    name = f"logprobs.{case}{BY_ID}" if by_id else f"logprobs.{case}"  # names by id and by text are not compared
    return {name: {"times": len(rows), "rows": rows if any(r != rows[0] for r in rows) else rows[:1]}}


def changes(old: Fingerprint, new: Fingerprint, tolerance_nats: float = 0.0, seed: str = "") -> list[Change]:
    """What differs, by names that both know, each with the part of the deployment that it points to.

    A keyword that becomes enforced is no loss and no change of what is served; one that was not enforced may look
    enforced by luck, so only the loss counts, and an answer that was cut has lost nothing (`noted` has the rest).
    """
    moved: dict[str, Moved] = {}
    noisy: dict[str, tuple[list[dict[str, float]], list[dict[str, float]]]] = {}
    for name in sorted(n for n in old.keys() & new.keys() if n not in HARMLESS and _kind(n) != "options"):
        if name.startswith("logprobs.") and drift.noisy(*(pair := (rows_of(old[name]), rows_of(new[name])))):
            noisy[name] = pair
        elif found := _compare(name, old[name], new[name], tolerance_nats):
            moved[name] = found
    samples = [{n: v for n, v in side.items() if n.startswith("defaults.")} for side in (old, new)]
    tests = [
        test for test in (
            drift.noisy_logprobs_moved(noisy, tolerance_nats, f"{seed}/logprobs"),
            drift.samples_moved(samples[0], samples[1], f"{seed}/defaults"),
        ) if test
    ]  # fmt: skip
    for test in tests:
        moved |= test.moved if test.rejected else {}
    exact = {
        name: (old[name], new[name]) for name in moved if name.split(".")[0] not in ("logprobs", "greedy", "defaults")
    }
    told = {n: exact.get(n, (m.was, m.now)) for n, m in sorted(moved.items(), key=lambda item: _causes_first(item[0]))}
    parts = {n: _part(n, old, new, moved.keys()) for n in told}
    return [
        Change(
            name=n, part=parts[n], was=was, now=now, stage=STAGES.get(parts[n], Stage.BEHAVIOUR), cases=_cases(n, new)
        )
        for n, (was, now) in told.items()
    ]


def noted(old: Fingerprint, new: Fingerprint) -> list[str]:
    """What moved and never blocks, a line each."""
    lines = []
    if (was := old.get(SYSTEM)) and (now := new.get(SYSTEM)) and was != now:
        lines.append(
            f"system_fingerprint moved: was {was}, is {now}; it is a hash of the configuration and alone no fault"
        )
    for name in sorted(n for n in old.keys() & new.keys() if n.startswith("options.") and old[n] != new[n]):
        lines.append(
            f"{name.removeprefix('options.')} was {old[name]}, is {new[name]}: what follows from it is judged by itself"
        )
    newly = [
        n for n, state in old.items() if n.startswith("keyword.") and state == "ignored" and new.get(n) == "refused"
    ]
    return lines + [f"{n} is refused now, was silently ignored: clients that send it get an error" for n in newly]


def measured(print_of: Fingerprint) -> set[str]:
    """The kinds of values that cases measured, not the server told."""
    return {f"{_kind(name)}{BY_ID if name.endswith(BY_ID) else ''}" for name in print_of if _kind(name) in MEASURED}


def _kind(name: str) -> str:
    return name.partition(".")[0]


def _cases(name: str, new: Fingerprint) -> list[str]:
    """The cases behind a value; of the default samples, which are compared in one test, all of them."""
    names = [n for n in new if n.startswith("defaults.")] if name == "defaults" else [name]
    return [case for n in names if (case := case_of(n))]


def case_of(name: str) -> str | None:
    """The case that measured a value; None where the server told it."""
    kind, _, rest = name.partition(".")
    return rest.split(".")[0] if rest and kind in MEASURED else None


def _causes_first(name: str) -> tuple[int, str]:
    """What is served before what follows from it: a new template moves every log probability too."""
    return list(PART).index(name.split(".")[0]), name


def _compare(name: str, old: Any, new: Any, tolerance: float) -> Moved | None:
    kind = name.split(".")[0]
    if kind == "logprobs":
        return drift.logprobs_moved(rows_of(old), rows_of(new), tolerance)
    if kind == "greedy":
        return drift.greedy_moved(old, new, tolerance)
    same = old == new or kind == "defaults" or (kind == "keyword" and (old != "enforced" or new == "unfinished"))
    return None if same else Moved(str(old), str(new))


def rows_of(value: dict[str, Any]) -> list[dict[str, float]]:
    """Every request's first-token logprobs, of a `logprobs.` value, where equal rows are kept once."""
    return list(value["rows"]) if len(value["rows"]) > 1 else list(value["rows"]) * int(value["times"])


def _part(name: str, old: Fingerprint, new: Fingerprint, moved: Any) -> str:
    """What a moved value points to, in the light of the others.

    Token counts that all move by the same amount are the template's; the tokens of one text alone are the tokenizer's. A
    greedy text that moves while every first token stays is steered by sampling (repetition penalty, forced
    temperature). When the prompt's tokens moved, other weights are not shown.
    """
    kind = name.split(".")[0]
    if kind == "keyword" and new[name] == "refused":
        return "refused keyword"
    if kind == "tokens":
        steps = [new[n] - old[n] for n in old.keys() & new.keys() if n.startswith("tokens.")]
        return (
            "chat template"
            if len(steps) > 1 and len(set(steps)) == 1
            else "tokenizer"
            if _lone_text_moved(old, new)
            else PART[kind]
        )
    if kind in ("logprobs", "greedy"):
        if any(n.startswith("tokens.") for n in moved):
            return "answers, as the prompt's tokens changed,"
        first = [n for n in moved if n.startswith("logprobs.")]
        told = any(n.startswith("logprobs.") for n in old.keys() & new.keys())
        return "sampling defaults" if kind == "greedy" and told and not first else PART[kind]
    return PART[kind]


def _lone_text_moved(old: Fingerprint, new: Fingerprint) -> bool:
    """Whether a text's own tokens moved and its template's did not: `<case>.long` with an unmoved `<case>.short`."""
    known = old.keys() & new.keys()
    pairs = [(name, f"{name[:-4]}short") for name in known if name.startswith("tokens.") and name.endswith(".long")]
    return any(short in known and old[short] == new[short] and old[long] != new[long] for long, short in pairs)


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def summary(name: str, value: Any) -> str:
    """One value of a fingerprint in a line, for tables."""
    if value is None:
        return "–"
    kind = name.split(".")[0]
    if kind == "logprobs":
        rows = rows_of(value)
        best = max(rows[0], key=lambda token: rows[0][token])
        return f"{best!r} {rows[0][best]:.3f}, noise {drift.noise_nats(rows):.4f} over {len(rows)}"
    if kind == "greedy":
        return (
            f"{_excerpt(''.join(str(row[0]) for row in value))}, mean {sum(row[1] for row in value) / len(value):.3f}"
        )
    if kind == "defaults":
        short = [mean for _, mean in value if mean is not None]
        told = f", {sum(short) / len(short):.2f} nats a token behind the likeliest" if short else ""
        return f"{len({text for text, _ in value})} different of {len(value)}{told}"
    return _excerpt(str(value))


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
