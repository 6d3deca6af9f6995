"""Refusals by engine, silent truncation, survival; what a request that must not be answered gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gatebook.checks import validate
from gatebook.checks.boundaries import not_truncated
from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Result
from gatebook.checks.registry import parameters
from gatebook.config.cases import Case
from gatebook.config.rows import Repeat, filled
from gatebook.errors import BadInput
from gatebook.record.exchange import Exchange
from gatebook.record.identity import Identity
from gatebook.verdict.findings import judge_notebook

from tests.unit import replies as make

NO_IMAGES = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"


def refusal(status: int, message: str, key: str = "case/ask") -> Exchange:
    return make.exchange(key=key, status=status, fault="status", detail=f"HTTP {status}: {message}", text="{}")


def answered(text: str = "Hello.", key: str = "case/canary", **usage: int) -> Exchange:
    more = {"usage": {**make.USAGE, **usage}} if usage else {}
    return make.plain(make.chat_body(text, **more), key=key)


def case(**fields: Any) -> Case:
    return make.case(negative=True, canary=True, finish="any", **fields)


def judged(check: str, raw: Any, reply: Exchange, engine: str = "vllm", canary: Exchange | None = None) -> Result:
    from gatebook.checks import CHECKS

    one = case(expect=[{check: raw}])
    seen = Evidence(
        one, [Reply(one.requests()[0], reply)], Identity(engine=engine), make.profile(),
        canary=canary or answered(),
    )  # fmt: skip
    return CHECKS[check].run(seen, parameters(one, check, raw))


IMAGE = {"naming": ["image", "multimodal"]}


@pytest.mark.parametrize(
    ("engine", "status", "message", "outcome"),
    [
        ("vllm", 400, "x is not a multimodal model", "pass"),
        ("sglang", 422, "Images are not accepted", "pass"),
        ("vllm", 413, "image too large", "pass"),
        ("unknown", 415, "no image here", "pass"),
        ("llama.cpp", 500, NO_IMAGES, "pass"),
        ("vllm", 500, NO_IMAGES, "pass"),  # llama.cpp's words behind a gateway that hides its name
        ("unknown", 500, NO_IMAGES, "pass"),
        ("llama.cpp", 500, "image decoder crashed", "fail"),
        ("vllm", 501, "image input is not implemented", "pass"),
        ("vllm", 400, "bad request", "fail"),
    ],
)
def test_a_refusal_is_clean_by_the_standards_of_its_engine(
    engine: str, status: int, message: str, outcome: str
) -> None:
    assert judged("refused", IMAGE, refusal(status, message), engine).outcome == outcome


def test_an_image_that_is_described_was_accepted() -> None:
    said = judged("refused", IMAGE, answered("A red cat on a mat.", "case/ask"))
    assert (said.outcome, said.reason) == (
        "fail",
        "answered with HTTP 200 instead of refusing: 'A red cat on a mat.'",
    )


def test_a_refusal_that_does_not_say_what_it_refuses_is_no_help() -> None:
    said = judged("refused", IMAGE, refusal(400, "bad request"))
    assert said.reason == "refused, but the message names none of image, multimodal: HTTP 400: bad request"


@pytest.mark.parametrize("check", ["refused", "survives"])
def test_the_plain_request_afterwards_must_be_answered(check: str) -> None:
    dead = make.exchange(key="case/canary", status=500, fault="status", detail="HTTP 500: EngineCore is dead")
    said = judged(check, IMAGE if check == "refused" else True, refusal(400, "image"), canary=dead)
    assert said.outcome == "fail"
    assert said.reason == "after its HTTP 400 the plain request was not answered: HTTP 500: EngineCore is dead"


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (refusal(400, "no"), "pass"),
        (answered("Hi.", "case/ask"), "pass"),
        (refusal(500, "boom"), "fail"),
        (refusal(502, "x"), "fail"),
    ],
)
def test_a_hostile_request_is_refused_or_answered(reply: Exchange, outcome: str) -> None:
    assert judged("survives", True, reply).outcome == outcome


@pytest.mark.parametrize("check", [{"refused": IMAGE}, {"survives": True}])
def test_what_may_be_refused_needs_its_canary(check: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="negative: true"):
        validate(make.case(expect=[check]))


# --- too long ---

TEXT = "one two three four\n"


def long_case(**long: Any) -> Case:
    asks = [("short", {"times": 4}), ("double", {"times": 8}), ("long", long or {"contexts": 1.0})]
    return case(
        messages=[{"role": "user", "content": "{repeat}Go."}],
        asks=[{"name": name, "repeat": {"text": TEXT, **size}} for name, size in asks],
        expect=[{"not_truncated": {"short": "short", "double": "double", "long": "long"}}],
    )


def lengths(long: Exchange, times: int = 3000, context: int | None = 8192) -> Result:
    """5 tokens a line and 10 around it: short has 30, double 50."""
    one = long_case()

    def sent(reply: Exchange, count: int) -> Exchange:
        body = {"messages": [{"role": "user", "content": TEXT * count + "Go."}]}
        return reply.model_copy(update={"body": body})

    found = [sent(answered(prompt_tokens=30), 4), sent(answered(prompt_tokens=50), 8), sent(long, times)]
    replies = [Reply(ask, e) for ask, e in zip(one.requests(), found, strict=True)]
    seen = Evidence(one, replies, Identity(context_tokens=context), make.profile(context_tokens=4096))
    return not_truncated(seen, **one.expect[0]["not_truncated"])


@pytest.mark.parametrize(
    ("reply", "times", "context", "outcome", "reason"),
    [
        (refusal(400, "too long"), 3000, 8192, "pass", "about 15,010 tokens refused: HTTP 400: too long"),
        (answered(prompt_tokens=8000), 3000, 8192, "fail", "answered although 15,010 tokens do not fit 8,192: truncated silently (usage says 8000)"),
        (answered(prompt_tokens=15010), 3000, None, "fail", "do not fit 4,096"),
        (answered(prompt_tokens=5010), 1000, 8192, "pass", "read whole: 5,010 tokens were sent, usage counts 5,010"),
        (answered(prompt_tokens=4960), 1000, 8192, "pass", "read whole"),
        (answered(prompt_tokens=2048), 1000, 8192, "fail", "5,010 tokens were sent, usage counts 2048: truncated silently"),
        (refusal(400, "too long"), 1000, 8192, "fail", "refused although 5,010 tokens fit 8,192"),
    ],
)  # fmt: skip
def test_a_prompt_is_read_whole_or_refused(
    reply: Exchange, times: int, context: int | None, outcome: str, reason: str
) -> None:
    said = lengths(reply, times, context)
    assert said.outcome == outcome and reason in said.reason, said.reason


def test_how_often_a_text_stands_there() -> None:
    assert Repeat(text=TEXT, times=7).count(None) == 7
    assert Repeat(text=TEXT, contexts=1.0).count(None) is None
    beyond = Repeat(text=TEXT, contexts=1.0).count(8192)
    assert beyond is not None and beyond * 4 > 8192
    assert filled([{"content": [{"text": "a {repeat}"}], "n": 1}], "b", "{repeat}") == [
        {"content": [{"text": "a b"}], "n": 1}
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"asks": [{"name": "a", "repeat": {"text": "x", "times": 2}}]}, "belong together"),
        ({"messages": [{"role": "user", "content": "{repeat}"}]}, "belong together"),
        ({"asks": [{"name": "a", "repeat": {"text": "x"}}]}, "either times or contexts"),
        ({"asks": [{"name": "a", "repeat": {"text": "\n", "contexts": 1.0}}]}, "counts words"),
    ],
)
def test_a_repeat_that_cannot_be_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make.case(**fields)


def test_another_length_is_another_prompt_and_other_cases_keep_their_hash() -> None:
    assert long_case().prompt_hash != long_case(contexts=2.0).prompt_hash
    plain = make.case(asks=[{"name": "a"}])
    assert "repeat" in plain.requests()[0].model_dump()
    assert plain.prompt_hash == "65350add4ddd"


# --- from the record to findings ---


def findings(tmp_path: Path, engine_probe: Exchange, reply: Exchange) -> dict[str, tuple[str, str]]:
    one = case(expect=[{"refused": IMAGE}])
    run = make.run_folder(tmp_path / "run", [one], make.profile({"g.h": "must"}))
    canary = answered("Hi.", "case/canary").model_copy(update={"kind": "canary"})
    make.record(run, "01_x", make.ready(), engine_probe, reply, canary)
    return {f.check: (f.outcome, f.reason) for f in judge_notebook(run, "01_x") if f.case == "case"}


def test_llama_cpp_s_500_to_an_image_is_no_break_of_the_deployment(tmp_path: Path) -> None:
    found = findings(tmp_path, make.probe("/props", {"default_generation_settings": {}}), refusal(500, NO_IMAGES))
    assert found["refused"][0] == found["contract"][0] == "pass"
    assert "a client expects a 4xx" in found["refused"][1]


def test_a_refusal_is_one_behind_a_gateway_that_hides_the_engine_too(tmp_path: Path) -> None:
    found = findings(tmp_path, make.probe("/version", {"version": "0.11"}), refusal(500, NO_IMAGES))
    assert found["refused"][0] == found["contract"][0] == "pass"


def test_another_500_is_the_deployment_s_fault(tmp_path: Path) -> None:
    found = findings(tmp_path, make.probe("/props", {}), refusal(500, "image decoder crashed"))
    assert found["answered"][0] == "fail" and "HTTP 500" in found["answered"][1]
