#!/usr/bin/env bash
# papermill -p takes a revision for a number: a short commit such as 12e4567 arrives in the notebook as infinity.
#
# Version: papermill 2.7.0 (ipykernel 7.3.0), `papermill -p NAME VALUE`.
# Behaviour: a value that Python's int() or float() reads is given as a number, and `True`, `None` likewise. Hexadecimal names of commits and digests that
#   have only digits and one `e` are such values: 12e4567 and 98e7654 are both `inf`, so two revisions are one; 0123456 loses its zero, 1_000 its underline.
#   Hexadecimal with another letter stays text. `-r NAME VALUE` keeps each of them as text. Of the 7-digit short commits about 6 % are of this kind
#   (counted below: digits alone, or one `e` between digits).
# Why it matters here: a notebook that CI executes with `-p revision "$CI_COMMIT_SHORT_SHA"` works for weeks, then records and compares the wrong revision
#   one commit in sixteen, without an error.
# Output seen:
#   -p 12e4567 float inf | -p 98e7654 float inf | -p 0123456 int 123456 | -p 1_000 int 1000 | -p a1b2c3d str 'a1b2c3d'
#   -r 12e4567 str '12e4567' | -r 98e7654 str '98e7654' | -r 0123456 str '0123456' | -r 1_000 str '1_000' | -r a1b2c3d str 'a1b2c3d'
#   of 7 hexadecimal digits drawn at random 6% are a number to -p
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check papermill==2.7.0 ipykernel==7.3.0
cat > "$folder/try.py" <<'PY'
import subprocess, sys
from pathlib import Path
import nbformat
from nbformat.v4 import new_code_cell, new_notebook

folder = Path(sys.argv[1])
cells = [new_code_cell("revision = ''", metadata={"tags": ["parameters"]}), new_code_cell("print(type(revision).__name__, repr(revision))")]
kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "in.ipynb")

def told(option, value):
    command = [f"{folder}/venv/bin/papermill", option, "revision", value, "in.ipynb", "out.ipynb", "--no-progress-bar", "--log-level", "ERROR", "-k", "python3"]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    return nbformat.read(folder / "out.ipynb", 4).cells[-1].outputs[0].text.strip()

values = ["12e4567", "98e7654", "0123456", "1_000", "a1b2c3d"]
seen = {option: [told(option, value) for value in values] for option in ("-p", "-r")}
for option, found in seen.items():
    print(" | ".join(f"{option} {value} {one}" for value, one in zip(values, found)))
assert seen["-p"] == ["float inf", "float inf", "int 123456", "int 1000", "str 'a1b2c3d'"]
assert seen["-r"] == [f"str '{value}'" for value in values]

import random
from papermill.cli import _resolve_type
dice = random.Random(1)
draws = ["".join(dice.choice("0123456789abcdef") for _ in range(7)) for _ in range(100_000)]
share = sum(not isinstance(_resolve_type(draw), str) for draw in draws) / len(draws)
print(f"of 7 hexadecimal digits drawn at random {share:.0%} are a number to -p")
assert 0.03 < share < 0.08
PY
"$folder/venv/bin/python" "$folder/try.py" "$folder"
