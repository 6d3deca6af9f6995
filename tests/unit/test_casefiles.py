"""`gatebook cases check`: examples against checks, what is missing, and files that no run would read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gatebook.commands.casefiles import check_files
from gatebook.errors import BadInput
from gatebook.verdict.examples import example_evidence, text_checks, try_examples

from tests.conftest import Project
from tests.unit.replies import case

CASE: dict[str, Any] = {
    "id": "a", "notebook": "01_health", "group": "health.shop", "why": "because",
    "messages": [{"role": "user", "content": "hi"}],
    "expect": [{"contains_any": ["nine"]}, {"length_chars": {"max": 20}}], "good": ["at nine"], "bad": ["at ten"],
}  # fmt: skip


@pytest.fixture
def place(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("GATEBOOK_ROOT", str(project.root))
    return project


def lines(place: Project, *cases: dict[str, Any], **options: bool) -> tuple[str, list[str]]:
    place.write_cases([{**CASE, **one} for one in cases])
    [found] = check_files([], **options)
    assert found.refused is None
    return str(found), found.problems


def test_examples_that_agree_are_counted(place: Project) -> None:
    said, problems = lines(place, {"good": ["at nine", "nine"]}, {"id": "b"})
    assert said.endswith("small.yaml: 2 cases, 3 good and 2 bad answers tried") and problems == []


def test_a_good_answer_that_fails_says_which_check_and_why(place: Project) -> None:
    _, [problem] = lines(place, {"good": ["at nine", "at nine in the morning, every day"]})
    assert "case 'a', good answer 2 'at nine in the morning" in problem
    assert "length_chars fail: 33 characters, 1 to 20 expected" in problem


def test_a_bad_answer_that_passes_is_a_problem(place: Project) -> None:
    _, [problem] = lines(place, {"bad": ["nine"]})
    assert "bad answer 1 'nine': passes every check" in problem


def test_a_hostile_example_is_shown_without_its_controls(place: Project) -> None:
    _, [problem] = lines(place, {"good": ["\u202eten\u2066"]})
    assert "\u202e" not in problem and "\\u202e" in problem


def test_missing_examples_are_a_problem_unless_they_are_allowed(place: Project) -> None:
    said, problems = lines(place, {"good": [], "bad": []}, {"id": "b", "bad": []})
    assert ["no good and no bad example" in p for p in problems] == [True, False]
    assert "no bad example" in problems[1]
    said, problems = lines(place, {"good": [], "bad": []}, allow_missing=True)
    assert problems == [] and "nothing to try" in said


def test_a_check_that_judges_no_text_needs_no_example(place: Project) -> None:
    said, problems = lines(place, {"expect": [{"ttft_ms": "limit"}], "good": [], "bad": []})
    assert problems == [] and "nothing to try" in said


def test_examples_without_a_check_are_a_problem(place: Project) -> None:
    _, problems = lines(place, {"expect": []})
    assert len(problems) == 2 and all("no check to try it by" in p for p in problems)


def test_every_check_wants_a_bad_answer_of_its_own(place: Project) -> None:
    assert lines(place, {})[1] == []
    [problem] = lines(place, {}, every_check=True)[1]
    assert "length_chars fails no bad example" in problem
    assert lines(place, {"bad": ["at ten", "nine " * 9]}, every_check=True)[1] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["holds no cases"]),
        ("- id: [", ["line", "not valid YAML"]),
        ("id: a", ["holds no cases"]),
        ("- {id: a, notebook: 01_health, group: g.h, why: b, messages: [{role: user, content: hi}], expect: [{lenght: {}}]}", ["unknown check", "lenght"]),
        ("- {id: a, notebook: 01_health, group: g.h, why: b, messages: []}", ["'a': key 'messages' is empty", "'ask'"]),
        ("- {id: a, notebook: 02_structured_output, group: g.h, why: b, messages: [{role: user, content: hi}], options: {response_format: json}, expect: [{json_schema: same}]}", ["'a'", "expect.json_schema", "sends no schema"]),
        ("- {id: a, notebook: 08_load, group: g.h, why: b, messages: [{role: user, content: hi}], load: {at_once: [1, 2], requests: 6000}, expect: [{not_degenerate: true}]}", ["'a'", "12,000 requests in all; 10,000 at most"]),
        ("- {id: a, notebook: 08_load, group: g.h, why: b, messages: [{role: user, content: hi}], load: {at_once: [2, 2]}, expect: [{not_degenerate: true}]}", ["'a'", "each level stands once"]),
        ("- {id: a, notebook: 77_none, group: g.h, why: b, messages: [{role: user, content: hi}]}", ["77_none"]),
        ("- {id: a, notebook: 00_explore, group: g.h, why: b, messages: [{role: user, content: hi}]}", ["00_explore", "asks no cases"]),
        ("- {id: A b, notebook: 01_health, group: g.h, why: b, messages: [{role: user, content: hi}]}", ["'id'", "'A b'"]),
        ("- {id: model-served, notebook: 01_health, group: g.h, why: b, messages: [{role: user, content: hi}]}", ["model-served", "small.yaml"]),
    ],
    ids=["empty", "no-yaml", "no-list", "unknown-check", "asks-nothing", "response-format-a-text", "load-without-end", "a-level-twice", "no-notebook", "for-people", "id", "twin-elsewhere"],
)  # fmt: skip
def test_a_file_that_no_run_would_read_is_refused_in_one_line(place: Project, text: str, words: list[str]) -> None:
    file = place.root / "params" / "cases" / "more.yaml"
    file.write_text(text)
    [found] = check_files([file])
    assert found.refused is not None and "\n" not in found.refused and str(file) in found.refused
    assert [word for word in words if word not in found.refused] == []


def test_one_broken_file_does_not_hide_the_others(place: Project) -> None:
    (place.root / "params" / "cases" / "broken.yaml").write_text(": [")
    found = {one.path.name: one for one in check_files([])}
    assert found["broken.yaml"].refused and found["small.yaml"].cases == 9


def test_a_folder_without_case_files_is_bad_input(place: Project) -> None:
    (place.root / "params" / "cases" / "small.yaml").unlink()
    with pytest.raises(BadInput, match="no case files"):
        check_files([])
    [found] = check_files([Path("no/such.yaml")])
    assert found.refused and "no such file" in found.refused


def test_the_command_exits_0_1_or_2_and_says_why(place: Project) -> None:
    place.write_cases([CASE])
    assert (done := place.gatebook("cases", "check")).code == 0 and "no problem: 2 answers tried" in done.out, done
    place.write_cases([{**CASE, "good": [], "bad": []}])
    assert (done := place.gatebook("cases", "check")).code == 1 and done.out.splitlines()[-1] == "1 problem", done
    done = place.gatebook("cases", "check", "--allow-missing")
    assert done.code == 0 and "nothing was tried" in done.out, done
    place.write_cases([{**CASE, "expect": [{"nothing": 1}]}])
    done = place.gatebook("cases", "check")
    assert done.code == 2 and len(done.err.splitlines()) == 1 and "unknown check" in done.err, done


# --- verdict/examples.py ---


def test_every_request_of_a_case_is_answered_by_the_example() -> None:
    two = case(asks=[{"name": "a"}, {"name": "b"}], expect=[{"contains_any": ["nine"]}], good=["nine"], bad=["ten"])
    assert [reply.answer.text for reply in example_evidence(two, "nine").replies] == ["nine", "nine"]
    assert [(t.kind, t.outcome, t.agrees) for t in try_examples(two)] == [("good", "pass", True), ("bad", "fail", True)]
    assert text_checks(two) == ["contains_any"]


def test_an_example_that_no_check_of_texts_judges_agrees_with_nothing() -> None:
    odd = case(expect=[{"model_listed": True}], good=["x"], bad=["x"])
    assert [(t.outcome, t.agrees) for t in try_examples(odd)] == [("error", False)] * 2
