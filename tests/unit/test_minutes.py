"""Seeded minutes: the same seed gives the same truth, which the text says and nothing in it blurs."""

from __future__ import annotations

from pathlib import Path

import pytest
from gatebook.checks.facts import normal, states
from gatebook.config.cases import read_case_file
from gatebook.config.documents import MOST_TODOS, Language, Minutes, answers, minutes
from gatebook.config.files import material
from gatebook.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st

WORDS = material("minutes")
LANGUAGES: tuple[Language, ...] = ("zh", "en")
ANY = st.tuples(st.integers(0, 10**6), st.integers(2, MOST_TODOS), st.sampled_from(LANGUAGES))


@given(ANY)
def test_the_text_says_the_truth_and_has_distractors(drawn: tuple[int, int, Language]) -> None:
    text, found = minutes(*drawn)
    assert (text, found) == minutes(*drawn)
    assert len(found.truth) == drawn[1] and len({todo.owner for todo in found.truth}) == drawn[1]
    assert all(text.count(todo.task) == 1 and todo.owner in text for todo in found.truth)
    assert {"high", "low"} <= {todo.priority for todo in found.truth}
    assert len(found.settled) == 2 and all(mark in normal(text) for mark in found.settled)
    assert len(text.splitlines()) == drawn[1] + 2


@given(ANY)
def test_near_duplicates_are_in_every_minutes(drawn: tuple[int, int, Language]) -> None:
    tasks = {todo.task for todo in minutes(*drawn)[1].truth}
    assert any({task for task, _ in row} <= tasks for row in WORDS[drawn[2]]["tasks"] if len(row) == 2)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mark_finds_its_own_task_and_no_other(language: Language) -> None:
    entries = [entry for row in WORDS[language]["tasks"] for entry in row] + WORDS[language]["settled"]
    for task, mark in entries:
        assert [other for other, _ in entries if states(normal(other), mark)] == [task]
        assert not any(states(normal(task), owner) for owner in WORDS[language]["owners"])


def test_five_hundred_minutes_are_five_hundred_texts() -> None:
    assert len({minutes(seed, 5, "zh")[0] for seed in range(1, 501)}) == 500


def test_the_wrong_answers_differ_from_the_right_one() -> None:
    made = answers(minutes(1, 5, "zh")[1])
    assert len(set(made.values())) == len(made) == 6


CASE = """- id: m-{{seed}}
  notebook: 06_x
  group: g.h
  why: because
  minutes: {seed: "{{seed}}", todos: 3, language: en}
  messages: [{role: user, content: "List them.\\n{minutes}"}]
  expect: [{todos: true}]
  good: ["{todos}"]
  each: EACH
"""


def write(folder: Path, each: str, more: str = "") -> Path:
    file = folder / "m.yaml"
    file.write_text(CASE.replace("EACH", each).replace("todos: 3", f"todos: 3{more}"), encoding="utf-8")
    return file


def test_a_case_gets_its_minutes_and_their_truth_when_it_is_read(tmp_path: Path) -> None:
    cases = read_case_file(write(tmp_path, "{seeds: [7, 9]}"))
    assert [case.id for case in cases] == ["m-7", "m-8", "m-9"]
    text, found = minutes(8, 3, "en")
    assert cases[1].messages[0]["content"] == f"List them.\n{text}"
    assert cases[1].minutes == found and cases[1].good == [answers(found)["todos"]]
    assert Minutes.model_validate(cases[1].model_dump(mode="json")["minutes"]) == found


@pytest.mark.parametrize("each", ["{seeds: [2, 1]}", "{seeds: [1]}", "{seeds: 5}", "{seeds: [1, x]}", "{from: 1}"])
def test_a_wrong_range_of_seeds_is_bad_input(tmp_path: Path, each: str) -> None:
    with pytest.raises(BadInput, match="seeds"):
        read_case_file(write(tmp_path, each))


@pytest.mark.parametrize("more", [", todo: 1", ", language: fr"])
def test_wrong_minutes_are_bad_input(tmp_path: Path, more: str) -> None:
    file = write(tmp_path, "{seeds: [1, 1]}")
    file.write_text(file.read_text().replace(", language: en", more))
    with pytest.raises(BadInput, match="minutes"):
        read_case_file(file)
