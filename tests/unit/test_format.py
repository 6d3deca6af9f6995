"""Tables keep their header, lists have their items."""

from __future__ import annotations

import pytest
from gatebook.checks import validate
from gatebook.checks.finding import Result
from gatebook.errors import BadInput

from tests.unit.replies import case, evidence, judged

TABLE = "| Fruit | Price |\n| --- | --- |\n| apple | 3 |"


def table(text: str, columns: list[object] | None = None) -> Result:
    return judged("markdown_table", {"columns": columns or ["Fruit", "Price"]}, evidence(text))


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        f"Here you are:\n\n{TABLE}\n\nEnjoy.",
        f"```\n{TABLE}\n```",
        "Fruit | Price\n:--- | ---:\napple | 3",
        "| **Price** | `fruit` | Shop |\n|-|-|-|\n| 3 | apple | x |",
        "  | Fruit | Price |\n  |:-:|:-:|\n  | a | 1 |",
    ],
)
def test_a_table_with_its_header(text: str) -> None:
    assert table(text).outcome == "pass", table(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no Markdown table"),
        ("Fruit: apple, price: 3", "no Markdown table"),
        ("a --- b", "no Markdown table"),
        ("| apple | 3 |\n| pear | 4 |", "without a separator row"),
        ("| --- | --- |\n| apple | 3 |", "no header row"),
        ("Fruits and prices:\n| --- | --- |\n| apple | 3 |", "no header row"),
        ("| Fruit | Cost |\n| --- | --- |\n| apple | 3 |", "1 of 2 columns missing in the header: Price"),
        ("| Fruit and Price |\n| --- |\n| 3 |", "2 of 2 columns missing"),
        ("| Fruit | Price |\n| --- |\n| apple | 3 |", "does not fit the header"),
        ("| Fruit | Price |\n| --- | --- |", "nothing stands under the header"),
        ("| apple | 3 |\n| --- | --- |\n| pear | 4 |", "2 of 2 columns missing"),
    ],
)
def test_a_table_without_it(text: str, reason: str) -> None:
    said = table(text)
    assert said.outcome == "fail" and reason in said.reason, said


def test_a_column_may_have_several_names() -> None:
    columns: list[object] = [["Price", "Cost"], "Fruit"]
    assert table(TABLE, columns).outcome == table(TABLE.replace("Price", "cost"), columns).outcome == "pass"
    assert table(TABLE.replace("Price", "Sum"), columns).outcome == "fail"


@pytest.mark.parametrize(
    "text",
    [
        "1. a\n2. b\n3. c",
        "Sure:\n\n- a\n- b\n- c\n\nThat is all.",
        "* a\n* b\n* c",
        "1) a\n2) b\n3) c",
        "1、苹果\n2、香蕉\n3、梨",
        "（1）苹果\n（2）香蕉\n（3）梨",
        "1. **a**: x\n\n2. **b**: y\n\n3. **c**: z",
    ],
)
def test_three_items(text: str) -> None:
    said = judged("list_items", {"count": 3}, evidence(text))
    assert (said.outcome, said.measured, said.limit) == ("pass", 3, 3), said


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("a, b and c", 0), ("- a\n- b", 2), ("- a\n- b\n- c\n- d", 4), ("---\n- a", 1), ("2.5 kg\n1. a", 1), ("-\n1.", 0)],
)  # fmt: skip
def test_another_number_of_items(text: str, count: int) -> None:
    said = judged("list_items", {"count": 3}, evidence(text))
    assert (said.outcome, said.reason) == ("fail", f"{count} list items, 3 expected")


@pytest.mark.parametrize(
    "expectation",
    [
        {"markdown_table": {"columns": []}},
        {"markdown_table": {"columns": [""]}},
        {"markdown_table": {"columns": [[]]}},
        {"markdown_table": {"rows": 2}},
        {"list_items": {"count": 0}},
        {"list_items": {"count": "3"}},
        {"list_items": 3},
    ],
)
def test_parameters_that_make_no_sense_are_refused(expectation: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=next(iter(expectation))):
        validate(case("c", expect=[expectation]))
