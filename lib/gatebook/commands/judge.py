"""`gatebook judge`: the same answers by other rules."""

from __future__ import annotations

import shutil
from pathlib import Path

from gatebook.config.profile import Profile
from gatebook.errors import BrokenRecord
from gatebook.opening import accepted
from gatebook.record.lock import held
from gatebook.record.run import HISTORY, Manifest, Run
from gatebook.record.shelf import check_latest
from gatebook.runner import execute
from gatebook.verdict.findings import contract_group
from gatebook.verdict.policy import check_plan
from gatebook.verdict.verdict import Verdict


def judge_again(path: Path, profile: Profile, out: Path) -> tuple[Run, Verdict]:
    """The same answers by other rules, in a new bundle; nothing is asked. Raises BadInput, BrokenRecord."""
    check_latest(out.resolve().parent)
    old = Run(path.resolve())
    if damage := old.damage():
        raise BrokenRecord(f"{path}: {damage[0]}; only an intact run is judged again")
    cases = [old.cases[i] for ids in old.manifest.expected.values() for i in ids]
    check_plan(profile, cases, {contract_group(case.group) for case in cases})
    manifest = Manifest.model_validate(
        {
            **old.manifest.model_dump(),
            "run": out.name,
            "profile": profile.model_dump(),
            "judged_from": old.manifest.judged_from or old.manifest.run,
        }
    )
    run = Run.create(out.resolve(), manifest, list(old.cases.values()), accepted(profile)[1])
    with held(run.path, "gatebook judge"):
        try:
            _take_over(old, run)
        except BaseException:
            shutil.rmtree(run.path, ignore_errors=True)  # half a record would be judged as a whole one
            raise
        return execute(run, None, watch=False)


def _take_over(old: Run, run: Run) -> None:
    """What was recorded, into a bundle of its own."""
    for notebook in old.notebooks:
        run.record_file(notebook).write_bytes(old.record_file(notebook).read_bytes())
        if old.gauges_file(notebook).exists():
            run.gauges_file(notebook).write_bytes(old.gauges_file(notebook).read_bytes())
    if (old.path / HISTORY).exists():
        shutil.copy(old.path / HISTORY, run.path)
    if (old.path / "texts").is_dir():
        shutil.copytree(old.path / "texts", run.path / "texts")
