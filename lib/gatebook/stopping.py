"""SIGINT, SIGTERM and SIGHUP: whatever a command does, one of them never ends it with 0. Limits of time and memory."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from gatebook.errors import BrokenRecord

GARBAGE = (100_000, 20, 20)
"""For gc.set_threshold. By its default the collector of Python 3.11 looks so often through the objects of very many cases that reading
them takes three times as long."""
AGAIN_S = 1.0
"""A signal within this time counts as the first one: `timeout` and terminals deliver one twice."""


class Interrupted(KeyboardInterrupt):
    """A class of its own: once a KeyboardInterrupt itself has left an `exec` (dataclasses have one), CPython 3.11 ends the
    process as killed by SIGINT, whatever caught it and whatever status was asked for."""


class _Stop:
    """The signal that this process received; signals belong to a process."""

    number: int | None = None
    at = 0.0
    over = False
    """The command has ended, and only the process has not."""
    held = False
    """What runs is to be interrupted at its end."""


def collect_seldom() -> None:
    """In a process of our own: look for garbage that refers to itself less often. Other garbage is not collected but freed at once."""
    gc.set_threshold(*GARBAGE)


def heed() -> None:
    """Raise KeyboardInterrupt on the first of them; end the process at once on a second one.

    SIGINT counts also where it was inherited as ignored, as a shell starts what runs in the background. SIGHUP does not:
    `nohup` ignores it on purpose. A fleet's workers have both blocked.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    sys.unraisablehook = _swallowed


def _stop(number: int, frame: FrameType | None) -> None:
    if _Stop.over or (_Stop.number is not None and time.monotonic() - _Stop.at > AGAIN_S):
        with suppress(OSError):
            os.write(2, b"" if _Stop.over else b"gatebook: interrupted again, stopped at once\n")
        os._exit(128 + number)
    if _Stop.number is None:
        _Stop.number, _Stop.at = number, time.monotonic()
        if not _Stop.held:
            raise Interrupted


def _swallowed(what: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised in a destructor or a callback: an interrupt there is told by `stopped`, without a traceback."""
    if not isinstance(what.exc_value, Interrupted):
        sys.__unraisablehook__(what)


@contextmanager
def held() -> Iterator[None]:
    """Interrupt the block at its end only: it starts what would be left half started. A second signal still ends the process."""
    _Stop.held = True
    try:
        yield
    finally:
        _Stop.held = False
    if stopped():
        raise Interrupted


def stopped() -> bool:
    """Return whether a signal came, also where a library has swallowed its KeyboardInterrupt."""
    return _Stop.number is not None


def finish() -> None:
    """From here on a signal ends the process at once: nothing is left to be interrupted."""
    _Stop.over = True


def exit_code(code: int) -> int:
    """Return the exit code: 128 + the signal (SIGINT: 130, SIGTERM: 143, SIGHUP: 129) instead of 0."""
    return code if code or _Stop.number is None else 128 + _Stop.number


class TookTooMuch(BrokenRecord):
    """A block took more time or memory than it may."""


@contextmanager
def within(seconds: float, mib: int, what: str) -> Iterator[None]:
    """Raise TookTooMuch when the block takes longer, or more memory beside what is in use; also in the middle of a regular
    expression. In the main thread only, and memory on Linux only. One around it that has less left still ends it.
    """

    def over(number: int, frame: FrameType | None) -> None:
        raise TookTooMuch(f"{what} took longer than {seconds:g} s")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, began = signal.signal(signal.SIGALRM, over), time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    if 0 < left < seconds:
        signal.setitimer(signal.ITIMER_REAL, left)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        if (used := _data_bytes()) is not None:
            most = used + (mib << 20)
            resource.setrlimit(
                resource.RLIMIT_DATA, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard)
            )
        yield
    except MemoryError:
        raise TookTooMuch(f"{what} took more than {mib:,} MiB of memory, or than there is") from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - time.monotonic() + began, 0.001), interval)


def _data_bytes() -> int | None:
    """Return what RLIMIT_DATA counts of this process; None where the system does not tell."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) * 1024
    return None
