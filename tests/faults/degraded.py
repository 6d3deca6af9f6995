"""A real llama.cpp server with the embedded model and something about it changed: settings, template, cache, weights, adapter."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from gatebook.collect.embedded import MODEL

from benchmarks.processes import child
from tests.faults.weights import adapter, changed_model

READY_S = 120.0


@contextmanager
def degraded_server(settings: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yield its base URL. `settings` are llama.cpp's parameters by name (`sampling.temp`), and two of our own:

    `weights` names a change of weights.py, `lora` adds its adapter. `folder` keeps changed models and the log.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    changes = {key: value for key, value in settings.items() if key not in ("weights", "lora")}
    if "weights" in settings:
        changes["model.path"] = str(changed_model(settings["weights"], folder))
    arguments = ["-m", "tests.faults.degraded", "--port", str(port)]
    arguments += [part for name, value in changes.items() for part in ("--set", f"{name}={value!r}")]
    arguments += ["--lora", str(adapter(folder))] if settings.get("lora") else []
    log = folder / f"degraded-{port}.log"
    with child(arguments, log) as process:
        deadline = time.monotonic() + READY_S
        while not _is_up(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no server with {dict(settings)}: {log.read_text(errors='replace')[-800:]}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"


def _is_up(port: int) -> bool:
    """Whether it answers at all; what it answers is the gate's business."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    try:
        return httpx.post(url, json=body, timeout=30, trust_env=False).status_code != 503
    except httpx.TransportError:
        return False


def main() -> None:
    """benchmarks.llama_server with an adapter: `python -m tests.faults.degraded --port N --set n_ctx=256`."""
    import sys

    import xllamacpp

    from benchmarks import llama_server

    if "--lora" in sys.argv:
        at = sys.argv.index("--lora")
        path, start = sys.argv[at + 1], xllamacpp.Server
        del sys.argv[at : at + 2]

        def adapted(params: Any) -> Any:
            info = xllamacpp.CommonAdapterLoraInfo()
            info.path, info.scale = path, 1.0
            params.lora_adapters = [info]
            return start(params)

        xllamacpp.Server = adapted
    llama_server.main()


if __name__ == "__main__":
    main()
