"""Kernels for notebooks, forked from a process that has imported everything. JupyterLab and papermill alone have ordinary ones."""

from __future__ import annotations

import os
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial
from importlib.metadata import EntryPoint
from pathlib import Path
from queue import Empty
from typing import Any, cast

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.client import KernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager, KernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_core.utils import run_sync

from gatebook.config import project
from gatebook.forks import SAFE, Forker, kernel_forker

OWN_ARGUMENTS = ["--IPKernelApp.log_level=50", "--HistoryManager.enabled=False"]
"""No history: two kernels that write one database say so in the output of a cell, which then is not reproduced."""
ANSWER_S, STATUS_S = 1, 0.1
"""How long a new kernel is waited for, before it is asked again: it may have said its status before anybody heard it."""
LONG_PATH = 70
"""Of a folder for sockets: the system takes 107 bytes. Sockets, because the next kernel may be given a dead one's TCP port, and then
gets what is still on its way to that one."""
SAVED_S = 1.0
"""While its cells run, a notebook is written at most once in so long: papermill writes it whole before and after every cell."""
Kernel = Callable[[str], AbstractContextManager[Any]]
"""Notebook -> its kernel's manager; the kernel is stopped at the end. Raises nbclient's DeadKernelError for whatever goes
wrong when the kernel is gone: that is why."""


@contextmanager
def forking() -> Iterator[None]:
    """Within it, every kernel manager of this process has its kernels forked."""
    factory = KernelProvisionerFactory.instance()
    with kernel_forker() as _Forking.source:
        factory.provisioners["forking"] = EntryPoint("forking", "gatebook.kernels:_Forking", factory.GROUP_NAME)
        factory.default_provisioner_name = "forking"
        try:
            yield
        finally:
            factory.default_provisioner_name = "local-provisioner"


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


@cache
def engine() -> str:
    """Return the name of papermill's own engine for notebooks that are written seldom; at its end, each is."""
    from papermill.engines import NBClientEngine, papermill_engines

    class Seldom(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            save = nb_man.save

            def seldom() -> None:
                if (nb_man.now() - nb_man.last_save_time).total_seconds() >= SAVED_S:
                    save()

            nb_man.save = seldom
            try:
                return super().execute_managed_notebook(nb_man, kernel_name, **options)
            finally:
                nb_man.save = save

    papermill_engines.register("seldom", Seldom)
    return "seldom"


class _Ready(KernelClient):
    """Does not wait 0.2 s for silence, as the inherited one does: a kernel is ready when it says that it is idle."""

    async def _async_wait_for_ready(self, timeout: float | None = None) -> None:
        """Raises RuntimeError."""
        until = time.monotonic() + (timeout or float("inf"))
        while time.monotonic() < until:
            asked = self.kernel_info()
            with suppress(Empty):
                self._handle_kernel_info_reply(await self._async_get_shell_msg(timeout=ANSWER_S))
                while True:
                    said = await self._async_get_iopub_msg(timeout=STATUS_S)
                    if (
                        said["parent_header"].get("msg_id") == asked
                        and said["content"].get("execution_state") == "idle"
                    ):
                        return
            if not await self._async_is_alive():
                raise RuntimeError("the kernel died before it was ready")
        raise RuntimeError(f"the kernel was not ready within {timeout:g} s")


class _Client(_Ready, AsyncKernelClient):
    wait_for_ready = _Ready._async_wait_for_ready


class _BlockingClient(_Ready, BlockingKernelClient):
    wait_for_ready = run_sync(_Ready._async_wait_for_ready)


class BlockingManager(KernelManager):
    """For nbval: its kernels are ready, and gone, as soon as they are."""

    client_factory = _BlockingClient

    async def _async_wait(self, pollinterval: float = 0.1) -> None:
        await super()._async_wait(pollinterval / 20)


class _Manager(AsyncKernelManager):
    """Remembers its clients, since nobody else closes them."""

    clients: list[Any] = []
    client_factory = _Client

    def client(self, **kwargs: Any) -> Any:
        self.clients = [*self.clients, super().client(**kwargs)]
        return self.clients[-1]

    async def _async_wait(self, pollinterval: float = 0.1) -> None:
        """As inherited, which looks ten times a second whether a killed kernel is gone: the next one waits for that."""
        await super()._async_wait(pollinterval / 20)


class _Forking(LocalProvisioner):
    """Starts a kernel by asking the process that forks them."""

    source: Forker

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        kernel = _Kernel(self.source.kernel(cmd[3:], Path(kwargs.get("cwd") or Path.cwd()), kwargs["env"]))
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
