"""What a person sees of an exchange: everything that was said, and nothing of it as markup."""

from __future__ import annotations

import re

import pytest
from gatebook.report.conversation import MOST_PIECES, Answered, Compared, Shown, marked

from tests.unit.replies import chat_body, exchange, finding, good_chunks, plain, streamed, timing

HOSTILE = "<script>alert(1)</script>\u202egnp\u0007 $x$ <img src=x onerror=alert(2)>"


def said(text: str, **more: str) -> Answered:
    return Answered("case", "run", plain(chat_body(text)), [finding(outcome="fail", reason=text)], why=text, **more)


@pytest.mark.parametrize(
    "page",
    [
        said(HOSTILE)._repr_html_(),
        Shown([said(HOSTILE)])._repr_html_(),
        Compared(said(HOSTILE), said("x" + HOSTILE))._repr_html_(),
    ],
)
def test_what_a_model_said_is_never_markup(page: str) -> None:
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert "\u202e" not in page and "\u0007" not in page and "\\u202e" in page
    assert "mathjax_ignore" in page


def test_a_hostile_prompt_and_run_name_are_escaped_too() -> None:
    sent = {"messages": [{"role": "<b>user", "content": [{"type": "text", "text": HOSTILE}]}]}
    page = Answered("<i>", "<u>", plain(chat_body(HOSTILE), sent=sent))._repr_html_()
    assert re.findall(r"<(?!/?(div|h4|p|ul|li|b|pre|small|span)\b)", page) == []
    assert "<b>user" not in page and "<i>" not in page and "<u>" not in page


def test_a_conversation_has_its_turns_reasons_times_and_tokens() -> None:
    done = streamed(good_chunks("Hello there."), timing=timing(first_token_ms=12.4, end_ms=40.0))
    text = repr(Answered("case", "run", done, [finding(reason="is fine")], why="because"))
    assert [part for part in ("[user] Say hello.", "[answer] Hello there.", "pass: is fine", "because", "first token 12 ms", "complete 40 ms", "7 prompt tokens", "finish_reason stop") if part not in text] == []  # fmt: skip


def test_a_fault_is_told_where_the_answer_would_be() -> None:
    broken = exchange(status=None, fault="deadline", detail="no complete reply within 4 s", body={"messages": []})
    assert "[what went wrong] no complete reply within 4 s" in repr(Answered("case", "run", broken))


def test_only_what_differs_is_marked() -> None:
    left, right = marked("We open at 9.", "We open at 10.")
    assert re.sub("<.*?>", "", left) == "We open at 9." and re.findall(r"<mark.*?>(.*?)</mark>", left) == ["9"]
    assert re.findall(r"<mark.*?>(.*?)</mark>", right) == ["10"]
    assert marked("same", "same") == ("same", "same")
    assert re.findall(r"<mark.*?>(.*?)</mark>", marked("明天发货", "后天发货")[1]) == ["后"]


def test_long_answers_are_compared_line_by_line() -> None:
    left, _ = marked("a b\n" * MOST_PIECES, "a b\n" * MOST_PIECES + "c")
    assert "<mark" not in left


def test_two_answers_as_text() -> None:
    assert "the same 2 characters" in repr(Compared(said("hi"), said("hi")))
    assert "-a" in repr(Compared(said("a"), said("b"))).splitlines()
