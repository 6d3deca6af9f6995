#!/usr/bin/env bash
# `pattern` of a JSON schema means three libraries two things: a part of the string, or all of it.
#
# Version: outlines-core 0.2.14, lm-format-enforcer 0.11.3, llguidance 1.9.1 (backends of vLLM), beside jsonschema 4.26.0.
# Behaviour: JSON Schema searches: {"pattern": "cat"} allows "a cat sat". llguidance does as well. outlines-core and lm-format-enforcer, and
#   xgrammar 0.2.8 too, want the whole string to match: the model can answer nothing but "cat". No one warns.
# Why it matters here: the same request gives other answers with another backend (vLLM's `auto` chooses by the schema), and all of them
#   are valid when they are checked afterwards.
# Output seen (is "a cat sat" accepted? is "cat"?):
#   jsonschema: True True
#   llguidance: True True
#   outlines-core: False True
#   lm-format-enforcer: False True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  outlines-core==0.2.14 lm-format-enforcer==0.11.3 llguidance==1.9.1 jsonschema==4.26.0
cat > "$folder/try.py" <<'PY'
import json, re
import jsonschema
from llguidance import LLMatcher, LLTokenizer
from lmformatenforcer import JsonSchemaParser
from outlines_core.json_schema import build_regex_from_schema

SCHEMA = {"type": "string", "pattern": "cat"}

def outlines(text):
    return re.fullmatch(build_regex_from_schema(json.dumps(SCHEMA)), text) is not None

def enforcer(text):
    parser = JsonSchemaParser(SCHEMA)
    for letter in text:
        if letter not in parser.get_allowed_characters():
            return False
        parser = parser.add_character(letter)
    return parser.can_end()

def guidance(text):
    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(SCHEMA)))
    tokens = tokenizer.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

def standard(text):
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(json.loads(text))

found = {}
for name, accepts in {"jsonschema": standard, "llguidance": guidance, "outlines-core": outlines, "lm-format-enforcer": enforcer}.items():
    found[name] = (accepts('"a cat sat"'), accepts('"cat"'))
    print(f"{name}:", *found[name])
assert list(found.values()) == [(True, True), (True, True), (False, True), (False, True)], found
PY
"$folder/venv/bin/python" "$folder/try.py"
