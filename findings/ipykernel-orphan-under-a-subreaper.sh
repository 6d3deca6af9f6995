#!/usr/bin/env bash
# A Jupyter kernel whose parent is gone before its parent poller looks runs for ever under a child subreaper.
#
# Version: ipykernel 7.4.0 (pyzmq 27.3.0, jupyter_client 8.10.0), Python 3.11, Linux.
# Behaviour: a kernel is told its parent's pid (JPY_PARENT_PID, or --IPKernelApp.parent_handle) and ends when that process is gone. If it
#   is gone already when the poller starts, a second or two after the fork, the pid is forgotten and the poller waits for a parent with pid 1.
#   Where orphans go to another process (PR_SET_CHILD_SUBREAPER: systemd --user, tini -s, containerd's shim) that never comes: the kernel stays,
#   with its memory and with every pipe that it inherited. Where orphans go to pid 1 it ends.
# Why it matters here: what started the kernel and is killed at once (a deadline, a signal, an OOM kill) leaves it behind, and whoever reads
#   the pipe until its end waits for ever. PR_SET_PDEATHSIG and a look at getppid() in the child close both gaps.
# Output seen:
#   parent gone 3 s after the kernel is ready: the kernel ended
#   parent gone before the kernel looks: the kernel still runs 15 s later
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ipykernel==7.4.0 pyzmq==27.3.0 jupyter_client==8.10.0
cat > "$folder/try.py" <<'PY'
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
PARENT = """
import os, subprocess, sys, time
kernel = subprocess.Popen([sys.executable, "-m", "ipykernel_launcher", "-f", sys.argv[1]], env=os.environ | {"JPY_PARENT_PID": str(os.getpid())}, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(kernel.pid, flush=True)
while sys.argv[2] == "ready" and not os.path.exists(sys.argv[1]):
    time.sleep(0.1)
time.sleep(3 * (sys.argv[2] == "ready"))
"""

def alive(pid):
    os.waitpid(pid, os.WNOHANG)
    return Path(f"/proc/{pid}").exists()

found = {}
for when in ("ready", "at once"):
    file = Path(sys.argv[1]) / f"{when[:2]}.json"
    parent = subprocess.run([sys.executable, "-c", PARENT, str(file), when], capture_output=True, text=True, check=True)
    kernel = int(parent.stdout)
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(15)
    try:
        found[when] = alive(kernel)
    except ChildProcessError:
        found[when] = False
    if found[when]:
        os.kill(kernel, signal.SIGKILL)
print(f"parent gone 3 s after the kernel is ready: the kernel {'still runs 15 s later' if found['ready'] else 'ended'}")
print(f"parent gone before the kernel looks: the kernel {'still runs 15 s later' if found['at once'] else 'ended'}")
sys.exit(0 if found == {"ready": False, "at once": True} else "the behaviour has changed")
PY
"$folder/venv/bin/python" "$folder/try.py" "$folder"
