"""Judge recorded answers again: by other rules (`judge`), as one run (`merge`), as they are (`report`). Nothing is asked."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from gatebook.commands.verify import cut_short, evidenced
from gatebook.config import project
from gatebook.config.profile import Profile
from gatebook.config.selection import shard_of
from gatebook.entering import open_intact
from gatebook.errors import BadInput, CannotMeasure, one_line
from gatebook.opening import accepted, by_notebook
from gatebook.record.folder import sha256_of
from gatebook.record.manifest import Manifest
from gatebook.record.run import HISTORY, Run
from gatebook.record.shelf import check_latest, held, new_name
from gatebook.report.figures import bare, check_apart, publish
from gatebook.runner import execute, judged, report
from gatebook.verdict.findings import contract_group
from gatebook.verdict.policy import check_plan
from gatebook.verdict.verdict import Verdict

SAME = ("profile", "base_url", "suite", "only", "against", "effort", "among")
"""What all shards' manifests say alike."""


def judge_again(path: Path, profile: Profile, out: Path) -> tuple[Run, Verdict]:
    """Judge the same answers by other rules, in a new bundle. Raises BadInput, BrokenRecord."""
    out = out.resolve()
    check_latest(out.parent)
    old = open_intact(path, "only an intact run is judged again")
    asked, where = old.manifest, f"profile {profile.name!r}"
    if asked.look is not None:
        todo = "judge a run of --effort normal"
        raise BadInput(f"{path}: its look was planned by the rules that it was asked with; {todo}")
    if asked.profile.languages != profile.languages:
        had = ", ".join(asked.profile.languages or ["all"])
        raise BadInput(f"{where}, key 'languages': {path} was asked in others ({had}); name the same")
    adds, had_added = (one.target.asks_with or "nothing" for one in (profile, asked.profile))
    if adds != had_added:
        said = f"key 'target' adds {adds} to every request, and the run was asked with {had_added}"
        raise BadInput(f"{where}: {said}; write request and thinking as the run had them, or run it anew")
    cases = [old.cases[i] for ids in asked.expected.values() for i in ids]
    check_plan(profile, cases, {contract_group(case.group) for case in cases})
    new = {"run": out.name, "profile": profile.model_dump(), "judged_from": asked.judged_from or asked.run}
    manifest = Manifest.model_validate(asked.model_dump() | new)
    run = Run.create(out, manifest, list(old.cases.values()), accepted(profile)[1])
    return _judged_anew(run, [old], "gatebook judge")


def merge(paths: list[Path], out: Path | None) -> tuple[Run, Verdict]:
    """A new run with every shard's journals, judged, reported and sealed as a run that asked all of it.

    Raises BadInput where a folder is no shard, BrokenRecord where one was touched, CannotMeasure where shards are missing,
    doubled or strangers; then nothing was made.
    """
    shards = _in_order([(path, open_intact(path, "only intact shards are merged")) for path in paths])
    first = shards[0]
    folder = (out or project.outputs() / new_name(first.manifest.profile.name)).resolve()
    check_latest(folder.parent)
    asked = {i for run in shards for ids in run.manifest.expected.values() for i in ids}
    if lost := first.cases.keys() - asked:
        said = f"{len(lost)} cases are in no shard ({sorted(lost)[0]})"
        raise CannotMeasure(f"{said}: the shards were made by another version; run them again")
    names = [run.manifest.run for run in shards]
    name = f"{names[0]}-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:4]}"  # the history has one run of a name
    new = {
        "run": folder.name if out is None else name, "expected": by_notebook(sorted(first.cases.values(), key=lambda case: case.notebook)), "shard": None,
        "merged_from": names, "created": min(run.manifest.created for run in shards),
    }  # fmt: skip
    manifest = Manifest.model_validate(first.manifest.model_dump() | new)
    baseline = first.path / "baseline.json"
    run = Run.create(folder, manifest, list(first.cases.values()), baseline.read_bytes() if baseline.exists() else None)
    return _judged_anew(run, shards, "gatebook merge")


