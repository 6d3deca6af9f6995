"""Check a bundle without any server: checksums, chains, every cell executed, the verdict computed again, nbval replay."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gatebook.commands.checkout import differences, named, not_accepted, own_words
from gatebook.commands.replay import replay as replay_cells
from gatebook.config import project
from gatebook.config.profile import Profile
from gatebook.errors import BadInput, BrokenRecord, CannotMeasure, first_line
from gatebook.opening import OVERALL
from gatebook.record.executed import unfinished
from gatebook.record.run import SUMS, Run
from gatebook.stopping import within
from gatebook.verdict.judging import judge
from gatebook.verdict.verdict import Step, Verdict, Verification

JUDGE_S = 300
"""Wall time of judging a bundle again: a pattern that somebody else wrote may have no end."""
Said = tuple[str, str | None] | tuple[str, str | None, str]
"""What was counted, what does not fit, and lines that show it."""


def verify(path: Path, replay: bool = True, notebooks: Path | None = None) -> Verification:
    """Re-judge a bundle from its own files; without `replay`, all but the cells' outputs.

    `notebooks`: whose code may be executed, besides that of released versions; default: those of this checkout.
    Raises BadInput when `path` is no run folder.
    """
    try:
        run = Run(path.resolve())
    except BrokenRecord as error:
        return Verification(path.name, steps=[Step("plan", "manifest.json and cases.json", str(error))])
    seal = hashlib.sha256((run.path / SUMS).read_bytes()).hexdigest() if run.sealed else None
    found = Verification(run.manifest.run, run.manifest, seal)
    checks: list[tuple[str, Callable[[], Said]]] = [
        ("checksums: every file is what SHA256SUMS says, none missing, none added", lambda: _checksums(run)),
        ("records: every line continues the hash chain that starts at cases.json", lambda: _chains(run)),
        ("notebooks: every code cell of every notebook ran, the gate last", lambda: _executed(run)),
        ("verdicts: computed again from the record, equal to the files", lambda: _same_verdicts(run, found)),
    ]
    if replay:
        what = "nbval: every checked cell gives the recorded output in a fresh kernel, with no server"
        checks.append((what, lambda: _replay(run, found, notebooks or own_notebooks())))
    for what, check in checks:
        found.steps.append(Step(what, *check()))
    return found


@dataclass(frozen=True)
class Passed:
    """What a deployment is told of a bundle."""

    verdict: Verdict
    profile: str
    own: dict[str, str]
    """What the run was told besides the checkout's profile, where that was given."""
    not_accepted: str | None = None
    """Why its baseline is none of the checkout's."""


@dataclass(frozen=True)
class Wanted:
    """What a deployment says of the run that it wants; None is not asked for."""

    base_url: str | None = None
    model: str | None = None
    revision: str | None = None
    headers: list[str] | None = None
    """Names of the extra headers."""


def passed(
    path: Path, suite: str, wanted: Wanted | None = None, profile: Profile | None = None, cases: Path | None = None
) -> Passed:
    """The verdict of an intact bundle of this suite and of what is wanted: what a deployment asks for.

    Judged again from the record, so an edited verdict.json says nothing. With `profile`, what the bundle was judged by must
    be what the checkout says: profile, cases (default: the checkout's), waivers, baseline. Raises BadInput for a bundle of
    something else, BrokenRecord for one that is not the evidence of its verdict.
    """
    have, run = evidenced(path), Run(path.resolve())
    asked = run.manifest
    if asked.judged_from:
        raise BadInput(
            f"{path}: holds the answers of {asked.judged_from}, judged again by other rules; name the run that asked"
        )
    if have.suite != suite:
        raise BadInput(f"{path}: is a run of suite {have.suite!r}, asked for is {suite!r}; run that one")
    _refuse_another(path, run, wanted or Wanted())
    unknown = None
    if profile is not None:
        if found := differences(run, profile, cases or project.cases_dir()):
            raise BadInput(
                f"{path}: was not judged by what this checkout says: {named(found)}; run it again from this commit"
            )
        unknown = not_accepted(run, profile)
    return Passed(have, asked.profile.name, own_words(run, profile) if profile else {}, unknown)


def _refuse_another(path: Path, run: Run, wanted: Wanted) -> None:
    """Raises BadInput where something else was asked than is wanted."""
    from gatebook.collect.client import normal_base_url

    target = run.manifest.profile.target
    for what, its, want in (
        ("revision", target.revision, wanted.revision),
        ("model", target.model, wanted.model),
        ("base_url", run.manifest.base_url, wanted.base_url and normal_base_url(wanted.base_url)),
        ("header", sorted(target.headers), None if wanted.headers is None else sorted(wanted.headers)),
    ):
        if want is not None and its != want:
            raise BadInput(f"{path}: judged {what} {its!r}, asked for is {want!r}; gate that one")


