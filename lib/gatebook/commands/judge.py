"""`gatebook judge`: the same answers by other rules."""

from __future__ import annotations

import shutil
from pathlib import Path

from gatebook.config.profile import Profile
from gatebook.entering import open_intact
from gatebook.errors import BadInput
from gatebook.opening import accepted
from gatebook.record.run import HISTORY, Manifest, Run
from gatebook.record.shelf import check_latest, held
from gatebook.runner import execute
from gatebook.verdict.findings import contract_group
from gatebook.verdict.policy import check_plan
from gatebook.verdict.verdict import Verdict


def judge_again(path: Path, profile: Profile, out: Path) -> tuple[Run, Verdict]:
    """The same answers by other rules, in a new bundle; nothing is asked. Raises BadInput, BrokenRecord."""
    out = out.resolve()
    check_latest(out.parent)
    old = open_intact(path, "only an intact run is judged again")
    asked = old.manifest
    if asked.look is not None:
        raise BadInput(
            f"{path}: its look was planned by the rules that it was asked with; judge a run of --effort normal"
        )
    if asked.profile.languages != profile.languages:
        had = ", ".join(asked.profile.languages or ["all"])
        raise BadInput(f"profile {profile.name!r}, key 'languages': {path} was asked in others ({had}); name the same")
    cases = [old.cases[i] for ids in asked.expected.values() for i in ids]
    if profile.target.asks_with != asked.profile.target.asks_with:
        raise BadInput(
            f"profile {profile.name!r}: key 'target' adds {profile.target.asks_with or 'nothing'} to every request, and the run was asked "
            f"with {asked.profile.target.asks_with or 'nothing'}; write request and thinking as the run had them, or run it anew"
        )
    check_plan(profile, cases, {contract_group(case.group) for case in cases})
    said = {"run": out.name, "profile": profile.model_dump(), "judged_from": asked.judged_from or asked.run}
    manifest = Manifest.model_validate(asked.model_dump() | said)
    run = Run.create(out, manifest, list(old.cases.values()), accepted(profile)[1])
    with held(run.path, "gatebook judge"):
        try:
            _copy_record(old, run)
        except BaseException:
            shutil.rmtree(run.path, ignore_errors=True)  # half a record would be judged as a whole one
            raise
        return execute(run, None, watch=False)


def _copy_record(old: Run, run: Run) -> None:
    for notebook in old.notebooks:
        for file in old.record_files(notebook):
            shutil.copyfile(file, run.path / file.name)
        if old.gauges_file(notebook).exists():
            shutil.copyfile(old.gauges_file(notebook), run.gauges_file(notebook))
    if (old.path / HISTORY).exists():
        shutil.copy(old.path / HISTORY, run.path)
    if (old.path / "texts").is_dir():
        shutil.copytree(old.path / "texts", run.path / "texts")
