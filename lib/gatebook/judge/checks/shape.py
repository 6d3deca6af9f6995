"""What a check's parameters may hold, as JSON Schema: for editors, for tables, and for text that comes from a CSV."""

from __future__ import annotations

import inspect
from typing import Any

from gatebook.judge.checks.registry import CHECKS

Schema = dict[str, Any]


def params_schema(name: str) -> Schema:
    """The JSON Schema of one check's parameters; its own definitions are named `<check>.<model>`."""
    schema = CHECKS[name].yaml.json_schema(ref_template=f"#/$defs/{name}.{{model}}")
    defs = {f"{name}.{model}": found for model, found in schema.pop("$defs", {}).items()}
    return {**schema, "description": told(name), **({"$defs": defs} if defs else {})}


def told(name: str) -> str:
    """What the check says of itself."""
    return inspect.cleandoc(CHECKS[name].function.__doc__ or "")


def types_at(schema: Schema, path: list[str], defs: Schema) -> set[str]:
    """The JSON types that a schema takes at a path of keys; empty when there is no such key."""
    schema = defs.get(schema["$ref"].rpartition("/")[2], {}) if "$ref" in schema else schema
    branches = [branch for key in ("anyOf", "oneOf") for branch in schema.get(key, ())]
    if branches:
        return set().union(*(types_at(branch, path, defs) for branch in branches))
    if path:
        inner = schema.get("properties", {}).get(path[0])
        if inner is None:
            free = schema.get("type") == "object" and schema.get("additionalProperties") not in (None, False)
            return {"any"} if free else set()
        return types_at(inner, path[1:], defs)
    if "type" in schema:
        return {schema["type"]}
    value = schema.get("const", next(iter(schema.get("enum", [])), None))
    return {{str: "string", bool: "boolean", int: "integer"}.get(type(value), "any")}
