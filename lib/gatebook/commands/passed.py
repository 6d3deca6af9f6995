"""`gatebook passed`: may a deployment go on with this bundle? Profile, cases, waivers and baseline are the checkout's, not the bundle's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatebook.commands.verify import evidenced
from gatebook.config import project
from gatebook.config.cases import Case, load_cases
from gatebook.config.profile import Profile
from gatebook.config.selection import EFFORTS, Effort, Shard, in_steps, of_effort, part_of, select, shard_of
from gatebook.errors import BadInput, ExitCode, one_line
from gatebook.opening import accepted, by_notebook, planned_look
from gatebook.record.run import Run
from gatebook.verdict.judging import judge_beside, run_baseline
from gatebook.verdict.verdict import Verdict

OVERRIDDEN = ("server", "base_url", "model", "revision", "headers")
"""Keys of `target` that a run may have from its command line or its environment."""
NAMED = 8
"""Differences that one message names."""
VALUE_CHARS = 60
NOTHING = object()


@dataclass(frozen=True)
class Passed:
    """The answer to a deployment, in one line."""

    verdict: Verdict
    profile: str
    own: dict[str, str]
    """What the run was told besides the checkout's profile, where that was given."""
    not_accepted: str | None = None
    """Why its baseline is none of the checkout's."""

    @property
    def exit_code(self) -> int:
        unsure = self.verdict.partial or self.not_accepted
        return self.verdict.exit_code or (ExitCode.INCONCLUSIVE if unsure else ExitCode.PASS)

    def __str__(self) -> str:
        v = self.verdict
        word, reason = v.called, v.reason
        if self.exit_code == ExitCode.INCONCLUSIVE and self.not_accepted and v.verdict == "PASS" and not v.partial:
            word, reason = "INCONCLUSIVE", self.not_accepted
        own = "".join(f"; the run's own {name}: {value}" for name, value in self.own.items())
        said = f"{v.run}, profile {self.profile}, suite {v.suite}: {reason}{own}"
        return f"{'NOT PASSED' if self.exit_code else 'passed'}, {word}: {one_line(' '.join(said.split()))}"


def passed(
    path: Path, suite: str, profile: Profile | None = None, cases: Path | None = None, *, revision: str | None = None,
    base_url: str | None = None, model: str | None = None, header: list[str] | None = None, effort: Effort = "normal",
    among: int = 1,
) -> Passed:  # fmt: skip
    """The verdict of an intact bundle of this suite and of what is wanted; None is not asked for.

    Judged again from the record, so an edited verdict.json says nothing. With `profile`, what the bundle was judged by must
    be what the checkout says: profile, cases (default: the checkout's), waivers, baseline. `header`: names of the extra
    headers; `among`: the deployments whose error budget it may have shared. Raises BadInput for a bundle of something else, BrokenRecord for one that is not the evidence of its verdict.
    """
    from gatebook.collect.client import normal_base_url

    have, run = evidenced(path), Run(path.resolve())
    asked, target = run.manifest, run.manifest.profile.target
    if asked.judged_from:
        todo = "name the run that asked"
        raise BadInput(f"{path}: holds the answers of {asked.judged_from}, judged again by other rules; {todo}")
    if asked.among > among:
        said = f"was judged as one of {asked.among} deployments, which sees less than a run by itself"
        raise BadInput(f"{path}: {said}; ask the fleet's verdict, run it alone, or allow it with --among {asked.among}")
    if have.suite != suite:
        raise BadInput(f"{path}: is a run of suite {have.suite!r}, asked for is {suite!r}; run that one")
    if EFFORTS.index(asked.effort) < EFFORTS.index(effort):
        todo = f"run that one, or ask with --effort {asked.effort}"
        raise BadInput(f"{path}: is of effort {asked.effort}, asked for is {effort}; {todo}")
    for what, its, want in (
        ("revision", target.revision, revision),
        ("model", target.model, model),
        ("base_url", asked.base_url, base_url and normal_base_url(base_url)),
        ("header", sorted(target.headers), None if header is None else sorted(header)),
    ):
        if want is not None and its != want:
            raise BadInput(f"{path}: judged {what} {its!r}, asked for is {want!r}; gate that one")
    if profile is None:
        return Passed(have, asked.profile.name, {})
    if found := differences(run, profile, project.case_folders(cases)):
        said = f"was not judged by what this checkout says: {_some(found)}; run it again from this commit"
        raise BadInput(f"{path}: {said}")
    return Passed(have, asked.profile.name, _own_words(run, profile), not_accepted(run, profile))


