"""Check a bundle without any server: checksums, chains, every cell executed, the verdict computed again, nbval replay."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

from gatebook.errors import BadInput, BrokenRecord, first_line
from gatebook.judge.judging import judge
from gatebook.judge.verdict import Verdict
from gatebook.judge.verification import Step, Verification
from gatebook.opening import OVERALL
from gatebook.record.executed import unfinished
from gatebook.record.run import SUMS, Run

REPLAY_S = 600
NO_OTHER_PLUGINS = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
HIDDEN = ("OPENAI_", "GATEBOOK_", "PYTEST_")


Said = tuple[str, str | None]
"""What was counted, and what does not fit."""


def verify(path: Path, replay: bool = True) -> Verification:
    """Re-judge a bundle from its own files; without `replay`, all but the cells' outputs. Raises BadInput when `path` is no run folder."""
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
        checks.append((what, lambda: _replay(run)))
    for what, check in checks:
        found.steps.append(Step(what, *check()))
    return found


def passed(path: Path, suite: str, revision: str | None) -> tuple[Verdict, str]:
    """The verdict, and the name of the profile, of an intact bundle of this suite and, where it is given, this revision: what a deployment asks for.

    Judged again from the record, so an edited verdict.json says nothing. Raises BadInput for a bundle of something else,
    BrokenRecord for one that is not the evidence of its verdict.
    """
    have, asked = evidenced(path), Run(path.resolve()).manifest
    if asked.judged_from:
        raise BadInput(
            f"{path}: holds the answers of {asked.judged_from}, judged again by other rules; name the run that asked"
        )
    if have.suite != suite:
        raise BadInput(f"{path}: is a run of suite {have.suite!r}, asked for is {suite!r}; run that one")
    if revision is not None and have.served.revision != revision:
        raise BadInput(f"{path}: judged revision {have.served.revision!r}, asked for is {revision!r}; gate that one")
    return have, asked.profile.name


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
    except FileNotFoundError as error:
        return done, f"{Path(str(error.filename)).name} is missing"
    except (ValueError, OSError, BrokenRecord, BadInput) as error:
        return done, f"a verdict cannot be computed: {first_line(error)}"
    return done, None


def _replay(run: Run) -> Said:
    """Run nbval on a copy; the gate of a notebook that is not green must fail and everything else must not."""
    names = [f"{notebook}.ipynb" for notebook in (*run.notebooks, OVERALL)]
    if missing := [name for name in names if not (run.path / name).exists()]:
        return "nothing", f"{missing[0]} is missing"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(HIDDEN)} | {"PYTHONUTF8": "1"}
    environment[NO_OTHER_PLUGINS] = "1"  # they cost seconds, and are the business of whoever installed them
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run.path, copy)
        command = [
            sys.executable, "-m", "pytest", "-p", "gatebook", "-p", "nbval.plugin", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider",
            "-c", os.devnull, "--rootdir", folder, "-q", "--junitxml", f"{folder}/nbval.xml", *names,
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                cwd=copy,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=REPLAY_S,
            )
        except subprocess.TimeoutExpired:
            return "nothing", f"the replay took longer than {REPLAY_S} s"
        report = Path(folder) / "nbval.xml"
        if done.returncode not in (0, 1) or not report.exists():
            said = " ".join(done.stdout.split()[-30:])
            return "nothing", f"nbval could not replay (status {done.returncode}): {said}"
        root = ET.parse(report).getroot()
        return f"{len(list(root.iter('testcase')))} cells", _unexpected(root, run)


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
