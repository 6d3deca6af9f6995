"""`gatebook` as a child that ends with its worker: a killed worker leaves nobody who asks on.

python -m gatebook.fleet.leash PID run ...     PID: the process that must live
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Linux, prctl(2): the signal that this process gets when its parent ends; it outlives execve."""


def main() -> None:
    """Become the command. Raises SystemExit where the worker is gone already."""
    parent, *words = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it ended before the line above
        raise SystemExit(75)
    os.execv(sys.executable, [sys.executable, "-m", "gatebook", *words])


if __name__ == "__main__":
    main()
