"""What is served, in numbers: whether it could be measured, and whether an adapter is more than its parent (drift.py compares)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from gatebook.checks.drift import Moved, Row, distance_nats, greedy_moved, logprobs_moved, noise_nats
from gatebook.checks.evidence import Evidence
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import OVER_A_GROUP, check, having
from gatebook.record.exchange import Exchange
from gatebook.record.logprobs import TokenLogprobs, mean_logprob, mean_shortfall, read_logprobs, read_scored

NO_LOGPROBS = "the server tells no logprobs, so a change of weights or precision would not be seen; offers.logprobs in the profile says so where it has none"
NO_NUMBERS = "the server tells logprobs that are no finite numbers: its engine computes with NaN, or something in front rewrites them"


@check(Stage.ENVELOPE)
def first_token_logprobs(evidence: Evidence, *, top: Annotated[int, Field(ge=1, le=20)] = 5) -> Result:
    """The log probabilities of the first token, asked several times alike: the server against itself (A/A), in nats."""
    rows = [read_logprobs(reply.exchange) for reply in evidence.replies]
    if not any(rows):
        return _without(evidence)
    for reply, row in zip(evidence.replies, rows, strict=True):
        if not row or len(row[0].top) < top:
            said = f"{reply.ask.name}: fewer than {top} logprobs of the first token, though others had them"
            return Result("fail", said)
    noise = noise_nats([row[0].top for row in rows])
    how = "deterministic" if noise == 0 else f"noise {noise:.4f} nats"
    said = f"{rows[0][0].token!r} leads; {len(rows)} equal requests: {how}"
    return Result("pass", said, round(noise, 5), None, "nats")


def _without(evidence: Evidence) -> Result:
    """No usable logprobs where they were asked for: a fail, except where the profile excuses the case.

    Cases that need what the profile's `offers` say is not offered are not asked at all.
    """
    plain = [reply for reply in evidence.replies if reply.exchange.events is None]
    told = any(reply.answer.logprobs and not read_logprobs(reply.exchange) for reply in plain)
    excused = evidence.profile.excuse(evidence.case.id, evidence.case.group)
    reason = NO_NUMBERS if told else NO_LOGPROBS
    return Result("not_measured" if excused else "fail", reason, stage=Stage.REFUSED)


@check(Stage.ENVELOPE)
def greedy_logprobs(evidence: Evidence) -> Result:
    """A greedy answer with the log probability of each token; `measured` is their mean, in nats."""
    found = [read_logprobs(reply.exchange) for reply in evidence.replies]
    if not all(found):
        return _without(evidence)
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


@dataclass(frozen=True)
class Beside:
    """A prompt as an adapter answered it, and its parent."""

    case: str
    adapter: list[list[TokenLogprobs]]
    """The tokens of each equal request."""
    parent: list[TokenLogprobs]

    @property
    def texts(self) -> tuple[str, str]:
        """What the adapter answered first, and the parent; tokens that the engine names by their ids stay so."""
        adapter, parent = ("".join(t.token for t in tokens) for tokens in (self.adapter[0], self.parent))
        return adapter, parent

    @property
    def apart_nats(self) -> float:
        """Of the first token's alternatives."""
        return distance_nats(*self._first)

    @property
    def _first(self) -> tuple[list[Row], list[Row]]:
        return [self.parent[0].top], [tokens[0].top for tokens in self.adapter]

    def moved(self, tolerance: float) -> Moved | None:
        """How the adapter differs: in the first token's alternatives, or further on in a greedy answer."""
        parent, adapter = ([[t.token, t.logprob, t.gap] for t in tokens] for tokens in (self.parent, self.adapter[0]))
        return logprobs_moved(*self._first, tolerance) or greedy_moved(parent, adapter, tolerance)


def beside_parent(adapter: Iterable[Exchange], parent: Iterable[Exchange]) -> list[Beside]:
    """The prompts to which both sides told alternatives of the first token, every equal request of the adapter; what the parent was
    asked has the adapter's case as its ask."""
    own: dict[str | None, list[list[TokenLogprobs]]] = defaultdict(list)
    for exchange in adapter:
        own[exchange.case].append(read_logprobs(exchange))
    pairs = [Beside(e.ask, own[e.ask], read_logprobs(e)) for e in parent]
    return [p for p in pairs if p.adapter and all(tokens and tokens[0].top for tokens in (p.parent, *p.adapter))]


@check(Stage.WEIGHTS, OVER_A_GROUP)
def unlike_parent(evidence: Evidence) -> Result:
    """A served adapter (LoRA), whose card in /v1/models names a `parent`, answers one prompt at least otherwise than that model, by
    more than limits.logprob_tolerance_nats. Where no parent is named, none is asked."""
    model, parent, models = evidence.profile.target.model, evidence.identity.parent, evidence.identity.models
    if parent is None:
        return Result("pass", f"no adapter: /v1/models names no parent of {model}")
    if parent not in models:
        said = f"is not served, so it was not asked; served: {', '.join(models)}"
        return Result("not_measured", f"{parent}, the parent of adapter {model}, {said}", None, parent)
    if refused := next((r for r in evidence.replies if r.exchange.fault), None):
        said = f"does not answer: {refused.exchange.detail}"
        return Result("not_measured", f"{parent}, the parent of adapter {model}, {said}", None, parent)
    own = [r.exchange for seen in evidence.over for r in seen.replies]
    pairs = beside_parent(own, [r.exchange for r in evidence.replies])
    tolerance, total = evidence.profile.limits.logprob_tolerance_nats, len(evidence.replies)
    moved, apart = sum(p.moved(tolerance) is not None for p in pairs), max((p.apart_nats for p in pairs), default=0.0)
    if moved:
        said = f"adapter {model} answers {moved} of {len(pairs)} prompts otherwise than its parent {parent}"
        said += f", the first tokens up to {apart:.2f} nats apart"
        return Result("pass", said, round(apart, 4), tolerance, "nats")
    if not total:
        said = f"no prompt of {evidence.case.over} is part of this run"
        return Result("not_measured", f"{said}, so adapter {model} was not compared with {parent}", 0, None, "prompts")
    if len(pairs) < total:
        said = f"of {total} prompts {len(pairs)} have log probabilities of both {model} and its parent {parent}"
        return Result("not_measured", f"{said}: too few to say that they answer alike", len(pairs), total, "prompts")
    said = f"adapter {model} answers as its base {parent}: all {total} prompts within {tolerance:g} nats (largest difference {apart:.3f})"
    return Result("fail", f"{said}; see whether its weights were applied", round(apart, 4), tolerance, "nats")