def report_again(path: Path) -> tuple[Run, Verdict]:
    """What a run said, judged again from its record. One that was killed gets its reports first, and is not green until it is
    resumed. Raises BadInput, BrokenRecord."""
    run = Run(path.resolve())
    if run.sealed:
        return run, evidenced(path)
    check_latest(run.path.parent)
    with held(run.path, "gatebook report"):
        todo = f"the run did not finish; go on with: gatebook run --resume {run.path}"
        verdict = judged(run, [*cut_short(run), todo])
        report(run, verdict)
    return run, verdict


def figures_again(path: Path, no_texts: bool, out: Path | None) -> tuple[str, Verdict]:
    """The same without a prompt or an answer, into a folder of its own: (the last line, the verdict in figures).
    Raises BadInput, BrokenRecord."""
    if out is None or not no_texts:
        raise BadInput("--no-texts and --out go together, such as: gatebook report RUN --no-texts --out public/run")
    check_apart(out)
    run, verdict = report_again(path)
    page, told = publish(run, verdict, out), bare(verdict)
    return one_line(f"{told.verdict}  {told.reason}  {page}"), told


def _judged_anew(run: Run, sources: list[Run], by: str) -> tuple[Run, Verdict]:
    """Copy what the sources recorded into the new run, and execute its notebooks on it."""
    with held(run.path, by):
        try:
            shutil.copyfile(sources[0].path / "cases.json", run.path / "cases.json")  # every chain begins at its hash
            for number, source in enumerate(sources, 1):
                _copy_record(source, run, number)
        except BaseException:
            shutil.rmtree(run.path, ignore_errors=True)  # a part would be judged as the whole
            raise
        return execute(Run(run.path), None, watch=False)


def _copy_record(source: Run, run: Run, number: int) -> None:
    """Copy journals, gauges, history and texts; of a shard the server's log too."""
    for notebook in source.notebooks:
        for file in source.record_files(notebook):
            shutil.copyfile(file, run.record_file(notebook, number) if number > 1 else run.path / file.name)
    once = [*(source.gauges_file(notebook).name for notebook in source.notebooks), HISTORY]
    for name in once:
        if (source.path / name).exists() and not (run.path / name).exists():
            shutil.copyfile(source.path / name, run.path / name)
    if (source.path / "texts").is_dir():
        shutil.copytree(source.path / "texts", run.path / "texts", dirs_exist_ok=True)
    if run.manifest.judged_from is None and (source.path / "server.log").exists():
        log = f"server.shard-{number}.log" if number > 1 else "server.log"
        shutil.copyfile(source.path / "server.log", run.path / log)


def _in_order(found: list[tuple[Path, Run]]) -> list[Run]:
    """Sort the shards by number. Raises BadInput, CannotMeasure, naming the one that does not fit."""
    first, shards = found[0][1], dict[int, Run]()
    for path, run in found:
        if run.manifest.shard is None or run.manifest.judged_from:
            raise BadInput(f"{path}: is no shard of a run; make one with `gatebook run --shard K/N`")
        shard, count = shard_of(run.manifest.shard), shard_of(first.manifest.shard or "").total
        if wrong := _strange(run, first) or ("the number of shards" if shard.total != count else ""):
            raise CannotMeasure(f"{path}: its {wrong} is not that of {first.path.name}; merge the shards of one run")
        if twin := shards.get(shard.number):
            raise CannotMeasure(f"{path}: shard {shard} is there twice, also as {twin.path.name}; name one")
        shards[shard.number] = run
    if missing := [str(number) for number in range(1, count + 1) if number not in shards]:
        todo = f"run them (`gatebook run --shard {missing[0]}/{count}`), then merge all"
        raise CannotMeasure(f"{len(missing)} of {count} shards missing: {', '.join(missing[:10])}; {todo}")
    return [shards[number] for number in range(1, count + 1)]


def _strange(run: Run, first: Run) -> str:
    """Return what of a shard belongs to another run; empty when nothing does."""
    one, other = run.manifest, first.manifest
    if one.profile.target.revision != other.profile.target.revision:
        return f"revision ({one.profile.target.revision or 'none named'})"
    for name in SAME:
        if getattr(one, name) != getattr(other, name):
            return name
    if run.anchor != first.anchor:
        return "case set"
    bases = [sha256_of(file) if (file := r.path / "baseline.json").exists() else None for r in (run, first)]
    return "baseline" if bases[0] != bases[1] else ""
