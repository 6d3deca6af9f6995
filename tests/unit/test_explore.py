"""Exploring a recorded run with no server: what is found, shown, compared and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from gatebook.commands.explore import Explorer, _edited
from gatebook.config.cases import read_case_file
from gatebook.errors import BadInput
from gatebook.record.run import Run
from gatebook.report.conversation import Compared

from tests.conftest import ROOT, Project
from tests.inprocess import run_cell
from tests.unit.replies import case, chat_body, plain, profile, ready, record, run_folder

KEEP: dict[str, Any] = {"expect": [{"contains_any": ["nine"]}], "good": ["at nine"], "bad": ["at ten"]}


@pytest.fixture
def place(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("GATEBOOK_ROOT", str(project.root))
    return project


def made(place: Project, name: str, answer: str, asked: str = "When do you open?") -> Run:
    messages = [{"role": "user", "content": asked}]
    hours = case(
        "hours", notebook="01_health", group="health.shop", messages=messages, expect=[{"contains_any": ["nine"]}]
    )
    two = case("two", notebook="01_health", group="health.shop", asks=[{"name": "a"}, {"name": "b"}], finish="stop")
    by = profile({"health.contract": "must", "health.shop": "watch"})
    created = f"2026-03-01T{name[-2:]}:00:00+00:00"
    run = run_folder(place.root / "outputs" / name, [hours, two], by, created=created)
    sent = {"messages": messages, "temperature": 0}
    replies = [
        plain(chat_body(answer, id="1"), "hours/ask", sent=sent),
        *(plain(chat_body(x, id=x), f"two/{x}") for x in "ab"),
    ]
    record(run, "01_health", ready(), *replies)
    return run


def test_without_a_run_it_says_what_to_do(place: Project) -> None:
    with pytest.raises(BadInput, match="make one with `make demo`"):
        Explorer()


def test_a_run_is_opened_by_a_part_of_its_name_and_the_newest_without(place: Project, capsys: Any) -> None:
    for name in ("2026-a-09", "2026-b-11", "2026-c-10"):
        made(place, name, "at nine")
    explore = Explorer()
    assert explore.run.path.name == "2026-b-11"
    explore.open("-c-")
    assert explore.run.path.name == "2026-c-10" and "opened 2026-c-10" in capsys.readouterr().out
    for wrong, words in (("2026", "3 runs"), ("nothing", "no runs")):
        with pytest.raises(BadInput, match=words):
            explore.open(wrong)


def cells(**changed: tuple[str, str]) -> dict[str, Any]:
    """What the cells of 00_explore that ask nobody show, by their id; `changed`: in this cell, this text by that."""
    shown, known = {}, {"__name__": "00_explore"}
    code = {c.id: c.source for c in nbformat.read(ROOT / "notebooks" / "00_explore.ipynb", as_version=4).cells}
    for number, name in enumerate(("setup", "runs", "cases", "show"), 1):
        outputs = run_cell(code[name].replace(*changed.get(name, ("", ""))), known, number)
        assert all(output.output_type != "error" for output in outputs), (name, outputs)
        shown[name] = outputs[-1].get("data", {}).get("text/html", "")
    return {**known, "shown": shown}


def test_runs_are_listed_newest_first(place: Project) -> None:
    for name in ("2026-a-09", "2026-b-11", "2026-c-10"):
        made(place, name, "at nine")
    (place.root / "outputs" / "broken").mkdir()
    (place.root / "outputs" / "broken" / "manifest.json").write_text("{")
    runs = cells(show=("greeting-nihao", "hours"))["runs"]
    assert list(runs.index) == ["2026-b-11", "2026-c-10", "2026-a-09", "broken"]
    assert list(runs["verdict"]) == ["unfinished"] * 3 + ["unreadable"]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("HOURS", ["hours"]),
        ("open?", ["hours"]),
        ("nine", ["hours"]),
        ("fail", []),
        ("health.shop", ["hours", "two"]),
        ("", ["hours", "two"]),
    ],
)
def test_cases_are_found_by_any_word(place: Project, word: str, found: list[str]) -> None:
    made(place, "r-10", "at nine")
    known = cells(cases=('"greeting"', repr(word)), show=("greeting-nihao", "hours"))
    assert list(known["cases"][known["holds"]]["case"]) == found


def test_a_hostile_answer_is_text_in_tables_too(place: Project) -> None:
    made(place, "r-10", "<script>alert(1)</script>\u202e")
    shown = cells(cases=("greeting", "hours"), show=("greeting-nihao", "hours"))["shown"]
    assert "&lt;script" in shown["cases"] and "&lt;script" in shown["show"]
    assert all("<script" not in html and "\u202e" not in html for html in shown.values())
    assert pd.get_option("display.html.use_mathjax") is False


def test_a_case_is_shown_with_all_its_requests(place: Project) -> None:
    made(place, "r-10", "at ten")
    shown = repr(Explorer().answers("hours"))
    assert "] at ten" in shown and "fail: has none of nine" in shown
    assert [one.exchange.ask for one in Explorer().answers("two")] == ["a", "b"]
    with pytest.raises(BadInput, match="'nothing' is not in r-10"):
        Explorer().answers("nothing")
    with pytest.raises(BadInput, match="no request 'c'; it has a, b"):
        Explorer().answer("two", request="c")


def test_a_case_that_was_never_asked_says_so(place: Project) -> None:
    hours = case("hours", notebook="01_health", group="health.shop")
    run_folder(place.root / "outputs" / "r-10", [hours], profile({"health.contract": "must", "health.shop": "watch"}))
    assert "(not recorded)" in repr(Explorer().answers("hours"))


def test_two_runs_of_the_same_case_are_compared(place: Project) -> None:
    made(place, "old-10", "at nine")
    made(place, "new-11", "at ten")
    explore = Explorer()
    page = Compared(explore.answer("hours", run="old"), explore.answer("hours"))._repr_html_()
    assert "old-10" in page and "new-11" in page and ">nine</mark>" in page and ">ten</mark>" in page


def test_edits_replace_what_they_name() -> None:
    said = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "2"},
    ]
    assert [m["content"] for m in _edited(said, "new", None)] == ["s", "1", "a", "new"]
    assert [m["content"] for m in _edited(said, None, "other")] == ["other", "1", "a", "2"]
    assert _edited([], "new", "s") == [{"role": "system", "content": "s"}, {"role": "user", "content": "new"}]
    assert said[3]["content"] == "2"


def kept(place: Project, name: str = "shop-hours", **more: Any) -> str:
    explore = Explorer()
    return explore.save(
        name,
        "hours must be told",
        answered=explore.answer("hours"),
        **{"into": "params/cases/mine.yaml", **KEEP, **more},
    )


def test_a_conversation_becomes_a_case_and_the_file_keeps_its_comments(place: Project) -> None:
    made(place, "r-10", "at nine")
    file = place.root / "params" / "cases" / "mine.yaml"
    file.write_bytes(
        b"# mine\r\n- {id: one, notebook: 01_health, group: health.shop, why: b, messages: [{role: user, content: hi}]}  # keep"
    )
    assert "added shop-hours to params/cases/mine.yaml" in kept(place)
    assert (
        file.read_bytes().startswith(b"# mine\r\n- {id: one")
        and b"# keep\r\n\r\n- id: shop-hours\r\n" in file.read_bytes()
    )
    new = read_case_file(file)[1]
    assert (new.messages[0]["content"], new.options, new.stream) == (
        "When do you open?",
        {"temperature": 0, "max_tokens": 32},
        False,
    )
    assert (new.notebook, new.group, new.good) == ("01_health", "health.shop", ["at nine"])
    assert kept(place, "shop-hours-2") and len(read_case_file(file)) == 3
    assert not list(file.parent.glob(".*")), "no half-written file is left"


def test_a_new_file_opens_with_its_schema(place: Project) -> None:
    made(place, "r-10", "at nine")
    kept(place)
    assert (place.root / "params" / "cases" / "mine.yaml").read_text().startswith("# yaml-language-server: $schema=")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"name": "model-served"}, "another case has this id"),
        ({"name": "Not Good"}, "'id'"),
        ({"good": ["at ten"]}, "good answer 1 is fail"),
        ({"bad": ["at nine"]}, "bad answer 1 is pass"),
        ({"expect": [{"nothing": 1}]}, "unknown check"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"notebook": "00_explore"}, "asks no cases"),
        ({"into": "params/cases/../mine.yaml"}, "a run reads only"),
        ({"into": "mine.txt"}, "a run reads only"),
        ({"into": None}, "say into="),
        ({"messages": [{"role": "user", "content": "use Bearer abcdefghijklmnop1234"}]}, "secret"),
        ({"options": {"extra": "sk-abcdefgh12345678"}}, "secret"),
    ],
)
def test_what_a_run_would_refuse_is_not_saved(place: Project, more: dict[str, Any], words: str) -> None:
    made(place, "r-10", "at nine")
    before = {path.name: path.read_bytes() for path in (place.root / "params" / "cases").iterdir()}
    with pytest.raises(BadInput, match=words) as caught:
        kept(place, **more)
    assert "sk-abc" not in str(caught.value) and "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in (place.root / "params" / "cases").iterdir()} == before


@pytest.mark.parametrize(
    "text",
    [
        "[{id: one, notebook: 01_health, group: g.h, why: b, messages: [{role: user, content: hi}]}]\n",
        "  - {id: one, notebook: 01_health, group: g.h, why: b, messages: [{role: user, content: hi}]}\n",
    ],
)
def test_a_list_that_cannot_go_on_is_left_alone(place: Project, text: str) -> None:
    made(place, "r-10", "at nine")
    file = place.root / "params" / "cases" / "mine.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match="cannot be continued"):
        kept(place)
    assert file.read_text() == text


def test_nothing_asked_is_nothing_to_save(place: Project) -> None:
    made(place, "r-10", "at nine")
    with pytest.raises(BadInput, match="nothing was asked yet"):
        Explorer().draft("x", why="y")


def test_reading_changes_nothing_in_the_run(place: Project) -> None:
    run = made(place, "r-10", "at nine")
    run.seal()
    explore = Explorer()
    explore.answers("hours"), explore.answer("two")
    assert run.damage() == []
    assert not (place.root / "outputs" / "explore").exists()


def test_the_file_is_where_it_is_said(place: Project) -> None:
    made(place, "r-10", "at nine")
    explore = Explorer(str(Path("outputs") / "r-10") if (Path("outputs") / "r-10").exists() else "r-10")
    assert explore.draft("x", why="yes", answered=explore.answer("hours"), **KEEP).startswith("- id: x\n")
