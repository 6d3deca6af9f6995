"""What a worker does: the real `gatebook run` for one deployment, or a shard of it, as a child process."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatebook.collect.server import endpoint
from gatebook.commands.passed import differences, not_accepted
from gatebook.commands.verify import evidenced
from gatebook.config import project
from gatebook.config.files import to_yaml
from gatebook.config.profile import profile_from
from gatebook.errors import BrokenRecord, ExitCode, GatebookError, one_line
from gatebook.fleet.outcome import Row
from gatebook.fleet.store import Place, Store, fetched
from gatebook.forks import Forker, forker
from gatebook.record.run import LATEST, Run
from gatebook.record.shelf import held
from gatebook.verdict.verdict import EXIT_CODES, PRECEDENCE, Word


@dataclass(frozen=True)
class Job:
    """One child of one worker. Keys are in the environment of the worker, never here."""

    store: str
    """URL of the fleet run."""
    deployment: str
    profile: dict[str, Any]
    suite: str
    among: int
    """Deployments of the fleet, which share one error budget."""
    shard: str | None = None

    @property
    def key(self) -> str:
        return f"{self.deployment}{f'.shard-{self.shard}'.replace('/', '-of-') if self.shard else ''}"

    @property
    def kept(self) -> str:
        """Where its bundle is kept, from the fleet run."""
        return f"{'shards' if self.shard else 'deployments'}/{self.key}"


def work(job: Job) -> Row:
    """Ask what a job is about, wherever an earlier worker stopped, and keep the bundle in the store."""
    return _row(job, lambda store: _asked(store, job))


def join(job: Job, shards: list[Job]) -> Row:
    """Merge the bundles of all shards of a deployment, and keep the merged one."""
    return _row(job, lambda store: _merged(store, job, shards))


def _row(job: Job, make: Callable[[Store], Row]) -> Row:
    """Return the row of the kept bundle, else of one that is made now. What goes wrong is the ERROR of this deployment."""
    began = time.monotonic()
    try:
        store = Store(job.store)
        row = _known(store, job) or make(store)
    except (GatebookError, OSError) as error:
        row = _error(job, str(error))
    return row.model_copy(update={"seconds": round(time.monotonic() - began, 1)})


def _known(store: Store, job: Job) -> Row | None:
    """The row of a kept bundle, judged again from its record; None where it is to be made, or to be gone on with.

    Raises BrokenRecord for one that is not the evidence of its verdict, or that is of another deployment, profile or suite.
    """
    if not store.read(f"{job.kept}/SHA256SUMS"):
        return None
    with fetched(f"{job.store}/{job.kept}") as bundle:
        row = _told(job, _verdicts(bundle), None, "")
        if row.verdict == "ERROR":
            return None
        evidenced(bundle)
        if what := _strange(Run(bundle), job, row.verdict):
            raise BrokenRecord(f"{job.kept}: {what}; move it away and --resume, to ask again")
    return row


def _strange(run: Run, job: Job, word: Word) -> str | None:
    """Return what a bundle has that this fleet would not ask of the deployment; None when nothing. Raises BadInput."""
    asked, plan = run.manifest, profile_from(job.profile, job.key, job.deployment)
    if (asked.profile, asked.suite, asked.among, asked.shard) != (plan, job.suite, job.among, job.shard):
        return f"is of {asked.profile.name}, suite {asked.suite}, and not what this fleet asks of {job.deployment}"
    if (asked.effort, asked.only, asked.against) != ("normal", [], None):
        return f"is narrowed, of effort {asked.effort} or of two targets, which the fleet did not ask for"
    if plan.target.base_url and asked.base_url != endpoint(plan.target, None)[0]:
        return f"was asked at {asked.base_url}, and {job.deployment} is at {plan.target.base_url}"
    if found := differences(run, plan, project.case_folders()):
        return f"was not judged by what this checkout says: {'; '.join(found[:3])}"
    return not_accepted(run, plan) if word == "PASS" else None


def _merged(store: Store, job: Job, shards: list[Job]) -> Row:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        scratch = Path(folder)
        parts = [stack.enter_context(fetched(f"{job.store}/{shard.kept}")) for shard in shards]
        run = scratch / job.deployment
        code, said = _child(["merge", *map(str, parts), "--out", str(run)], scratch, lambda: None)
        row = _told(job, _verdicts(run if (run / "manifest.json").exists() else None), code, said)
        if row.bundle:
            what = _strange(Run(run), job, row.verdict)
            store.put(run, job.kept)
            row = _error(job, f"{job.kept}: {what}; move its shards away and --resume, to ask again") if what else row
    return row


def _asked(store: Store, job: Job) -> Row:
    with Place(store, job.key, job.kept) as place:
        profile = place.folder / "profile.yaml"
        profile.write_text(to_yaml(job.profile), encoding="utf-8")
        told = {"profile": profile, "suite": job.suite, "among": job.among, "effort": "normal"}
        words = ["run", *(f"--{name}={value}" for name, value in told.items())]
        words += ["--shard", job.shard] if job.shard else []
        words += ["--resume", str(place.run)] if place.run else ["--out", str(place.folder)]
        if place.run:
            with held(place.run, "gatebook fleet", tries=HOLDER_TRIES):
                pass
        code, said = _child(words, place.folder, place.tick)
        run = place.run if place.run and (place.run / "verdict.json").exists() else None
        row = _told(job, _verdicts(run), code, said).model_copy(update={"moved_on": place.taken})
        shutil.rmtree(place.folder / LATEST, ignore_errors=True)
        if place.run is not None and row.bundle:
            place.keep(place.run)
        return row


def _child(words: list[str], folder: Path, tick: Callable[[], None]) -> tuple[int, str]:
    """(exit code, the last line that it said) of the real command, which ends with this process."""
    log = folder / "said.log"
    try:
        code = _forker().command(words, Path.cwd(), os.environ, Path(os.devnull), log, tick)
    except RuntimeError as error:
        return ExitCode.ERROR, str(error)
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return code, lines[-1].removeprefix("gatebook: ") if lines else "it said nothing"


HOLDER_TRIES = 300
"""Of a tenth of a second: the run of a worker that was killed ends a while after it, on a busy machine seconds."""
_kept: list[tuple[Forker, ExitStack]] = []
"""What forks this worker's commands, and how to end it."""


