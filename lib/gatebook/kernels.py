"""Kernels started ahead: while one notebook asks, the next one's kernel is already importing (3 s of each notebook)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

QUIET = ("08_load", "90_verdict")
"""Nothing starts beside them: the first measures, the second is the last."""
READY = "import gatebook.workbook, matplotlib.pyplot"
Kernel = Callable[[str], AbstractContextManager[Any]]
"""Notebook -> its kernel's manager; the kernel is stopped at the end. Raises nbclient's DeadKernelError for whatever goes
wrong when the kernel is gone: that is why."""


@contextmanager
def kernels(folder: Path) -> Iterator[Kernel]:
    """Kernels in one folder, each for one notebook, and the next one's started meanwhile."""
    from jupyter_core.utils import run_sync
    from nbclient.exceptions import DeadKernelError

    waiting: list[Any] = []

    @contextmanager
    def kernel(notebook: str) -> Iterator[Any]:
        manager = waiting.pop() if waiting else _start(folder)
        try:
            if notebook not in QUIET:
                waiting.append(_start(folder))
            yield manager
        except Exception as error:
            if run_sync(manager.is_alive)():
                raise
            raise DeadKernelError(f"{notebook}: the kernel is gone") from error
        finally:
            _stop(manager)

    try:
        yield kernel
    finally:
        for manager in waiting:
            _stop(manager)


def _start(folder: Path) -> Any:
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import run_sync

    class Manager(AsyncKernelManager):
        """Remembers its clients, since nobody else closes them."""

        clients: list[Any] = []

        def client(self, **kwargs: Any) -> Any:
            made = super().client(**kwargs)
            self.clients = [*self.clients, made]
            return made

    own = KernelSpecManager(kernel_dirs=[])  # python3 is this environment's own, whatever $JUPYTER_PATH holds
    manager = Manager(kernel_name="python3", kernel_spec_manager=own)
    # no history: two kernels that write one database say so in the output of a cell, which then is not reproduced
    arguments = ["--IPKernelApp.log_level=50", "--HistoryManager.enabled=False", f"--IPKernelApp.exec_lines={READY}"]
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONSAFEPATH": "1"}  # no module out of the run folder
    run_sync(manager.start_kernel)(cwd=str(folder), extra_arguments=arguments, env=environment)
    return manager


def _stop(manager: Any) -> None:
    from jupyter_core.utils import run_sync

    for client in manager.clients:
        client.stop_channels()
    run_sync(manager.shutdown_kernel)(now=True)
