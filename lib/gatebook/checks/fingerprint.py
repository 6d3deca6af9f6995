"""What is served, in numbers: these checks only say that it could be measured; the comparison is checks/drift.py's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gatebook.checks.drift import noise_nats
from gatebook.checks.evidence import Evidence
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import check, having
from gatebook.record.logprobs import mean_logprob, mean_shortfall, read_logprobs, read_scored

NO_LOGPROBS = "the server tells no logprobs, so a change of weights or precision would not be seen; offers.logprobs in the profile says so where it has none"


@check(Stage.ENVELOPE)
def first_token_logprobs(evidence: Evidence, *, top: Annotated[int, Field(ge=1, le=20)] = 5) -> Result:
    """The log probabilities of the first token, asked several times alike: the server against itself (A/A), in nats."""
    rows = [read_logprobs(reply.exchange) for reply in evidence.replies]
    if not any(rows):
        return evidence.ignored(NO_LOGPROBS)
    named = zip(evidence.names, rows, strict=True)
    if short := [name for name, row in named if not row or len(row[0].top) < top]:
        return Result("fail", f"{short[0]}: fewer than {top} logprobs of the first token, though others had them")
    noise = noise_nats([row[0].top for row in rows])
    how = "deterministic" if noise == 0 else f"noise {noise:.4f} nats"
    said = f"{rows[0][0].token!r} leads; {len(rows)} equal requests: {how}"
    return Result("pass", said, round(noise, 5), None, "nats")


@check(Stage.ENVELOPE)
def greedy_logprobs(evidence: Evidence) -> Result:
    """A greedy answer with the log probability of each token; `measured` is their mean, in nats."""
    found = [read_logprobs(reply.exchange) for reply in evidence.replies]
    if not all(found):
        return evidence.ignored(NO_LOGPROBS)
    mean, text = mean_logprob(found[0]) or 0.0, evidence.replies[0].answer.text
    said = f"{len(found[0])} tokens, mean logprob {mean:.3f}: {text[:60]!r}"
    return Result("pass", said, round(mean, 4), None, "nats")


@check(Stage.BEHAVIOUR, having("golden", "the case has no 'golden' answer to score; add one"))
def golden_logprobs(evidence: Evidence) -> Result:
    """The case's golden answer is given to the server, which tells the log probability of each of its tokens; `measured` is
    their mean, in nats. Compared with the baseline over all texts of the group."""
    scored = read_scored(evidence.replies[0].exchange)
    if isinstance(scored, str):
        return Result("not_measured", scored)
    said = f"{scored.tokens} tokens, mean logprob {scored.mean_nats:.3f}"
    return Result("pass", said, round(scored.mean_nats, 5), None, "nats")


@check(Stage.SAMPLING)
def default_samples(evidence: Evidence) -> Result:
    """Answers to equal requests without any sampling parameter: what clients get that set none."""
    texts = [reply.answer.text for reply in evidence.replies]
    short = [mean for r in evidence.replies if (mean := mean_shortfall(read_logprobs(r.exchange))) is not None]
    told = f", {sum(short) / len(short):.2f} nats a token behind the likeliest" if short else ""
    different = len(set(texts))
    return Result("pass", f"{different} different answers of {len(texts)}{told}", different, None, "answers")
