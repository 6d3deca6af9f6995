"""Does one server answer at the address? What replies say of who gave them, and the profile's replicas asked one by one."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from typing import Any, Literal

from gatebook.checks.drift import Mixed, Row, Seen, mixed, mixed_rows
from gatebook.checks.finding import Stage
from gatebook.engines.engine import obj, whole_number
from gatebook.record.exchange import ELSEWHERE, Exchange
from gatebook.record.identity import identify
from gatebook.record.logprobs import read_logprobs
from gatebook.record.replies import SYSTEM, signed, whole
from gatebook.record.run import Run
from gatebook.verdict.causes import Said
from gatebook.verdict.fingerprint import HARMLESS, Fingerprint, changes, measured_values, told
from gatebook.verdict.policy import AGAIN
from gatebook.verdict.verdict import Word

COUNTS = {2: "two", 3: "three", 4: "four"}
COMPARE = "run the same image, weights, template and arguments everywhere, and name no other deployment in target.replicas of the profile, which asks each by itself"
NOT_BY_THEMSELVES = (
    "suite live asks none of target.replicas by itself; only what the address itself replies is compared"
)
SHOWN = 60
"""Characters of a value."""
Stranger = Word | Literal["differs"]
Readings = dict[str, list[Seen]]
SERVED, NAME, TOKENS = "this model", "served name", "prompt_tokens of one prompt"
NOT_SERVED = "not served"


def servers(run: Run, notebooks: list[str], accepted: Fingerprint) -> Iterator[Said]:
    """Report why more than one server answers. `accepted`: the baseline's fingerprint, if it is of the same revision."""
    seen, strangers = _mixed(run, notebooks), list(_strangers(run, notebooks, accepted))
    differ = "; ".join(text for word, text in strangers if word == "differs")
    if seen or differ:
        text = "; ".join(filter(None, (seen, differ)))
        text = text if seen else f"two different servers stand behind this address: {text}"
        yield Said("FAIL", Stage.REPLICAS, "this address", text, COMPARE)
    for word, text in strangers:
        if word != "differs":
            todo = AGAIN if word == "INCONCLUSIVE" else "start it, or correct target.replicas in the profile"
            yield Said(word, Stage.REFUSED, "replicas", text, todo)


def _mixed(run: Run, notebooks: list[str]) -> str:
    """Describe the different servers that answer at the address; empty where nothing shows two."""
    profile, (says, seen, prompts) = run.manifest.profile, _readings(run, notebooks)
    own_prints = profile.not_offered("system_fingerprint") is None
    named = {
        SERVED: _served_at_times(seen[SERVED]),
        NAME: mixed(seen[NAME]),
        **{name: mixed(found) for name, found in says.items()},
        SYSTEM: mixed(seen[SYSTEM]) if own_prints else None,
        TOKENS: mixed(seen[TOKENS], first_may_differ=True),
    }
    parts = [one for one in named.values() if one]
    said = [
        f"{name} is {_shares(one, 'readings' if name in says else 'replies')}" for name, one in named.items() if one
    ]
    if rows := mixed_rows(prompts, profile.limits.logprob_tolerance_nats):
        parts.append(rows)
        count = rows.values[1][1]
        said.append(
            f"first-token logprobs of {rows.places} prompts fall into two clusters, {count} of {rows.total} replies from the second"
        )
    if not parts:
        return ""
    if all(one.changed_at for one in parts) and any(one.firm for one in parts):
        return f"the server changed in mid-run, at {min(str(one.changed_at) for one in parts)}: {'; '.join(said)}"
    count = max(len(one.values) for one in parts)
    return f"{COUNTS.get(count, str(count))} different servers answer at this address: {'; '.join(said)}"


def _readings(run: Run, notebooks: list[str]) -> tuple[Readings, Readings, dict[str, list[tuple[str, Row]]]]:
    """(what the server says of itself by name, what its replies show by name, first-token rows by case)."""
    says, seen, rows = defaultdict[str, list[Seen]](list), defaultdict[str, list[Seen]](list), defaultdict(list)
    target = run.manifest.profile.target
    for notebook in notebooks:
        exchanges = [e for e in run.exchanges(notebook) if e.kind not in ELSEWHERE]
        identity = identify(exchanges, target.model)
        if probe := next((e for e in exchanges if e.kind == "probe" and e.method == "GET"), None):
            for name, value in told(identity).items():
                if name not in HARMLESS and name != "engine":
                    says[name].append(Seen(probe.at, identity.engine, _short(value)))
        firsts = {c.id for c in run.expected(notebook) if any("first_token_logprobs" in item for item in c.expect)}
        for e in exchanges:
            if e.method == "POST" and e.body and e.attempts and e.body.get("model") == target.model:
                at = e.attempts[-1].at
                for name, place, value in _shown(e, e.body, target.aliases):
                    seen[name].append(Seen(at, place, value))
                compared = e.kind == "ask" and e.case in firsts
                if compared and (tokens := read_logprobs(e)) and tokens[0].top:
                    rows[str(e.case)].append((at, tokens[0].top))
    return says, seen, rows


def _served_at_times(seen: list[Seen]) -> Mixed | None:
    """Where the model is served by some and not by others; one that was unloaded once, and is gone since, is no second server."""
    one = mixed(seen)
    gone = one is not None and one.changed_at is not None and sorted(seen, key=lambda s: s.at)[-1].value == NOT_SERVED
    return None if gone else one