def check_plan_here(
    path: Path, profile: Profile, against: Profile | None, suite: str | None, only: list[str] | None, shard: Shard | None,
    effort: Effort | None, among: int,
) -> None:  # fmt: skip
    """Check that an unfinished run asks what this checkout would ask, there and with those keys: the folder may be anybody's.

    `suite`, `only`, `shard` and `effort` are not compared where they are None. Raises BadInput, naming what differs.
    """
    from gatebook.collect.server import endpoint

    run = Run(path.resolve())
    asked, its, ours = run.manifest, run.manifest.profile.target, profile.target
    port_of = asked.base_url if ours.server == "embedded" and ours.base_url is None else None
    compared = (
        ("base_url", asked.base_url, endpoint(ours, port_of)[0]),
        ("model", its.model, ours.model),
        ("revision", its.revision, ours.revision),
        ("headers", its.headers, ours.headers),
        ("second target", asked.against and asked.against.base_url, against and endpoint(against.target, None)[0]),
        ("second profile", asked.against and asked.against.target, against and against.target),
        ("suite", asked.suite, suite or asked.suite),
        ("only", asked.only, only or asked.only),
        ("shard", asked.shard, str(shard) if shard else asked.shard),
        ("effort", asked.effort, effort or asked.effort),
        ("among", asked.among, among),
    )
    found = [
        f"{name}: the run has {_short(has)}, asked for is {_short(want)}" for name, has, want in compared if has != want
    ]
    if found := found + differences(run, profile, project.case_folders()):
        todo = "resume it as it was begun, from that commit, or begin another run"
        raise BadInput(f"{path}: is not what this checkout would ask, and nothing was: {_some(found)}; {todo}")


def _some(found: list[str]) -> str:
    return "; ".join([*found[:NAMED], *([f"and {len(found) - NAMED} more"] if len(found) > NAMED else [])])


def _own_words(run: Run, profile: Profile) -> dict[str, str]:
    """Return what the run was given besides the checkout's profile: what is deployed, and where."""
    asked, target, against = run.manifest.profile.target, profile.target, run.manifest.against
    headers = [", ".join(sorted(one.headers)) or None for one in (asked, target)]
    own = {
        "base_url": (run.manifest.base_url, target.base_url),
        "model": (asked.model, target.model),
        "revision": (asked.revision, target.revision),
        "second target": (against.name if against else None, None),
        "headers": (headers[0], headers[1]),
    }
    return {
        name: f"{its or 'none'} (in the profile: {ours or 'none'})" for name, (its, ours) in own.items() if its != ours
    }


