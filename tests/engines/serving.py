"""Starts and stops real servers: loopback only, free port, ready when one token was generated, always stopped with all children."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from gatebook.collect.embedded import MODEL

from tests.engines import install
from tests.engines.install import environment, home, prepared

READY_S = 300.0
"""A start takes 10 s on a quiet machine."""
STOP_S = 10.0
GUARD = 'exec 3<&0 </dev/null; (cat <&3 >/dev/null; kill -KILL 0) & exec "$@" 3<&-'
"""Kills the whole process group when our end of standard input closes, however this process ends."""
VLLM = ("--max-model-len", "8192", "--enforce-eager", "--distributed-executor-backend", "uni")
"""One process computes and schedules: with a worker of its own the engine core spins on a whole CPU while the worker computes."""
VLLM_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else `uni` is not heeded on a CPU; the engine core stays a process of its own
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


Ready = Callable[[httpx.Client, str], bool]


class NotStarted(Exception):
    """The server ended or never answered; the last lines of its log say why."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    base_url: str
    process: subprocess.Popen[bytes]
    log: Path
    started_s: float

    def members(self, named: str) -> list[int]:
        """Its processes whose command line or name matches."""
        return [pid for pid, said in _group(self.process.pid) if re.search(named, said)]


@contextmanager
def vllm(
    *arguments: str, env: Mapping[str, str] | None = None, weights: str = "base", log: Path | None = None
) -> Iterator[str]:
    """The base URL of a real vLLM with these arguments. Raises CannotHave where the machine cannot have it, else NotStarted."""
    with vllm_process(*arguments, env=env, weights=weights, log=log) as running:
        yield running.base_url


@contextmanager
def vllm_process(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    weights: str | Path = "base",
    log: Path | None = None,
    port: int = 0,
) -> Iterator[Running]:
    """As `vllm`, with what a test needs to kill it. `weights` is a variant of weights.py or a folder."""
    folder = weights if isinstance(weights, Path) else install.weights(weights)
    named = () if "--served-model-name" in arguments else ("--served-model-name", MODEL)
    limit = VLLM[2:] if "--max-model-len" in arguments else VLLM
    port = port or free_port()
    command = [str(prepared("vllm").python), "-m", "vllm.entrypoints.cli.main", "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), *named, *limit, *arguments]
    extra = {
        **VLLM_ENVIRONMENT,
        "VLLM_CACHE_ROOT": str(home() / "cache"),
        "VLLM_CONFIG_ROOT": str(home() / "cache"),
        **(env or {}),
    }
    ready = _with_key(arguments[arguments.index("--api-key") + 1]) if "--api-key" in arguments else _generates
    with running(command, f"http://127.0.0.1:{port}/v1", environment(**extra), log or log_file("vllm"), ready) as found:
        yield found


@contextmanager
def running(
    command: Sequence[str], base_url: str, env: Mapping[str, str], log: Path, ready: Ready
) -> Iterator[Running]:
    """Any server: started, waited for until `ready`, stopped. Raises NotStarted."""
    started = time.monotonic()
    with log.open("ab") as out:
        home().mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            ["sh", "-c", GUARD, "sh", *command], stdin=subprocess.PIPE, stdout=out, stderr=out, env=dict(env),
            cwd=home(), start_new_session=True,
        )  # fmt: skip
    try:
        _wait(process, base_url, log, ready)
        yield Running(base_url, process, log, time.monotonic() - started)
    finally:
        _stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def log_file(name: str) -> Path:
    folder = home() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(prefix=f"{time.strftime('%H%M%S')}-{name}-", suffix=".log", dir=folder)
    os.close(handle)
    return Path(path)


def chats(model: str, key: str) -> Ready:
    """Ready when a chat of this model gives one token."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return lambda client, url: client.post(f"{url}/chat/completions", json=body, headers=headers).status_code == 200


def _generates(client: httpx.Client, base_url: str) -> bool:
    """One token, chat template or not."""
    model = client.get(f"{base_url}/models").json()["data"][0]["id"]
    body = {"model": model, "prompt": "hi", "max_tokens": 1}
    return client.post(f"{base_url}/completions", json=body).status_code == 200


def _with_key(key: str) -> Ready:
    def ready(client: httpx.Client, base_url: str) -> bool:
        client.headers["Authorization"] = f"Bearer {key}"
        return _generates(client, base_url)

    return ready


def _wait(process: subprocess.Popen[bytes], base_url: str, log: Path, ready: Ready) -> None:
    deadline = time.monotonic() + READY_S
    with httpx.Client(timeout=60, trust_env=False) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise NotStarted(f"the server ended with status {process.returncode}: {_tail(log)}")
            try:
                if ready(client, base_url):
                    return
            except (httpx.TransportError, ValueError, KeyError, IndexError):
                pass
            time.sleep(0.2)
    raise NotStarted(f"the server generated nothing within {READY_S:g} s: {_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Asks the server to end, then ends whatever is left of its group."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()


def _group(leader: int) -> list[tuple[int, str]]:
    """(process, its command line and name) of everything in the group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == leader:
                    said = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append((int(entry.name), f"{said} {(entry / 'comm').read_text().strip()}"))
            except (ProcessLookupError, FileNotFoundError):
                continue
    return found


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"Error\b|error:", line)]
    return f"{(errors or lines or ['it wrote nothing'])[-1][-300:]} (log: {log})"
