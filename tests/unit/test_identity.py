"""Who answers, told from what each engine says of itself."""

from __future__ import annotations

from typing import Any

import pytest
from gatebook.record.identity import Identity, identify
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replies import MODEL, probe

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
