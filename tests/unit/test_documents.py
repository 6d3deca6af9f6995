"""Seeded documents: the same for ever, every needle in them at its depth, every question answerable and by one value only."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from gatebook.checks.facts import normal, states
from gatebook.config.cases import Case, read_case_file
from gatebook.config.documents import DEPTHS, FAMILIES, PLACE, Document, Family, question, ruler, text
from gatebook.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

Language = Literal["en", "zh"]


def needles(language: Language, seed: int, family: Family = "single", depth: int = 0) -> Document:
    return Document(kind="needles", language=language, seed=seed, tokens=1000, family=family, depth=depth)


def specification(language: Language, seed: int) -> Document:
    return Document(kind="specification", language=language, seed=seed, tokens=2000)


@given(st.sampled_from(["en", "zh"]), st.integers(0, 500), st.integers(0, 12_000))
def test_every_question_of_a_seed_is_answered_once_in_a_document_of_any_length(
    language: Language, seed: int, chars: int
) -> None:
    said = normal(text(needles(language, seed), chars))
    for family in FAMILIES:
        for depth in DEPTHS:
            asked = question(needles(language, seed, family, depth))
            assert all(states(said, answer) for answer in asked.answers)
            assert all(text(needles(language, seed), chars).count(line) == 1 for line in asked.sentences)


@given(st.sampled_from(["en", "zh"]), st.integers(0, 500))
def test_no_two_questions_have_one_answer(language: Language, seed: int) -> None:
    answers = [question(needles(language, seed, f, d)).answers for f in FAMILIES for d in DEPTHS]
    assert len(set(answers)) == len(answers)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_needle_stands_at_its_depth(language: Language) -> None:
    whole = text(needles(language, 3), 20_000)
    for depth in DEPTHS:
        at = whole.index(question(needles(language, 3, "single", depth)).sentences[0]) / len(whole)
        assert abs(at - depth / 100) < 0.06, depth


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_hidden_needle_has_no_word_in_common_with_its_question(language: Language) -> None:
    for depth in DEPTHS:
        asked = question(needles(language, 3, "hidden", depth))
        told = asked.sentences[0].replace(asked.answers[0], "").rstrip(".。")
        if language == "en":
            words = {w.strip(".?,'").lower() for w in asked.text.split()} & {
                w.strip(".,'").lower() for w in told.split()
            }
            assert words <= {"the", "of", "a", "to"}, words
        else:
            assert not {told[i : i + 2] for i in range(len(told) - 1)} & {
                asked.text[i : i + 2] for i in range(len(asked.text) - 1)
            }


def test_hops_need_every_link() -> None:
    asked = question(needles("en", 3, "hops", 50))
    first, *links = asked.sentences
    assert asked.answers[0] in first and len(links) == 2
    assert not any(asked.answers[0] in link for link in links)


@given(st.sampled_from(["en", "zh"]), st.integers(0, 300), st.integers(4_000, 60_000))
def test_a_specification_has_its_length_and_its_clauses(language: Language, seed: int, chars: int) -> None:
    whole = text(specification(language, seed), chars)
    assert abs(len(whole) - chars) < 0.08 * chars
    answers = question(specification(language, seed)).answers
    assert len(answers) == 6 and not any(clause.startswith("12.") for clause in answers[1::2])
    for module, clause in zip(answers[::2], answers[1::2], strict=True):
        [line] = [line for line in whole.split("\n") if line.startswith(f"{clause} ")]
        assert module in line and "12." in line


def test_190000_characters_are_190000() -> None:
    long = Document(kind="specification", language="zh", seed=12, chars=190_000)
    assert abs(len(text(long, 190_000)) - 190_000) < 1000


def test_the_same_seed_makes_the_same_document_and_another_another() -> None:
    assert text(needles("en", 3), 5000) == text(needles("en", 3), 5000) != text(needles("en", 4), 5000)
    assert ruler(needles("en", 3)) == ruler(needles("en", 3))
    assert ruler(specification("zh", 3)).needles == "" and len(ruler(specification("zh", 3)).entries) > 300


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tokens": 1000, "chars": 5000}, "either tokens or chars"),
        ({}, "either tokens or chars"),
        ({"tokens": 1000, "depth": 30}, "takes a family"),
        ({"tokens": 1000, "family": None}, "takes a family"),
        ({"kind": "specification", "tokens": 2000}, "neither family nor depth"),
        ({"kind": "specification", "tokens": 600, "family": None, "depth": None}, "at least 1500 tokens"),
        ({"tokens": 20}, "greater than or equal to 500"),
    ],
)
def test_a_wrong_document_is_refused(fields: dict[str, Any], said: str) -> None:
    base = {"kind": "needles", "family": "single", "depth": 0}
    with pytest.raises(ValidationError, match=said):
        Document.model_validate({**base, **fields})


def case(**fields: Any) -> Case:
    base: dict[str, Any] = {"id": "a", "notebook": "01_x", "group": "g.h", "why": "a test", "finish": "stop"}
    return Case.model_validate({**base, **fields})


def test_document_and_its_place_belong_together() -> None:
    document = {"kind": "needles", "tokens": 1000, "family": "single", "depth": 0}
    for fields in ({"document": document, "messages": [{"content": "hi"}]}, {"messages": [{"content": PLACE}]}):
        with pytest.raises(ValidationError, match="belong together"):
            case(**fields)


def test_a_case_over_a_group_asks_nothing() -> None:
    looking = case(over="g.other", expect=[{"effective_length": {"min_tokens": 1000}}])
    assert looking.requests() == []
    for wrong in ({"over": "g.h"}, {"over": "g.other", "messages": [{"content": "hi"}]}):
        with pytest.raises(ValidationError, match="asks nothing"):
            case(expect=[{"regex": "x"}], **wrong)


def test_lists_by_name_make_every_combination(tmp_path: Any) -> None:
    file = tmp_path / "c.yaml"
    head = "- {id: 'a-{{x}}-{{y}}', notebook: 01_x, group: g.h, why: a test, messages: [{role: user, content: '{{x}}{{y}}'}]"
    file.write_text(head + ", each: {x: [1, 2], y: [a, b, c]}}\n")
    assert [c.id for c in read_case_file(file)] == ["a-1-a", "a-1-b", "a-1-c", "a-2-a", "a-2-b", "a-2-c"]
    file.write_text(head + ", each: {x: [1], y: []}}\n")
    with pytest.raises(BadInput, match="'each' is empty"):
        read_case_file(file)
