"""`gatebook merge`: one bundle and one verdict of all shards of a run. Nothing is asked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from gatebook.config import project
from gatebook.config.shards import shard_of
from gatebook.entering import open_intact
from gatebook.errors import BadInput, CannotMeasure
from gatebook.opening import by_notebook
from gatebook.record.folder import sha256_of
from gatebook.record.run import HISTORY, Manifest, Run
from gatebook.record.shelf import check_latest, held, new_name
from gatebook.runner import execute
from gatebook.verdict.verdict import Verdict

SAME = ("profile", "base_url", "suite", "only", "against", "effort", "among")
"""What all shards' manifests say alike."""


def merge(paths: list[Path], out: Path | None) -> tuple[Run, Verdict]:
    """A new run with every shard's journals, judged, reported and sealed as a run that asked all of it.

    Raises BadInput where a folder is no shard, BrokenRecord where one was touched, CannotMeasure where shards are missing,
    doubled or strangers; then nothing was made.
    """
    shards = _in_order([open_intact(path, "only intact shards are merged") for path in paths], paths)
    first = shards[0]
    folder = (out or project.outputs() / new_name(first.manifest.profile.name)).resolve()
    check_latest(folder.parent)
    asked = {i for run in shards for ids in run.manifest.expected.values() for i in ids}
    if lost := first.cases.keys() - asked:
        raise CannotMeasure(
            f"{len(lost)} cases are in no shard ({sorted(lost)[0]}): the shards were made by another version; run them again"
        )
    cases = sorted(first.cases.values(), key=lambda case: case.notebook)
    changed: dict[str, Any] = {
        "run": folder.name, "expected": by_notebook(cases), "shard": None, "merged_from": [run.manifest.run for run in shards],
        "created": min(run.manifest.created for run in shards),
    }  # fmt: skip
    manifest = Manifest.model_validate(first.manifest.model_dump() | changed)
    baseline = first.path / "baseline.json"
    run = Run.create(folder, manifest, list(first.cases.values()), baseline.read_bytes() if baseline.exists() else None)
    with held(run.path, "gatebook merge"):
        try:
            shutil.copyfile(first.path / "cases.json", run.path / "cases.json")  # every chain begins at its hash
            for number, shard in enumerate(shards, 1):
                _take(shard, run, number)
        except BaseException:
            shutil.rmtree(run.path, ignore_errors=True)  # a part would be judged as the whole
            raise
        return execute(Run(run.path), None, watch=False)


def _in_order(runs: list[Run], paths: list[Path]) -> list[Run]:
    """The shards by number. Raises BadInput, CannotMeasure, naming the one that does not fit."""
    found: dict[int, Run] = {}
    for run, path in zip(runs, paths, strict=True):
        if run.manifest.shard is None or run.manifest.judged_from:
            raise BadInput(f"{path}: is no shard of a run; make one with `gatebook run --shard K/N`")
        first, shard = next(iter(found.values()), run), shard_of(run.manifest.shard)
        count = shard_of(first.manifest.shard or "").total
        if wrong := _strange(run, first) or ("the number of shards" if shard.total != count else ""):
            raise CannotMeasure(f"{path}: its {wrong} is not that of {first.path.name}; merge the shards of one run")
        if shard.number in found:
            raise CannotMeasure(
                f"{path}: shard {shard} is there twice, also as {found[shard.number].path.name}; name one"
            )
        found[shard.number] = run
    count = shard_of(runs[0].manifest.shard or "").total
    if missing := [str(number) for number in range(1, count + 1) if number not in found]:
        raise CannotMeasure(
            f"{len(missing)} of {count} shards missing: {', '.join(missing[:10])}; run them (`gatebook run --shard {missing[0]}/{count}`), then merge all"
        )
    return [found[number] for number in range(1, count + 1)]


def _strange(run: Run, first: Run) -> str:
    """What of a shard is another run's; empty when nothing is."""
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


def _take(shard: Run, run: Run, number: int) -> None:
    """A shard's journals, gauges, texts and log."""
    for notebook in shard.notebooks:
        shutil.copyfile(shard.record_file(notebook), run.record_file(notebook, number))
        if shard.gauges_file(notebook).exists() and not run.gauges_file(notebook).exists():
            shutil.copyfile(shard.gauges_file(notebook), run.gauges_file(notebook))
    if (shard.path / HISTORY).exists() and not (run.path / HISTORY).exists():
        shutil.copyfile(shard.path / HISTORY, run.path / HISTORY)
    if (shard.path / "texts").is_dir():
        shutil.copytree(shard.path / "texts", run.path / "texts", dirs_exist_ok=True)
    if (shard.path / "server.log").exists():
        shutil.copyfile(
            shard.path / "server.log", run.path / (f"server.shard-{number}.log" if number > 1 else "server.log")
        )
