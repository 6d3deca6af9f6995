"""To-dos against the truth: laws for any minutes, and the reasons that a person reads."""

from __future__ import annotations

import pytest
from gatebook.checks import parameters
from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Result
from gatebook.checks.scenarios import assess
from gatebook.config.documents import Language, Minutes, Todo, line, minutes, ordered
from gatebook.errors import BadInput
from gatebook.record.identity import Identity
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import case, chat_body, evidence, judged, plain, profile

LANGUAGES: tuple[Language, ...] = ("zh", "en")
TRUTHS = st.builds(
    lambda *drawn: minutes(*drawn)[1], st.integers(0, 5000), st.integers(2, 8), st.sampled_from(LANGUAGES)
)
FIVE = minutes(1, 5, "zh")[1]


def said(truth: Minutes, text: str) -> Result:
    one = case(minutes=truth.model_dump(), expect=[{"todos": True}])
    reply = Reply(one.requests()[0], plain(chat_body(text)))
    return judged("todos", True, Evidence(one, [reply], Identity(), profile()))


def lines(truth: Minutes) -> list[str]:
    return [line(todo, truth.language) for todo in ordered(truth.truth)]


@given(TRUTHS, st.sampled_from(["{}", "- {}", "3. {}", "**{}**", "| {} |", "{}。", "  {}"]))
def test_the_answer_made_from_the_truth_passes_in_any_list_style(truth: Minutes, style: str) -> None:
    result = said(truth, "\n".join(style.format(one) for one in lines(truth)))
    assert (result.outcome, result.measured) == ("pass", len(truth.truth)), result


@given(TRUTHS, st.data())
def test_a_lost_line_fails_and_is_named(truth: Minutes, data: st.DataObject) -> None:
    gone = data.draw(st.integers(0, len(truth.truth) - 1))
    result = said(truth, "\n".join(lines(truth)[:gone] + lines(truth)[gone + 1 :]))
    assert result.outcome == "fail"
    assert f"1 of {len(truth.truth)} to-dos missing: {ordered(truth.truth)[gone].task}" in result.reason


@given(TRUTHS, st.data())
def test_two_in_one_line_fail(truth: Minutes, data: st.DataObject) -> None:
    a, b = sorted(data.draw(st.lists(st.integers(0, len(truth.truth) - 1), min_size=2, max_size=2, unique=True)))
    todos = ordered(truth.truth)
    both = todos[a].model_copy(
        update={"task": f"{todos[a].task}, {todos[b].task}", "owner": f"{todos[a].owner}, {todos[b].owner}"}
    )
    rest = [line(todo, truth.language) for n, todo in enumerate(todos) if n not in (a, b)]
    result = said(truth, "\n".join([line(both, truth.language), *rest]))
    assert result.outcome == "fail" and "merged into one line" in result.reason


@given(TRUTHS, st.data())
def test_swapped_owners_fail(truth: Minutes, data: st.DataObject) -> None:
    a, b = data.draw(st.lists(st.integers(0, len(truth.truth) - 1), min_size=2, max_size=2, unique=True))
    todos: list[Todo] = ordered(truth.truth)
    owners = {a: todos[b].owner, b: todos[a].owner}
    swapped = [todo.model_copy(update={"owner": owners.get(n, todo.owner)}) for n, todo in enumerate(todos)]
    found = assess("\n".join(line(todo, truth.language) for todo in swapped), truth)
    assert set(found.wrong_owner) == {todos[a].task, todos[b].task}
    assert said(truth, "\n".join(line(todo, truth.language) for todo in swapped)).outcome == "fail"


@given(TRUTHS)
def test_backwards_is_not_sorted(truth: Minutes) -> None:
    result = said(truth, "\n".join(reversed(lines(truth))))
    assert (result.outcome, result.reason) == ("fail", "not sorted by priority")


@given(TRUTHS, st.text(max_size=200))
def test_any_text_is_judged_and_never_raises(truth: Minutes, text: str) -> None:
    assert said(truth, text).outcome in ("pass", "fail")


def test_the_reasons_name_what_is_wrong() -> None:
    first, *rest = lines(FIVE)
    task = ordered(FIVE.truth)[0].task
    for text, words in [
        ("", "5 of 5 to-dos missing"),
        ("\n".join([first, first, *rest]), f"listed twice: {task}"),
        ("\n".join([first[3:], *rest]), f"without 【高/中/低】: {task}"),
        ("\n".join([*rest, first.replace("高", "低")]), f"wrong priority: {task}"),
        ("\n".join([*lines(FIVE), "【低】采购咖啡机（小李）"]), "is no to-do of these minutes: 采购咖啡机"),
        ("\n".join([first.split("（")[0], *rest]), f"wrong owner: {task}"),
    ]:
        result = said(FIVE, text)
        assert result.outcome == "fail" and words in result.reason, result.reason


def test_an_owner_on_the_next_line_belongs_to_the_to_do() -> None:
    text = "\n".join(one.replace("（", "\n   负责人：").replace("）", "") for one in lines(FIVE))
    assert said(FIVE, text).outcome == "pass"


def test_a_heading_for_several_leaves_them_without_a_tag() -> None:
    text = "【高】\n" + "\n".join(one[3:] for one in lines(FIVE))
    assert len(assess(text, FIVE).untagged) == 5


def test_a_case_without_minutes_cannot_expect_to_dos() -> None:
    with pytest.raises(BadInput, match="has no 'minutes'"):
        parameters(case(), "todos", True)


def test_a_case_without_golden_answer_cannot_expect_similarity() -> None:
    with pytest.raises(BadInput, match="has no 'golden'"):
        parameters(case(), "similar", True)


def test_facts_of_one_ask_look_at_its_answer_only() -> None:
    seen = evidence("It is 8443.", "I do not know.")
    assert judged("facts", {"ask": "a", "required": ["8443"]}, seen).outcome == "pass"
    second = judged("facts", {"ask": "b", "required": ["8443"]}, seen)
    assert (second.outcome, second.reason) == ("fail", "b: 1 of 1 facts missing: 8443")
    with pytest.raises(BadInput, match="no ask 'c'"):
        parameters(seen.case, "facts", {"ask": "c", "required": ["8443"]})
