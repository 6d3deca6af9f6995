"""A case's own example answers, tried by its own checks: every `good` must pass and every `bad` must fail."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

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
    """Every example of the case, judged. Raises BadInput for an unknown check or a wrong parameter."""
    return [
        _tried(case, kind, number, text)
        for kind, texts in (("good", case.good), ("bad", case.bad))
        for number, text in enumerate(texts, 1)
    ]  # fmt: skip


def text_checks(case: Case) -> list[str]:
    """The names of the case's checks that judge a text."""
    return list(dict.fromkeys(name for item in case.expect for name in item if CHECKS[name].judges_text))


def example_evidence(case: Case, text: str) -> Evidence:
    """The evidence of a server that answers every request of the case with this text."""
    return Evidence(case, [Reply(ask, _reply(case, ask, text)) for ask in case.requests()], Identity(), PROFILE)


def _tried(case: Case, kind: Any, number: int, text: str) -> Tried:
    results = [r for r in expectations(example_evidence(case, text)) if CHECKS[r[0]].judges_text]
    said = "; ".join(f"{name} {r.outcome}: {r.reason}" for name, _, r in results if r.outcome != "pass")
    failed = [name for name, _, r in results if r.outcome == "fail"]
    outcome = worst([r.outcome for _, _, r in results])
    return Tried(kind, number, text, outcome, said if results else "no check to try it by", failed)


def _reply(case: Case, ask: Ask, text: str) -> Exchange:
    """A plain 200 reply, complete and well-formed."""
    said = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 8, "completion_tokens": len(text) // 4 + 1, "total_tokens": 8 + len(text) // 4 + 1}
    reply = {
        "id": f"example-{ask.name}", "object": "chat.completion", "created": 1767225600, "model": PROFILE.target.model,
        "choices": [{"index": 0, "message": said, "finish_reason": "length" if ask.finish == "length" else "stop"}],
        "usage": usage,
    }  # fmt: skip
    return Exchange(
        kind="ask", key=f"{case.id}/{ask.name}", case=case.id, ask=ask.name, at=AT, path="chat/completions",
        body={"model": PROFILE.target.model, "messages": ask.messages or [], **ask.options}, status=200,
        text=json.dumps(reply), attempts=[Attempt(at=AT, elapsed_ms=1.0, status=200)],
    )  # fmt: skip
