"""Does one server answer at the address? What replies say of who gave them, and the profile's replicas asked one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gatebook.checks.finding import Stage
from gatebook.checks.mixture import Mixed, Seen, mixed, mixed_rows
from gatebook.config.cases import Case
from gatebook.record.exchange import ELSEWHERE, Exchange
from gatebook.record.identity import identify
from gatebook.record.logprobs import read_logprobs
from gatebook.record.replies import read_answer, whole
from gatebook.record.run import Run
from gatebook.verdict.causes import Said
from gatebook.verdict.fingerprint import HARMLESS, SYSTEM, Fingerprint, changes, measured_values, told
from gatebook.verdict.policy import AGAIN

COUNTS = {2: "two", 3: "three", 4: "four"}
NO_PROMPT = ("user", "stream", "stream_options")
"""Of a request's body, what says nothing of its prompt."""
COMPARE = (
    "run the same image, weights, template and arguments everywhere; target.replicas in the profile asks each by itself"
)
SHOWN = 60
"""Characters of a value."""


@dataclass
class _Readings:
    """What one server says alike in every reply, by what it is called."""

    model: list[Seen] = field(default_factory=list)
    told: dict[str, list[Seen]] = field(default_factory=dict)
    system: list[Seen] = field(default_factory=list)
    tokens: list[Seen] = field(default_factory=list)
    rows: dict[str, list[tuple[str, dict[str, float]]]] = field(default_factory=dict)


def servers(run: Run, notebooks: list[str], accepted: Fingerprint) -> Iterator[Said]:
    """Why it is not one server that answers. `accepted`: the baseline's fingerprint, where it is of the same revision."""
    seen, strangers = _mixed(run, notebooks), list(_strangers(run, notebooks, accepted))
    differ = "; ".join(text for word, text in strangers if word == "differs")
    if seen or differ:
        text = "; ".join(filter(None, (seen, differ)))
        text = text if seen else f"two different servers stand behind this address: {text}"
        yield Said("FAIL", Stage.REPLICAS, "this address", text, COMPARE, moved=("replicas",))
    for word, text in strangers:
        if word == "FAIL" or word == "ERROR" or word == "INCONCLUSIVE":
            todo = AGAIN if word == "INCONCLUSIVE" else "start it, or correct target.replicas in the profile"
            yield Said(word, Stage.REPLICAS, "replicas", text, todo)


def _mixed(run: Run, notebooks: list[str]) -> str:
    """In words, who else answers at the address; empty where nothing shows two."""
    profile, found = run.manifest.profile, _Readings()
    for notebook in notebooks:
        exchanges = [e for e in run.exchanges(notebook) if e.kind not in ELSEWHERE]
        _read(found, run, notebook, exchanges)
    tolerance, own_prints = profile.limits.logprob_tolerance_nats, profile.not_offered("system_fingerprint") is None
    named: list[tuple[str, Mixed | None]] = [
        ("served name", mixed(found.model)),
        *((name, mixed(seen)) for name, seen in found.told.items()),
        (SYSTEM, mixed(found.system) if own_prints else None),
        ("prompt_tokens of one prompt", mixed(found.tokens, first_may_differ=True)),
    ]
    parts = [(name, one) for name, one in named if one]
    said = [f"{name} is {_shares(one)}" for name, one in parts]
    if rows := mixed_rows(found.rows, tolerance):
        parts.append(("rows", rows))
        count = rows.values[1][1]
        said.append(
            f"first-token logprobs of {rows.places} prompts fall into two clusters, {count} of {rows.total} replies from the second"
        )
    if not parts:
        return ""
    if all(one.changed_at for _, one in parts):
        return f"the server changed in mid-run, at {min(str(one.changed_at) for _, one in parts)}: {'; '.join(said)}"
    count = max(len(one.values) for _, one in parts)
    return f"{COUNTS.get(count, str(count))} different servers answer at this address: {'; '.join(said)}"


def _shares(one: Mixed) -> str:
    return " and ".join(f"{value!r} in {count} of {one.total}" for value, count in one.values[:3]) + " replies"


def _read(found: _Readings, run: Run, notebook: str, exchanges: list[Exchange]) -> None:
    target = run.manifest.profile.target
    cases = {c.id for c in run.expected(notebook) if any("first_token_logprobs" in item for item in c.expect)}
    probes = [e for e in exchanges if e.kind == "probe" and e.method == "GET"]
    if probes:
        identity = identify(exchanges, target.model)
        for name, value in told(identity).items():
            if name not in HARMLESS and name != "engine":
                found.told.setdefault(name, []).append(Seen(probes[0].at, identity.engine, _short(value)))
    for exchange in exchanges:
        body = exchange.body or {}
        if exchange.method != "POST" or body.get("model") != target.model:
            continue
        at, how = exchange.attempts[-1].at if exchange.attempts else exchange.at, bool(body.get("stream"))
        if exchange.status == 404 and "model" in exchange.detail.lower():
            found.model.append(Seen(at, how, "not served"))
        if exchange.status != 200 or exchange.fault:
            continue
        answer = read_answer(exchange)
        if answer.error or not answer.choices:
            continue
        if answer.model is not None:
            found.model.append(Seen(at, how, target.model if answer.model in target.aliases else _short(answer.model)))
        if answer.system_fingerprint:
            found.system.append(Seen(at, how, _short(answer.system_fingerprint)))
        if (count := answer.tokens("prompt_tokens")) is not None:
            found.tokens.append(Seen(at, _prompt(body), str(count)))
        if exchange.kind == "ask" and exchange.case in cases and (tokens := read_logprobs(exchange)) and tokens[0].top:
            found.rows.setdefault(exchange.case, []).append((at, tokens[0].top))


