#!/usr/bin/env bash
# json_repair takes of two objects in an answer the last one, or both, depending on their keys.
#
# Version: json-repair 0.64.6.
# Behaviour: text around one object is dropped, as its README says. Of two objects with the same keys, in any text, only the last is returned. Two
#   with other keys come as a list of both. A reference such as [1] after the object is a list of its own: the answer is no longer an object.
# Why it matters here: a judge that explains its verdict is read as the opposite verdict; the type of what is read depends on the prose around it.
# Output seen:
#   {"score": 9} (not {"score": 1}) -> {'score': 1}
#   {"score": 9}, as in {"name": "x"} -> [{'score': 9}, {'name': 'x'}]
#   {"score": 9}, see [1]. -> [{'score': 9}, [1]]
#   {"score": 9}, see 1. -> {'score': 9}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check json-repair==0.64.6
cat > "$folder/try.py" <<'PY'
import json_repair

WANTED = {
    '{"score": 9} (not {"score": 1})': {"score": 1},
    '{"score": 9}, as in {"name": "x"}': [{"score": 9}, {"name": "x"}],
    '{"score": 9}, see [1].': [{"score": 9}, [1]],
    '{"score": 9}, see 1.': {"score": 9},
}
found = {text: json_repair.loads(text) for text in WANTED}
for text, value in found.items():
    print(text, "->", value)
assert found == WANTED, found
PY
"$folder/venv/bin/python" "$folder/try.py"
