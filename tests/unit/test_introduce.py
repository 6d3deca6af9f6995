"""What `gatebook init` writes: a profile that loads, with what this server cannot do excused by name."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import yaml
from gatebook.errors import BadInput
from gatebook.introduce import _text, _too_long, introduce
from gatebook.plan.settings import Profile, Target, load_profile, profile_from
from gatebook.record.identity import Identity

from tests.conftest import ROOT, shipped_cases

CASES = list(shipped_cases().values())
FAR = "http://gpu-box:8000/v1"


def written(context_tokens: int | None, url: str = FAR) -> Profile:
    identity = Identity(models=["m"], engine="vllm", version="0.30.0", context_tokens=context_tokens)
    return profile_from(yaml.safe_load(_text(Target(model="m", base_url=url), identity, url)), "mine.yaml", "mine")


def test_it_holds_every_section_that_production_has() -> None:
    made, production = written(32768), load_profile(ROOT / "params" / "qwen3-4b.yaml")
    assert made.latency == production.latency
    assert made.load == production.load.model_copy(update={"long_prompts": made.load.long_prompts})
    assert {case.group for case in CASES} <= set(made.groups)


@pytest.mark.parametrize("context_tokens", [4096, 8192, 32768, 131072, 262144])
def test_documents_that_cannot_fit_are_excused_and_no_other_case(context_tokens: int) -> None:
    patterns = _too_long(CASES, context_tokens)
    named = {c.id for c in CASES if any(fnmatchcase(c.id, pattern) for pattern in patterns)}
    assert named == {
        c.id for c in CASES if c.document and (c.document.tokens or (c.document.chars or 0) // 4) >= context_tokens
    }
    assert len(patterns) < 25 and (named or context_tokens == 262144)


def test_an_untold_context_excuses_nothing() -> None:
    assert _too_long(CASES, None) == {}


@pytest.mark.parametrize(("context_tokens", "tokens"), [(8192, 6963), (32768, 27852), (131072, 28000), (None, 28000)])
def test_documents_read_at_once_fit_the_context(context_tokens: int | None, tokens: int) -> None:
    assert written(context_tokens).load.long_prompts.tokens == tokens


def test_gpu_memory_that_cannot_be_read_from_here_is_excused_with_what_to_do() -> None:
    assert "production.gpu_metrics_url" in written(32768).excused["load.gpu_memory"]


@pytest.mark.parametrize("name", ["", " ", "../up", "a/b", ".hidden", "a b", "x\n"])
def test_a_name_that_is_no_file_name_is_refused_before_anything_is_asked(name: str) -> None:
    with pytest.raises(BadInput, match="--name has value"):
        introduce("http://127.0.0.1:9/v1", name, None, None)


def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadInput, match="must be the NAME of an environment variable") as caught:
        introduce("http://127.0.0.1:9/v1", None, None, "sk-abcdef0123456789")
    assert "abcdef" not in str(caught.value)
