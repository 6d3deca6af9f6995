"""Long context: is what was said long ago still known, was nothing cut silently, and up to which length does it hold?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from gatebook.judge import stats
from gatebook.judge.checks.facts import normal, states
from gatebook.judge.checks.registry import Params, check, each_text
from gatebook.judge.evidence import Evidence, Reply, Seen
from gatebook.judge.finding import Result, Stage
from gatebook.plan.cases import Case
from gatebook.plan.documents import DEPTHS, Document, question
from gatebook.record.answer import counted_tokens, read_answer
from gatebook.record.exchange import Exchange

TOLERANCE = 0.02
ROUGH_TOLERANCE = 0.1
"""Where the server has no /tokenize: a ruler of some 400 tokens is up to 8 % off (measured on SmolLM2's tokenizer)."""
LEAST_TOLERANCE_TOKENS = 40
"""A document ends with a whole entry."""


def _has_document(kind: str) -> object:
    def needs(case: Case, _: object) -> str | None:
        return (
            None
            if case.document and case.document.kind == kind
            else f"the case has no document of kind {kind!r}; add one"
        )

    return needs


@check("needle_found", Literal[True], _has_document("needles"), judges_text=False, stage=Stage.BEHAVIOUR)  # type: ignore[arg-type]
def needle_found(evidence: Evidence, _: bool) -> Result:
    """The answer holds the value that the document hides, and none of the values hidden elsewhere in it."""
    document = evidence.case.document
    assert document is not None
    asked = question(document)
    if lost := _not_sent(evidence, asked.sentences[0]):
        return lost
    wrong = [
        a for d in DEPTHS if d != document.depth for a in question(document.model_copy(update={"depth": d})).answers
    ]

    def judge(text: str) -> Result:
        said = normal(text)
        found = all(states(said, answer) for answer in asked.answers)
        others = [answer for answer in wrong if states(said, answer)]
        wanted = ", ".join(asked.answers)
        if found and not others:
            return Result("pass", f"{wanted} found at {document.depth} % of {document.name}", wanted, wanted)
        told = f"it names {', '.join(others[:3])}, which {'is' if len(others) == 1 else 'are'} said of something else"
        reason = f"{wanted} at {document.depth} % of {document.name} not found; {told if others else 'it says ' + repr(text[:60])}"
        return Result("fail", reason, ", ".join(others[:3]) or "nothing of it", wanted)

    return each_text(evidence, judge)


@check("clauses_found", Literal[True], _has_document("specification"), judges_text=False, stage=Stage.BEHAVIOUR)  # type: ignore[arg-type]
def clauses_found(evidence: Evidence, _: bool) -> Result:
    """Every implementing module is named with its clause number, and no clause that does not implement anything.

    Clauses of section 12 may be named, since the question is about them.
    """
    document = evidence.case.document
    assert document is not None
    asked = question(document)
    if lost := _not_sent(evidence, asked.answers[1]):
        return lost
    pairs = list(zip(asked.answers[::2], asked.answers[1::2], strict=True))

    def judge(text: str) -> Result:
        said = normal(text)
        missing = [
            f"{module} {clause}" for module, clause in pairs if not (states(said, module) and states(said, clause))
        ]
        clauses = set(re.findall(r"(?<![\d.])\d{1,3}\.\d{1,4}(?![\d.]\d)", said))
        wrong = sorted(c for c in clauses if not c.startswith("12.") and c not in asked.answers)
        found, total = len(pairs) - len(missing), len(pairs)
        if missing or wrong:
            parts = [f"{len(missing)} of {total} missing: {', '.join(missing)}"] if missing else []
            parts += [f"cites {', '.join(wrong[:5])}, which implement nothing"] if wrong else []
            return Result("fail", "; ".join(parts), found, total, "modules")
        return Result(
            "pass", f"all {total} modules with their clauses: {'; '.join(asked.sentences)}", found, total, "modules"
        )

    return each_text(evidence, judge)


def _not_sent(evidence: Evidence, sentence: str) -> Result | None:
    """Whether the request as recorded really held what it asks for; our own fault if not."""
    for reply in evidence.replies:
        if not any(sentence in str(m.get("content")) for m in (reply.exchange.body or {}).get("messages", [])):
            return Result("error", f"the document as sent does not hold {sentence!r}")
    return None


def length_kept(reply: Reply, document: Document, record: Mapping[str, Exchange]) -> Result:
    """The server counted as many prompt tokens as were sent; fewer means that it cut the prompt silently (ollama#8099).

    A document measured in characters is compared with what /tokenize, or else the ruler, says of its length.
    """
    told = reply.answer.tokens("prompt_tokens")
    drafted = record.get(document.counted_key)
    whole = counted_tokens(drafted) if drafted else None
    wanted = document.tokens or _expected(reply, document, record, whole)
    if told is None or wanted is None:
        return Result(
            "error", "no prompt_tokens in the usage, so nothing shows whether the prompt was cut", None, wanted
        )
    off, tolerance = told - wanted, ROUGH_TOLERANCE if whole is None else TOLERANCE
    if abs(off) <= max(tolerance * wanted, LEAST_TOLERANCE_TOKENS):
        return Result("pass", f"{told:,} prompt tokens of {wanted:,} asked for", told, wanted, "tokens")
    if off < 0:
        reason = f"{told:,} prompt tokens counted where {wanted:,} were sent: {-off / wanted:.0%} was cut silently"
    else:
        reason = f"{told:,} prompt tokens counted where {wanted:,} were sent: {off / wanted:.0%} more than its own count says"
    return Result("fail", reason, told, wanted, "tokens")


def _expected(reply: Reply, document: Document, record: Mapping[str, Exchange], whole: int | None) -> int | None:
    """Prompt tokens of what was sent: the document as /tokenize counted it, the rest by the rate of a sample."""
    sent = sum(len(str(m.get("content"))) for m in (reply.exchange.body or {})["messages"])
    template = record.get("ruler/template")
    ends = read_answer(template).tokens("prompt_tokens") if template else None
    drafted = record.get(document.counted_key)
    if ends is None:
        return None
    overhead = ends - 1
    if drafted is not None and whole is not None:
        drafted_chars = len(str((drafted.body or {})["prompt"]))
        return round(overhead + whole * sent / drafted_chars)
    kind = f"{document.kind}-{document.language}"
    if sample := record.get(f"tokens/{kind}"):
        tokens, text = counted_tokens(sample), str((sample.body or {})["prompt"])
    elif sample := record.get(f"ruler/{kind}"):
        asked = read_answer(sample).tokens("prompt_tokens")
        tokens, text = None if asked is None else asked - overhead, sample.messages[0]["content"]
    else:
        return None
    return None if tokens is None else round(overhead + tokens * sent / len(text))


class Effective(Params):
    min_tokens: int = Field(ge=500)
    """The length that must be shown."""
    share_of_base: float = Field(default=0.85, gt=0, le=1)
    """Of the pass rate at the shortest length."""


def _looks_over(case: Case, _: object) -> str | None:
    return None if case.over else "the case looks over no group; name one with key 'over'"


@check("effective_length", Effective, _looks_over, judges_text=False, stage=Stage.BEHAVIOUR)
def effective_length(evidence: Evidence, params: Effective) -> Result:
    """The longest length whose pass rate is shown (lower Wilson bound, 95 %) to be at least a share of the rate at the
    shortest one, all shorter ones too. After NoLiMa (arXiv 2502.05167), with a bound instead of a point estimate."""
    rows = by_length(evidence.over)
    if not rows:
        return Result("not_measured", "no document of the group was judged", None, params.min_tokens, "tokens")
    base = rows[0].passed / rows[0].n
    shown = 0
    for row in rows:
        if base == 0 or row.low < params.share_of_base * base:
            break
        shown = row.tokens
    counts = ", ".join(f"{row.tokens:,}: {row.passed}/{row.n}" for row in rows)
    told = f"shown up to {shown:,} tokens" if shown else "shown at no length"
    reason = (
        f"{told} (lower bound at least {params.share_of_base:.0%} of the {base:.0%} at {rows[0].tokens:,}; {counts})"
    )
    if shown >= params.min_tokens:
        return Result("pass", reason, shown, params.min_tokens, "tokens")
    longest = next((r for r in rows if r.tokens >= params.min_tokens), None)
    if longest is None:
        return Result(
            "not_measured",
            f"no document of {params.min_tokens:,} tokens was judged; {reason}",
            shown,
            params.min_tokens,
            "tokens",
        )
    few = [r.n for r in rows if r.tokens <= longest.tokens and stats.wilson(r.n, r.n)[0] < params.share_of_base * base]
    if few:
        reason = f"{min(few)} questions a length can never show it; {reason}"
        return Result("not_measured", reason, shown, params.min_tokens, "tokens")
    return Result("fail", reason, shown, params.min_tokens, "tokens")


class ByLength(Params):
    """Pooled over families and depths."""

    tokens: int
    n: int
    passed: int
    low: float
    high: float
    """Wilson interval, 95 %."""


def by_length(seen: list[Seen]) -> list[ByLength]:
    """Pass rates by length, the shortest first; only what was judged."""
    sizes: dict[int, list[bool]] = {}
    for one in seen:
        if one.case.document and one.case.document.tokens and one.outcome in ("pass", "fail"):
            sizes.setdefault(one.case.document.tokens, []).append(one.outcome == "pass")
    rows = []
    for tokens, found in sorted(sizes.items()):
        low, high = stats.wilson(sum(found), len(found))
        rows.append(ByLength(tokens=tokens, n=len(found), passed=sum(found), low=round(low, 4), high=round(high, 4)))
    return rows
