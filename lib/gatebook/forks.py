"""The process that forks: it has imported everything once, which is 1 s of each kernel and 2 s of each command.

    python -P -m gatebook.forks kernels     forks one for each line of its standard input
    python -P -m gatebook.forks commands    the same, one after the other; a command's kernels are forked from this one, too
    fork_beside_kernels()                   a part of this process, with what forks its kernels

What is forked is a process of its own, used once. It ends with the process that forks, and that one with its input.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from typing import IO, Any, Literal, NoReturn

from gatebook import stopping

SAFE = {"PYTHONUTF8": "1", "PYTHONSAFEPATH": "1"}
"""No module out of the run folder."""
INLINE = "module://matplotlib_inline.backend_inline"
"""What a kernel of ipykernel draws with; matplotlib reads it when it is imported, and pyplot in the kernel itself."""
Kind = Literal["kernels", "commands"]
IMPORTED: dict[Kind, tuple[str, ...]] = {
    "kernels": (
        "IPython.core.debugger", "IPython.core.oinspect", "IPython.core.pylabtools", "IPython.extensions.storemagic", "PIL.PngImagePlugin",
        "anyio._backends._asyncio", "httpcore", "ipykernel.debugger", "ipykernel.ipkernel", "ipykernel.kernelapp", "matplotlib.backends.backend_agg",
        "matplotlib.pyplot", "pandas.io.formats.html", "pandas.io.formats.string", "pandas.io.formats.style", "pandas.plotting._matplotlib",
        "pyarrow.pandas_compat", "scipy.cluster.hierarchy", "scipy.special", "gatebook.collect.scheduler", "gatebook.report.plots", "gatebook.workbook",
    ),
    "commands": (
        "gatebook.cli", "gatebook.commands.passed", "gatebook.commands.verify", "gatebook.record.history", "gatebook.report.figures",
        "gatebook.report.junit", "gatebook.report.pages", "gatebook.report.standing", "gatebook.report.summary", "gatebook.runner", "nbconvert",
        "papermill",
    ),
}  # fmt: skip
STILL = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": INLINE,
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
"""While a process that forks imports: it must have one thread, and the debugger that ipykernel imports warns of frozen modules.
What it forks has an environment of its own."""
PR_SET_PDEATHSIG = 1
"""Linux, prctl(2): the signal that a process gets when its parent ends."""
PR_SET_NAME = 15
"""The name that `ps` and `top` show: of a fork, else that of the process that forks."""
GONE = "the process that forks is gone"


class Forker:
    """Our end of a process that forks. Raises RuntimeError where that one is gone."""

    def __init__(self, asks: int, hears: int) -> None:
        """`asks`, `hears`: file descriptors, the same one for a socket."""
        self._asks, self._hears = asks, hears

    @property
    def gone(self) -> bool:
        """Whether it has ended; while no command runs, it says nothing else by itself."""
        return bool(select([self._hears], [], [], 0)[0])

    def kernel(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> int:
        """Fork a kernel and return its pid."""
        return self._ask(argv=list(argv), cwd=str(cwd), env=dict(env))

    def command(
        self, words: Sequence[str], cwd: Path, env: Mapping[str, str], out: Path, err: Path, tick: Callable[[], None], tick_s: float = 0.1
    ) -> int:  # fmt: skip
        """Run `gatebook WORDS` and return its exit status, minus the number of the signal that ended it.

        `tick` is called every `tick_s`; what it raises ends the command.
        """
        pid = self._ask(words=list(words), cwd=str(cwd), env=dict(env), out=str(out), err=str(err))
        try:
            while not select([self._hears], [], [], tick_s)[0]:
                tick()
        except BaseException:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._answer()
            raise
        return self._answer()

    def _ask(self, **wanted: Any) -> int:
        data = (json.dumps(wanted) + "\n").encode()
        try:
            while data:  # nothing is left in a buffer, which would raise once more when it is closed
                data = data[os.write(self._asks, data) :]
        except OSError as error:
            raise RuntimeError(GONE) from error
        return self._answer()

    def _answer(self) -> int:
        """One line; what follows it stays where `select` sees it."""
        said = b""
        try:
            while (byte := os.read(self._hears, 1)) not in (b"", b"\n"):
                said += byte
            return int(said)
        except (OSError, ValueError) as error:
            raise RuntimeError(GONE) from error


_given: list[socket.socket] = []
"""In a forked command, once: the way to a process that forks its kernels."""


_heeded: dict[int, Any] = {}
"""What signals were to this process before it ignored them."""


@contextmanager
def kernel_forker() -> Iterator[Forker]:
    """Yield what forks kernels for this process. It ends with the block."""
    if _given:
        with _given.pop() as way:
            yield Forker(way.fileno(), way.fileno())
    else:
        with forker("kernels") as found:
            yield found


@contextmanager
def forker(kind: Kind) -> Iterator[Forker]:
    """Start a process that forks. A signal of the terminal reaches commands, and no kernel. It ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "gatebook.forks", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | SAFE | STILL,
        start_new_session=kind == "kernels",
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout
        try:
            yield Forker(process.stdin.fileno(), process.stdout.fileno())
        finally:
            process.kill()


