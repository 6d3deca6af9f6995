"""A bundle against the checkout that deploys: profile, cases, waivers and baseline are the checkout's word, not the bundle's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gatebook.config import project
from gatebook.config.cases import Case, load_cases, select
from gatebook.config.profile import Profile
from gatebook.config.steps import in_steps
from gatebook.record.run import Run
from gatebook.verdict.baseline import read_baseline
from gatebook.verdict.judging import run_baseline

OVERRIDDEN = ("server", "base_url", "model", "revision", "headers")
"""Keys of `target` that a run may have from its command line or its environment."""
NAMED = 8
"""Differences that one message names."""
VALUE_CHARS = 60
NOTHING = object()


def own_words(run: Run, profile: Profile) -> dict[str, str]:
    """What the run was told besides its profile: what is deployed, and where."""
    asked, target, against = run.manifest.profile.target, profile.target, run.manifest.against
    told = {
        "base_url": (run.manifest.base_url, target.base_url),
        "model": (asked.model, target.model),
        "revision": (asked.revision, target.revision),
        "second target": (against.name if against else None, None),
        "headers": (", ".join(sorted(asked.headers)) or None, ", ".join(sorted(target.headers)) or None),
    }
    return {
        name: f"{its or 'none'} (in the profile: {ours or 'none'})" for name, (its, ours) in told.items() if its != ours
    }


def differences(run: Run, profile: Profile, cases: Path) -> list[str]:
    """What the bundle was judged by and the checkout does not say, by name. Raises BadInput for a bad checkout."""
    manifest = run.manifest
    theirs, ours = _flat(_rules(manifest.profile)), _flat(_rules(profile))
    found = [
        f"profile {name}: the run has {_short(theirs.get(name, NOTHING))}, the checkout {_short(ours.get(name, NOTHING))}"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name, NOTHING) != ours.get(name, NOTHING)
    ]
    servers = manifest.profile.target.server, profile.target.server
    if servers not in (("embedded", "embedded"), ("external", "external"), ("external", "embedded")):
        found.append(f"profile target.server: the run has {servers[0]}, the checkout {servers[1]}")
    chosen = select(in_steps(load_cases(cases), profile.load), manifest.suite, manifest.only or None)
    mine = {case.id: _plain(case) for case in chosen}
    asked = {i for ids in manifest.expected.values() for i in ids}
    found += [f"case {i}: is not in the run" for i in mine if i not in asked]
    found += [
        f"case {i}: is not in the checkout's suite {manifest.suite}"
        for i in sorted(asked | run.cases.keys())
        if i not in mine
    ]
    for name, own in mine.items():
        its = _plain(run.cases[name]) if name in run.cases else own
        if keys := [key for key in own if own[key] != its[key]]:
            found.append(f"case {name}: another {', '.join(keys)}")
    expected: dict[str, list[str]] = {}
    for case in chosen:
        expected.setdefault(case.notebook, []).append(case.id)
    if not found and list(manifest.expected.items()) != list(expected.items()):
        found.append("expected: cases stand under another notebook, twice, or in another order")
    return found


def not_accepted(run: Run, profile: Profile) -> str | None:
    """Why the run's baseline is none that this checkout has accepted; None when it is one. Raises BadInput."""
    file = project.baseline_file(profile.baseline_name)
    ours = read_baseline(file.read_bytes() if file.is_file() else None, str(file))
    theirs = run_baseline(run)
    if theirs is None and ours is None:
        return None
    if ours is None:
        return f"its baseline is {theirs.run if theirs else 'none'}, and {file} is missing: nothing was accepted here; run `gatebook accept`"
    if theirs is None:
        return f"it was compared with no baseline, and {file} is one: run it again, or `gatebook accept` another"
    if theirs.content in {ours.content, *(entry.content for entry in ours.log)}:
        return None
    return f"its baseline ({theirs.run}) is no entry of the log in {file}: run it again by the accepted one, or `gatebook accept` this one"


def named(found: list[str]) -> str:
    more = len(found) - NAMED
    return "; ".join(found[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def _plain(case: Case) -> dict[str, Any]:
    return Case.model_validate(case.model_dump(mode="json")).model_dump(mode="json")


def _rules(profile: Profile) -> dict[str, Any]:
    """The profile without what a run may be told besides; waivers by what they name."""
    said = profile.model_dump(mode="json")
    said["target"] = {key: value for key, value in said["target"].items() if key not in OVERRIDDEN}
    twice = Counter(waiver["case"] for waiver in said["waivers"])
    said["waivers"] = {
        w["case"] if twice[w["case"]] == 1 else f"{w['case']} ({n})": w for n, w in enumerate(said["waivers"], 1)
    }
    return said


def _flat(value: dict[str, Any]) -> dict[str, Any]:
    """`a.b.c` -> value, of nested mappings."""
    return {".".join([key, *more]): one for key, inner in value.items() for more, one in _leaves(inner)}


def _leaves(value: Any) -> Iterable[tuple[list[str], Any]]:
    if not isinstance(value, dict) or not value:
        yield [], value if value != {} else NOTHING
        return
    for key, inner in value.items():
        for more, one in _leaves(inner):
            yield [str(key), *more], one


def _short(value: Any) -> str:
    if value is NOTHING:
        return "nothing"
    text = repr(value)
    return text if len(text) <= VALUE_CHARS else f"{text[:VALUE_CHARS]}..."
