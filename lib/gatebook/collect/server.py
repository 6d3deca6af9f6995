"""Starts and stops the embedded server: loopback only, free port, ready when a token was generated, always stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from gatebook.collect.client import normal_base_url
from gatebook.collect.embedded import MODEL, model_file
from gatebook.config.profile import Target
from gatebook.errors import BadInput, ServerFailed

READY_S = 60.0
STOP_S = 5.0
VARIABLE = "OPENAI_BASE_URL"
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}

MOST_THREADS, ENOUGH_CORES = 2, 1.8
"""Threads that write, and the cores that a moment before nobody else has used."""
MOMENT_S = 1.0

Start = Callable[[Path], AbstractContextManager[str]]


def endpoint(target: Target, resumed: str | None) -> tuple[str, Start | None]:
    """(base URL, what starts the server or None when it runs already). The URL is the resumed run's, the target's, or that of
    OPENAI_BASE_URL; an embedded server gets a free port, or that of the resumed run. Raises BadInput where none is named."""
    if target.server == "embedded" and target.base_url is None:
        port = urlsplit(resumed).port if resumed else _free_port()
        return f"http://127.0.0.1:{port}/v1", partial(embedded_server, port=port)
    told = os.environ.get(VARIABLE)
    named = {"manifest.json": resumed, "target.base_url": target.base_url, f"environment variable {VARIABLE}": told}
    for source, url in named.items():
        if url:
            return normal_base_url(url, source), None
    raise BadInput("target.base_url is missing: name the server with --base-url, in the profile, or in OPENAI_BASE_URL")


@contextmanager
def embedded_server(
    log: Path, port: int | None = None, threads: int | None = None, prompt_threads: int = 2
) -> Iterator[str]:
    """Yield the base URL of a running server; its output goes to `log` (appended).

    Two threads write where two cores are idle now, else one; two read prompts (docs/decisions/embedded-threads.md). Raises
    ServerFailed with the end of the log.
    """
    model_file()
    threads = threads or (MOST_THREADS if idle_cores() >= ENOUGH_CORES else 1)
    port = _free_port(port or 0)
    url, options = f"http://127.0.0.1:{port}/v1", {"port": port, "threads": threads, "prompt-threads": prompt_threads}
    command = [sys.executable, "-m", "gatebook.collect.embedded", *(f"--{k}={v}" for k, v in options.items())]
    env = {**os.environ, "PYTHONUTF8": "1"}
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True, env=env
        )
    with process:
        try:
            _wait(process, url, log)
            yield url
        finally:
            try:
                process.communicate(timeout=STOP_S)  # it ends when its standard input is closed
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    with httpx.Client(
        timeout=10, trust_env=False, verify=False
    ) as client:  # there is no TLS here, whose certificates take 30 ms
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerFailed(f"the embedded server ended with status {process.returncode}: {_tail(log)}")
            with suppress(httpx.TransportError):
                if client.post(f"{url}/chat/completions", json=HELLO).status_code == 200:
                    return
            time.sleep(0.1)
    raise ServerFailed(f"the embedded server answered nothing within {READY_S:g} s: {_tail(log)}")


def idle_cores() -> float:
    """Return how many cores' worth of time nobody else used for a moment: our own kernels are still importing, and soon done."""
    ours = psutil.Process()
    family = [ours, *ours.children(recursive=True)]
    before = _used_s(family)
    busy: float = psutil.cpu_percent(MOMENT_S) / 100
    return (psutil.cpu_count() or 1) * (1 - busy) + (_used_s(family) - before) / MOMENT_S


def _used_s(family: list[psutil.Process]) -> float:
    total = 0.0
    for one in family:
        with suppress(psutil.Error):
            total += sum(one.cpu_times()[:2])
    return total


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"{lines[-1] if lines else 'it wrote nothing'} (log: {log})"


def _free_port(wanted: int = 0) -> int:
    """This port, or any for 0. Raises ServerFailed when it is taken: what listens there is not the embedded server."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was closed a moment ago is free
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise ServerFailed(f"port {wanted} on 127.0.0.1: {error.strerror}; stop what listens there") from None
        return int(probe.getsockname()[1])
