"""What a worker does: the real `gatebook run` for one deployment, or a shard of it, as a child process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatebook.config.files import to_yaml
from gatebook.errors import GatebookError, one_line
from gatebook.fleet.outcome import Row
from gatebook.fleet.place import Place, last_line
from gatebook.fleet.store import Store, fetched
from gatebook.record.run import LATEST
from gatebook.verdict.verdict import EXIT_CODES, PRECEDENCE, Word

POLL_S = 0.1


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
    """Ask what a job is about, wherever an earlier worker stopped, and keep the bundle in the store. What goes wrong is the
    ERROR of this deployment."""
    began = time.monotonic()
    try:
        store = Store(job.store)
        row = _known(store, job) or _asked(store, job)
    except (GatebookError, OSError) as error:
        row = _error(job, str(error))
    return row.model_copy(update={"seconds": round(time.monotonic() - began, 1)})


def join(job: Job, shards: list[Job]) -> Row:
    """Merge the bundles of all shards of a deployment, and keep the merged one."""
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp())
    try:
        store = Store(job.store)
        if (row := _known(store, job)) is None:
            with ExitStack() as stack:
                parts = [stack.enter_context(fetched(f"{job.store}/{shard.kept}")) for shard in shards]
                run = scratch / job.deployment
                code, said = _child(["merge", *map(str, parts), "--out", str(run)], scratch, lambda: None)
            row = _told(job, run if (run / "manifest.json").exists() else None, code, said)
            if row.bundle:
                store.put(run, job.kept)
    except (GatebookError, OSError) as error:
        row = _error(job, str(error))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return row.model_copy(update={"seconds": round(time.monotonic() - began, 1)})


def _known(store: Store, job: Job) -> Row | None:
    """The row of a bundle that is kept already; None where it is to be made, or to be gone on with."""
    data = store.read(f"{job.kept}/SHA256SUMS") and store.read(f"{job.kept}/verdict.json")
    if not data:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch)
        for name in store.names(job.kept):
            if name.endswith("verdict.json"):
                (run / name.rpartition("/")[2]).write_bytes(store.read(name) or b"")
        row = _told(job, run, None, "")
    return row if row.verdict != "ERROR" else None


def _asked(store: Store, job: Job) -> Row:
    with Place(store, job.key, job.kept) as place:
        if (run := place.run) is not None:
            words = ["run", "--resume", str(run)]
        else:
            profile = place.folder / "profile.yaml"
            profile.write_text(to_yaml(job.profile), encoding="utf-8")
            words = ["run", "--profile", str(profile), "--suite", job.suite, "--out", str(place.folder)]
            words += ["--among", str(job.among)] if job.among > 1 else []
            words += ["--shard", job.shard] if job.shard else []
        code, said = _child(words, place.folder, place.tick)
        row = _told(job, place.run, code, said).model_copy(update={"moved_on": place.taken})
        shutil.rmtree(place.folder / LATEST, ignore_errors=True)
        if place.run is not None and row.bundle:
            place.keep(place.run)
        return row


def _child(words: list[str], folder: Path, tick: Callable[[], None]) -> tuple[int, str]:
    """(exit code, the last line that it said) of the real command, which ends with this process."""
    log = folder / "said.log"
    command = [sys.executable, "-m", "gatebook.fleet.leash", str(os.getpid()), *words]
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        try:
            while process.poll() is None:
                tick()
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return process.returncode, last_line(log.read_text(encoding="utf-8", errors="replace"))


def _told(job: Job, run: Path | None, code: int | None, said: str) -> Row:
    """What a bundle says of its deployment, where that is how its command ended (None: it is not known any more)."""
    try:
        verdict = json.loads((run / "verdict.json").read_bytes()) if run else None
        word: Word | None = verdict["verdict"] if verdict else None
        if verdict is None or word not in EXIT_CODES or code not in (None, EXIT_CODES[word]):
            return _error(job, f"gatebook ended with {code} and no verdict: {said}")
        assert run is not None
        if verdict["partial"] != bool(job.shard):
            return _error(job, "its run is narrowed, which the fleet did not ask for")
        alone = {file: json.loads(file.read_bytes())["verdict"] for file in sorted(run.glob("*.verdict.json"))}
        notebooks = {file.name.partition(".")[0]: found for file, found in alone.items() if found in PRECEDENCE}
        served = verdict["served"]
        return Row(
            deployment=job.deployment, base_url=served["base_url"], model=served["model"], revision=served["revision"],
            verdict=word, reason=one_line(verdict["reason"]), notebooks=notebooks, bundle=job.kept,
            needs_baseline=verdict.get("needs_baseline", False),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        return _error(job, f"its verdict cannot be read ({type(error).__name__})")


def _error(job: Job, reason: str) -> Row:
    target = job.profile["target"]
    said = {name: target.get(name) for name in ("base_url", "model", "revision")}
    return Row(
        deployment=job.deployment, base_url=said["base_url"] or "", model=said["model"] or "", revision=said["revision"],
        verdict="ERROR", reason=one_line(reason),
    )  # fmt: skip
