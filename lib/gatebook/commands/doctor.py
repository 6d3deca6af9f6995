"""What is missing on this machine."""

from __future__ import annotations

import re
import shutil
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gatebook.config import project
from gatebook.errors import GatebookError

FREE_MIB = 500
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[.*\])?(?:==([^\s;#]+))?", re.MULTILINE)
Found = tuple[bool, str, str]
"""Fine or not, what was looked at, what to do."""


def examine() -> list[Found]:
    found = [(sys.version_info >= (3, 11), f"Python {sys.version.split()[0]}", "install Python 3.11 or newer")]
    try:
        root = project.root()
    except GatebookError as error:
        return [*found, (False, "project folder", str(error))]
    direct = _pins(root / "requirements.in")
    pinned = {name: pin for name, pin in _pins(root / "requirements.txt").items() if name in direct}
    packages = [_package(*pin) for pin in (pinned | _pins(root / "requirements-nodeps.txt")).items()]
    found += [p for p in packages if not p[0]] or [(True, f"{len(packages)} packages as pinned", "")]
    free = shutil.disk_usage(root).free >> 20
    space = free >= FREE_MIB, f"{free} MiB free", f"free {FREE_MIB} MiB; a run needs a few"
    return [*found, _model(), _kernel(), _port(), _writable(root / "outputs"), space]


def _pins(file: Path) -> dict[str, str]:
    """Package -> its version in a list of requirements; empty where none is pinned."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return {name.lower().replace("_", "-"): pin for name, pin in PIN.findall(text)}


def _package(name: str, wanted: str) -> Found:
    try:
        have = version(name)
    except PackageNotFoundError:
        return False, name, "not installed; run `make setup`"
    return have.partition("+")[0] == wanted, f"{name} {have}", f"{wanted} is pinned; run `make setup`"


def _model() -> Found:
    from gatebook.collect.embedded import model_file

    try:
        return True, f"embedded model {model_file().name}", ""
    except GatebookError as error:
        return False, "embedded model", str(error)


def _kernel() -> Found:
    """Runs use this environment's own kernel; where what Jupyter finds under the name `python3` is another, that is said."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return False, "Jupyter kernel", "run `make setup`"
    if not Path(command).is_absolute() or Path(command).resolve() == Path(sys.executable).resolve():
        return True, "Jupyter kernel", ""
    note = f"python3 is another environment's for Jupyter ({command}): gatebook and `make lab` do not use it, bare papermill does"
    return True, f"Jupyter kernel; {note}", ""


def _port() -> Found:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        return True, "loopback port", ""
    except OSError as error:
        return False, "loopback port", f"cannot open one ({error.strerror}); the embedded server needs it"


def _writable(folder: Path) -> Found:
    probe = folder / ".doctor"
    try:
        folder.mkdir(exist_ok=True)
        probe.write_text("x", encoding="utf-8")
        probe.unlink()
        return True, f"{folder.name}/ can be written", ""
    except OSError as error:
        return False, f"{folder.name}/", f"cannot be written ({error.strerror})"
