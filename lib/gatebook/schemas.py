"""`make schema`: the published JSON Schemas and the table of checks in docs/cases.md, all from the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gatebook.checks import CHECKS
from gatebook.checks.registry import Schema
from gatebook.config import project
from gatebook.config.cases import Ask, Case
from gatebook.config.profile import Profile
from gatebook.verdict.verdict import Verdict

PLACEHOLDER: Schema = {"type": "string", "pattern": r"\{\{\w+\}\}"}
BEGIN, END = "<!-- {}: written by `make schema` -->", "<!-- end of {} -->"


def case_schema() -> Schema:
    """A case file: a list of cases; in one with `each`, a {{placeholder}} may stand for any value."""
    plain = Case.model_json_schema()
    defs: Schema = plain.pop("$defs", {})
    checks: Schema = {}
    for name in sorted(CHECKS):
        schema = CHECKS[name].schema()
        defs.update(schema.pop("$defs", {}))
        checks[name] = schema
    plain["properties"]["expect"]["items"] = {
        "type": "object", "properties": checks, "additionalProperties": False, "minProperties": 1, "maxProperties": 1,
    }  # fmt: skip
    plain["properties"]["id"]["pattern"] = r"^[a-z0-9][a-z0-9.\-]*$"
    defs = {"case": plain, **defs}
    loose = {f"each.{name}": _loose(schema) for name, schema in defs.items()}
    lists = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "array", "minItems": 1}}
    rows = {
        "anyOf": [{"type": "array", "minItems": 1, "items": {"type": "object"}}, lists],
        "description": "One case a row; {{name}} is the row's value. Lists by name: one case for each combination.",
    }
    loose["each.case"]["properties"]["each"] = rows
    one = {"if": {"required": ["each"]}, "then": {"$ref": "#/$defs/each.case"}, "else": {"$ref": "#/$defs/case"}}
    return _published(
        "A case file of Gatebook (docs/cases.md)",
        {"type": "array", "minItems": 1, "items": one, "$defs": {**defs, **loose}},
    )


def profile_schema() -> Schema:
    """A profile, with the short form of a group's policy."""
    schema = Profile.model_json_schema()
    policy = schema["$defs"]["Group"]["properties"]["policy"]
    schema["properties"]["groups"]["additionalProperties"] = {"anyOf": [policy, {"$ref": "#/$defs/Group"}]}
    return _published("A profile of Gatebook: a target, its limits and the policy of every group", schema)


def _published(title: str, schema: Schema) -> Schema:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_untitled(schema), "title": title}


def _untitled(schema: Any) -> Any:
    """Without the titles that pydantic makes of field names: editors would show them instead of descriptions."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    return {key: _untitled(value) if key not in ("default", "const", "enum") else value for key, value in kept.items()}


def _loose(schema: Any) -> Any:
    """The schema of the same thing in a template: a text with a placeholder may stand where a value stands, or a key."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {**schema, "$ref": schema["$ref"].replace("#/$defs/", "#/$defs/each.")}
    found = dict(schema)
    if "properties" in found:
        found["properties"] = {name: _or_placeholder(inner) for name, inner in found["properties"].items()}
        found["patternProperties"] = {PLACEHOLDER["pattern"]: {}}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _or_placeholder(found[key])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in found:
            found[key] = [_loose(inner) for inner in found[key]]
    return found


def _or_placeholder(schema: Any) -> Any:
    any_text = isinstance(schema, dict) and set(schema) <= {"type", "title", "description", "default"}
    if not isinstance(schema, dict) or (any_text and schema.get("type", "string") == "string"):
        return schema
    told = {key: schema[key] for key in ("description", "default") if key in schema}
    return {**told, "anyOf": [_loose({k: v for k, v in schema.items() if k not in told}), PLACEHOLDER]}


def checks_table() -> str:
    """Every check with its parameters, as Markdown."""
    lines = ["| check | parameters | what it demands | judges a text |", "|---|---|---|---|"]
    for name in sorted(CHECKS):
        schema = CHECKS[name].schema()
        says = " ".join(CHECKS[name].says.split("\n\n")[0].split())
        judged = "yes" if CHECKS[name].judges_text else "no"
        lines.append(f"| `{name}` | {_parameters(schema)} | {_cell(says)} | {judged} |")
    return "\n".join(lines)


def fields_table(model: type[BaseModel]) -> str:
    """Every key of a case, or of one of its requests, as Markdown."""
    schema = model.model_json_schema()
    lines = ["| key | what it is |", "|---|---|"]
    for name, field in schema["properties"].items():
        needed = " (required)" if name in schema.get("required", []) else ""
        lines.append(
            f"| `{name}`{needed} | `{_cell(_kind(field))}` {_cell(' '.join(field.get('description', '').split()))} |"
        )
    return "\n".join(lines)


def _parameters(schema: Schema) -> str:
    if "properties" not in schema:
        return f"`{_cell(_kind(schema))}`"
    needed = schema.get("required", [])
    said = []
    for name, inner in schema["properties"].items():
        default = "" if name in needed or inner.get("default") in (None, []) else f" = {json.dumps(inner['default'])}"
        told = f": {' '.join(inner['description'].split())}" if "description" in inner else ""
        said.append(f"`{name}`{'' if name in needed else ' (optional)'} `{_cell(_kind(inner) + default)}`{_cell(told)}")
    return "<br>".join(said)


def _kind(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition(".")[2].rpartition("/")[2])
    if "const" in schema:
        return schema["const"] if isinstance(schema["const"], str) else json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_kind(part) for part in schema[key] if part.get("type") != "null"))
    if schema.get("type") == "array":
        inner = _kind(schema.get("items", {}))
        return f"list of ({inner})" if " or " in inner else f"list of {inner}"
    kind = schema.get("type", "any value")
    return {"string": "text", "object": "mapping", "boolean": "true or false"}.get(kind, str(kind))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def rendered(root: Path) -> dict[Path, str]:
    """Every generated file with what belongs in it."""
    schemas = {"case": case_schema(), "profile": profile_schema(), "verdict": Verdict.model_json_schema()}
    found = {
        root / "docs" / "schema" / f"{name}.schema.json": json.dumps(
            schema, indent=1, sort_keys=True, ensure_ascii=False
        )
        + "\n"
        for name, schema in schemas.items()
    }
    guide = root / "docs" / "cases.md"
    text = guide.read_text(encoding="utf-8")
    for name, table in (("keys", fields_table(Case)), ("request keys", fields_table(Ask)), ("checks", checks_table())):
        begin, end = BEGIN.format(name), END.format(name)
        block = f"{begin}\n\n{table}\n\n{end}"
        text = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _, block=block: block, text, flags=re.DOTALL)  # type: ignore[misc]
    return {**found, guide: text}


def main() -> None:
    for path, text in rendered(project.root()).items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
