"""Kernels for notebooks, forked from one process that has imported everything: 3 s of each notebook are imports.

    python -P -m gatebook.kernels     forks a kernel for each line of its standard input, and ends with it

Each kernel is a process of its own, used once. A notebook that JupyterLab or papermill runs has an ordinary kernel.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_core.utils import run_sync

from gatebook.config import project

IMPORTED = (
    "ipykernel.ipkernel", "ipykernel.kernelapp", "matplotlib.axes", "matplotlib.backends.backend_agg", "pandas.io.formats.style",
    "scipy.special", "gatebook.workbook", "gatebook.collect.scheduler",
)  # fmt: skip
SAFE = {"PYTHONUTF8": "1", "PYTHONSAFEPATH": "1"}
"""No module out of the run folder."""
INLINE = "module://matplotlib_inline.backend_inline"
"""What a kernel of ipykernel draws with; matplotlib reads it when it is imported, and pyplot in the kernel itself."""
PR_SET_PDEATHSIG = 1
OWN_ARGUMENTS = ["--IPKernelApp.log_level=50", "--HistoryManager.enabled=False"]
"""No history: two kernels that write one database say so in the output of a cell, which then is not reproduced."""
LONG_PATH = 70
"""Of a folder for sockets: the system takes 107 bytes. Sockets, because the next kernel may be given a dead one's TCP port, and then
gets what is still on its way to that one."""
Kernel = Callable[[str], AbstractContextManager[Any]]
"""Notebook -> its kernel's manager; the kernel is stopped at the end. Raises nbclient's DeadKernelError for whatever goes
wrong when the kernel is gone: that is why."""


@contextmanager
def forking() -> Iterator[None]:
    """Within it, every kernel manager of this process has its kernels forked."""
    # one thread, as a process that forks must have; each kernel has its own environment again
    environment = os.environ | SAFE | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": INLINE}
    with subprocess.Popen(
        [sys.executable, "-m", "gatebook.kernels"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, encoding="utf-8", start_new_session=True
    ) as process:  # fmt: skip
        _Forking.source = process
        factory = KernelProvisionerFactory.instance()
        factory.provisioners["forking"] = EntryPoint("forking", "gatebook.kernels:_Forking", factory.GROUP_NAME)
        factory.default_provisioner_name = "forking"
        try:
            yield
        finally:
            factory.default_provisioner_name = "local-provisioner"
            process.kill()


@contextmanager
def kernels(folder: Path, **environment: str) -> Iterator[Kernel]:
    """Yield what starts a kernel in the folder for one notebook; `environment` is added to this process's."""
    with forking():
        yield partial(_kernel, folder, os.environ | SAFE | project.named() | environment)


@contextmanager
def _kernel(folder: Path, environment: dict[str, str], notebook: str) -> Iterator[_Manager]:
    from nbclient.exceptions import DeadKernelError

    own = KernelSpecManager(kernel_dirs=[])  # python3 is this environment's own, whatever $JUPYTER_PATH holds
    short = None if len(tempfile.gettempdir()) < LONG_PATH else "/tmp"
    with tempfile.TemporaryDirectory(prefix="gatebook-", dir=short) as sockets:
        manager = _Manager(kernel_name="python3", kernel_spec_manager=own, transport="ipc", ip=f"{sockets}/kernel")
        try:
            run_sync(manager.start_kernel)(cwd=str(folder), extra_arguments=OWN_ARGUMENTS, env=environment)
        except RuntimeError as error:
            raise DeadKernelError(f"{notebook}: {error}") from error
        try:
            yield manager
        except Exception as error:
            if run_sync(manager.is_alive)():
                raise
            raise DeadKernelError(f"{notebook}: the kernel is gone") from error
        finally:
            for client in manager.clients:
                client.stop_channels()
            run_sync(manager.shutdown_kernel)(now=True)


class _Manager(AsyncKernelManager):
    """Remembers its clients, since nobody else closes them."""

    clients: list[Any] = []

    def client(self, **kwargs: Any) -> Any:
        self.clients = [*self.clients, super().client(**kwargs)]
        return self.clients[-1]


class _Forking(LocalProvisioner):
    """Starts a kernel by asking the process that forks them."""

    source: subprocess.Popen[str]

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        wanted = {"argv": cmd[3:], "cwd": str(kwargs.get("cwd") or Path.cwd()), "env": dict(kwargs["env"])}
        assert self.source.stdin and self.source.stdout
        try:
            # nothing is left in a buffer, which would raise once more when it is closed
            os.write(self.source.stdin.fileno(), (json.dumps(wanted) + "\n").encode())
            kernel = _Kernel(int(self.source.stdout.readline()))
        except (OSError, ValueError) as error:
            raise RuntimeError("the process that forks kernels is gone") from error
        self.process, self.pid, self.pgid = cast(Any, kernel), kernel.pid, kernel.pid
        return self.connection_info


class _Kernel:
    """The part of subprocess.Popen that jupyter_client uses, for a process that is no child of ours."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """1 when it has ended, however it did."""
        return 1 if select.select([self._fd], [], [], timeout)[0] else None

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended, as Popen takes it
            signal.pidfd_send_signal(self._fd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        os.close(self._fd)


def serve() -> None:
    """Fork a kernel for each line: `argv`, `cwd`, `env` as JSON; its pid is the answer."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # one that is meant for it alone ends it without a traceback
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    own = os.getpid()
    for line in sys.stdin:
        if not (pid := os.fork()):
            _become_kernel(own, **json.loads(line))
            return
        print(pid, flush=True)


def _become_kernel(parent: int, argv: list[str], cwd: str, env: dict[str, str]) -> None:
    """A kernel ends with `parent`, the process that forked it. ipykernel sees to that a second later, and not where the parent
    is gone before it looks."""
    import ctypes

    import numpy
    from ipykernel.kernelapp import IPKernelApp

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    numpy.random.seed()  # as a fresh process has it; Python's own does it at a fork
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    IPKernelApp.launch_instance(argv=[*argv, f"--IPKernelApp.parent_handle={parent}"])


if __name__ == "__main__":
    serve()