def _prompt(body: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in body.items() if k not in NO_PROMPT}, sort_keys=True)


def _short(value: Any) -> str:
    return whole(str(value))[:SHOWN]


def _strangers(run: Run, notebooks: list[str], accepted: Fingerprint) -> Iterator[tuple[str, str]]:
    """(what it means, in words) of every replica that could not be asked, does not serve the model, or is not as the others are."""
    prints: dict[str, Fingerprint] = {}
    profile = run.manifest.profile
    for url in profile.target.replicas:
        asked: list[Exchange] = []
        lacking: list[str] = []
        values: Fingerprint = {}
        for notebook in notebooks:
            cases = [c for c in run.expected(notebook) if c.fingerprints and not profile.not_offered(*c.needs)]
            own = [e for e in run.exchanges(notebook) if e.kind == "replica" and e.target == url]
            asked, lacking = asked + own, lacking + _lacking(cases, own)
            values |= measured_values(run.expected(notebook), [e for e in own if e.method == "POST"])
        chats = [e for e in asked if e.method == "POST"]
        if broken := next((e for e in chats if e.fault), None):
            good = any(not e.fault for e in chats)
            what = "was refused" if broken.refused_for_good else "broke off" if good else "did not answer"
            yield "FAIL" if good or broken.refused_for_good else "ERROR", f"replica {url} {what}: {broken.detail}"
        elif lacking:
            stops = [e.detail for name in notebooks for e in run.exchanges(name) if e.kind in ("stop", "skip")]
            why = stops[-1] if stops else "no record of it"
            yield "INCONCLUSIVE", f"replica {url}: {len(lacking)} requests were not asked ({lacking[0]}): {why}"
        elif chats:
            prints[url] = {**told(identify(_as_probes(asked), profile.target.model)), **_system(chats), **values}
    yield from (("differs", text) for text in _differing(run, prints, accepted))


def _lacking(cases: list[Case], own: list[Exchange]) -> list[str]:
    there = {(e.case, e.ask) for e in own if e.kind == "replica"}
    return [f"{case.id}/{ask.name}" for case in cases for ask in case.requests() if (case.id, ask.name) not in there]


def _as_probes(asked: list[Exchange]) -> list[Exchange]:
    return [e.model_copy(update={"kind": "probe"}) for e in asked if e.method == "GET"]


def _system(chats: list[Exchange]) -> Fingerprint:
    found = {one for e in chats if (one := read_answer(e).system_fingerprint)}
    return {SYSTEM: _short(", ".join(sorted(found)))} if found else {}


def _differing(run: Run, prints: dict[str, Fingerprint], accepted: Fingerprint) -> Iterator[str]:
    """Each replica that is not as most are; where as many are so as otherwise, the baseline says which are right."""
    tolerance, seed = run.manifest.profile.limits.logprob_tolerance_nats, run.manifest.run
    alike: list[list[str]] = []
    for url, values in prints.items():
        home = next((some for some in alike if not _apart(run, prints[some[0]], values)), None)
        if home is None:
            alike.append([url])
        else:
            home.append(url)
    if len(alike) < 2:
        return
    right = max(
        alike, key=lambda some: (len(some), bool(accepted) and not changes(accepted, prints[some[0]], tolerance, seed))
    )
    for url in (url for some in alike if some is not right for url in some):
        found = _apart(run, prints[right[0]], prints[url])
        more = f" (and {len(found) - 1} more values)" if len(found) > 1 else ""
        yield f"replica {url} differs from {right[0]} in {found[0]}{more}"


def _apart(run: Run, one: Fingerprint, other: Fingerprint) -> list[str]:
    """What differs between two replicas, the first cause first."""
    profile = run.manifest.profile
    found = [
        f"{change.part.rstrip(',')}: {change.name} is {change.now}, there {change.was}"
        for change in changes(one, other, profile.limits.logprob_tolerance_nats, run.manifest.run)
    ]
    prints = one.get(SYSTEM), other.get(SYSTEM)
    if all(prints) and prints[0] != prints[1] and profile.not_offered("system_fingerprint") is None:
        found.append(f"configuration: {SYSTEM} is {prints[1]}, there {prints[0]}")
    return found