def _shares(one: Mixed, what: str) -> str:
    return " and ".join(f"{value!r} in {count} of {one.total}" for value, count in one.values[:3]) + f" {what}"


def _shown(exchange: Exchange, body: dict[str, Any], aliases: list[str]) -> Iterator[tuple[str, Hashable, str]]:
    """Yield what one reply shows about its server: (name, place, value)."""
    how, said = bool(body.get("stream")), signed(exchange)
    missing = exchange.status == 404 and "model" in exchange.detail.lower()
    if said or missing:
        yield SERVED, _prompt(body), NOT_SERVED if missing else "answered"
    if name := said.get("model"):
        yield NAME, how, _short(body["model"] if name in aliases else name)
    if own := said.get(SYSTEM):
        yield SYSTEM, how, _short(own)
    if (count := whole_number(obj(said.get("usage")).get("prompt_tokens"))) is not None:
        yield TOKENS, _prompt(body), str(count)


def _prompt(body: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in body.items() if k != "user"}, sort_keys=True)


def _short(value: Any) -> str:
    return whole(str(value))[:SHOWN]


def _strangers(run: Run, notebooks: list[str], accepted: Fingerprint) -> Iterator[tuple[Stranger, str]]:
    """Yield (meaning, text) for every replica that was not asked, does not serve the model, or differs from others."""
    prints: dict[str, Fingerprint] = {}
    serves: dict[str, str] = {}
    profile = run.manifest.profile
    for url in profile.replicas(run.manifest.suite):
        asked = {name: [e for e in run.exchanges(name) if (e.kind, e.target) == ("replica", url)] for name in notebooks}
        if found := _unusable(run, url, asked):
            yield found
            continue
        everything = [e for some in asked.values() for e in some]
        if chats := [e for e in everything if e.method == "POST"]:
            probes = [e.model_copy(update={"kind": "probe"}) for e in everything if e.method == "GET"]
            identity = identify(probes, model := profile.target.model)
            serves |= (
                {url: model if model in identity.models else ", ".join(identity.models)} if identity.models else {}
            )
            own = {str(one) for e in chats if (one := signed(e).get(SYSTEM))}
            prints[url] = told(identity) | ({SYSTEM: _short(", ".join(sorted(own)))} if own else {})
            for name in notebooks:
                prints[url] |= measured_values(run.expected(name), [e for e in asked[name] if e.method == "POST"])
    yield from (("differs", text) for text in _otherwise_named(serves, profile.target.model))
    yield from (("differs", text) for text in _differing(run, prints, accepted))


def _otherwise_named(serves: dict[str, str], model: str) -> Iterator[str]:
    """Yield each replica that lists other models than most do, in a tie than those with this one: llama.cpp answers to any name."""
    count = Counter(serves.values())
    usual = max(count, key=lambda names: (count[names], names == model), default=model)
    yield from (f"replica {url} serves {names}, others {usual}" for url, names in serves.items() if names != usual)


def _unusable(run: Run, url: str, asked: dict[str, list[Exchange]]) -> tuple[Stranger, str] | None:
    """Return why a replica cannot be compared: the first request that broke, else the first that was not asked."""
    chats = [e for some in asked.values() for e in some if e.method == "POST"]
    if broken := next((e for e in chats if e.fault), None):
        good = any(not e.fault for e in chats)
        what = "was refused" if broken.refused_for_good else "broke off" if good else "did not answer"
        return "FAIL" if good or broken.refused_for_good else "ERROR", f"replica {url} {what}: {broken.detail}"
    lacking = [key for name, some in asked.items() for key in _lacking(run, name, some)]
    if not lacking:
        return None
    stops = [e.detail for name in asked for e in run.exchanges(name) if e.kind in ("stop", "skip")]
    why = stops[-1] if stops else "no record of it"
    return "INCONCLUSIVE", f"replica {url}: {len(lacking)} requests were not asked ({lacking[0]}): {why}"


def _lacking(run: Run, notebook: str, own: list[Exchange]) -> list[str]:
    cases = [c for c in run.expected(notebook) if c.fingerprints and not run.manifest.profile.not_offered(*c.needs)]
    there = {(e.case, e.ask) for e in own}
    return [f"{case.id}/{ask.name}" for case in cases for ask in case.requests() if (case.id, ask.name) not in there]


def _differing(run: Run, prints: dict[str, Fingerprint], accepted: Fingerprint) -> Iterator[str]:
    """Yield each replica that differs from the majority; in a tie the baseline says which are right."""
    tolerance, seed = run.manifest.profile.limits.logprob_tolerance_nats, run.manifest.run
    alike: list[list[str]] = []
    for url, values in prints.items():
        if home := next((some for some in alike if not _apart(run, prints[some[0]], values)), None):
            home.append(url)
        else:
            alike.append([url])
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
    """Return what differs between two replicas, the first cause first."""
    profile = run.manifest.profile
    found = [
        f"{change.part.rstrip(',')}: {change.name} is {change.now}, there {change.was}"
        for change in changes(one, other, profile.limits.logprob_tolerance_nats, run.manifest.run)
    ]
    prints = one.get(SYSTEM), other.get(SYSTEM)
    if all(prints) and prints[0] != prints[1] and profile.not_offered("system_fingerprint") is None:
        found.append(f"configuration: {SYSTEM} is {prints[1]}, there {prints[0]}")
    return found
