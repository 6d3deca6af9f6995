"""The runs in outputs/: which there are, which one is meant, how each ended, the copy of the last one, and who works on one now.

The lock of a run folder is the kernel's (flock), so it ends with its holder however that ends. The file says who that is.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from gatebook.config.files import read_file
from gatebook.config.project import person
from gatebook.errors import BadInput, CannotMeasure, GatebookError, os_reason
from gatebook.record.folder import MAX_JSON_MIB, run_folder_of
from gatebook.record.run import LATEST, Run, now

NO_RUN = "outputs/ holds no run yet; make one with `make demo` or `gatebook run --profile params/smollm2.yaml`"
FULL = (errno.ENOSPC, errno.EDQUOT)
TRIES, EVERY_S = 5, 0.1
"""A holder that was killed while it started a process needs a moment to be gone."""


def new_name(profile: str) -> str:
    """2026-11-22T21-04-31Z-smollm2-7f3a: sortable, unique, and safe in a URL."""
    slug = re.sub(r"[^a-z0-9.]+", "-", profile.lower()).strip("-") or "profile"
    return f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}-{slug}-{secrets.token_hex(2)}"


def run_folders(outputs: Path) -> list[Path]:
    """Every run, oldest first; `latest` is only a copy of one, and a hidden folder is not finished yet."""
    found = [file.parent for file in outputs.glob("[!.]*/manifest.json") if file.parent.name != LATEST]
    return sorted(found, key=lambda path: _said(path, "manifest.json", "created"))


def find_run(outputs: Path, name: str = "") -> Run:
    """The run with this path, name or unique part of a name; without a name the newest. Raises BadInput."""
    folders = run_folders(outputs)
    if not name and not folders:
        raise BadInput(NO_RUN)
    exact = [path for path in (Path(name), outputs / name) if name and (path / "manifest.json").is_file()]
    near = exact[:1] or ([path for path in folders if name in path.name] if name else folders[-1:])
    if len(near) != 1:
        known = ", ".join(path.name for path in near or folders[-5:])
        raise BadInput(
            f"run {name!r}: {len(near) or 'no'} runs in outputs/ have this in their name; name one of: {known}"
        )
    return Run(near[0])


def run_row(path: Path) -> dict[str, str]:
    """A row for the list in which a person chooses a run."""
    row = {"run": path.name, "created": _said(path, "manifest.json", "created")[:19]}
    try:
        manifest = Run(path).manifest
    except GatebookError as error:
        return {**row, "verdict": "unreadable", "suite": "", "model": "", "reason": str(error)}
    said = {"verdict": verdict_word(path), "reason": _said(path, "verdict.json", "reason")}
    return {**row, **said, "suite": manifest.suite_told, "model": manifest.profile.target.model}


def verdict_word(path: Path) -> str:
    return _said(path, "verdict.json", "verdict") or "unfinished"


def _said(path: Path, file: str, key: str) -> str:
    try:
        return str(json.loads(read_file(path / file, MAX_JSON_MIB))[key])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, BadInput):
        return ""


def copy_to_latest(run: Run) -> Path:
    """Copy a bundle to `latest/` beside it, since CI wants fixed names; a run resumed in `latest/` is there already."""
    if run.path.name == LATEST:
        return run.path
    fresh = _unused(run.path.parent)
    try:
        shutil.copytree(run.path, fresh)
        drop_latest(run.path.parent)
        return fresh.rename(run.path.parent / LATEST)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def check_latest(folder: Path) -> None:
    """Raises BadInput where `latest` in the folder of runs is not a copy of a run, the only thing that may be replaced."""
    latest = folder / LATEST
    if not latest.exists() or latest.is_symlink() or (latest.is_dir() and not any(latest.iterdir())):
        return
    if run_folder_of(latest) != latest.resolve():
        raise BadInput(
            f"{latest}: is no copy of a run, and would be replaced by one; move it away or choose another --out"
        )


def drop_latest(folder: Path) -> None:
    """Remove the copy of the last run at once, so that half of one never stands there. Raises BadInput, OSError."""
    check_latest(folder)
    latest = folder / LATEST
    if latest.is_symlink():
        latest.unlink()
    elif latest.exists():
        shutil.rmtree(latest.rename(_unused(folder)), ignore_errors=True)


def _unused(folder: Path) -> Path:
    return folder / f".{LATEST}-{secrets.token_hex(4)}"


@contextmanager
def held(folder: Path, by: str, tries: int = TRIES) -> Iterator[None]:
    """Hold the lock of a folder; `by` names the command. Raises BadInput with the holder's name and time. The file lies beside
    the folder (`.<run>.lock`), outside the bundle, and is removed with the lock."""
    path = folder.resolve().with_name(f".{folder.resolve().name}.lock")
    for left in reversed(range(tries)):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise (CannotMeasure if error.errno in FULL else BadInput)(
                f"{path}: cannot be written ({os_reason(error)}), so {folder} cannot be locked; work on a copy that can be"
            ) from None
        with suppress(OSError):  # held, or gone: the last holder may have taken the file away in between
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        os.close(descriptor)
        if not left:
            raise BadInput(f"{folder}: is in use by {_holder(path)}; wait for it, or stop it")
        time.sleep(EVERY_S)
    try:
        holder = {"by": by, "person": person(), "process": os.getpid(), "host": socket.gethostname(), "since": now()}
        with suppress(OSError):  # a full disk keeps nobody from finishing a run
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # still locked, so it is ours
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.read_bytes())
        return f"{said['by']} of {said['person']} (process {said['process']} on {said['host']}, since {said['since']})"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
