"""What is missing on this machine."""

from __future__ import annotations

import re
import shutil
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gatebook.config import project
from gatebook.errors import ExitCode, GatebookError

FREE_MIB = 500
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[.*\])?(?:==([^\s;#]+))?", re.MULTILINE)
Found = tuple[bool, str, str]
"""Fine or not, what was looked at, what to do."""


def doctor() -> None:
    """Say what is missing on this machine."""
    findings = examine()
    for ok, what, todo in findings:
        print(f"ok      {what}" if ok else f"MISSING {what}: {todo}")
    raise SystemExit(ExitCode.PASS if all(ok for ok, _, _ in findings) else ExitCode.ERROR)


def examine() -> list[Found]:
    """Return the findings on this environment, then on the project."""
    found = [(sys.version_info >= (3, 11), f"Python {sys.version.split()[0]}", "install Python 3.11 or newer")]
    direct = _pins(project.PACKAGE / "requirements.in")
    pinned = {name: pin for name, pin in _pins(project.PACKAGE / "requirements.txt").items() if name in direct}
    packages = [_package(*pin) for pin in pinned.items()]
    found += [p for p in packages if not p[0]] or [(True, f"{len(packages)} packages as pinned", "")]
    found += [_kernel(), _port()]
    try:
        root = project.root()
    except GatebookError as error:
        return [*found, (False, "project", str(error))]
    free = shutil.disk_usage(root).free >> 20
    space = free >= FREE_MIB, f"{free} MiB free", f"free {FREE_MIB} MiB; a run needs a few"
    return [*found, *_project(root), _model(root), _writable(root / "outputs"), space]


def _project(root: Path) -> list[Found]:
    """Return which folder the project is, and what is taken from where."""
    if project.is_checkout(root):
        return [(True, f"project {root}, a checkout: its own notebooks and cases", "")]
    own = [path.name for part in ("notebooks/*.ipynb", "params/cases/*.y*ml") for path in sorted(root.glob(part))]
    said = f"notebooks and cases of the package ({project.PACKAGE}), and your own: {', '.join(own) or 'none'}"
    return [(True, f"project {root}", ""), (True, said, "")]


def _pins(file: Path) -> dict[str, str]:
    """Return package -> its version in a list of requirements; empty where none is pinned."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return {name.lower().replace("_", "-"): pin for name, pin in PIN.findall(text)}


def _package(name: str, wanted: str) -> Found:
    try:
        have = version(name)
    except PackageNotFoundError:
        return False, name, f"not installed; {_install(f'{name}=={wanted}')}"
    return have.partition("+")[0] == wanted, f"{name} {have}", f"{wanted} is pinned; {_install(f'{name}=={wanted}')}"


def _install(*words: str) -> str:
    return "run `make setup`" if project.is_checkout(project.CHECKOUT) else f"run `pip install {' '.join(words)}`"


def _model(root: Path) -> Found:
    """Look for the embedded model, which is missing only where a profile asks it."""
    [(name, pin)] = _pins(project.PACKAGE / "requirements-nodeps.txt").items()
    fine, what, _ = _package(name, pin)
    profiles = (path.read_text(encoding="utf-8", errors="replace") for path in root.glob("params/*.yaml"))
    wanted = any("server: embedded" in text for text in profiles)
    said = f"embedded model, {what}" if fine or wanted else "no embedded model, and no profile that asks it"
    return fine or not wanted, said, f"{pin} is needed; {_install('--no-deps', f'{name}=={pin}')}"


def _kernel() -> Found:
    """Look for this environment's kernel, which runs use; note where Jupyter has another under the name `python3`."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager

        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except (ImportError, KeyError):  # NoSuchKernel is a KeyError
        return False, "Jupyter kernel", _install("ipykernel")
    if not Path(command).is_absolute() or Path(command).resolve() == Path(sys.executable).resolve():
        return True, "Jupyter kernel", ""
    note = f"python3 is another environment's for Jupyter ({command}): gatebook does not use it, bare papermill does"
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
