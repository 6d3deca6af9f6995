"""What `verify` replays runs in this process: pytest with limits, and, in a network namespace of its own, no way out.

    python -P -m gatebook.confined unshared ARGUMENTS... part FOLDER NOTEBOOK... part FOLDER NOTEBOOK...

after `unshare --net`; `shared` where that is not permitted. Parts run side by side, each with files of its own in its folder.
Nothing here but the standard library is imported before the limits stand.
"""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import struct
import sys
from pathlib import Path
from typing import Any

CPU_S = 600
"""Processor time of this process, and of each kernel that it starts."""
MEMORY_BYTES = 8 << 30
"""Private memory of each: torch with the embedding model takes a quarter of it."""
FILE_BYTES = 256 << 20
"""The largest file that one may write."""
LOOK_S = 1.0
"""How often a silent kernel is looked at."""
KERNEL_DIED = 70
"""The exit status where a kernel ended before its notebook did."""
UNSHARED, SHARED, TRY, PART = "unshared", "shared", "try", "part"
REPORT = "nbval.xml"
"""What a part leaves in its folder."""
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def loopback_up() -> None:
    """Start the loopback of a new network namespace: Jupyter talks to its kernels over it. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


def limit() -> None:
    """Lower this process's limits, and so its children's; one that is lower already stays."""
    for what, most in (
        (resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_DATA, MEMORY_BYTES), (resource.RLIMIT_FSIZE, FILE_BYTES), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        hard = resource.getrlimit(what)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (value, value))


def main() -> None:
    where, arguments = sys.argv[1], sys.argv[2:]
    if where != SHARED:
        loopback_up()
    if where == TRY:
        return
    limit()
    given = dict(os.environ)
    from gatebook import forks

    os.environ.update(forks.STILL)
    from nbval import plugin

    forks.prepare("kernels")
    os.environ.clear()
    os.environ.update(given)
    plugin.RunningKernel = watched(plugin.RunningKernel)
    first, *parts = [number for number, word in enumerate([*arguments, PART]) if word == PART]
    pids = []
    for begin, end in zip([first, *parts], parts, strict=False):
        folder, *names = arguments[begin + 1 : end]
        pid, _ = forks.fork_beside_kernels()
        if not pid:
            sys.exit(_replay(arguments[:first], Path(folder), names))
        pids.append(pid)
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    sys.exit(
        max(128 - end if end < 0 else end for end in ends)
    )  # 0 and 1 are reports of pytest; more, or a signal, is none


def _replay(common: list[str], folder: Path, names: list[str]) -> int:
    """Replay some notebooks in this process; the exit status of pytest."""
    import nbval.kernel
    import pytest

    from gatebook.kernels import BlockingManager, forking

    nbval.kernel.KernelManager = BlockingManager
    own = {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "runtime"}  # two kernels that share them say so in outputs
    os.environ.update({name: str(folder / part) for name, part in own.items()})
    with forking():
        return int(pytest.main([*common, "--junitxml", str(folder / REPORT), *names]))


def watched(kernel: Any) -> Any:
    """Return nbval's kernel class with a check that it is alive: nbval itself waits its whole deadline for a dead one."""
    import time
    from queue import Empty

    import pytest

    class Watched(kernel):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            try:
                super().__init__(*args, **kwargs)
            except RuntimeError as error:
                pytest.exit(f"a kernel did not start: {error}", KERNEL_DIED)

        def get_message(self, stream: str, timeout: float | None = None) -> Any:
            until = time.monotonic() + (float("inf") if timeout is None else timeout)
            while True:
                left = until - time.monotonic()
                try:
                    return super().get_message(stream, max(min(left, LOOK_S), 0.01))
                except Empty:
                    if not self.is_alive():
                        why = "it was killed, or went over the limits of time and memory"
                        pytest.exit(f"a kernel died: {why}", KERNEL_DIED)
                    if left <= LOOK_S:
                        raise

    return Watched


if __name__ == "__main__":
    main()
