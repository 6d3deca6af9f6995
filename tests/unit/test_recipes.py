"""The recipes of CONTRIBUTING.md, followed to the letter: a check in three files, a notebook in three, an engine in two."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gatebook.checks import text as family
from gatebook.checks.registry import CHECKS
from gatebook.config.cases import load_cases
from gatebook.engines.engine import Engine, Probes
from gatebook.verdict.examples import try_examples

from tests.conftest import ROOT


def blocks(section: str, language: str) -> list[str]:
    """The code blocks of one section, without their indent."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    part = re.split(r"^## ", text.partition(f"## {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", part, re.DOTALL | re.MULTILINE)
    return [re.sub(r"^   ", "", one, flags=re.MULTILINE) for one in found]


def test_a_check_is_its_function_a_case_and_a_test(tmp_path: Path) -> None:
    code, test = blocks("Write a check", "python")
    [case] = blocks("Write a check", "yaml")
    names = vars(family) | {"pytest": pytest}
    try:
        exec(compile(code, "the check", "exec", dont_inherit=True), names)
        (tmp_path / "letters.yaml").write_text(case, encoding="utf-8")
        [loaded] = load_cases(tmp_path)
        tried = try_examples(loaded)
        assert [(one.kind, one.said) for one in tried if not one.agrees] == [] and len(tried) == 2
        exec(compile(test, "the test", "exec", dont_inherit=True), names)
        [mark] = names["test_the_end_counts_and_not_what_stands_before"].pytestmark
        for text, outcome in mark.args[1]:
            names["test_the_end_counts_and_not_what_stands_before"](text, outcome)
    finally:
        CHECKS.pop("ends_with")


def test_an_engine_is_a_class_and_its_replies() -> None:
    [code] = blocks("Support another inference server", "python")
    names = {"Engine": Engine, "Probes": Probes}
    exec(compile(code, "the engine", "exec", dont_inherit=True), names)
    made = names["_Text"]()
    assert made.recognises(Probes({}, "m", {"x-text-server": "1"})) and not made.recognises(Probes({}, "m"))
