#!/usr/bin/env bash
# papermill writes the whole notebook twice for each cell, Markdown too, also with --autosave-cell-every 0: on an object store each is an upload.
#
# Version: papermill 2.7.0, nbclient 0.11.0, ipykernel 7.4.0.
# Behaviour: `autosave_cell_every` (default 30 s, "0 to disable") is about saves within one long cell. Beside it the output notebook is written whole before
#   and after every cell, once more where it begins, before the first cell and at the end; a cell of text counts like one of code, though nothing is executed. So bytes
#   written grow with the square of what a notebook shows, and no option of execute_notebook or of the command changes that. With an output path such as
#   s3://bucket/x.ipynb each write is a PUT of all of it (and a version, where the bucket keeps versions).
# Why it matters here: write executed notebooks to a local disk, and upload what is finished; figures in many cells cost more than they look.
# Output seen:
#   autosave_cell_every=30: 20 cells, 10 of them text: 43 writes, 21.1 times the bytes of the finished notebook
#   autosave_cell_every=0: 20 cells, 10 of them text: 43 writes, 21.1 times the bytes of the finished notebook
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check papermill==2.7.0 nbclient==0.11.0 ipykernel==7.4.0
cat > "$folder/try.py" <<'PY'
import sys, warnings
import nbformat, papermill
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.iorw import papermill_io

warnings.simplefilter("ignore")
source = f"{sys.argv[1]}/in.ipynb"
cells = [make(text) for _ in range(10) for make, text in ((new_markdown_cell, "text"), (new_code_cell, "print('x' * 100_000)"))]
kernel = {"name": "python3", "display_name": "Python", "language": "python"}
nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), source)
written = []

class Counting:
    def write(self, text, path):
        written.append(len(text))
    def pretty_path(self, path):
        return path

papermill_io.register("counted://", Counting())
for every in (30, 0):
    written.clear()
    papermill.execute_notebook(source, "counted://out.ipynb", autosave_cell_every=every, progress_bar=False, kernel_name="python3")
    times = sum(written) / written[-1]
    print(f"autosave_cell_every={every}: {len(cells)} cells, 10 of them text: {len(written)} writes, {times:.1f} times the bytes of the finished notebook")
    assert len(written) == 43 and times > 20
PY
"$folder/venv/bin/python" "$folder/try.py" "$folder"
