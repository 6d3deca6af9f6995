"""Every text file and pipe says that it is UTF-8: the locale of the machine decides nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.conftest import ROOT

SOURCES = [*sorted((ROOT / "lib").rglob("*.py")), *sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "benchmarks").glob("*.py"))]  # fmt: skip
TEXT_CALLS = {"read_text", "write_text", "TextIOWrapper", "fdopen"}
PROCESSES = {"run", "Popen", "check_output"}
BINARY = re.compile(r"[rwax+]*b[rwax+]*")


def by_the_locale(source: str) -> list[str]:
    """Calls that open a text without an encoding, as `line: call`."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = {k.arg: k.value for k in call.keywords}
        modes = [
            v.value for v in (*call.args, *given.values()) if isinstance(v, ast.Constant) and isinstance(v.value, str)
        ]
        opens = name in TEXT_CALLS or (name == "open" and _opens_a_file(call, given))
        piped = name in PROCESSES and not given.keys().isdisjoint(("text", "universal_newlines"))
        if "encoding" not in given and (piped or (opens and not any(BINARY.fullmatch(mode) for mode in modes))):
            found.append(f"{call.lineno}: {ast.unparse(call)[:80]}")
    return found


def _opens_a_file(call: ast.Call, given: dict[str | None, ast.expr]) -> bool:
    """`open(...)`, `path.open(...)`; not a method of ours that takes something else."""
    return isinstance(call.func, ast.Name) or "mode" in given or any(
        isinstance(a, ast.Constant) and isinstance(a.value, str) and re.fullmatch(r"[rwaxbt+]+", a.value) for a in call.args
    )  # fmt: skip


def _code(path: Path) -> str:
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_text_is_read_or_written_by_the_locale(path: Path) -> None:
    assert by_the_locale(_code(path)) == []


@pytest.mark.parametrize(
    "line", ["p.read_text()", "p.write_text(x)", "open(p)", "open(p, 'w')", "p.open('a')", "subprocess.run(c, text=True)"]
)  # fmt: skip
def test_a_text_without_an_encoding_is_seen(line: str) -> None:
    assert by_the_locale(line) and not by_the_locale(line.replace("()", "(None)")[:-1] + ", encoding='utf-8')")


@pytest.mark.parametrize("line", ["open(p, 'rb')", "p.open('ab', buffering=0)", "subprocess.run(c)", "lag.open(slot)"])
def test_bytes_need_none(line: str) -> None:
    assert by_the_locale(line) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--profile", "params/smollm2.yaml", "--out", ""], "--out is empty; name a path"),
        (["run", "--profile", "params/smollm2.yaml", "--out="], "--out is empty; name a path"),
        (["judge", "outputs/x", "--profile", "params/smollm2.yaml", "--out= "], "--out is empty; name a path"),
        (["passed", "", "--suite", "smoke"], "an argument is empty; name a run folder or a file"),
        (["accept", "x", "--reason", "第一次".encode("gb18030")], "--reason is not utf-8 text"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_one_line(arguments: list[str | bytes], said: str) -> None:
    command: list[str | bytes] = [sys.executable, "-X", "utf8", "-m", "gatebook", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert said in done.stderr


def test_a_terminal_that_lacks_a_letter_stops_nothing() -> None:
    environment = {"PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(ROOT / "lib"), "PATH": ""}
    command = [sys.executable, "-m", "gatebook", "cases", "check", "params/cases/没有.yaml"]
    done = subprocess.run(command, cwd=ROOT, env={**environment, "PYTHONUTF8": "1"}, capture_output=True)
    assert (done.returncode, b"??.yaml: no such file" in done.stderr) == (2, True), done
