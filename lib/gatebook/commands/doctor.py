"""What is missing on this machine."""

from __future__ import annotations

import shutil
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gatebook.config import project
from gatebook.errors import GatebookError

FREE_MIB = 500


def examine() -> list[tuple[bool, str, str]]:
    """(fine, what was looked at, what to do)."""
    found = [(sys.version_info >= (3, 11), f"Python {sys.version.split()[0]}", "install Python 3.11 or newer")]
    try:
        root = project.root()
    except GatebookError as error:
        return [*found, (False, "project folder", str(error))]
    packages = [_package(line) for line in _pins(root)]
    found += [p for p in packages if not p[0]] or [(True, f"{len(packages)} packages as pinned", "")]
    return [*found, _model(), _kernel(), _port(), _writable(root / "outputs"), _space(root)]


def _pins(root: Path) -> list[str]:
    """The pinned direct requirements (requirements.in names them, requirements.txt pins them)."""
    direct = {_name(line) for line in _lines(root / "requirements.in")}
    return [
        line
        for file in ("requirements.txt", "requirements-nodeps.txt")
        for line in _lines(root / file)
        if file != "requirements.txt" or _name(line) in direct
    ]


def _lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return [
        line.split("#")[0].strip()
        for line in text.splitlines()
        if line.strip() and not line.lstrip().startswith(("#", "-"))
    ]


def _name(line: str) -> str:
    return line.split("==")[0].split("[")[0].strip().lower().replace("_", "-")


def _package(pin: str) -> tuple[bool, str, str]:
    name, wanted = _name(pin), pin.partition("==")[2]
    try:
        have = version(name)
    except PackageNotFoundError:
        return False, name, "not installed; run `make setup`"
    return have.partition("+")[0] == wanted, f"{name} {have}", f"{wanted} is pinned; run `make setup`"


def _model() -> tuple[bool, str, str]:
    from gatebook.collect.embedded import model_file

    try:
        return True, f"embedded model {model_file().name}", ""
    except GatebookError as error:
        return False, "embedded model", str(error)


def _kernel() -> tuple[bool, str, str]:
    """Runs use this environment's own kernel; what Jupyter finds under the name `python3` is told where it is another."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return False, "Jupyter kernel", "run `make setup`"
    if not Path(command).is_absolute() or Path(command).resolve() == Path(sys.executable).resolve():
        return True, "Jupyter kernel", ""
    note = f"python3 is another environment's for Jupyter ({command}): gatebook and `make lab` do not use it, bare papermill does"
    return True, f"Jupyter kernel; {note}", ""


def _port() -> tuple[bool, str, str]:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        return True, "loopback port", ""
    except OSError as error:
        return False, "loopback port", f"cannot open one ({error.strerror}); the embedded server needs it"


def _writable(folder: Path) -> tuple[bool, str, str]:
    try:
        folder.mkdir(exist_ok=True)
        (folder / ".doctor").write_text("x", encoding="utf-8")
        (folder / ".doctor").unlink()
        return True, f"{folder.name}/ can be written", ""
    except OSError as error:
        return False, f"{folder.name}/", f"cannot be written ({error.strerror})"


def _space(root: Path) -> tuple[bool, str, str]:
    free = shutil.disk_usage(root).free >> 20
    return free >= FREE_MIB, f"{free} MiB free", f"free {FREE_MIB} MiB; a run needs a few"
