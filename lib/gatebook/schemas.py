"""`make schema`: the published JSON Schemas and the table of checks in docs/cases.md, all from the code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gatebook.checks import CHECKS
from gatebook.checks.registry import Schema
from gatebook.config import project
from gatebook.config.cases import Ask, Case
from gatebook.config.profile import Profile
from gatebook.fleet.outcome import FleetVerdict
from gatebook.fleet.plan import Fleet
from gatebook.verdict.verdict import Verdict

PLACEHOLDER: Schema = {"type": "string", "pattern": r"\{\{\w+\}\}"}
BEGIN, END = "<!-- {}: written by `make schema` -->", "<!-- end of {} -->"
WORDS = {"string": "text", "object": "mapping", "boolean": "true or false"}


def case_schema() -> Schema:
    """The schema of a case file, a list of cases; in one with `each`, a {{placeholder}} may stand for any value."""
    plain = Case.model_json_schema()
    defs: Schema = plain.pop("$defs", {})
    checks: Schema = {name: check.schema() for name, check in sorted(CHECKS.items())}
    for schema in checks.values():
        defs |= schema.pop("$defs", {})
    plain["properties"]["expect"]["items"] = {
        "type": "object", "properties": checks, "additionalProperties": False, "minProperties": 1, "maxProperties": 1,
    }  # fmt: skip
    plain["properties"]["id"]["pattern"] = r"^[a-z0-9][a-z0-9.\-]*$"
    defs = {"case": plain, **defs}
    loose = {f"each.{name}": _loose(schema) for name, schema in defs.items()}
    lists = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "array", "minItems": 1}}
    loose["each.case"]["properties"]["each"] = {
        "anyOf": [{"type": "array", "minItems": 1, "items": {"type": "object"}}, lists],
        "description": "One case a row; {{name}} is the row's value. Lists by name: one case for each combination.",
    }
    one = {"if": {"required": ["each"]}, "then": {"$ref": "#/$defs/each.case"}, "else": {"$ref": "#/$defs/case"}}
    whole = {"type": "array", "minItems": 1, "items": one, "$defs": {**defs, **loose}}
    return _published("A case file of Gatebook (docs/cases.md)", whole)


def profile_schema() -> Schema:
    """The schema of a profile, with the short form of a group's policy."""
    schema = Profile.model_json_schema()
    policy = schema["$defs"]["Group"]["properties"]["policy"]
    schema["properties"]["groups"]["additionalProperties"] = {"anyOf": [policy, {"$ref": "#/$defs/Group"}]}
    return _published("A profile of Gatebook: a target, its limits and the policy of every group", schema)


def fleet_schema() -> Schema:
    """The schema of a fleet file; its deployments may be the name of a CSV."""
    schema = Fleet.model_json_schema()
    listed = schema["properties"]["deployments"]
    told = {"description": listed.pop("description")}
    schema["properties"]["deployments"] = {**told, "anyOf": [listed, {"type": "string", "pattern": r"\.csv$"}]}
    return _published("A fleet of Gatebook: deployments that are gated together (docs/fleet.md)", schema)


def _published(title: str, schema: Schema) -> Schema:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_untitled(schema), "title": title}


def _untitled(schema: Any) -> Any:
    """Remove the titles that pydantic makes of field names: editors would show them instead of descriptions."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    return {key: value if key in ("default", "const", "enum") else _untitled(value) for key, value in kept.items()}


def _loose(schema: Any) -> Any:
    """Return the schema for a template: a text with a placeholder may stand for any value or key."""
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
    for key in {"anyOf", "oneOf", "allOf"} & found.keys():
        found[key] = [_loose(inner) for inner in found[key]]
    return found


def _or_placeholder(schema: Any) -> Any:
    any_text = isinstance(schema, dict) and set(schema) <= {"type", "title", "description", "default"}
    if not isinstance(schema, dict) or (any_text and schema.get("type", "string") == "string"):
        return schema
    told = {key: schema[key] for key in ("description", "default") if key in schema}
    return {**told, "anyOf": [_loose({k: v for k, v in schema.items() if k not in told}), PLACEHOLDER]}


def checks_table() -> str:
    """Render every check with its parameters as Markdown."""
    rows = (
        (f"`{n}`", _parameters(c.schema()), _cell(c.says.split("\n\n")[0]), "yes" if c.judges_text else "no")
        for n, c in sorted(CHECKS.items())
    )
    return _table(("check", "parameters", "what it demands", "judges a text"), rows)


def fields_table(model: type[BaseModel]) -> str:
    """Render every key of a case, or of one of its requests, as Markdown."""
    schema = model.model_json_schema()
    needed = {name: " (required)" for name in schema.get("required", [])}
    rows = (
        (f"`{name}`{needed.get(name, '')}", f"`{_cell(_kind(field))}` {_cell(field.get('description', ''))}")
        for name, field in schema["properties"].items()
    )
    return _table(("key", "what it is"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _parameters(schema: Schema) -> str:
    if "properties" not in schema:
        return f"`{_cell(_kind(schema))}`"
    said = []
    for name, inner in schema["properties"].items():
        needed = name in schema.get("required", [])
        default = "" if needed or inner.get("default") in (None, []) else f" = {json.dumps(inner['default'])}"
        told = f": {inner['description']}" if "description" in inner else ""
        said.append(f"`{name}`{'' if needed else ' (optional)'} `{_cell(_kind(inner) + default)}`{_cell(told)}")
    return "<br>".join(said)


def _kind(schema: Schema) -> str:
    """Describe the type of a value in words."""
    match schema:
        case {"$ref": ref}:
            return str(ref).rpartition("/")[2].rpartition(".")[2]
        case {"const": value}:
            return value if isinstance(value, str) else json.dumps(value)
        case {"enum": values}:
            return " or ".join(map(str, values))
        case {"anyOf": parts} | {"oneOf": parts}:
            return " or ".join(dict.fromkeys(_kind(part) for part in parts if part.get("type") != "null"))
        case {"type": "array"}:
            inner = _kind(schema.get("items", {}))
            return f"list of ({inner})" if " or " in inner else f"list of {inner}"
    kind = schema.get("type", "any value")
    return WORDS.get(kind, str(kind))


def rendered(root: Path) -> dict[Path, str]:
    """Return every generated file with its text."""
    schemas = {
        "case": case_schema(), "profile": profile_schema(), "verdict": Verdict.model_json_schema(),
        "fleet": fleet_schema(), "fleet-verdict": FleetVerdict.model_json_schema(),
    }  # fmt: skip
    folder, guide = root / "docs" / "schema", root / "docs" / "cases.md"
    text = guide.read_text(encoding="utf-8")
    for name, table in (("keys", fields_table(Case)), ("request keys", fields_table(Ask)), ("checks", checks_table())):
        before, rest = text.split(begin := BEGIN.format(name))
        after = rest.split(end := END.format(name))[1]
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return {guide: text} | {
        folder / f"{name}.schema.json": f"{json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False)}\n"
        for name, schema in schemas.items()
    }


if __name__ == "__main__":
    for path, text in rendered(project.root()).items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
