"""Starts and stops the embedded server: loopback only, free port, ready when a token was generated, always stopped."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from gatebook.ask.embedded import MODEL, model_file
from gatebook.errors import ServerFailed

READY_S = 60.0
STOP_S = 5.0


@contextmanager
def embedded_server(log: Path, port: int | None = None, threads: int = 1) -> Iterator[str]:
    """Yield the base URL of a running server; its output goes to `log` (appended).

    One thread: on two cores a second one gains 30 % on a quiet machine and loses 80 % beside a busy process
    (docs/decisions/embedded-threads.md). Raises ServerFailed with the end of the log.
    """
    model_file()
    port = port or _free_port()
    command = [sys.executable, "-m", "gatebook.ask.embedded", "--port", str(port), "--threads", str(threads)]
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True)
    try:
        _wait(process, port, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"the embedded server ended with status {process.returncode}: {_tail(log)}")
        try:
            if httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=10, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise ServerFailed(f"the embedded server answered nothing within {READY_S:g} s: {_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return f"{lines[-1] if lines else 'it wrote nothing'} (log: {log})"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
