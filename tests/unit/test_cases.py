"""Cases: what a file may say, how rows are filled in, and what a selection leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gatebook.config.cases import Case, load_cases, read_case_file
from gatebook.config.selection import in_languages, select
from gatebook.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import case

ONE = "- {id: 'ID', notebook: 01_x, group: g.h, why: because, messages: [{role: user, content: hi}]MORE}\n"


def write(folder: Path, text: str, name: str = "some.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    return file


def one(name: str = "a", more: str = "") -> str:
    return ONE.replace("ID", name).replace("MORE", more)


def refused(file: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_case_file(file)
    message = str(caught.value)
    assert "\n" not in message and str(file) in message
    return message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["holds no cases"]),
        (one("a", ", asks: [{name: x, language: en}]"), ["asks.x.language", "tag the case"]),
        (one("a", ", asks: [{name: x, language: en}, {name: y, follows: x}]"), ["asks.x.language"]),
        (one("a", ", asks: [{name: x, language: en}, {name: y}], expect: [{rule: {ask: x}}]"), ["asks.x.language"]),
        ("# only a comment\n", ["holds no cases"]),
        ("[]\n", ["holds no cases"]),
        ("id: a\n", ["holds no cases"]),
        ("- just text\n", ["item 1", "'just text'"]),
        (one("a") + "- [b]\n", ["item 2", "['b']"]),
        (one("a", ", mesages: []"), ["case 'a'", "'mesages'", "did you mean 'messages'?"]),
        (one("a", ", stream: 'yes'"), ["case 'a'", "'stream'", "'yes'"]),
        (one("a", ", suites: [smok]"), ["case 'a'", "'suites.0'", "'smok'", "smoke"]),
        (one("a", ", finish: stopp"), ["case 'a'", "'finish'", "'stopp'"]),
        (one("a", ", expect: [{regex: x, json_parses: true}]"), ["case 'a'", "'expect'", "one check"]),
        (one("a", ", expect: [{}]"), ["case 'a'", "'expect'", "one check"]),
        (one("A b"), ["case 'A b'", "'id'", "lower-case"]),
        (one("a/b"), ["case 'a/b'", "'id'"]),
        (one("a").replace("because", "' '"), ["case 'a'", "'why'", "why this case exists"]),
        (one("a").replace("why: because, ", ""), ["case 'a'", "'why' is missing"]),
        ("- {notebook: 01_x, group: g.h, why: w}\n", ["number 1", "'id' is missing"]),
        (one("a", ", each: []"), ["case 'a'", "'each' is empty"]),
        (one("a", ", each: {n: 1}"), ["case 'a'", "'each'"]),
        (one("a", ", each: [1]"), ["case 'a'", "'each'", "row 1"]),
        (one("a-{{key}}", ", each: [{kee: x}]"), ["'{{key}}' names no column", "a-{{key}}"]),
        (one("a", ", asks: [{name: x}, {name: x}]"), ["case 'a'", "'asks'", "'x'"]),
        (one("a", ", canary: true, asks: [{name: canary}]"), ["case 'a'", "'asks'", "'canary'"]),
        (one("a", f", asks: [{', '.join(f'{{name: a{n}}}' for n in range(1001))}]"), ["case 'a'", "'asks'", "at most 1000 items"]),
        (one("a", ", draws: 3, drawn: 6"), ["case 'a'", "'drawn'", "6", "delete it"]),
    ],
)  # fmt: skip
def test_a_wrong_case_is_named_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    message = refused(write(tmp_path, text))
    assert [word for word in words if word not in message] == []


def test_the_expectations_of_a_case_are_written_out_once_however_many_asks_it_has() -> None:
    class Counted(dict[str, Any]):
        written = 0

        def __repr__(self) -> str:
            Counted.written += 1
            return super().__repr__()

    made = case(asks=[{"name": f"a{n}", "language": "en"} for n in range(500)] + [{"name": "last"}])
    object.__setattr__(made, "expect", [Counted(contains_any=["x"])])
    assert list(made.mistakes()) == [] and Counted.written == 1


@pytest.mark.parametrize(
    "more",
    [
        ", options: {temperature: .nan}",
        ", options: {seed: 2026-03-01}",
        ", asks: [{name: b, messages: [{role: user, content: 2026-03-01}]}]",
        ", options: {stop: !!binary aGk=}",
        ", good: [\"\\ud800\"], options: {stop: \"\\ud800\"}",
    ],
    ids=["NaN", "date without quotes", "date as a message", "binary", "half a character"],
)  # fmt: skip
def test_what_json_cannot_carry_is_refused_before_it_is_asked(tmp_path: Path, more: str) -> None:
    named = "line 1: not valid YAML: found invalid Unicode character escape code" if "ud800" in more else "case 'a'"
    assert named in refused(write(tmp_path, one("a", more)))


def test_a_row_may_be_a_case_with_its_own_type_and_suites(tmp_path: Path) -> None:
    more = ', options: {max_tokens: "{{n}}", stop: "<{{n}}>", "k{{n}}": 1}, suites: [smoke], each: [{n: 5}, {n: 7, suites: []}]'
    five, seven = read_case_file(write(tmp_path, one("a-{{n}}", more)))
    assert (five.id, five.options, five.suites) == ("a-5", {"max_tokens": 5, "stop": "<5>", "k5": 1}, ["smoke"])
    assert (seven.id, seven.options["max_tokens"], seven.suites) == ("a-7", 7, [])


def test_braces_that_are_no_placeholder_stay(tmp_path: Path) -> None:
    more = ', options: {a: "{{ n }}", b: "{n}", c: "{{n-1}}", d: "{\\"x\\": {\\"y\\": 1}}"}, each: [{n: 1}]'
    [found] = read_case_file(write(tmp_path, one("a", more)))
    assert found.options == {"a": "{{ n }}", "b": "{n}", "c": "{{n-1}}", "d": '{"x": {"y": 1}}'}


def test_an_id_twice_names_file_and_id(tmp_path: Path) -> None:
    write(tmp_path, one("twin") + one("other") + one("twin"))
    with pytest.raises(BadInput, match=r"some\.yaml.*'id'.*'twin'"):
        load_cases(tmp_path)


def test_an_id_in_two_files_names_both(tmp_path: Path) -> None:
    write(tmp_path, one("twin"), "first.yaml")
    write(tmp_path, one("other"), "second.yaml")
    write(tmp_path, one("twin"), "third.yaml")
    with pytest.raises(BadInput, match=r"'twin'") as caught:
        load_cases(tmp_path)
    assert "first.yaml" in str(caught.value) and "third.yaml" in str(caught.value)
    assert "second.yaml" not in str(caught.value)


def test_rows_that_give_the_same_id_are_refused(tmp_path: Path) -> None:
    write(tmp_path, one("a", ", each: [{n: 1}, {n: 2}]"))
    with pytest.raises(BadInput, match="'id'.*'a'"):
        load_cases(tmp_path)


def test_a_folder_without_case_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no case files"):
        load_cases(tmp_path)


def test_cases_come_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    write(tmp_path, one("z") + one("a"), "1.yaml")
    write(tmp_path, one("m"), "2.yaml")
    assert [found.id for found in load_cases(tmp_path)] == ["z", "a", "m"]


def test_an_ask_takes_from_its_case_what_it_leaves_out() -> None:
    mine = [{"role": "user", "content": "mine"}]
    made = case(
        options={"temperature": 0, "max_tokens": 8}, stream=False, finish="length",
        asks=[{"name": "a"}, {"name": "b", "messages": mine, "options": {"max_tokens": None, "top_p": 1}, "stream": True, "finish": "any"}],
    )  # fmt: skip
    a, b = made.requests()
    assert (a.messages, a.options, a.stream, a.finish) == (made.messages, made.options, False, "length")
    assert (b.messages, b.options, b.stream, b.finish) == (mine, {"temperature": 0, "top_p": 1}, True, "any")
    assert [ask.name for ask in case().requests()] == ["ask"]


ASKED: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "other"}]},
    {"options": {"temperature": 1}},
    {"stream": False},
    {"asks": [{"name": "again"}]},
    {"asks": [{"name": "ask", "path": "models"}]},
]
NOT_ASKED: list[dict[str, Any]] = [
    {"why": "another reason"}, {"suites": ["smoke"]}, {"expect": [{"regex": "x"}]}, {"good": ["x"]}, {"finish": "length"}, {"group": "g.i"}
]  # fmt: skip


@pytest.mark.parametrize("fields", ASKED)
def test_another_request_has_another_prompt_hash(fields: dict[str, Any]) -> None:
    assert case(**fields).prompt_hash != case().prompt_hash


@pytest.mark.parametrize("fields", NOT_ASKED)
def test_what_is_not_asked_does_not_change_the_prompt_hash(fields: dict[str, Any]) -> None:
    assert case(**fields).prompt_hash == case().prompt_hash


POOL = [
    case("a1", notebook="01_x", group="g.h", suites=["smoke", "demo"]),
    case("a2", notebook="01_x", group="g.i", suites=["smoke"]),
    case("b1", notebook="02_y", group="s.j", suites=["smoke"]),
    case("b2", notebook="02_y", group="s.j"),
    case("a3", notebook="01_x", group="g.h"),
]


@pytest.mark.parametrize(
    ("suite", "only", "chosen"),
    [
        ("full", None, ["a1", "a2", "a3", "b1", "b2"]),
        ("full", [], ["a1", "a2", "a3", "b1", "b2"]),
        ("smoke", None, ["a1", "a2", "b1"]),
        ("integration", None, ["a1", "a2", "b1"]),
        ("scenario", None, ["a1", "a2", "b1"]),
        ("demo", None, ["a1"]),
        ("full", ["02"], ["b1", "b2"]),
        ("smoke", ["02"], ["b1"]),
        ("full", ["01_x"], ["a1", "a2", "a3"]),
        ("full", ["g.h"], ["a1", "a3"]),
        ("full", ["b2", "g.i"], ["a2", "b2"]),
        ("full", ["01", "a1"], ["a1", "a2", "a3"]),
    ],
)
def test_suite_and_only_select(suite: Any, only: list[str] | None, chosen: list[str]) -> None:
    assert [found.id for found in select(POOL, suite, only)] == chosen


@pytest.mark.parametrize(
    ("suite", "only", "said"),
    [
        ("full", ["03"], "--only '03' matches no case of suite 'full'; notebooks here: 01_x, 02_y"),
        ("full", ["01", "nope"], "--only 'nope'"),
        ("smoke", ["b2"], "--only 'b2' matches no case of suite 'smoke'"),
        ("full", [""], "--only ''"),
        ("full", ["g"], "--only 'g'"),
        ("full", ["a"], "--only 'a'"),
    ],
)
def test_a_selection_that_matches_nothing_is_refused(suite: Any, only: list[str] | None, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        select(POOL, suite, only)
    assert said in str(caught.value)


def test_a_suite_without_cases_is_refused() -> None:
    with pytest.raises(BadInput, match="suite 'demo' selects no case; choose another with --suite"):
        select(POOL[1:], "demo", None)


@given(st.lists(st.sampled_from(["01", "02", "g.h", "g.i", "s.j", "a1", "a2", "a3", "b1", "b2"]), min_size=1))
def test_only_is_the_union_of_its_patterns(only: list[str]) -> None:
    union = {found.id for pattern in only for found in select(POOL, "full", [pattern])}
    assert {found.id for found in select(POOL, "full", only)} == union


def test_a_case_survives_being_written_down() -> None:
    made = case(asks=[{"name": "a", "options": {"x": None}}], expect=[{"json_value": {"path": "$.a", "equals": None}}])
    assert Case.model_validate_json(made.model_dump_json()) == made


def test_a_case_that_expects_nothing_is_refused(tmp_path: Path) -> None:
    assert "'expect' is empty" in refused(write(tmp_path, one("a", ", finish: any")))


ASKS_NOTHING: list[dict[str, Any]] = [
    {"messages": []},
    {"messages": [], "asks": [{"name": "a", "messages": [{"role": "user", "content": "x"}]}, {"name": "b"}]},
    {"asks": [{"name": "a", "messages": []}]},
]


@pytest.mark.parametrize("fields", ASKS_NOTHING)
def test_a_request_without_a_message_is_refused_unless_a_refusal_is_the_result(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="key 'messages' is empty, so '.+' would ask nothing"):
        case("a", **fields)
    assert case("a", negative=True, **fields).negative


@pytest.mark.parametrize("role", ["usr", "User", None, 3])
def test_an_unknown_role_is_refused_unless_a_refusal_is_the_result(role: object) -> None:
    message = {"role": role, "content": "x"} if role else {"content": "x"}
    with pytest.raises(ValueError, match=f"key 'messages' has the role {role!r}; roles are system"):
        case("a", messages=[message])
    assert case("a", messages=[message], negative=True).negative


SPOKEN = [
    case("protocol"),
    case("english", tags={"language": "en"}),
    case("chinese", tags={"language": "zh"}),
    case("translated", tags={"language": "en", "from": "zh"}),
    case("both", asks=[{"name": "a"}, {"name": "b", "language": "zh"}]),
    case("over", group="g.o", over="g.h", messages=[], expect=[{"decision_flips": True}]),
    case("gauges", group="g.o", over="gauges", messages=[], expect=[{"queue": "limit"}]),
]


@pytest.mark.parametrize(
    ("languages", "left_out", "asks"),
    [
        (None, [], ["a", "b"]),
        (["en"], ["chinese", "translated"], ["a"]),
        (["zh"], ["english", "translated"], ["a", "b"]),
        (["zh", "en"], [], ["a", "b"]),
    ],
)
def test_languages_leave_out_cases_and_asks_of_others(
    languages: list[str] | None, left_out: list[str], asks: list[str]
) -> None:
    left = {c.id: c for c in in_languages(SPOKEN, languages)}
    assert [c.id for c in SPOKEN if c.id not in left] == left_out
    assert [ask.name for ask in left["both"].requests()] == asks


def test_a_case_over_a_group_of_other_languages_is_not_left() -> None:
    chinese = [c.model_copy(update={"tags": {"language": "zh"}}) for c in SPOKEN if not c.over]
    assert [c.id for c in in_languages([*chinese, *SPOKEN[-2:]], ["en"])] == ["gauges"]


def test_tags_and_languages_of_asks_change_no_prompt() -> None:
    bare = case("both", asks=[{"name": "a"}, {"name": "b"}])
    assert SPOKEN[4].prompt_hash == bare.prompt_hash != in_languages(SPOKEN, ["en"])[2].prompt_hash
    assert SPOKEN[1].prompt_hash == SPOKEN[0].prompt_hash


def test_a_row_adds_tags_of_its_own(tmp_path: Path) -> None:
    more = ", tags: {task: t}, each: [{tags: {language: fr}, suites: [demo]}]"
    [made] = read_case_file(write(tmp_path, one("a", more)))
    assert made.tags == {"task": "t", "language": "fr"}