def differences(run: Run, profile: Profile, cases: Sequence[Path]) -> list[str]:
    """Return where the rules and cases of the bundle differ from the checkout's. Raises BadInput for a bad checkout."""
    manifest = run.manifest
    theirs, ours = _flat(_rules(manifest.profile)), _flat(_rules(profile))
    found = [
        f"profile {name}: the run has {_short(has)}, the checkout {_short(says)}"
        for name in sorted(theirs.keys() | ours.keys())
        if (has := theirs.get(name, NOTHING)) != (says := ours.get(name, NOTHING))
    ]
    servers = manifest.profile.target.server, profile.target.server
    if servers[0] != servers[1] and servers != ("external", "embedded"):
        found.append(f"profile target.server: the run has {servers[0]}, the checkout {servers[1]}")
    planned = in_steps(load_cases(*cases), profile.load)
    chosen = of_effort(select(planned, manifest.suite, manifest.only, profile.languages), manifest.effort)
    mine, waits = {case.id: _plain(case) for case in chosen}, set[str]()
    asked = {i for ids in manifest.expected.values() for i in ids}
    if look := manifest.look:
        plan = planned_look(profile, chosen, run_baseline(run)).model_copy(update={"went_on": look.went_on})
        found += ["look: its stages are not those that this checkout plans"] if look != plan else []
        waits = set() if look.went_on else {*look.later}
    parts = {case.id for case in (part_of(chosen, shard_of(manifest.shard)) if manifest.shard else chosen)}
    found += [f"case {i}: is not in the run" for i in mine if i in parts and i not in asked | waits]
    more = sorted((asked | run.cases.keys()) - mine.keys())
    found += [f"case {i}: is not in the checkout's suite {manifest.suite}" for i in more]
    for name, own in mine.items():
        its = _plain(run.cases[name]) if name in run.cases else own
        if keys := [
            key for key in own if json.dumps(own[key]) != json.dumps(its[key])
        ]:  # `true` is not 1, and order is sent
            found.append(f"case {name}: another {', '.join(keys)}")
    expected = by_notebook(case for case in chosen if case.id in parts - waits)
    if not found and list(manifest.expected.items()) != list(expected.items()):
        found.append("expected: cases stand under another notebook, twice, or in another order")
    return found


def not_accepted(run: Run, profile: Profile) -> str | None:
    """Return why this checkout has not accepted the run's baseline; None when it has. Raises BadInput."""
    file, ours, theirs = project.baseline_file(profile.baseline_name), accepted(profile)[0], run_baseline(run)
    if theirs is None:
        todo = "run it again, or `gatebook accept` another"
        return None if ours is None else f"it was compared with no baseline, and {file} is one: {todo}"
    if ours is None:
        return f"its baseline is {theirs.run}, and {file} is missing: nothing was accepted here; run `gatebook accept`"
    if theirs.content == ours.content:
        return None
    if theirs.content in {entry.content for entry in ours.log}:
        now = judge_beside(run, ours)
        said = f"its baseline ({theirs.run}) is an older entry of the log in {file}; by the accepted one ({ours.run}) it is {now.called}"
        return f"{said}: {now.reason}" if now.exit_code else None
    todo = "run it again by the accepted one, or `gatebook accept` this one"
    return f"its baseline ({theirs.run}) is no entry of the log in {file}: {todo}"


def _plain(case: Case) -> dict[str, Any]:
    return Case.model_validate(case.model_dump(mode="json")).model_dump(mode="json")


def _rules(profile: Profile) -> dict[str, Any]:
    """Return the profile without OVERRIDDEN, its waivers by case."""
    said = profile.model_dump(mode="json")
    said["target"] = {key: value for key, value in said["target"].items() if key not in OVERRIDDEN}
    count = Counter(waiver["case"] for waiver in said["waivers"])
    names = [w["case"] if count[w["case"]] == 1 else f"{w['case']} ({n})" for n, w in enumerate(said["waivers"], 1)]
    return {**said, "waivers": dict(zip(names, said["waivers"], strict=True))}


def _flat(value: Any, *path: str) -> dict[str, Any]:
    """Flatten nested mappings into `a.b.c` -> value; an empty one counts as none."""
    if not isinstance(value, dict):
        return {".".join(path): value}
    return {name: one for key, inner in value.items() for name, one in _flat(inner, *path, str(key)).items()}


def _short(value: Any) -> str:
    if value is NOTHING:
        return "nothing"
    text = repr(value)
    return text if len(text) <= VALUE_CHARS else f"{text[:VALUE_CHARS]}..."
