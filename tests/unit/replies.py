"""What the unit tests are made of: chat replies as engines send them, evidence, findings and small run folders."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gatebook.checks import CHECKS, parameters
from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Finding, Outcome, Result
from gatebook.config.cases import Ask, Case
from gatebook.config.profile import Profile
from gatebook.record.exchange import Attempt, Exchange, Timing
from gatebook.record.identity import Identity
from gatebook.record.manifest import Manifest
from gatebook.record.run import Run
from gatebook.verdict.baseline import Baseline
from gatebook.verdict.judging import decide
from gatebook.verdict.policy import Judged, compared_groups
from gatebook.verdict.verdict import Served, Verdict

MODEL = "m1"
ASKED = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
REQUEST = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 32}


def chat_body(text: str | None = "Hello there, you.", **changes: Any) -> dict[str, Any]:
    """A good reply that is not streamed; `changes` replace top-level fields."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    created = int(ASKED.timestamp())
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": created, "model": MODEL, "choices": [choice]}
    return {**body, "usage": USAGE, **changes}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **changes: Any) -> dict[str, Any]:
    """One piece of a streamed reply; without `delta` it has no choices, as a usage chunk."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    created = int(ASKED.timestamp())
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": created, "model": MODEL}
    return {**body, "choices": choices, **changes}


def good_chunks(text: str = "Hello there, you.") -> list[dict[str, Any]]:
    words = [{"content": word} for word in text.split(" ")[:1] + [" " + w for w in text.split(" ")[1:]]]
    head, tail = chunk({"role": "assistant", "content": None}), chunk({}, "stop")
    return [head, *(chunk(word) for word in words), tail, chunk(usage=USAGE)]


def plain(body: Any, key: str = "case/ask", **changes: Any) -> Exchange:
    """A 200 reply that is not streamed; a text stands for itself, anything else becomes JSON."""
    text = body if isinstance(body, str) else json.dumps(body)
    return exchange(key=key, text=text, body={**REQUEST, **changes.pop("sent", {})}, **changes)


def streamed(chunks: list[Any], key: str = "case/ask", done: bool = True, **changes: Any) -> Exchange:
    """A 200 reply as server-sent events, 10 ms apart."""
    data = [piece if isinstance(piece, str) else json.dumps(piece) for piece in chunks] + (["[DONE]"] if done else [])
    events = [(10.0 * (number + 1), text) for number, text in enumerate(data)]
    sent = {**REQUEST, "stream": True, **changes.pop("sent", {})}
    return exchange(key=key, events=events, body=sent, **changes)


def exchange(key: str = "case/ask", **changes: Any) -> Exchange:
    case, _, ask = key.partition("/")
    at = ASKED.isoformat(timespec="milliseconds")
    base = {"kind": "ask", "key": key, "case": case, "ask": ask, "at": at, "path": "chat/completions", "status": 200}
    return Exchange.model_validate({**base, "attempts": [Attempt(at=at, elapsed_ms=20.0, status=200)], **changes})


def timing(**ms: float) -> Timing:
    return Timing(queued_ms=0.0, **ms)


def profile(groups: dict[str, Any] | None = None, excused: dict[str, str] | None = None, **target: Any) -> Profile:
    groups = {"g.contract": "must", **(groups or {})}
    return Profile.model_validate({"target": {"model": MODEL, **target}, "groups": groups, "excused": excused or {}})


def case(name: str = "case", **fields: Any) -> Case:
    base = {"id": name, "notebook": "01_x", "group": "g.h", "why": "a test", "messages": REQUEST["messages"]}
    return Case.model_validate({**base, **fields})


def evidence(
    *replies: Exchange | str,
    asks: list[Ask] | None = None,
    identity: Identity | None = None,
    judged_by: Profile | None = None,
) -> Evidence:
    """Replies (a text is a plain 200 reply with it) as answers to asks named a, b, c."""
    asks = asks or [Ask(name=name) for name in "abcdef"[: len(replies)]]
    made = [plain(chat_body(reply)) if isinstance(reply, str) else reply for reply in replies]
    pairs = [Reply(ask, reply) for ask, reply in zip(asks, made, strict=True)]
    return Evidence(case(asks=asks), pairs, identity or Identity(), judged_by or profile())


def judged(check: str, raw: Any, seen: Evidence) -> Result:
    """What a check says, with its parameters as a case file has them."""
    return CHECKS[check].run(seen, parameters(seen.case, check, raw))


def finding(case: str = "case", outcome: Outcome = "pass", group: str = "g.h", **fields: Any) -> Finding:
    base = {"notebook": "01_x", "check": "regex", "reason": f"said {outcome}"}
    return Finding.model_validate(
        {"id": f"{case}.regex", "case": case, "group": group, "outcome": outcome} | base | fields
    )


def manifest(cases: list[Case], by: Profile, **fields: Any) -> Manifest:
    expected: dict[str, list[str]] = {}
    for one in cases:
        expected.setdefault(one.notebook, []).append(one.id)
    base = {"run": "r", "created": ASKED.isoformat(), "base_url": "http://gpu-box:8000/v1", "suite": "full"}
    return Manifest.model_validate({**base, "profile": by, "expected": expected, **fields})


def record(run: Run, notebook: str, *exchanges: Exchange) -> None:
    with run.journal(notebook) as journal:
        for one in exchanges:
            journal.append(one)


def ready(fault: str | None = None, **changes: Any) -> Exchange:
    base = plain(chat_body("Hi"), key="ready/0").model_dump() | {"kind": "ready", "case": None, "fault": fault}
    return Exchange.model_validate({**base, **changes})


def probe(path: str, body: Any, status: int = 200) -> Exchange:
    base = exchange(key=f"probe/{path}", text=json.dumps(body), status=status).model_dump()
    return Exchange.model_validate({**base, "kind": "probe", "case": None, "method": "GET", "path": path})


def baseline(outcomes: dict[str, Outcome], cases: list[Case], **fields: Any) -> Baseline:
    """What was accepted: outcomes by case id, with the prompts that `cases` have."""
    known = {one.id: one for one in cases}
    accepted = {i: {"group": known[i].group, "outcome": o, "prompt": known[i].prompt_hash} for i, o in outcomes.items()}
    base = {"profile": "p", "run": "r0", "accepted": "2026-01-01", "reason": "first", "model": MODEL, "revision": None}
    more = {"suite": "full", "fingerprint": {}, "latency_ms": {}, "cases": accepted}
    return Baseline.model_validate({**base, **more, **fields})


ACCEPTED = baseline({}, []).to_json().encode()
"""A baseline with nothing in it: a green run beside it is green, and compared groups have nothing yet."""


def run_folder(path: Path, cases: list[Case], by: Profile, baseline: bytes | None = ACCEPTED, **fields: Any) -> Run:
    return Run.create(path, manifest(cases, by, **fields), cases, baseline)


def verdict_of(
    findings: list[Finding],
    cases: list[Case],
    by: Profile,
    accepted: Baseline | None | Literal["nothing"] = "nothing",
    troubles: list[str] | None = None,
    fingerprint: dict[str, Any] | None = None,
    **fields: Any,
) -> Verdict:
    """The policy's decision on these findings, for a run that expected `cases`; against a baseline with nothing in it."""
    old = baseline({}, [], revision=by.target.revision) if accepted == "nothing" else accepted
    served = Served(
        base_url="http://x/v1", model=MODEL, revision=None, engine="vllm", version=None, context_tokens=None
    )
    known = {one.id: one for one in cases}
    return decide(
        Judged(
            manifest(cases, by, **fields),
            known,
            findings,
            served,
            fingerprint or {},
            old,
            troubles or [],
            compared_groups(by, (c.group for c in cases)),
        )
    )
