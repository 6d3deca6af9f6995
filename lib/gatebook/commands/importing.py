"""`gatebook cases import`: a table of tickets, questions or labels becomes a case file, all of it or nothing."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from gatebook.checks import CHECKS
from gatebook.checks.registry import Schema
from gatebook.config import project
from gatebook.config.cases import cases_in, load_cases
from gatebook.config.files import parse_yaml, read_file, read_yaml, replace_text, to_yaml
from gatebook.config.secrets import holds_secret
from gatebook.errors import BadInput
from gatebook.opening import check_case

PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
TARGETS = ("id", "system", "user", "why", "suites", "good", "bad")
SAME_AS = {"golden": "good"}
"""A golden answer is an example that must pass."""
MOST_TOLD = 5
MAX_TABLE_MIB = 64


def import_cases(file: Path, into: Path, columns: str | None, template: Path | None, **fixed: str | None) -> str:
    """Write `into` and say what it holds. Raises BadInput naming line and column; then nothing was written."""
    if into.suffix not in (".yaml", ".yml") or not into.parent.is_dir():
        raise BadInput(f"--into has value '{into}': must be a new .yaml file in a folder that exists")
    if into.exists():
        raise BadInput(f"{into}: exists already; nothing is written over, name a new file")
    names = _mapping(columns)
    if template:
        entry = _read_template(template, fixed)
    else:
        entry = _make_template(names, fixed)
        names = {_hole_name(target): column for target, column in names.items()}
    rows = read_table(file)
    used = {name: names.get(name, name) for name in _names(entry)}
    for name, column in used.items():
        if column not in rows[0].cells:
            raise BadInput(f"{file}: has no column {column!r} (for {name!r}); its columns: {', '.join(rows[0].cells)}")
    own = into.resolve().parent == project.cases_dir().resolve()
    taken = {case.id for case in load_cases(*project.case_folders())} if own else set[str]()
    filled, changed = _fill_rows(file, entry, rows, used, taken)
    source = f"# Imported from {file.name} by `gatebook cases import`: {len(rows)} cases, one a row of `each`.\n"
    text = (project.schema_line("case", "../../") if own else "") + source + to_yaml([filled])
    written = cases_in(parse_yaml(text, str(into)), str(into))
    assert written == cases_in([filled], str(into))
    replace_text(into, text)
    return (
        f"wrote {into}: {len(rows)} cases of group {written[0].group}{changed}\n"
        f"next: gatebook cases check {quote(str(into))}; give the group a policy in your profile (groups)"
    )


def _mapping(columns: str | None) -> dict[str, str]:
    """Parse `--map` into target -> column."""
    found: dict[str, str] = {}
    for part in columns.split(",") if columns else ():
        name, _, column = (piece.strip() for piece in part.partition("="))
        name = SAME_AS.get(name, name)
        if not (name and column) or name in found:
            raise BadInput(f"--map has {part!r}: must be target=column, separated by commas, every target once")
        found[name] = column
    return found


def _read_template(path: Path, fixed: dict[str, str | None]) -> dict[str, Any]:
    if given := [name for name, value in fixed.items() if value is not None]:
        raise BadInput(f"--{given[0]} and --template: the template says it; drop one of them")
    data = read_yaml(path)
    entry = data[0] if isinstance(data, list) and len(data) == 1 else data
    if not isinstance(entry, dict) or "each" in entry:
        raise BadInput(f"{path}: must hold one case with {{{{column}}}} placeholders and without `each`")
    if "id" not in entry:
        raise BadInput(f"{path}: key 'id' is missing; add one such as ticket-{{{{ticket_no}}}}")
    return entry


def _make_template(names: dict[str, str], fixed: dict[str, str | None]) -> dict[str, Any]:
    """Build the template case of the mapped targets; a placeholder is named after its target."""
    for name in names:
        check = name.split(".")[1] if name.startswith("expect.") else None
        if check is None and name not in TARGETS:
            raise BadInput(f"--map has target {name!r}; targets: {', '.join(TARGETS)}, expect.<check>[.<parameter>]")
        if check is not None and check not in CHECKS:
            raise BadInput(f"--map has target {name!r}: no check {check!r}; checks: {', '.join(sorted(CHECKS))}")
    for needed in ("notebook", "group", "why"):
        if not fixed.get(needed) and needed not in names:
            raise BadInput(f"--{needed} is missing; without a template it must be named")
    if "user" not in names:
        raise BadInput("--map has no user=COLUMN: which column holds what is asked? (or give a --template)")
    holes = {name: f"{{{{{_hole_name(name)}}}}}" for name in names}
    expect: dict[str, Any] = {}
    for name in names:
        if name.startswith("expect."):
            _put(expect, name.split(".")[1:], holes[name])
    return {
        "id": holes.get("id", ""), "notebook": fixed["notebook"], "group": fixed["group"],
        "suites": holes.get("suites", ["scenario"]), "why": holes.get("why", fixed.get("why")),
        "messages": [{"role": role, "content": holes[role]} for role in ("system", "user") if role in names],
        "options": {"temperature": 0, "max_tokens": 512},
        **({"expect": [{check: params} for check, params in expect.items()]} if expect else {}),
        **{kind: holes[kind] for kind in ("good", "bad") if kind in names},
    }  # fmt: skip


def _hole_name(target: str) -> str:
    return target.replace(".", "_")


def _put(into: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        into = into.setdefault(key, {})
        if not isinstance(into, dict):
            raise BadInput(f"--map names both expect.{path[0]} and a parameter of it; name one")
    into[path[-1]] = value


def _names(value: Any) -> list[str]:
    """Return the placeholders in a template, each once."""
    return list(dict.fromkeys(PLACEHOLDER.findall(json.dumps(value, ensure_ascii=False))))


def _holes(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (name, path) of every value that is one placeholder and nothing else: there a cell keeps its type."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else (("[]", inner) for inner in value):
            yield from _holes(inner, (*path, str(key)))
    elif isinstance(value, str) and (whole := PLACEHOLDER.fullmatch(value)):
        yield whole[1], path


def _types(where: tuple[str, ...]) -> set[str]:
    """Return the JSON types that a place in a case takes."""
    match where:
        case ("good" | "bad" | "suites",):
            return {"array"}
        case ("expect", _, check, *path) if check in CHECKS:
            schema = CHECKS[check].schema()
            return types_at(schema, [key for key in path if key != "[]"], schema.get("$defs", {})) or {"string"}
        case ("options", *_):
            return {"integer", "number"}
    return {"string"}


def types_at(schema: Schema, path: list[str], defs: Schema) -> set[str]:
    """Return the JSON types that a schema takes at a path of keys; empty when there is no such key."""
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


@dataclass(frozen=True)
class Row:
    where: str
    """`<file>, line <n>`"""
    line: int
    cells: dict[str, Any]
    """Column -> value: texts from CSV, any JSON value from JSONL."""


def _fill_rows(
    file: Path, entry: dict[str, Any], rows: list[Row], used: dict[str, str], taken: set[str]
) -> tuple[dict[str, Any], str]:
    """Return the template with its rows under `each`, and what was done to ids. Raises BadInput with all bad rows."""
    wanted = {name: _types(where) for name, where in _holes(entry)}
    key = next(name for name in ("key", "case_id", "the_case_id") if name not in used)
    template = {**entry, "id": f"{{{{{key}}}}}"}
    elsewhere = _names({k: v for k, v in entry.items() if k != "id"})
    kept = [name for name in used if name in elsewhere or f"{{{{{name}}}}}" != entry["id"]]
    wrong: list[str] = []
    each: list[dict[str, Any]] = []
    made = 0
    for row in rows:
        try:
            given = {name: _cell(row, column, wanted.get(name, {"string"})) for name, column in used.items()}
            asked = PLACEHOLDER.sub(lambda hole, given=given: str(given[hole[1]]), str(entry["id"]))  # type: ignore[misc]
            name = _unique(_slug(asked) or f"{_slug(file.stem) or 'case'}-{row.line}", taken)
            made += bool(entry["id"]) and name != asked
            each.append({key: name, **{n: given[n] for n in kept}})
            for case in cases_in([{**template, "each": [each[-1]]}], row.where):
                check_case(case)
        except BadInput as error:
            wrong.append(_located(str(error), entry, used))
    if wrong:
        more = f" (and {len(wrong) - MOST_TOLD} more bad rows)" if len(wrong) > MOST_TOLD else ""
        raise BadInput("; ".join(wrong[:MOST_TOLD]) + more + "; nothing was written")
    return {**template, "each": each}, f"; {made} ids were made safe or unique" if made else ""


def _cell(row: Row, column: str, types: set[str]) -> Any:
    """Convert a cell for its place: split lists at `|`, parse numbers and true/false, else text. JSONL keeps its types."""
    value = row.cells[column]
    where = f"{row.where}, column {column!r}"
    if holds_secret(value):
        raise BadInput(f"{where}: holds what looks like a secret; take it out")
    if not isinstance(value, str | None):
        return [value] if types == {"array"} and not isinstance(value, list) else value
    value = value or ""
    if "array" in types:
        return [part.strip() for part in value.split("|") if part.strip()]
    if not value.strip():
        raise BadInput(f"{where}: is empty; fill it in or take the row out")
    if types & {"string", "any"}:
        return value
    try:
        return json.loads(value.strip().lower() if "boolean" in types else value)
    except ValueError:
        raise BadInput(f"{where}: has value {value!r}; must be {' or '.join(sorted(types))}") from None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def _unique(slug: str, taken: set[str]) -> str:
    """Return the id, with -2, -3 ... behind it where another case has it already."""
    name, number = slug, 2
    while name in taken:
        name, number = f"{slug}-{number}", number + 1
    taken.add(name)
    return name


def _located(message: str, entry: dict[str, Any], used: dict[str, str]) -> str:
    """Add the columns behind the key that the message names."""
    key = re.search(r"key '([\w.]+)'", message)
    if "column" in message or key is None:
        return message
    columns = ", ".join(repr(used[name]) for name in _names(entry.get(key[1].split(".")[0])))
    return f"{message} (column {columns})" if columns else message


def read_table(path: Path) -> list[Row]:
    """Read all rows: at least one, all with the same columns. Raises BadInput."""
    readers = {".csv": _csv, ".jsonl": _jsonl}
    if (kind := path.suffix.lower()) not in readers:
        raise BadInput(f"{path}: must be a .csv or a .jsonl file")
    try:
        text = read_file(path, MAX_TABLE_MIB).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        todo = f"save it as UTF-8, such as: iconv -f GB18030 -t UTF-8 {path.name}"
        raise BadInput(f"{path}: is not UTF-8 (byte {error.start}); {todo}") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the path") from None
    rows = list(readers[kind](path, text))
    if not rows:
        raise BadInput(f"{path}: holds no rows; nothing to import")
    return rows


def _csv(path: Path, text: str) -> Iterator[Row]:
    """Parse CSV (RFC 4180) with a header, separated by comma, semicolon or tab, whichever the header has most of."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # 131,072 by default: a long document is a cell
    separator = max(",;\t", key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if not any(header):
            raise BadInput(f"{path}: is empty; the first line names the columns")
        if twice := [name for name, count in Counter(header).items() if count > 1 or not name]:
            said = "has no name or stands twice; give every column its own"
            raise BadInput(f"{path}, line 1: column {twice[0]!r} {said}")
        start = reader.line_num + 1
        for cells in reader:
            where = f"{path}, line {start}"
            if cells and len(cells) != len(header):
                said = "quote cells with separators in them"
                raise BadInput(f"{where}: has {len(cells)} cells for {len(header)} columns; {said}")
            if cells:
                yield Row(where, start, dict(zip(header, cells, strict=True)))
            start = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: not valid CSV ({error}); check its quotes") from None


def _jsonl(path: Path, text: str) -> Iterator[Row]:
    columns: set[str] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{where}: not valid JSON ({str(error).split(':')[0]}); one object a line") from None
        if not isinstance(value, dict) or not value:
            raise BadInput(f"{where}: is {type(value).__name__}; one object a line")
        columns = columns or set(value)
        if missing := sorted(columns ^ set(value)):
            todo = "write null or an empty text where it is missing"
            raise BadInput(f"{where}: column {missing[0]!r} is not in every row; {todo}")
        yield Row(where, number, value)
