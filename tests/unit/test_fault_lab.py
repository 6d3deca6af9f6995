"""The fault lab itself: its table is complete and can be made, its mutants are wrong, its page tells what was measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from gatebook.checks import CHECKS
from gatebook.config.cases import Case
from gatebook.verdict.examples import try_examples

from tests.conftest import shipped_cases
from tests.faults import lab, mutation, quiet, rates, score
from tests.faults.catalogue import ALL, ROWS, UNREPRODUCED, Row, spell
from tests.faults.lab import Lab, Result, digest
from tests.faults.mutators import HARMLESS, WRONG
from tests.faults.proxy import Fault

LISTED = (1, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 25, 26, 27, 28, 29, 31, 32, 34, 36, 38, 39, 40, 41, 42, 43, 44, 45, 47, 48, 50, 51, 52, 55, 56, 57, 58, 60, 61, 62, 63, 64, 65, 66)  # fmt: skip
"""Numbers of the list of real faults."""


def test_every_listed_fault_is_made_or_says_why_not() -> None:
    made = {row.id.split("-")[0] for row in ALL} | UNREPRODUCED.keys()
    told = " ".join(row.what for row in ALL)
    assert [n for n in LISTED if f"F{n:02}" not in made and f"F{n:02}" not in told] == []


def test_ids_are_unique_and_reasons_are_asked_for() -> None:
    assert [i for i, times in Counter(row.id for row in ALL).items() if times > 1] == []
    assert all(row.named for row in ROWS)
    assert all((row.code == (0,)) == (row.kind == "harmless") for row in ALL)


def test_all_that_a_row_asks_exists(tmp_path: Path) -> None:
    Lab(tmp_path, ALL)
    with pytest.raises(ValueError, match="no case or group 'typo'"):
        Lab(tmp_path, [Row("X", "x", "x", asks=("typo",))])


@pytest.mark.parametrize(
    "fault", {spell(f): f for row in ALL for f in row.faults if "," not in str(f.arg)}.values(), ids=spell
)
def test_faults_are_spelled_as_the_command_takes_them(fault: Fault) -> None:
    parsed, text = Fault.parse(spell(fault)), spell(fault)
    if "..." not in text and "\\n" not in text:
        assert {**vars(parsed), "arg": str(parsed.arg)} == {**vars(fault), "arg": str(fault.arg)}


def _one_case_a_check() -> list[Case]:
    found: dict[str, Case] = {}
    for case in shipped_cases().values():
        for name in (name for item in case.expect for name in item):
            if case.good and CHECKS[name].judges_text:
                found.setdefault(name, case)
    return list({case.id: case for case in found.values()}.values())


def test_wrong_answers_are_refused_and_harmless_ones_pass() -> None:
    found = mutation.scores(_one_case_a_check())
    assert {name: s.survivors[:2] for name, s in found.items() if s.survivors} == {}
    assert {name: s.false_alarms[:2] for name, s in found.items() if s.false_alarms} == {}
    assert all(s.wrong and s.harmless for s in found.values())


def test_every_check_of_texts_is_shown_to_refuse() -> None:
    """By wrong variations of good answers, or else by a bad answer of a case."""
    shipped = {n for c in shipped_cases().values() if c.good for item in c.expect for n in item}
    bad = {
        name
        for case in shipped_cases().values()
        for tried in try_examples(case)
        if tried.kind == "bad"
        for name in tried.failed
    }
    assert {name for name in shipped if CHECKS[name].judges_text} - WRONG.keys() - bad == set()
    assert WRONG.keys() - HARMLESS.keys() == set()


def test_the_page_tells_what_was_caught_and_what_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((lab, "RESULTS"), (quiet, "RUNS"), (rates, "RUNS"), (mutation, "TABLE"), (score, "PAGE")):
        monkeypatch.setattr(module, name, tmp_path / f"{module.__name__}.{name}")
    monkeypatch.setattr(score, "ROOT", tmp_path)
    seen, missed = ROWS[0], ROWS[1]
    for row, caught in ((seen, True), (missed, False)):
        reasons = ["'!' is 32 | of 32 characters"] if caught else []
        lab.keep(
            Result(
                row.id,
                digest(row),
                "s",
                1 if caught else 0,
                "FAIL" if caught else "PASS",
                reasons,
                ["01 noise"],
                caught,
                caught,
                caught,
                3.0,
                4,
            ),
            lab.RESULTS,
        )
    for seed, verdict in ((1, "FAIL"), (2, "PASS")):
        lab.keep(rates.Struck("s", "garbage", 0.1, seed, verdict, "", 1, 20, 2.0), rates.RUNS)
        lab.keep(quiet.Quiet("s", seed, "cold", 1, "PASS", "", 2.0), quiet.RUNS)
    said = score.write()
    page = (tmp_path / "tests.faults.score.PAGE").read_text()
    assert "caught: 1 of 2 faults injected" in said
    assert f"Not caught, or not named: {missed.id}" in page
    assert "| `garbage` | 1 in 10 | 20 | 87.8% | 1 of 2 (9% to 91%) | 1, 2 |" in page
    assert "0 FAIL in 2 runs" in page and "95 % upper bound 77.6%" in page
    assert "32 \\| of 32" in page, "a bar inside a cell is escaped"