def main(kind: Kind) -> None:
    """Import what is needed, and fork for each line of standard input."""
    if kind == "kernels":
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # one that is meant for it alone ends it without a traceback
    else:  # those of a terminal are for its commands, which end in order, and so does this one with its input
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            _heeded[number] = signal.signal(number, signal.SIG_IGN)
    prepare(kind)
    if kind == "kernels":
        _fork_kernels(sys.stdin, sys.stdout.fileno())
    else:
        _fork_commands()


def prepare(kind: Kind) -> None:
    """Import and compile what is forked. STILL must be in the environment."""
    for name in (*IMPORTED["kernels"], *(IMPORTED["commands"] if kind == "commands" else ())):
        importlib.import_module(name)
    importlib.import_module("gatebook.report.text").compile_templates()
    if kind == "commands":
        importlib.import_module("gatebook.report.pages").compile_templates()
    stopping.collect_seldom()
    gc.collect()
    gc.freeze()


def fork_beside_kernels() -> tuple[int, int]:
    """Fork a process, and one that forks kernels for it alone and ends with it: (pid, the other's pid), and (0, 0) in the first one."""
    own = os.getpid()
    ours, its = socket.socketpair()
    if not (kernels := _fork(own)):
        ours.close()
        os.setsid()
        _name("gatebook forks")
        if _fork_kernels(its.makefile(encoding="utf-8"), its.fileno()):
            os._exit(0)
        raise SystemExit  # of a kernel that has ended
    its.close()
    if not (pid := _fork(own)):
        _given.append(ours)
        return 0, 0
    ours.close()
    return pid, kernels


def _fork_kernels(asked: IO[str], told: int) -> bool:
    """Fork a kernel for each line: `argv`, `cwd`, `env` as JSON; its pid is the answer. False in a kernel that has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    own = os.getpid()
    for line in asked:
        if not (pid := _fork(own)):
            _become_kernel(own, **json.loads(line))
            return False
        _tell(told, pid)
    return True


def _fork_commands() -> None:
    """Fork a command for each line: `words`, `cwd`, `env`, `out`, `err` as JSON; its pid is the answer, and in the end its status."""
    told = sys.stdout.fileno()
    for line in sys.stdin:
        pid, kernels = fork_beside_kernels()
        if not pid:
            _become_command(**json.loads(line))
        _tell(told, pid)
        ended = os.pidfd_open(pid)
        if ended not in select([ended, sys.stdin], [], [])[0]:
            return  # nobody waits for it any more, and it ends with this process
        os.close(ended)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.waitpid(kernels, 0)
        _tell(told, status)


def _tell(told: int, number: int) -> None:
    """Answer whoever asked. Where nobody is there any more, this process ends, and what it has forked with it."""
    try:
        os.write(told, f"{number}\n".encode())
    except BrokenPipeError:
        os._exit(0)


def _fork(parent: int) -> int:
    """Fork; what is forked ends with its parent."""
    if not (pid := os.fork()):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(75)
    return pid


def _name(name: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode())


def _become(name: str, cwd: str, env: Mapping[str, str], out: int, err: int) -> None:
    _name(name)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, handler in {**_heeded, signal.SIGINT: signal.default_int_handler}.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})  # a fleet's workers have both blocked
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)


def _become_kernel(parent: int, argv: list[str], cwd: str, env: dict[str, str]) -> None:
    import numpy
    from ipykernel.kernelapp import IPKernelApp

    numpy.random.seed()  # as a fresh process has it; Python's own does it at a fork
    os.setsid()
    _become("gatebook kernel", cwd, env, 2, 2)
    IPKernelApp.launch_instance(argv=[*argv, f"--IPKernelApp.parent_handle={parent}"])


def _become_command(words: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> NoReturn:
    def file(path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    _become(f"gatebook {words[0]}", cwd, env, file(out), file(err))
    sys.argv = ["gatebook", *words]
    sys.modules["__main__"].__package__ = None  # else its usage is that of this module
    try:
        importlib.import_module("gatebook.__main__").main()
    except SystemExit as end:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)  # to take apart what was imported takes 0.3 s
    raise AssertionError("a command ends by SystemExit")


if __name__ == "__main__":
    from gatebook import forks  # what a forked command imports, and not a second module beside it

    forks.main(sys.argv[1])  # type: ignore[arg-type]
