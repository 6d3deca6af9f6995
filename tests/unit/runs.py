"""Recorded runs for tests that need whole bundles and no model: answered, judged, reported and sealed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gatebook.config.cases import Case
from gatebook.config.profile import Profile
from gatebook.record.exchange import Exchange
from gatebook.record.run import Run
from gatebook.runner import report
from gatebook.verdict.comparing import Judged
from gatebook.verdict.judging import judge

from tests.unit.replies import (
    REQUEST,
    case,
    chat_body,
    exchange,
    good_chunks,
    plain,
    profile,
    ready,
    record,
    run_folder,
    streamed,
    timing,
)

GROUPS = {"g.h": "no_worse", "g.must": "must", "g.watch": "watch"}
HELLO = [{"contains_any": ["Hello"]}]


def hellos(count: int = 8, **fields: Any) -> list[Case]:
    """Compared cases c0 to c7, one that must pass and one that is watched; an answer with `Hello` passes."""
    more = {"finish": "any", "expect": HELLO, **fields}
    compared = [case(f"c{n}", group="g.h", why=f"greets, number {n}", **more) for n in range(count)]
    return [*compared, case("m", group="g.must", **more), case("w", group="g.watch", **more)]


def answered(
    folder: Path,
    answers: dict[str, str | None],
    cases: list[Case] | None = None,
    by: Profile | None = None,
    ms: float = 20,
    **fields: Any,
) -> Run:
    """A run in `folder` (its name, unless `run` says another); cases that `answers` does not name say Hello, None breaks off."""
    cases = cases or hellos()
    run = run_folder(folder, cases, by or profile(GROUPS), run=fields.pop("run", folder.name), **fields)
    said = [reply(c.id, answers.get(c.id, f"Hello from {c.id}"), ms + n) for n, c in enumerate(cases)]
    asked = {"model": run.manifest.profile.target.model}
    record(run, "01_x", *(e.model_copy(update={"body": {**(e.body or {}), **asked}}) for e in (ready(), *said)))
    return run


def reply(name: str, text: str | None, ms: float) -> Exchange:
    key, sent = f"{name}/ask", f"id-{name}"
    if text is None:
        return exchange(key=key, status=None, fault="broken", detail="the connection broke", body=REQUEST)
    if not text:
        return plain(chat_body(text, id=sent), key=key)
    timed = timing(first_token_ms=ms, last_token_ms=ms + 40, end_ms=ms + 41)
    return streamed([{**piece, "id": sent} for piece in good_chunks(text)], key=key, timing=timed)


def judged(run: Run) -> Judged:
    return Judged(run, judge(run))


def bundle(folder: Path, answers: dict[str, str | None] | None = None, **fields: Any) -> Run:
    """A finished bundle with its reports, as `gatebook run` leaves it, without executed notebooks."""
    run = answered(folder, answers or {}, **fields)
    report(run, judge(run))
    return run
