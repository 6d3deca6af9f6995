"""What `verify` replays runs in this process: pytest with limits, and, in a network namespace of its own, no way out.

    python -P -m gatebook.confined unshared ARGUMENTS...     after `unshare --net`; `shared` where that is not permitted

Nothing here but the standard library is imported before the limits stand.
"""

from __future__ import annotations

import fcntl
import resource
import socket
import struct
import sys

CPU_S = 600
"""Processor time of this process, and of each kernel that it starts."""
MEMORY_BYTES = 8 << 30
"""Private memory of each: torch with the embedding model takes a quarter of it."""
FILE_BYTES = 256 << 20
"""The largest file that one may write."""
UNSHARED, SHARED, TRY = "unshared", "shared", "try"
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def loopback_up() -> None:
    """A new network namespace has a loopback that is down, and Jupyter talks to its kernels over it. Raises OSError."""
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
    import pytest

    sys.exit(pytest.main(arguments))


if __name__ == "__main__":
    main()
