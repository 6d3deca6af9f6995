"""A stream that something keeps and hands over in one piece, told from a slow, a fast and a queued one by its arrival."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gatebook.checks.contract import kept_back, pieces
from gatebook.record.exchange import Client, Exchange
from gatebook.verdict.judging import judge

from tests.unit.replies import REQUEST, case, chunk, profile, ready, record, run_folder, timing
from tests.unit.replies import exchange as reply


def stream(came: list[float], key: str = "case/ask", tokens: int | None = None, **changes: Any) -> Exchange:
    """One token at each of these times, in ms."""
    import json

    words = [json.dumps(chunk({"content": " word"})) for _ in came]
    usage = {"prompt_tokens": 7, "completion_tokens": tokens or len(came), "total_tokens": 7 + (tokens or len(came))}
    end = [json.dumps(chunk({}, "stop")), json.dumps(chunk(usage=usage)), "[DONE]"]
    events = [*zip(came, words, strict=True), *((came[-1] + 1, data) for data in end)]
    timed = timing(first_token_ms=came[0], last_token_ms=came[-1], end_ms=came[-1] + 1)
    base = {"key": key, "case": key.partition("/")[0], "ask": key.partition("/")[2], "events": events, "timing": timed}
    return reply(**{**base, "body": {**REQUEST, "stream": True, "max_tokens": 512}, **changes})


def steady(count: int, first: float, gap: float, at_once: int = 1) -> list[float]:
    return [first + gap * (n // at_once) for n in range(count)]


@pytest.mark.parametrize(
    ("came", "kept"),
    [
        (steady(64, 1800, 0.02), "64 tokens in 1 piece, the first after 1,800 of 1,801 ms"),
        (steady(30, 900, 0), "30 tokens in 1 piece"),
        (steady(64, 700, 0.02), "64 tokens in 1 piece, the first after 700 of 701 ms"),
        (steady(64, 20, 10), ""),
        (steady(64, 15, 6.5), ""),
        (steady(64, 450, 2), ""),
        (steady(64, 20, 60, at_once=8), ""),
        (steady(64, 350, 0.02), None),
        ([*steady(30, 600, 0.01), *steady(30, 1200, 0.01), *steady(30, 1800, 0.01)], "90 tokens in 3 pieces"),
        (steady(64, 200, 25), ""),
        (steady(64, 30_000, 20), ""),
        (steady(64, 40_000, 4), ""),
        (steady(64, 200, 100, at_once=5), ""),
        (steady(64, 200, 160, at_once=8), ""),
        (steady(64, 3, 0.01), None),
        (steady(20, 2000, 0.01), None),
    ],
    ids=[
        "one-piece",
        "just-enough",
        "one-piece-of-a-GPU",
        "as-a-GPU-writes",
        "as-a-fast-GPU-writes",
        "queued-before-a-small-model",
        "eight-tokens-at-a-time",
        "from-a-cache",
        "three-pieces",
        "as-written",
        "long-prompt",
        "queued",
        "speculative",
        "multi-step",
        "instant",
        "few-tokens",
    ],
)
def test_how_a_stream_arrived(came: list[float], kept: str | None) -> None:
    said = pieces(stream(came))
    assert (said == kept) if not kept else (said or "").startswith(kept), said


def test_what_tells_nothing() -> None:
    came = steady(64, 1800, 0.02)
    late = Client(in_flight=1, cpu_share=0.9, loop_lag_ms=1500.0)
    assert pieces(stream(came, client=late)) is None, "our own client did not read"
    assert pieces(stream(came, body={**REQUEST, "stream": True, "tools": [{}]})) is None, "a parser keeps a tool call"
    assert pieces(stream(came, fault="broken")) is None


def test_one_stream_alone_or_one_that_came_as_it_was_written_blames_nobody() -> None:
    kept, fine = steady(64, 1800, 0.02), stream(steady(64, 200, 25), "c/x")
    assert kept_back([stream(kept, "a/x")]) == {}
    assert kept_back([stream(kept, "a/x"), stream(kept, "b/x"), fine]) == {}
    assert kept_back([stream(kept, "a/x"), stream(kept, "b/x"), stream(steady(64, 3, 0), "d/x")]).keys() == {
        "a/x",
        "b/x",
    }


def test_a_front_that_buffers_is_red(tmp_path: Path) -> None:
    cases = [case(name, finish="any", expect=[{"length_chars": {"min": 1}}]) for name in ("a", "b")]
    for folder, came, verdict in (("kept", steady(64, 1800, 0.02), "FAIL"), ("fine", steady(64, 200, 25), "PASS")):
        run = run_folder(tmp_path / folder, cases, profile({"g.h": "must", "g.contract": "must"}))
        sent = [stream(came, f"{name}/ask").model_dump() for name in ("a", "b")]
        ids = [
            {**one, "events": [(at, data.replace("chatcmpl-1", f"c{n}")) for at, data in one["events"]]}
            for n, one in enumerate(sent)
        ]
        record(run, "01_x", ready(), *map(Exchange.model_validate, ids))
        found = judge(run)
        assert found.verdict == verdict, found.reasons
        assert ("arrives in one piece: something in front buffers it" in found.reason) is (verdict == "FAIL"), (
            found.reason
        )
