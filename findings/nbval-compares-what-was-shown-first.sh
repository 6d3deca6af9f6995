#!/usr/bin/env bash
# nbclient keeps what a display became, nbval compares what it was first: an honest notebook fails, and a display that turns to FAIL passes.
#
# Version: nbclient 0.11.0, nbval 0.11.0, ipykernel 7.3.0, nbformat 5.11.0.
# Behaviour: `display(..., display_id=True)` and `handle.update(...)` change an output that is there, as progress bars and status lines do. nbclient (and so
#   papermill and nbconvert --execute) writes the last state into the executed notebook, in the cell that showed it first. `pytest --nbval` ignores updates and
#   compares the first state. So the notebook that nbclient has just executed fails under nbval, every time, with nothing random in it; and a record
#   that says "asking" passes, although whoever executes the notebook now ends with FAIL in that place.
# Why it matters here: results that are shown by an update are outside of what nbval asserts. Print them, or show them anew.
# Output seen:
#   nbclient wrote: 'FAIL'
#   nbval on what nbclient wrote: 1 failed, 2 passed
#   nbval on a record of the first state: 3 passed
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nbclient==0.11.0 nbval==0.11.0 ipykernel==7.3.0 nbformat==5.11.0
cat > "$folder/try.py" <<'PY'
import re, subprocess, sys
from pathlib import Path
import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

folder = Path(sys.argv[1])
first = "from IPython.display import display\nshown = display('asking', display_id=True)"
cells = [new_code_cell(source) for source in (first, "shown.update('3 of 3 passed')", "shown.update('FAIL')")]
book = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}})
NotebookClient(book, kernel_name="python3").execute()
kept = book.cells[0].outputs[0].data["text/plain"]
print("nbclient wrote:", kept)
assert kept == "'FAIL'" and not book.cells[1].outputs and not book.cells[2].outputs
nbformat.write(book, folder / "executed.ipynb")
book.cells[0].outputs[0].data["text/plain"] = "'asking'"
nbformat.write(book, folder / "first.ipynb")

def nbval(name):
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", name]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout
    return re.search(r"((?:\d+ failed, )?\d+ passed)", said)[1]

executed, as_first = nbval("executed.ipynb"), nbval("first.ipynb")
print("nbval on what nbclient wrote:", executed)
print("nbval on a record of the first state:", as_first)
assert (executed, as_first) == ("1 failed, 2 passed", "3 passed")
PY
"$folder/venv/bin/python" "$folder/try.py" "$folder"
