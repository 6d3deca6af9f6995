"""The baseline file: small, stable, one line a case, and damage is named."""

from __future__ import annotations

import json

import pytest
from gatebook.checks.finding import WORST_FIRST
from gatebook.errors import BadInput
from gatebook.verdict.baseline import read_baseline, values_asked_alike
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import baseline, case

CASES = [case(f"c{n}") for n in range(3)]


@given(
    st.dictionaries(st.sampled_from(["c0", "c1", "c2"]), st.sampled_from(WORST_FIRST)),
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), st.integers() | st.text(st.characters(codec="utf-8"), max_size=8) | st.booleans()),
    st.text(st.characters(codec="utf-8")),
)  # fmt: skip
def test_what_is_written_comes_back_and_is_stable(outcomes: dict, fingerprint: dict, reason: str) -> None:
    made = baseline(outcomes, CASES, fingerprint=fingerprint, reason=reason)
    text = made.to_json()
    again = read_baseline(text.encode(), "b.json")
    assert again == made and again.to_json() == text


def test_a_case_is_a_line_so_that_a_diff_shows_what_changed() -> None:
    before = baseline({"c0": "pass", "c1": "pass", "c2": "fail"}, CASES).to_json().splitlines()
    after = baseline({"c0": "pass", "c1": "fail", "c2": "fail"}, CASES).to_json().splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == 1 and '"c1"' in changed[0][0]


def test_an_acceptance_is_a_line_too() -> None:
    entry = {"at": "2026-01-01", "by": "li", "run": "r0", "reason": "first", "newly_failing": ["c0"]}
    made = baseline({"c0": "pass"}, CASES, log=[entry, {**entry, "by": "wang"}])
    assert read_baseline(made.to_json().encode(), "b.json") == made
    assert sum('"by": "' in line for line in made.to_json().splitlines()) == 2


def test_no_file_is_no_baseline() -> None:
    assert read_baseline(None, "b.json") is None


WHOLE = json.loads(baseline({"c0": "pass"}, CASES).to_json())


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b"", "the file"),
        (b"{", "the file"),
        (b"\xff\xfe", "the file"),
        (b"[]", "the file"),
        (json.dumps({k: v for k, v in WHOLE.items() if k != "model"}).encode(), "model"),
        (json.dumps({**WHOLE, "extra": 1}).encode(), "extra"),
        (
            json.dumps({**WHOLE, "cases": {"c0": {**WHOLE["cases"]["c0"], "outcome": "passed"}}}).encode(),
            "cases.c0.outcome",
        ),
    ],
)
def test_a_damaged_baseline_names_file_and_key(raw: bytes, key: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_baseline(raw, "params/baselines/p.json")
    message = str(caught.value)
    assert (
        message.startswith(f"params/baselines/p.json: {key} ") and "gatebook accept" in message and "\n" not in message
    )


def test_a_value_of_a_case_that_is_asked_differently_is_left_out() -> None:
    prints = {"tokens.c0.ask": 7, "tokens.c1.ask": 9, "logprobs.c0": 1, "metadata.c0": 1, "version": "1"}
    old = baseline({"c0": "pass", "c1": "pass"}, CASES, fingerprint=prints)
    now = {one.id: one.prompt_hash for one in CASES}
    assert values_asked_alike(old, now) == prints
    left = values_asked_alike(old, {**now, "c0": "another"})
    assert left == {"tokens.c1.ask": 9, "metadata.c0": 1, "version": "1"}


def test_languages_stand_in_it_only_where_a_profile_names_some() -> None:
    """A baseline from before there were any keeps its bytes and its content's hash."""
    plain, english = baseline({}, []), baseline({}, [], languages=["en"])
    assert "languages" not in plain.to_json() and '"languages": [' in english.to_json()
    assert read_baseline(english.to_json().encode(), "b.json") == english
    assert plain.content != english.content
