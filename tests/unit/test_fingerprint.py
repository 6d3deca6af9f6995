"""What is served, in values; and the name of what moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gatebook.checks.finding import Stage
from gatebook.record.identity import Identity
from gatebook.verdict.findings import run_identity
from gatebook.verdict.fingerprint import changes, fingerprint, noted

from tests.unit.replies import USAGE, case, chat_body, finding, plain, probe, profile, ready, record, run_folder


@pytest.mark.parametrize(
    ("name", "was", "now", "part"),
    [
        ("engine", "vllm", "sglang", "engine"),
        ("version", "0.10", "0.11", "engine version"),
        ("context_tokens", 8192, 2048, "context limit"),
        ("metadata.n_params", 134, 268, "weights or precision"),
        ("metadata.ftype", "Q4_1", "Q8_0", "weights or precision"),
        ("sampling.temperature", 0.8, 2.0, "sampling defaults"),
        ("tokens.token-counts.hello", 37, 12, "chat template or tokenizer"),
        ("keyword.keyword-enum", "enforced", "ignored", "constraint enforcement"),
    ],
)
def test_what_moved_has_a_name(name: str, was: Any, now: Any, part: str) -> None:
    [change] = changes({name: was, "same": 1}, {name: now, "same": 1})
    assert (change.part, str(change)) == (part, f"{part} changed: {name} was {was}, is {now}")


def test_a_keyword_that_was_enforced_and_is_refused_now_is_named_as_a_refusal() -> None:
    [change] = changes({"keyword.k": "enforced"}, {"keyword.k": "refused"})
    assert (change.stage, change.cases) == (Stage.REFUSED, ["k"])
    assert str(change) == "constraint enforcement changed: keyword.k is refused now, was enforced"


def test_what_is_harmless_is_noted_or_not_even_that() -> None:
    old = {"metadata.root": "/a", "metadata.owned_by": "x", "system_fingerprint": "vllm-1", "keyword.k": "ignored"}
    new = {"metadata.root": "/b", "metadata.owned_by": "y", "system_fingerprint": "vllm-2", "keyword.k": "refused"}
    assert changes(old, new) == []
    moved, refused = noted(old, new)
    assert "system_fingerprint moved: was vllm-1, is vllm-2" in moved and "keyword.k is refused now" in refused
    assert noted(old, old) == [] == noted({}, new)


@pytest.mark.parametrize(
    ("name", "stage", "cases"),
    [
        ("model", Stage.NOT_SERVED, []), ("version", Stage.SETTINGS, []), ("context_tokens", Stage.REFUSED, []),
        ("sampling.temperature", Stage.SAMPLING, []), ("tokens.a.hello", Stage.TEMPLATE, ["a"]),
        ("metadata.n_params", Stage.WEIGHTS, []),
    ],
)  # fmt: skip
def test_every_change_has_its_stage_and_the_cases_that_measured_it(name: str, stage: Stage, cases: list[str]) -> None:
    [change] = changes({name: 1}, {name: 2})
    assert (change.stage, change.cases) == (stage, cases)


def test_what_is_no_reply_measures_nothing(tmp_path: Path) -> None:
    """A body that is no JSON is a broken envelope; it must not look like another default temperature."""
    asked = case("d", expect=[{"default_samples": True}], asks=[{"name": n} for n in "abcd"])
    run = run_folder(tmp_path / "r", [asked], profile())
    broken = [
        plain("<html>", key="d/b"),
        plain({"error": {"message": "x"}}, key="d/c"),
        plain({"choices": []}, key="d/d"),
    ]
    record(run, "01_x", plain(chat_body("Boat."), key="d/a"), *broken)
    assert fingerprint(run, Identity(), [])["defaults.d"] == [["Boat.", None]]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("ignored", "enforced"),
        ("refused", "enforced"),
        ("ignored", "refused"),
        ("unfinished", "ignored"),
        ("enforced", "unfinished"),
    ],
)
def test_a_keyword_that_was_not_enforced_cannot_be_lost(was: str, now: str) -> None:
    assert changes({"keyword.k": was}, {"keyword.k": now}) == []


def test_what_only_one_side_tells_is_no_change() -> None:
    assert changes({"version": "1", "engine": "vllm"}, {"engine": "vllm", "context_tokens": 1}) == []


def test_the_values_of_a_run(tmp_path: Path) -> None:
    counted = case("count", expect=[{"prompt_tokens": True}], asks=[{"name": "a"}, {"name": "b"}])
    run = run_folder(tmp_path / "r", [counted, case("other")], profile())
    other = {**USAGE, "prompt_tokens": 99}
    refused = plain("{}", key="count/b", status=400)
    record(run, "01_x", plain(chat_body(), key="count/a"), refused, plain(chat_body(usage=other), key="other/ask"))
    identity = Identity(
        "llama.cpp", "b1", ("m1",), 8192, {"temperature": 0.800000011920929, "top_k": 40}, {"n_params": 5, "list": [1]}
    )
    keyword = finding("k", "fail", check="keyword", measured="ignored")
    assert fingerprint(run, identity, [keyword, finding("count")]) == {
        "model": "m1", "engine": "llama.cpp", "version": "b1", "context_tokens": 8192, "metadata.n_params": 5,
        "sampling.temperature": 0.8, "sampling.top_k": 40, "tokens.count.a": 7, "keyword.k": "ignored",
    }  # fmt: skip


def test_what_the_server_does_not_tell_is_left_out(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "r", [case("a")], profile())
    assert fingerprint(run, Identity(), []) == {"model": "m1"}, "nobody answered: not another engine"
    record(run, "01_x", ready())
    assert fingerprint(run, Identity(), []) == {"model": "m1", "engine": "unknown"}


def test_the_identity_of_a_run_is_that_of_the_first_notebook_that_asked(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "r", [case("a"), case("b", notebook="02_y"), case("c", notebook="03_z")], profile())
    assert run_identity(run) == Identity()
    record(run, "02_y", probe("/version", {"version": "2"}))
    record(run, "03_z", probe("/version", {"version": "3"}))
    assert (run_identity(run).engine, run_identity(run).version) == ("vllm", "2")


COUNTS = {"tokens.t.short": 31, "tokens.t.long": 73, "tokens.r.short": 18, "tokens.r.long": 31}


@pytest.mark.parametrize(
    ("now", "part"),
    [
        ({"tokens.t.long": 80}, "tokenizer"),
        ({name: count + 4 for name, count in COUNTS.items()}, "chat template"),
        (
            {"tokens.t.short": 1, "tokens.t.long": 43, "tokens.r.short": 3, "tokens.r.long": 5},
            "chat template or tokenizer",
        ),
    ],
)
def test_a_template_is_told_from_a_tokenizer_and_stands_first(now: dict[str, int], part: str) -> None:
    old = {**COUNTS, "logprobs.a": {"times": 2, "rows": [{"x": -1.0}]}, "sampling.temperature": 0.8}
    new = {**old, **now, "logprobs.a": {"times": 2, "rows": [{"x": -3.0}]}}
    found = changes(old, new)
    assert found[0].part == part
    assert found[-1].name == "logprobs.a"
