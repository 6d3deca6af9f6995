"""Check a bundle without a server: checksums, chains, every cell executed, the verdict computed again, nbval replay."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

from gatebook.commands.replay import Foreign, NotReplayed, Replayed, replaying
from gatebook.config import project
from gatebook.errors import BadInput, BrokenRecord, CannotMeasure, first_line
from gatebook.opening import OVERALL
from gatebook.record.executed import unfinished
from gatebook.record.folder import sha256_of
from gatebook.record.run import SCRATCH, SUMS, Run
from gatebook.verdict.findings import judge_notebook
from gatebook.verdict.judging import FindingsOf, bounded, judge_by, so_far
from gatebook.verdict.kept import kept_file
from gatebook.verdict.verdict import Step, Verdict, Verification

SHOWN = 5
Again = Callable[[str | None, list[str]], Verdict]
Gates = dict[str, Callable[[], Verdict]]
"""Notebook -> its verdict when it ran."""


def verify(path: Path, replay: bool = True, notebooks: Path | None = None) -> Verification:
    """Re-judge a bundle from its own files; without `replay`, all but the cells' outputs. Raises BadInput when it is no run folder.

    `notebooks`: whose code may be executed, besides that of released versions; default: the project's and the package's.
    """
    try:
        run = Run(path.resolve())
    except BrokenRecord as error:
        return Verification(path.name, steps=[Step("plan", "manifest.json and cases.json", str(error))])
    found = Verification(run.manifest.run, run.manifest, sha256_of(run.path / SUMS) if run.sealed else None)
    findings = cache(partial(judge_notebook, run))
    of: FindingsOf = lambda _, name: findings(name)  # noqa: E731 (of whichever view of the run)
    judged = partial(judge_by, run, findings_of=of)
    sizes = [p.stat().st_size for p in run.path.rglob("*") if p.is_file()]
    what = "checksums: every file is what SHA256SUMS says, none missing, none added"
    counted = f"{len(sizes)} files, {sum(sizes):,} bytes{_unsealed(run)}"
    found.steps.append(Step(what, counted, "; ".join(run.damage()[:SHOWN]) or None))
    found.steps.append(_chains(run))
    what = "notebooks: every code cell of every notebook ran, the gate last"
    found.steps.append(Step(what, f"{len(run.notebooks) + 1} notebooks", "; ".join(cut_short(run)) or None))
    with ExitStack() as stack:
        ended = (
            _begin(run, found, [notebooks] if notebooks else project.folders("notebooks"), stack) if replay else None
        )
        found.steps.append(_same_verdicts(run, found, judged))
        if ended:
            gates: Gates = {name: partial(judge_by, so_far(run, name), name, [], of) for name in run.notebooks}
            found.steps.append(_replayed(run, found, ended, gates | {OVERALL: partial(judged, None, [])}))
    return found


def evidenced(path: Path) -> Verdict:
    """Judge an intact bundle again from its record. Raises BadInput, BrokenRecord."""
    found = verify(path, replay=False)
    wrong = next((f"{step.what.partition(':')[0]}: {step.wrong}" for step in found.steps if step.wrong), None)
    if wrong or found.verdict is None:
        raise BrokenRecord(f"{path}: {wrong}; this bundle is not the evidence of the verdict that it states")
    return found.verdict


def _unsealed(run: Run) -> str:
    """Name the folders in which no file is sealed: Lab and pytest make them where a bundle is looked at."""
    found = sorted({path.relative_to(run.path).as_posix() for name in SCRATCH for path in run.path.rglob(name)})
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"; not sealed, no evidence: {', '.join(found[:SHOWN])}{more}" if found else ""


def _chains(run: Run) -> Step:
    what, count = "records: every line continues the hash chain that starts at cases.json", 0
    try:
        with bounded(run, "reading its records"):
            for notebook in run.notebooks:
                if not run.record_files(notebook)[0].exists():
                    raise BrokenRecord(f"{notebook}: no record")
                count += len(run.exchanges(notebook))
    except CannotMeasure as error:
        return Step(what, f"{count} exchanges", str(error))
    return Step(what, f"{count} exchanges in {len(run.notebooks)} records, from cases.json {run.anchor[:12]}", None)


def cut_short(run: Run) -> list[str]:
    """Return why notebooks did not run to their end."""
    return [said for name in (*run.notebooks, OVERALL) if (said := unfinished(run.path / f"{name}.ipynb"))]


def _same_verdicts(run: Run, found: Verification, judged: Again) -> Step:
    what, done = "verdicts: computed again from the record, equal to the files", f"{len(run.notebooks) + 1} verdicts"
    try:
        recorded = _recorded(run, "verdict.json")
        with bounded(run, "judging it again, by patterns of its own cases,"):
            found.verdict = own = judged(None, recorded.troubles)
            done += f" from {len(own.findings)} findings on {len(run.cases)} cases in {len(own.groups)} groups"
            if own != recorded:
                said = f"verdict.json says {recorded.verdict} ({recorded.reason})"
                return Step(what, done, f"{said}, the record says {own.verdict} ({own.reason})")
            for notebook in run.notebooks:
                alone = _recorded(run, f"{notebook}.verdict.json")
                again = judged(notebook, alone.troubles)
                if again != alone:
                    return Step(what, done, f"{notebook}.verdict.json is not what its record says")
                if run.findings_file(notebook).exists() and kept_file(run, notebook).findings != again.findings:
                    return Step(what, done, f"{notebook}.findings.json is not what its record says")
    except OSError as error:
        return Step(what, done, f"{Path(str(error.filename)).name} is missing or cannot be read")
    except (ValueError, CannotMeasure, BadInput) as error:
        return Step(what, done, f"a verdict cannot be computed: {first_line(error)}")
    return Step(what, done, None)


def _recorded(run: Run, name: str) -> Verdict:
    return Verdict.model_validate_json((run.path / name).read_bytes())


def _begin(run: Run, found: Verification, notebooks: list[Path], stack: ExitStack) -> Callable[[], Replayed]:
    """Begin to replay our own cells, beside what judges the record; what is returned waits for the end, and raises NotReplayed."""
    # a bundle that brings a project of its own has brought no notebooks of ours
    ours = [folder for folder in notebooks if not folder.resolve().is_relative_to(run.path)]
    try:
        if any(step.wrong for step in found.steps[:2]):
            raise Unsound("the checksums or the records are wrong, so nothing of it is replayed")
        return stack.enter_context(replaying(run.path, (*run.notebooks, OVERALL), ours))
    except NotReplayed as error:
        return partial(_raise, error)


def _raise(error: NotReplayed) -> Replayed:
    raise error


def _replayed(run: Run, found: Verification, ended: Callable[[], Replayed], gates: Gates) -> Step:
    """Compare what nbval reports: the gate of a notebook that is not green must fail and everything else must not."""
    what = "nbval: every checked cell gives the recorded output in a fresh kernel, with no server"
    try:
        done, report = ended()
    except Foreign as error:
        found.not_replayed = str(error)
        return Step(what, "nothing was executed", found.not_replayed, error.difference)
    except NotReplayed as error:
        return Step(what, "nothing was executed" if isinstance(error, Unsound) else "nothing", str(error))
    return Step(what, done, _unexpected(report, gates))


class Unsound(NotReplayed):
    """A bundle of which nothing is executed."""


def _unexpected(report: ET.Element, gates: Gates) -> str | None:
    """Return the first cell that failed and is no gate, or a gate that contradicts the record."""
    cases = list(report.iter("testcase"))
    if not cases:
        return "nbval replayed no cell"
    for notebook, judged in gates.items():
        file = f"{notebook}.ipynb"
        cells = [c for c in cases if file in str(c.get("classname")) or file in str(c.get("name"))]
        if not cells:
            return f"{notebook}: nbval replayed no cell"
        failed = [c for c in cells if c.find("failure") is not None or c.find("error") is not None]
        red = judged().verdict != "PASS"
        if others := [c for c in failed if c is not cells[-1]]:
            return f"{notebook}: {others[0].get('name')} gives another output than recorded"
        if red != bool(failed):
            return f"{notebook}: the gate {'let a red notebook pass' if red else 'raised in a green notebook'}"
    return None
