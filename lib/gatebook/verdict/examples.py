"""A case's own example answers, tried by its own checks: every `good` must pass and every `bad` must fail."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from gatebook.checks import CHECKS
from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Outcome, worst
from gatebook.config.cases import Ask, Case
from gatebook.config.profile import Profile, Target
from gatebook.record.exchange import Attempt, Exchange
from gatebook.record.identity import Identity
from gatebook.verdict.findings import expectations

AT = "2026-01-01T00:00:00.000+00:00"
PROFILE = Profile(target=Target(model="example"), groups={})


@dataclass(frozen=True)
class Tried:
    """One example answer and what the checks said of it."""

    kind: Literal["good", "bad"]
    number: int
    """From 1, as it stands in the file."""
    text: str
    outcome: Outcome
    said: str
    """The checks that did not pass, each with its reason; empty when all did."""
    failed: list[str]
    """The names of the checks that failed."""

    @property
    def agrees(self) -> bool:
        return self.outcome == ("pass" if self.kind == "good" else "fail")


def try_examples(case: Case) -> list[Tried]:
    """Judge every example of the case. Raises BadInput for an unknown check or a wrong parameter."""
    good, bad = (enumerate(texts, 1) for texts in (case.good, case.bad))
    return [*(_tried(case, "good", n, text) for n, text in good), *(_tried(case, "bad", n, text) for n, text in bad)]


def text_checks(case: Case) -> list[str]:
    """Return the names of the case's checks that judge a text."""
    return list(dict.fromkeys(name for item in case.expect for name in item if CHECKS[name].judges_text))


def example_evidence(case: Case, text: str) -> Evidence:
    """Return the evidence of a server that answers every request of the case with this text."""
    return Evidence(case, [Reply(ask, _reply(case, ask, text)) for ask in case.requests()], Identity(), PROFILE)


def _tried(case: Case, kind: Literal["good", "bad"], number: int, text: str) -> Tried:
    found = expectations(example_evidence(case, text))
    results = [(name, result) for name, _, result in found if CHECKS[name].judges_text]
    said = "; ".join(f"{name} {r.outcome}: {r.reason}" for name, r in results if r.outcome != "pass")
    failed = [name for name, r in results if r.outcome == "fail"]
    outcome = worst([r.outcome for _, r in results])
    return Tried(kind, number, text, outcome, said if results else "no check to try it by", failed)


def _reply(case: Case, ask: Ask, text: str) -> Exchange:
    """Return a plain 200 reply, complete and well-formed."""
    model, tokens = PROFILE.target.model, len(text) // 4 + 1
    finish = "length" if ask.finish == "length" else "stop"
    reply = {
        "id": f"example-{ask.name}", "object": "chat.completion", "created": 1767225600, "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens},
    }  # fmt: skip
    return Exchange(
        kind="ask", key=f"{case.id}/{ask.name}", case=case.id, ask=ask.name, at=AT, path="chat/completions",
        body={"model": model, "messages": ask.messages or [], **ask.options}, status=200,
        text=json.dumps(reply), attempts=[Attempt(at=AT, elapsed_ms=1.0, status=200)],
    )  # fmt: skip
