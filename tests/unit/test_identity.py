"""Who answers, told from what each engine says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gatebook.engines import ENGINES, Probes, credentials_refused, refused
from gatebook.engines.engine import same_model
from gatebook.record.identity import Identity, identify
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import MODEL, exchange, probe

VLLM = {
    "models": {
        "object": "list",
        "data": [
            {
                "id": MODEL,
                "object": "model",
                "owned_by": "vllm",
                "root": "Qwen/Qwen3",
                "created": 1,
                "max_model_len": 32768,
                "permission": [{"id": "p1"}],
            }
        ],
    },
    "/version": {"version": "0.11.0"},
}
SGLANG = {
    "models": {"data": [{"id": MODEL, "owned_by": "sglang", "root": "q", "max_model_len": 40960}]},
    "/get_model_info": {"model_path": "/m", "preferred_sampling_params": {"temperature": 0.7}},
}
LLAMA = {
    "models": {"data": [{"id": MODEL, "owned_by": "llamacpp", "created": 5, "meta": {"n_ctx": 8192, "n_params": 134515008, "ftype": "Q4_1"}}]},
    "/props": {"build_info": "b1234", "default_generation_settings": {"params": {"temperature": 0.8, "top_k": 40, "seed": 7}}, "total_slots": 2},
}  # fmt: skip


def told(probes: dict[str, Any]) -> Identity:
    return identify([probe(path, body) for path, body in probes.items()], MODEL)


def test_vllm() -> None:
    found = told(VLLM)
    assert (found.engine, found.version, found.models, found.context_tokens) == ("vllm", "0.11.0", (MODEL,), 32768)
    assert found.metadata == {} and found.sampling == {}


def test_sglang() -> None:
    found = told(SGLANG)
    assert (found.engine, found.context_tokens, found.sampling) == ("sglang", 40960, {"temperature": 0.7})


def test_sglang_that_also_answers_version() -> None:
    assert told({**SGLANG, "/version": {"version": "0.5"}}).engine == "sglang"


def test_llama_cpp() -> None:
    found = told(LLAMA)
    assert (found.engine, found.version, found.context_tokens) == ("llama.cpp", "b1234", 8192)
    assert found.sampling == {"temperature": 0.8, "top_k": 40}, "the seed is another one at every start"
    assert found.metadata == {"n_ctx": 8192, "n_params": 134515008, "ftype": "Q4_1"}


def test_creation_time_and_permissions_are_no_identity() -> None:
    later = {**VLLM, "models": {"data": [{**VLLM["models"]["data"][0], "created": 2, "permission": [{"id": "p2"}]}]}}  # type: ignore[dict-item]
    assert told(later) == told(VLLM)


def test_the_card_of_the_model_counts_and_not_the_first() -> None:
    cards = [{"id": "other", "max_model_len": 1}, {"id": MODEL, "max_model_len": 2}]
    assert (told({"models": {"data": cards}}).context_tokens, told({"models": {"data": cards}}).models) == (
        2,
        ("other", MODEL),
    )
    assert told({"models": {"data": cards[:1]}}).context_tokens is None


def test_a_server_that_says_nothing_is_unknown() -> None:
    assert identify([], MODEL) == Identity()
    assert identify(
        [probe("models", {"data": [{"id": MODEL}]}, status=500), probe("/health", {}, status=503)], MODEL
    ) == Identity(health=503)


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(["data", "id", "meta", "n_ctx", "params", "default_generation_settings", "version", "max_model_len"]), v, max_size=3), max_leaves=8)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["models", "/version", "/get_model_info", "/props", "/health"]), values))
def test_no_answer_to_a_probe_raises(probes: dict[str, Any]) -> None:
    assert isinstance(hash(told(probes).models), int)


@pytest.mark.parametrize("limit", ["8192", True, 8192.5, [8192], None])
def test_a_context_limit_is_a_whole_number(limit: Any) -> None:
    assert told({"models": {"data": [{"id": MODEL, "max_model_len": limit}]}}).context_tokens is None


RECORDED = sorted((Path(__file__).parent / "engines").glob("*.json"))
"""What real servers said (`source` says which, and which were only read about)."""


def recorded(path: Path) -> tuple[dict[str, Any], Identity, Probes]:
    found = json.loads(path.read_text(encoding="utf-8"))
    [card] = found["gets"]["models"]["data"]
    headed = exchange(kind="ready", text="{}", headers=found["headers"])
    asked = [probe(path, body) for path, body in found["gets"].items()]
    return found, identify([*asked, headed], card["id"]), Probes(found["gets"], card["id"], found["headers"])


def test_every_engine_has_recorded_replies() -> None:
    assert {path.stem for path in RECORDED} == {engine.name for engine in ENGINES}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_an_engine_is_known_by_its_replies_and_no_other_takes_them_for_its_own(path: Path) -> None:
    found, identity, probes = recorded(path)
    assert (identity.engine, identity.version, identity.context_tokens) == (
        found["engine"],
        found["version"],
        found["context_tokens"],
    )
    assert [engine.name for engine in ENGINES if engine.recognises(probes)] == [found["engine"]]
    assert all(
        getattr(identity, part)[name] == value for part, told in found["told"].items() for name, value in told.items()
    )


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_its_own_words_refuse_a_request_or_a_key(path: Path) -> None:
    found, identity, _ = recorded(path)
    assert all(
        refused(status, detail) and not credentials_refused(status, detail) for status, detail in found["refusals"]
    )
    assert all(credentials_refused(status, detail) for status, detail in found["no_credentials"])
    assert all(
        identity.is_alias(asked, told) and not identity.is_alias(told, "another") for asked, told in found["aliases"]
    )


def test_two_names_of_one_card_are_one_model_and_an_adapter_is_not() -> None:
    cards = [
        {"id": "a", "root": "/w"},
        {"id": "b", "root": "/w"},
        {"id": "lora", "root": "/w", "parent": "a"},
        {"id": "c"},
    ]
    assert same_model("a", "b", cards) and same_model("a", "a", []) and same_model("a", "a-2024-08-06", [])
    assert not any(same_model("a", told, cards) for told in ("lora", "c", "d", "a-mini"))


@pytest.mark.parametrize(
    ("status", "detail", "said"),
    [
        (400, "HTTP 400: no", True),
        (None, "Grammar error: Unimplemented keys", True),
        (500, "HTTP 500: boom", False),
        (None, "worker lost", False),
        (429, "HTTP 429: slow down", False),
        (501, "HTTP 501: image input is not implemented", True),
    ],
)
def test_a_refusal_is_what_refuses_whoever_words_it(status: int | None, detail: str, said: bool) -> None:
    assert refused(status, detail) is said


def test_the_system_fingerprint_of_the_opening_chat_is_kept() -> None:
    first = exchange(kind="ready", text='{"system_fingerprint": "vllm-0.32.0-cff3c38c"}')
    assert identify([first], MODEL).system_fingerprint == "vllm-0.32.0-cff3c38c"
    assert identify([], MODEL).system_fingerprint is None