def evidenced(path: Path) -> Verdict:
    """The verdict of an intact bundle, judged again from its record. Raises BadInput, BrokenRecord."""
    found = verify(path, replay=False)
    wrong = next((f"{step.what.partition(':')[0]}: {step.wrong}" for step in found.steps if step.wrong), None)
    if wrong or found.verdict is None:
        raise BrokenRecord(f"{path}: {wrong}; this bundle is not the evidence of the verdict that it states")
    return found.verdict


def _checksums(run: Run) -> Said:
    sizes = [p.stat().st_size for p in run.path.rglob("*") if p.is_file()]
    return f"{len(sizes)} files, {sum(sizes):,} bytes", "; ".join(run.damage()[:5]) or None


def _chains(run: Run) -> Said:
    count = 0
    for notebook in run.notebooks:
        if not run.record_file(notebook).exists():
            return f"{count} exchanges", f"{notebook}: no record"
        try:
            count += len(run.exchanges(notebook))
        except BrokenRecord as error:
            return f"{count} exchanges", str(error)
    return f"{count} exchanges in {len(run.notebooks)} records, from cases.json {run.anchor[:12]}", None


def _executed(run: Run) -> Said:
    names = (*run.notebooks, OVERALL)
    said = [unfinished(run.path / f"{notebook}.ipynb") for notebook in names]
    return f"{len(names)} notebooks", "; ".join(text for text in said if text) or None


def _same_verdicts(run: Run, found: Verification) -> Said:
    done = f"{len(run.notebooks) + 1} verdicts"
    try:
        recorded = Verdict.model_validate_json((run.path / "verdict.json").read_bytes())
        with within(JUDGE_S, "judging it again, by patterns of its own cases,"):
            found.verdict = judge(run, troubles=recorded.troubles)
            done += f" from {len(found.verdict.findings)} findings on {len(run.cases)} cases in {len(found.verdict.groups)} groups"
            if found.verdict != recorded:
                return (
                    done,
                    f"verdict.json says {recorded.verdict} ({recorded.reason}), the record says {found.verdict.verdict} ({found.verdict.reason})",
                )
            for notebook in run.notebooks:
                alone = Verdict.model_validate_json((run.path / f"{notebook}.verdict.json").read_bytes())
                if judge(run, notebook, alone.troubles) != alone:
                    return done, f"{notebook}.verdict.json is not what its record says"
    except OSError as error:
        return done, f"{Path(str(error.filename)).name} is missing or cannot be read"
    except (ValueError, CannotMeasure, BadInput) as error:
        return done, f"a verdict cannot be computed: {first_line(error)}"
    return done, None


def _replay(run: Run, found: Verification, notebooks: Path | None) -> Said:
    """Run nbval over our own cells; the gate of a notebook that is not green must fail and everything else must not."""
    if any(step.wrong for step in found.steps[:2]):
        return "nothing was executed", "the checksums or the records are wrong, so nothing of it is replayed"
    if notebooks is not None and run.path in (notebooks.resolve(), *notebooks.resolve().parents):
        notebooks = None  # a bundle that brings a project of its own has brought no notebooks of ours
    done = replay_cells(run.path, (*run.notebooks, OVERALL), notebooks)
    if done.foreign:
        found.not_replayed = done.trouble
    if done.report is None:
        return done.done, done.trouble, done.difference
    return done.done, _unexpected(done.report, run)


def own_notebooks() -> Path | None:
    """The notebooks of the checkout in which this runs; None outside of one."""
    try:
        return project.root() / "notebooks"
    except BadInput:
        return None


def _unexpected(report: ET.Element, run: Run) -> str | None:
    """The first cell that failed without being a gate, or a gate that did not do what the record says."""
    cases = list(report.iter("testcase"))
    if not cases:
        return "nbval replayed no cell"
    for notebook in (*run.notebooks, OVERALL):
        cells = [
            c
            for c in cases
            if f"{notebook}.ipynb" in str(c.get("classname")) or f"{notebook}.ipynb" in str(c.get("name"))
        ]
        if not cells:
            return f"{notebook}: nbval replayed no cell"
        failed = [c for c in cells if c.find("failure") is not None or c.find("error") is not None]
        red = judge(run, None if notebook == OVERALL else notebook, []).verdict != "PASS"
        others = [c for c in failed if c is not cells[-1]]
        if others:
            return f"{notebook}: {others[0].get('name')} gives another output than recorded"
        if red != bool(failed):
            return f"{notebook}: the gate {'let a red notebook pass' if red else 'raised in a green notebook'}"
    return None
