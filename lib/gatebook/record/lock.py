"""The lock of a run folder: one process asks, judges and seals at a time, and another one is told who.

The lock is the kernel's (flock), so it ends with its holder however that ends. What stands in the file says who it is.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatebook.config.project import person
from gatebook.errors import BadInput, CannotMeasure, os_reason
from gatebook.record.run import now

FULL = (errno.ENOSPC, errno.EDQUOT)
TRIES, EVERY_S = 5, 0.1
"""A holder that was killed while it started a process needs a moment to be gone."""


@contextmanager
def held(folder: Path, by: str) -> Iterator[None]:
    """Hold the lock of a run folder; `by` names the command. Raises BadInput with the holder's name and time.

    The file lies beside the folder (`.<run>.lock`), where it is no part of the bundle, and goes when the lock does.
    """
    path = folder.resolve().with_name(f".{folder.resolve().name}.lock")
    for left in reversed(range(TRIES)):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise (CannotMeasure if error.errno in FULL else BadInput)(
                f"{path}: cannot be written ({os_reason(error)}); a run is worked on where its folder can be locked, so copy it"
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