def _forker() -> Forker:
    """The one that this worker has, else a new one, which ends when its input does: with this process."""
    while _kept and _kept[-1][0].gone:
        _kept.pop()[1].close()
    if not _kept:
        stack = ExitStack()
        _kept.append((stack.enter_context(forker("commands")), stack))
    return _kept[-1][0]


def _verdicts(run: Path | None) -> dict[str, bytes]:
    """Name -> content of every verdict in a run folder. Raises OSError where the run has none."""
    files = (run / "verdict.json", *sorted(run.glob("*.verdict.json"))) if run else ()
    return {file.name: file.read_bytes() for file in files}


def _told(job: Job, verdicts: dict[str, bytes], code: int | None, said: str) -> Row:
    """What a bundle says of its deployment, where that is how its command ended (None: it is not known any more)."""
    try:
        verdict: Any = json.loads(verdicts["verdict.json"]) if verdicts else None
        word: Word | None = verdict["verdict"] if verdict else None
        if word not in EXIT_CODES or code not in (None, EXIT_CODES[word]):
            return _error(job, f"gatebook ended with {code} and no verdict: {said}")
        if verdict["partial"] != bool(job.shard):
            return _error(job, "its run is narrowed, which the fleet did not ask for")
        own = ((name.partition(".")[0], data) for name, data in verdicts.items() if name != "verdict.json")
        alone = {notebook: json.loads(data)["verdict"] for notebook, data in own}
        served = verdict["served"]
        return Row(
            deployment=job.deployment, base_url=served["base_url"], model=served["model"], revision=served["revision"],
            verdict=word, reason=one_line(verdict["reason"]), bundle=job.kept,
            notebooks={name: found for name, found in alone.items() if found in PRECEDENCE},
            needs_baseline=verdict.get("needs_baseline", False),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        return _error(job, f"its verdict cannot be read ({type(error).__name__})")


def _error(job: Job, reason: str) -> Row:
    target = job.profile["target"]
    return Row(
        deployment=job.deployment, base_url=target.get("base_url") or "", model=target.get("model") or "",
        revision=target.get("revision"), verdict="ERROR", reason=one_line(reason),
    )  # fmt: skip
