"""The published schemas and the guide's tables are those of the code, and they know what we ship from what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from gatebook.checks import CHECKS
from gatebook.commands.importing import types_at
from gatebook.schemas import case_schema, checks_table, fleet_schema, profile_schema, rendered
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[2]
CASE_FILES = sorted((ROOT / "params" / "cases").glob("*.yaml"))
PROFILES = sorted((ROOT / "params").glob("*.yaml"))
CASES = Draft202012Validator(case_schema())
ONE = {"id": "a", "notebook": "01_x", "group": "g.h", "why": "b", "messages": []}


def test_what_is_committed_is_what_the_code_says() -> None:
    """`make schema` writes them."""
    assert [str(path) for path, text in rendered(ROOT).items() if path.read_text(encoding="utf-8") != text] == []


@pytest.mark.parametrize("name, files", [("case", CASE_FILES), ("profile", PROFILES)])
def test_check_jsonschema_takes_all_that_we_ship(name: str, files: list[Path]) -> None:
    schema = ROOT / "docs" / "schema" / f"{name}.schema.json"
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", schema, *files]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schemas_are_schemas() -> None:
    for schema in (case_schema(), profile_schema(), fleet_schema()):
        Draft202012Validator.check_schema(schema)
        refs = {node["$ref"].removeprefix("#/$defs/") for node in walk(schema) if "$ref" in node}
        assert refs <= set(schema["$defs"])


def walk(value: Any) -> list[dict[str, Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return ([value] if isinstance(value, dict) else []) + [node for part in inner for node in walk(part)]


def test_every_file_names_its_schema_for_editors() -> None:
    for file in (*CASE_FILES, *PROFILES):
        first = file.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema="), file
        assert (file.parent / first.partition("=")[2]).resolve().is_file(), file


@pytest.mark.parametrize(
    "more",
    [
        {"expect": [{"length_chars": {"max": 3}}, {"json_parses": True}, {"facts": {"required": ["a", ["b", "c"]]}}]},
        {"expect": [{"length_chars": {"max": "{{most}}"}}, {"contains_any": "{{words}}"}], "each": [{"most": 1}]},
        {
            "expect": [{"{{check}}": {"max": 3}}],
            "good": "{{good}}",
            "stream": "{{s}}",
            "each": [{"check": "length_chars"}],
        },
        {"asks": [{"name": "a"}, {"name": "b", "follows": "a"}]},
    ],
)
def test_good_cases_are_valid(more: dict[str, Any]) -> None:
    assert list(CASES.iter_errors([{**ONE, **more}])) == []


@pytest.mark.parametrize(
    "more",
    [
        {"expect": [{"lenght_chars": {"max": 3}}]},
        {"expect": [{"length_chars": {"max": "many"}}]},
        {"expect": [{"length_chars": {"maximum": 3}}]},
        {"expect": [{"length_chars": {"max": "{{most}}"}}]},
        {"expect": [{"length_chars": {}, "json_parses": True}]},
        {"expect": [{"length_chars": {"max": "many"}}], "each": [{"most": 1}]},
        {"each": []},
        {"colour": "red"},
        {"finish": "later"},
        {"id": "A b"},
        {"why": None},
    ],
)
def test_wrong_cases_are_not(more: dict[str, Any]) -> None:
    assert list(CASES.iter_errors([{**ONE, **more}])) != []


def test_a_profile_s_groups_have_a_short_form() -> None:
    valid = Draft202012Validator(profile_schema()).is_valid
    assert valid(
        {"target": {"model": "m"}, "groups": {"a.b": "must", "a.c": {"policy": "proven_no_worse", "margin": 0.1}}}
    )
    assert not valid({"target": {"model": "m"}, "groups": {"a.b": "mus"}})
    assert not valid({"target": {"model": "m", "api_key": "x"}, "groups": {}})


def test_the_table_names_every_check_with_every_parameter() -> None:
    table = checks_table()
    for name in CHECKS:
        [line] = [line for line in table.splitlines() if line.startswith(f"| `{name}` |")]
        assert [p for p in CHECKS[name].schema().get("properties", {}) if f"`{p}`" not in line] == []
        assert len(line.replace("\\|", "").split("|")) == 6, line
        assert CHECKS[name].says, f"{name} does not say what it demands"


@pytest.mark.parametrize(
    ("check", "path", "types"),
    [
        ("length_chars", ["max"], {"integer"}), ("contains_any", [], {"array"}), ("regex", [], {"string"}),
        ("facts", ["required"], {"array"}), ("json_value", ["equals"], {"any"}), ("json_parses", [], {"boolean"}),
        ("length_chars", ["nothing"], set()), ("json_value", ["matches"], {"string", "null"}),
    ],
)  # fmt: skip
def test_the_types_of_a_parameter_are_known(check: str, path: list[str], types: set[str]) -> None:
    schema = CHECKS[check].schema()
    assert types_at(schema, path, schema.get("$defs", {})) == types


def test_anchors_are_no_matter(tmp_path: Path) -> None:
    text = "- &one {id: a, notebook: 01_x, group: g.h, why: b, messages: &m [{role: user, content: x}]}\n- {<<: *one, id: b}\n"
    assert CASES.is_valid(yaml.safe_load(text))
    assert json.dumps(case_schema())
