"""Long context: is what was said long ago still known, was nothing cut silently, and up to which length does it hold?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from gatebook.checks import stats
from gatebook.checks.evidence import Evidence, Reply, Seen
from gatebook.checks.facts import normal, states
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import OVER_A_GROUP, check, each_text
from gatebook.config.cases import Case
from gatebook.config.documents import DEPTHS, Document, Question, question
from gatebook.config.files import Strict
from gatebook.record.exchange import Exchange
from gatebook.record.replies import counted_tokens, read_answer

TOLERANCE = 0.02
ROUGH_TOLERANCE = 0.1
"""Where the server has no /tokenize: a ruler of some 400 tokens is up to 8 % off (measured on SmolLM2's tokenizer)."""
LEAST_TOLERANCE_TOKENS = 40
"""A document ends with a whole entry."""


def _has(case: Case, kind: str) -> str | None:
    found = case.document is not None and case.document.kind == kind
    return None if found else f"the case has no document of kind {kind!r}; add one"


@check(Stage.BEHAVIOUR, lambda case: _has(case, "needles"))
def needle_found(evidence: Evidence) -> Result:
    """The answer holds the value that the document hides, and none of the values hidden elsewhere in it."""
    document, asked = _asked(evidence)
    at = [d for d in DEPTHS if d != document.depth]
    wrong = [a for d in at for a in question(document.model_copy(update={"depth": d})).answers]
    lost = _not_sent(evidence, asked.sentences[0])
    return lost or each_text(evidence, lambda text: _needle(text, document, asked.answers, wrong))


def _needle(text: str, document: Document, answers: Sequence[str], wrong: list[str]) -> Result:
    said, wanted = normal(text), ", ".join(answers)
    others = [answer for answer in wrong if states(said, answer)]
    if all(states(said, answer) for answer in answers) and not others:
        return Result("pass", f"{wanted} found at {document.depth} % of {document.name}", wanted, wanted)
    told = f"it names {', '.join(others[:3])}, which {'is' if len(others) == 1 else 'are'} said of something else"
    reason = (
        f"{wanted} at {document.depth} % of {document.name} not found; {told if others else f'it says {text[:60]!r}'}"
    )
    return Result("fail", reason, ", ".join(others[:3]) or "nothing of it", wanted)


@check(Stage.BEHAVIOUR, lambda case: _has(case, "specification"))
def clauses_found(evidence: Evidence) -> Result:
    """Every implementing module is named with its clause number, and no clause that does not implement anything.

    Clauses of section 12 may be named, since the question is about them.
    """
    _, asked = _asked(evidence)
    return _not_sent(evidence, asked.answers[1]) or each_text(evidence, lambda text: _clauses(text, asked))


def _clauses(text: str, asked: Question) -> Result:
    said, pairs = normal(text), list(zip(asked.answers[::2], asked.answers[1::2], strict=True))
    missing = [f"{module} {clause}" for module, clause in pairs if not (states(said, module) and states(said, clause))]
    clauses = set(re.findall(r"(?<![\d.])\d{1,3}\.\d{1,4}(?![\d.]\d)", said))
    wrong = sorted(c for c in clauses if not c.startswith("12.") and c not in asked.answers)
    found, total = len(pairs) - len(missing), len(pairs)
    parts = [f"{len(missing)} of {total} missing: {', '.join(missing)}"] if missing else []
    parts += [f"cites {', '.join(wrong[:5])}, which implement nothing"] if wrong else []
    reason = "; ".join(parts) or f"all {total} modules with their clauses: {'; '.join(asked.sentences)}"
    return Result.of(not parts, reason, found, total, "modules")


def _asked(evidence: Evidence) -> tuple[Document, Question]:
    document = evidence.case.document
    assert document is not None  # `_has` has refused it
    return document, question(document)


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
        said = "no prompt_tokens in the usage, so nothing shows whether the prompt was cut"
        return Result("error", said, None, wanted)
    off, tolerance = told - wanted, ROUGH_TOLERANCE if whole is None else TOLERANCE
    if abs(off) <= max(tolerance * wanted, LEAST_TOLERANCE_TOKENS):
        return Result("pass", f"{told:,} prompt tokens of {wanted:,} asked for", told, wanted, "tokens")
    how = "was cut silently" if off < 0 else "more than its own count says"
    reason = f"{told:,} prompt tokens counted where {wanted:,} were sent: {abs(off) / wanted:.0%} {how}"
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


MinTokens = Annotated[int, Field(ge=500, description="The length that must be shown.")]
ShareOfBase = Annotated[float, Field(gt=0, le=1, description="Of the pass rate at the shortest length.")]


@check(Stage.BEHAVIOUR, OVER_A_GROUP)
def effective_length(evidence: Evidence, *, min_tokens: MinTokens, share_of_base: ShareOfBase = 0.85) -> Result:
    """The longest length whose pass rate is shown (lower Wilson bound, 95 %) to be at least a share of the rate at the
    shortest one, all shorter ones too. After NoLiMa (arXiv 2502.05167), with a bound instead of a point estimate."""
    rows = by_length(evidence.over)
    if not rows:
        return Result("not_measured", "no document of the group was judged", None, min_tokens, "tokens")
    base, shown = rows[0].passed / rows[0].n, 0
    for row in rows:
        if base == 0 or row.low < share_of_base * base:
            break
        shown = row.tokens
    counts = ", ".join(f"{row.tokens:,}: {row.passed}/{row.n}" for row in rows)
    told = f"shown up to {shown:,} tokens" if shown else "shown at no length"
    reason = f"{told} (lower bound at least {share_of_base:.0%} of the {base:.0%} at {rows[0].tokens:,}; {counts})"
    if shown >= min_tokens:
        return Result("pass", reason, shown, min_tokens, "tokens")
    longest = next((r for r in rows if r.tokens >= min_tokens), None)
    if longest is None:
        said = f"no document of {min_tokens:,} tokens was judged; {reason}"
        return Result("not_measured", said, shown, min_tokens, "tokens")
    few = [r.n for r in rows if r.tokens <= longest.tokens and stats.wilson(r.n, r.n)[0] < share_of_base * base]
    if few:
        said = f"{min(few)} questions a length can never show it; {reason}"
        return Result("not_measured", said, shown, min_tokens, "tokens")
    return Result("fail", reason, shown, min_tokens, "tokens")


class ByLength(Strict):
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
