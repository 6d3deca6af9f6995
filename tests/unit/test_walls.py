"""Nothing heavy before it is needed, nothing that asks in what judges, and a published schema that is the real one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gatebook.verdict.verdict import EXIT_CODES, PRECEDENCE, Verdict

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "pandas",
    "numpy",
    "httpx",
    "matplotlib",
    "scipy",
    "statsmodels",
    "sqlalchemy",
    "papermill",
    "jsonschema",
    "nbconvert",
    "pydantic",
    "typer",
    "yaml",
)
NETWORK = ("httpx", "requests", "aiohttp", "gatebook.collect")


def imported(statement: str, names: tuple[str, ...]) -> list[str]:
    """Which of `names` are in sys.modules of a fresh interpreter after the statement."""
    code = f"{statement}\nimport sys\nprint([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.replace("'", '"'))
    return found


def test_import_gatebook_imports_nothing_heavy() -> None:
    assert imported("import gatebook; gatebook.__version__", HEAVY) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import gatebook.verdict.judging",
        "import gatebook.record.run, gatebook.record.journal",
        "import gatebook.config.cases",
    ],
)
def test_what_judges_cannot_ask(statement: str) -> None:
    assert imported(statement, NETWORK) == []


def test_a_run_of_one_deployment_imports_nothing_of_a_fleet() -> None:
    names = ("dask", "distributed", "fsspec", "s3fs", "gatebook.fleet.conduct")
    assert imported("import gatebook.runner, gatebook.cli, gatebook.commands.verify", names) == []


def test_a_database_is_opened_only_where_a_history_is() -> None:
    assert imported("import gatebook.runner, gatebook.cli, gatebook.workbook", ("sqlalchemy", "psycopg")) == []


def test_the_workbook_is_there_when_it_is_asked_for() -> None:
    import gatebook

    assert gatebook.Workbook.__name__ == "Workbook"
    with pytest.raises(AttributeError, match="no attribute 'Notebook'"):
        gatebook.Notebook  # noqa: B018


def test_the_published_schema_is_that_of_the_verdict() -> None:
    """`make schema` writes it."""
    published = json.loads((ROOT / "docs" / "schema" / "verdict.schema.json").read_text())
    assert published == json.loads(json.dumps(Verdict.model_json_schema()))


def test_only_pass_is_green() -> None:
    assert set(EXIT_CODES) == set(PRECEDENCE)
    assert [word for word, code in EXIT_CODES.items() if code == 0] == ["PASS"]
    assert EXIT_CODES == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "ERROR": 75}


def test_a_file_of_the_library_is_read_in_one_sitting() -> None:
    lines = {file.name: file.read_text(encoding="utf-8").count("\n") for file in (ROOT / "lib").rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > 350} == {}
