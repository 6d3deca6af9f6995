"""`gatebook cases import`: tables become cases, bad rows are named, and nothing is half written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gatebook.commands.casefiles import check_files
from gatebook.commands.importing import import_cases, read_table
from gatebook.config.cases import Case, read_case_file
from gatebook.errors import BadInput
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import Project

MAP = "id=no,user=question,golden=answer,expect.contains_any=words,expect.length_chars.max=most"
HEAD = "no,question,answer,words,most\n"
FIXED: dict[str, Any] = {"notebook": "01_health", "group": "health.shop", "why": "a ticket"}
TEMPLATE = """
id: ticket-{{no}}
notebook: 01_health
group: health.shop
why: "ticket {{no}}"
messages: [{role: user, content: "Q: {{question}}"}]
expect: [{contains_any: "{{words}}"}, {length_chars: {max: "{{most}}"}}]
good: ["{{answer}}"]
bad: [I do not know.]
"""


@pytest.fixture
def place(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("GATEBOOK_ROOT", str(project.root))
    return project


def into(place: Project) -> Path:
    return place.root / "params" / "cases" / "made.yaml"


def imported(
    place: Project, text: str | bytes, name: str = "t.csv", columns: str | None = MAP, template: str | None = None
) -> list[Case]:
    table = place.root / name
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    written = None
    if template:
        written = place.root / "template.yaml"
        written.write_text(template)
    import_cases(table, into(place), columns, written, **({} if template else FIXED))
    [checked] = check_files([into(place)], allow_missing=True)
    assert checked.refused is None and checked.problems == []
    return read_case_file(into(place))


def refused(place: Project, text: str | bytes, **more: Any) -> str:
    with pytest.raises(BadInput) as caught:
        imported(place, text, **more)
    assert not into(place).exists(), "nothing was written"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_mapped_table_becomes_cases(place: Project) -> None:
    rows = 'T-1,"When, and\nwhere?",at nine|At 9,nine|9,20\nT-2,何时？,九点,九,5\n'
    first, second = imported(place, HEAD + rows)
    assert (first.id, first.messages) == ("t-1", [{"role": "user", "content": "When, and\nwhere?"}])
    assert first.expect == [{"contains_any": ["nine", "9"]}, {"length_chars": {"max": 20}}]
    assert (first.good, first.suites, first.group, first.why) == (
        ["at nine", "At 9"],
        ["scenario"],
        "health.shop",
        "a ticket",
    )
    assert second.messages[0]["content"] == "何时？"


def test_a_template_has_every_freedom(place: Project) -> None:
    [one] = imported(place, HEAD + "T-1,When?,at nine,nine,20\n", columns=None, template=TEMPLATE)
    assert (one.id, one.why, one.messages[0]["content"]) == ("ticket-t-1", "ticket T-1", "Q: When?")
    assert one.expect[1] == {"length_chars": {"max": 20}} and one.bad == ["I do not know."]


def test_a_template_s_names_can_be_mapped_to_columns(place: Project) -> None:
    head = "Ticket No,question,answer,words,most\n"
    [one] = imported(place, head + "7,When?,at nine,nine,20\n", columns="no=Ticket No", template=TEMPLATE)
    assert one.id == "ticket-7"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_byte_order_mark_and_line_ends_of_spreadsheets(place: Project, separator: str) -> None:
    text = (HEAD + "1,When?,at nine,nine,20\n").replace(",", separator).replace("\n", "\r\n")
    [one] = imported(place, b"\xef\xbb\xbf" + text.encode())
    assert (one.id, one.good) == ("1", ["at nine"])


def test_jsonl_keeps_its_types(place: Project) -> None:
    row = {"no": 7, "question": "When?", "answer": ["at nine"], "words": ["nine"], "most": 20}
    [one] = imported(
        place, json.dumps(row) + "\n\n", name="t.jsonl", columns=MAP.replace("user=question", "user=question")
    )
    assert (one.id, one.expect[1]) == ("7", {"length_chars": {"max": 20}})


def test_ids_are_made_safe_and_unique_also_among_the_cases_that_are_there(place: Project) -> None:
    rows = "A b,q1,,x,5\na-b,q2,,x,5\n中文,q3,,x,5\nmodel-served,q4,,x,5\n"
    assert [c.id for c in imported(place, HEAD + rows)] == ["a-b", "a-b-2", "t-4", "model-served-2"]


def test_without_an_id_the_line_names_the_case(place: Project) -> None:
    columns = MAP.removeprefix("id=no,")
    assert [c.id for c in imported(place, HEAD + "1,q,,x,5\n2,q,,x,5\n", columns=columns)] == ["t-2", "t-3"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
@example("0\x85")
@example("two\nlines\u2028three")
def test_any_text_comes_out_as_it_went_in(place: Project, text: str) -> None:
    into(place).unlink(missing_ok=True)
    row = {"no": 1, "question": text, "answer": [], "words": ["x"], "most": 9}
    [one] = imported(place, json.dumps(row), name="t.jsonl")
    assert one.messages == [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1,q,,x,many\n", ["line 2", "column 'most'", "'many'", "integer"]),
        ("1,,,x,5\n", ["line 2", "column 'question'", "is empty"]),
        ("1,q,,,5\n", ["line 2", "'words'", "expect.contains_any"]),
        ("1,q,,x,0\n", ["line 2", "column", "'most'", "min 1 is above max 0"]),
        ("1,q,,x,5\n2,q,x,5\n", ["line 3", "4 cells for 5 columns"]),
        ("1,q,,x,5\n2,q,,x,?\n3,q,,x,!\n", ["line 3", "line 4", "nothing was written"]),
        ('1,"q\nr",,x,5\n2,q,,x,bad\n', ["line 4", "'bad'"]),
        ('1,"q,,x,5\n', ["not valid CSV"]),
        ("1,my key is sk-abcdefgh12345678,,x,5\n", ["line 2", "column 'question'", "secret"]),
        ("", ["holds no rows"]),
    ],
)
def test_a_bad_row_is_named_by_line_and_column(place: Project, rows: str, words: list[str]) -> None:
    said = refused(place, HEAD + rows)
    assert [word for word in words if word not in said] == []
    assert "sk-abc" not in said


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (b"", "t.csv", ["is empty"]),
        (HEAD.encode("utf-16"), "t.csv", ["is not UTF-8", "iconv"]),
        ("no,question,问\n1,何时,x\n".encode("gb18030"), "t.csv", ["is not UTF-8"]),
        (b"no,no,question\n1,2,3\n", "t.csv", ["line 1", "'no'", "twice"]),
        (b"number,question\n1,q\n", "t.csv", ["no column 'no'", "number, question"]),
        (b"[1]\n", "t.jsonl", ["line 1", "one object a line"]),
        (b"{\n", "t.jsonl", ["line 1", "not valid JSON"]),
        (b'{"a": 1}\n{"b": 1}\n', "t.jsonl", ["line 2", "'a'", "not in every row"]),
        (b"x", "t.xlsx", [".csv or a .jsonl"]),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_refused(place: Project, text: bytes, name: str, words: list[str]) -> None:
    said = refused(place, text, name=name)
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("user", ["'user'", "target=column"]),
        ("user=question,user=no", ["every target once"]),
        ("user=question,colour=no", ["'colour'", "targets: id"]),
        ("user=question,expect.lenght=no", ["no check 'lenght'"]),
        ("id=no", ["user=COLUMN"]),
        ("user=question,expect.contains_any=words,expect.contains_any.x=no", ["name one"]),
    ],
)
def test_a_wrong_map_is_refused(place: Project, columns: str, words: list[str]) -> None:
    said = refused(place, HEAD + "1,q,,x,5\n", columns=columns)
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("- [", ["not valid YAML"]),
        ("[]", ["one case"]),
        ("{notebook: 01_health}", ["key 'id' is missing"]),
        (TEMPLATE.replace("{{words}}", "{{wordz}}"), ["no column 'wordz'"]),
        (TEMPLATE.replace("01_health", "88_none"), ["88_none"]),
        (TEMPLATE + "colour: red", ["unknown key 'colour'"]),
    ],
)
def test_a_wrong_template_is_refused(place: Project, template: str, words: list[str]) -> None:
    said = refused(place, HEAD + "1,q,a,x,5\n", columns=None, template=template)
    assert [word for word in words if word not in said] == []


def test_nothing_is_written_over(place: Project) -> None:
    into(place).write_text("mine")
    with pytest.raises(BadInput, match="exists already"):
        imported(place, HEAD + "1,q,a,x,5\n")
    assert into(place).read_text() == "mine"
    with pytest.raises(BadInput, match="folder that exists"):
        import_cases(place.root / "t.csv", place.root / "nowhere" / "x.yaml", MAP, None, **FIXED)


def test_without_a_template_notebook_group_and_why_must_be_said(place: Project) -> None:
    (place.root / "t.csv").write_text(HEAD + "1,q,a,x,5\n")
    for missing in FIXED:
        with pytest.raises(BadInput, match=f"--{missing} is missing"):
            import_cases(place.root / "t.csv", into(place), MAP, None, **{**FIXED, missing: None})


def test_a_row_knows_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('a,b\n"x\ny",1\n\nz,2\n')
    assert [(row.line, row.cells["b"]) for row in read_table(file)] == [(2, "1"), (5, "2")]


def test_a_long_document_is_a_cell_like_any_other(place: Project) -> None:
    """The csv module stops at 131,072 characters unless it is told otherwise."""
    document = "第一条，双方应当遵守。" * 20_000
    [case] = imported(place, f'{HEAD}A-1,"{document}",a lamp,lamp,40\n')
    assert case.messages[0]["content"] == document and len(document) > 200_000
