#!/usr/bin/env bash
# Two of the libraries that hold answers to a JSON schema leave out keywords that they do not know, without a word.
#
# Version: outlines-core 0.2.14 and lm-format-enforcer 0.11.3 (both backends of structured output in vLLM), beside llguidance 1.9.1.
# Behaviour: a schema is compiled; a text that it forbids and one that it allows are given to what came out. `minimum`, `multipleOf`,
#   `uniqueItems`, `minProperties`, `dependentRequired`, `if`/`then` and a keyword beside `$ref` have no effect in the first two: the forbidden
#   text passes, and nothing is raised or logged. outlines-core documents that it returns an error for what it does not support, and lists
#   `minProperties` as supported. llguidance holds all of them or refuses the schema with the name of the keyword.
# Why it matters here: `strict: true` and HTTP 200 do not say that an answer keeps its schema; it has to be validated afterwards.
# Output seen (is the forbidden text accepted?):
#   minimum: outlines-core yes, lm-format-enforcer yes, llguidance no
#   multipleOf: outlines-core yes, lm-format-enforcer yes, llguidance no
#   uniqueItems: outlines-core yes, lm-format-enforcer yes, llguidance refuses the schema
#   minProperties: outlines-core yes, lm-format-enforcer yes, llguidance no
#   dependentRequired: outlines-core yes, lm-format-enforcer yes, llguidance refuses the schema
#   if/then: outlines-core yes, lm-format-enforcer yes, llguidance refuses the schema
#   beside $ref: outlines-core yes, lm-format-enforcer yes, llguidance no
#   maxLength: outlines-core no, lm-format-enforcer no, llguidance no
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check outlines-core==0.2.14 lm-format-enforcer==0.11.3 llguidance==1.9.1
cat > "$folder/try.py" <<'PY'
import json, re
from llguidance import LLMatcher, LLTokenizer
from lmformatenforcer import JsonSchemaParser
from outlines_core.json_schema import build_regex_from_schema

def outlines(schema, text):
    return re.fullmatch(build_regex_from_schema(json.dumps(schema)), text) is not None

def enforcer(schema, text):
    parser = JsonSchemaParser(schema)
    for letter in text:
        if letter not in parser.get_allowed_characters():
            return False
        parser = parser.add_character(letter)
    return parser.can_end()

BYTES = LLTokenizer("byte")

def guidance(schema, text):
    matcher = LLMatcher(BYTES, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    if matcher.get_error():
        return None
    tokens = BYTES.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

A, B = {"type": "string"}, {"type": "integer"}
CASES = {  # name: schema, what it forbids, what it allows
    "minimum": ({"type": "integer", "minimum": 5}, "3", "7"),
    "multipleOf": ({"type": "integer", "multipleOf": 5}, "3", "10"),
    "uniqueItems": ({"type": "array", "items": B, "uniqueItems": True}, "[1, 1]", "[1, 2]"),
    "minProperties": ({"type": "object", "additionalProperties": B, "minProperties": 2}, '{"a": 1}', '{"a": 1, "b": 2}'),
    "dependentRequired": ({"type": "object", "properties": {"a": A, "b": B}, "dependentRequired": {"a": ["b"]}}, '{"a": "x"}', '{"a": "x", "b": 1}'),
    "if/then": ({"type": "object", "properties": {"a": A, "b": B}, "if": {"properties": {"a": {"const": "x"}}}, "then": {"required": ["b"]}},
                '{"a": "x"}', '{"a": "x", "b": 1}'),
    "beside $ref": ({"$defs": {"s": A}, "$ref": "#/$defs/s", "maxLength": 1}, '"ab"', '"a"'),
    "maxLength": ({"type": "string", "maxLength": 1}, '"ab"', '"a"'),
}
WORD = {True: "yes", False: "no", None: "refuses the schema"}
found = {}
for name, (schema, bad, good) in CASES.items():
    found[name] = tuple(accepts(schema, bad) for accepts in (outlines, enforcer, guidance))
    assert all(accepts(schema, good) is not False for accepts in (outlines, enforcer, guidance)), name
    print(f"{name}:", ", ".join(f"{who} {WORD[it]}" for who, it in zip(("outlines-core", "lm-format-enforcer", "llguidance"), found[name])))
kept = found.pop("maxLength")
assert kept == (False, False, False), kept
assert all(first and second and not third for first, second, third in found.values()), found
PY
"$folder/venv/bin/python" "$folder/try.py"
