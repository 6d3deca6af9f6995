#!/usr/bin/env bash
# Every kernel of ipykernel imports a whole debugger at its start, also where a job executes a notebook and nobody can ever debug it.
#
# Version: ipykernel 7.4.0, debugpy 1.8.22, jupyter_client 8.10.0.
# Behaviour: the kernel's constructor imports ipykernel.debugger, that debugpy, and that pydevd: over a hundred modules before the first cell, with no
#   debug request and no front end. No option turns it off; with debugpy not importable the kernel starts without them and runs cells all the same.
# Why it matters here: papermill, nbval and nbclient start a kernel for each notebook, so a suite of small notebooks pays it each time.
#   A process that imports it once and forks kernels pays it once. It then warns of frozen modules on
#   that process's stderr, where a kernel's own command line has -Xfrozen_modules=off for that; PYDEVD_DISABLE_FILE_VALIDATION=1 silences it.
# Output seen:
#   a kernel that has run one cell: 112 modules of debugpy and pydevd
#   with debugpy not importable: 0 modules, the cell ran
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ipykernel==7.4.0 debugpy==1.8.22 jupyter_client==8.10.0
cat > "$folder/try.py" <<'PY'
import os, sys
from jupyter_client.manager import start_new_kernel

CODE = """
import sys
print(len([m for m in sys.modules if m.startswith(("debugpy", "pydevd", "_pydev"))]))
"""

def modules(env):
    manager, client = start_new_kernel(env=env)
    said = []
    client.execute_interactive(CODE, timeout=60, output_hook=lambda m: said.append(m["content"].get("text", "")))
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    return int("".join(said))

found = modules(dict(os.environ))
print(f"a kernel that has run one cell: {found} modules of debugpy and pydevd")
os.mkdir(f"{sys.argv[1]}/without")
with open(f"{sys.argv[1]}/without/debugpy.py", "w") as file:
    file.write("raise ImportError('not here')\n")
none = modules({**os.environ, "PYTHONPATH": f"{sys.argv[1]}/without"})
print(f"with debugpy not importable: {none} modules, the cell ran")
assert found > 100 and none == 0
PY
"$folder/venv/bin/python" "$folder/try.py" "$folder"
