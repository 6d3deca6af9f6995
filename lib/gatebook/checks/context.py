"""Long context: is what was said long ago still known, was nothing cut silently, and up to which length does it hold?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Annotated

from pydantic import Field

from gatebook.checks import stats
from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.facts import normal, states
from gatebook.checks.finding import Result, Stage
from gatebook.checks.registry import OVER_A_GROUP, check, each_text
from gatebook.config.cases import Case
from gatebook.config.documents import DEPTHS, Document, Question, question
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
    others = [question(document.model_copy(update={"depth": d})).answers for d in DEPTHS if d != document.depth]
    wanted, where = ", ".join(asked.answers), f"at {document.depth} % of {document.name}"

    def judge(text: str) -> Result:
        said = normal(text)
        wrong = [answer for answers in others for answer in answers if states(said, answer)]
        if not wrong and all(states(said, answer) for answer in asked.answers):
            return Result("pass", f"{wanted} found {where}", wanted, wanted)
        named, told = ", ".join(wrong[:3]), f"says {text[:60]!r}"
        if wrong:
            told = f"names {named}, which {'is' if len(wrong) == 1 else 'are'} said of something else"
        return Result("fail", f"{wanted} {where} not found; it {told}", named or "nothing of it", wanted)

    return _not_sent(evidence, asked.sentences[0]) or each_text(evidence, judge)


@check(Stage.BEHAVIOUR, lambda case: _has(case, "specification"))
def clauses_found(evidence: Evidence) -> Result:
    """Every implementing module is named with its clause number, and no clause that does not implement anything.

    Clauses of section 12 may be named, since the question is about them.
    """
    _, asked = _asked(evidence)
    pairs = list(zip(asked.answers[::2], asked.answers[1::2], strict=True))

    def judge(text: str) -> Result:
        said, total = normal(text), len(pairs)
        missing = [f"{name} {clause}" for name, clause in pairs if not (states(said, name) and states(said, clause))]
        clauses = set(re.findall(r"(?<![\d.])\d{1,3}\.\d{1,4}(?![\d.]\d)", said))
        wrong = sorted(c for c in clauses if not c.startswith("12.") and c not in asked.answers)
        parts = [f"{len(missing)} of {total} missing: {', '.join(missing)}"] if missing else []
        parts += [f"cites {', '.join(wrong[:5])}, which implement nothing"] if wrong else []
        reason = "; ".join(parts) or f"all {total} modules with their clauses: {'; '.join(asked.sentences)}"
        return Result.of(not parts, reason, total - len(missing), total, "modules")

    return _not_sent(evidence, asked.answers[1]) or each_text(evidence, judge)


def _asked(evidence: Evidence) -> tuple[Document, Question]:
    document = evidence.case.document
    assert document is not None  # `_has` has refused it
    return document, question(document)


def _not_sent(evidence: Evidence, sentence: str) -> Result | None:
    """Whether the request as recorded really held what it asks for; our own fault if not."""
    held = all(any(sentence in str(m.get("content")) for m in reply.exchange.messages) for reply in evidence.replies)
    return None if held else Result("error", f"the document as sent does not hold {sentence!r}")


def length_kept(reply: Reply, document: Document, record: Mapping[str, Exchange]) -> Result:
    """The server counted as many prompt tokens as were sent; fewer means that it cut the prompt silently (ollama#8099).

    A document measured in characters is compared with what /tokenize, or else the ruler, says of its length.
    """
    told = reply.answer.tokens("prompt_tokens")
    drafted = record.get(document.counted_key)
    counted = counted_tokens(drafted) if drafted else None
    wanted = document.tokens or _expected(reply, document, record, counted)
    if told is None or wanted is None:
        said = "no prompt_tokens in the usage, so nothing shows whether the prompt was cut"
        return Result("error", said, None, wanted)
    off, tolerance = told - wanted, ROUGH_TOLERANCE if counted is None else TOLERANCE
    if abs(off) <= max(tolerance * wanted, LEAST_TOLERANCE_TOKENS):
        return Result("pass", f"{told:,} prompt tokens of {wanted:,} asked for", told, wanted, "tokens")
    how = "was cut silently" if off < 0 else "more than its own count says"
    reason = f"{told:,} prompt tokens counted where {wanted:,} were sent: {abs(off) / wanted:.0%} {how}"
    return Result("fail", reason, told, wanted, "tokens")


def _expected(reply: Reply, document: Document, record: Mapping[str, Exchange], counted: int | None) -> int | None:
    """Prompt tokens of what was sent: the document as /tokenize counted it, the rest by the rate of a sample."""
    template = record.get("ruler/template")
    ends = read_answer(template).tokens("prompt_tokens") if template else None
    if ends is None:
        return None
    kind, overhead, tokens = f"{document.kind}-{document.language}", ends - 1, counted
    if counted is not None:
        sample = str((record[document.counted_key].body or {})["prompt"])
    elif told := record.get(f"tokens/{kind}"):
        tokens, sample = counted_tokens(told), str((told.body or {})["prompt"])
    elif told := record.get(f"ruler/{kind}"):
        asked = read_answer(told).tokens("prompt_tokens")
        tokens, sample = None if asked is None else asked - overhead, told.messages[0]["content"]
    if tokens is None:
        return None
    sent = sum(len(str(m.get("content"))) for m in reply.exchange.messages)
    return round(overhead + tokens * sent / len(sample))


MinTokens = Annotated[int, Field(ge=500, description="The length that must be shown.")]
ShareOfBase = Annotated[float, Field(gt=0, le=1, description="Of the pass rate at the shortest length.")]


@check(Stage.BEHAVIOUR, OVER_A_GROUP)
def effective_length(evidence: Evidence, *, min_tokens: MinTokens, share_of_base: ShareOfBase = 0.85) -> Result:
    """The longest length whose pass rate is shown (lower Wilson bound, 95 %) to be at least a share of the rate at the
    shortest one, all shorter ones too. After NoLiMa (arXiv 2502.05167), with a bound instead of a point estimate."""
    sizes: dict[int, list[bool]] = {}
    for seen in evidence.over:
        if seen.case.document and seen.case.document.tokens and seen.outcome in ("pass", "fail"):
            sizes.setdefault(seen.case.document.tokens, []).append(seen.outcome == "pass")
    if not sizes:
        return Result("not_measured", "no document of the group was judged", None, min_tokens, "tokens")
    rows = [(tokens, sum(found), len(found)) for tokens, found in sorted(sizes.items())]
    shortest, passed, n = rows[0]
    base = passed / n
    bound = share_of_base * base
    holding = takewhile(lambda row: base and round(stats.wilson(row[1], row[2])[0], 4) >= bound, rows)
    shown = max((tokens for tokens, _, _ in holding), default=0)
    counts = ", ".join(f"{tokens:,}: {passed}/{n}" for tokens, passed, n in rows)
    told = f"shown up to {shown:,} tokens" if shown else "shown at no length"
    reason = f"{told} (lower bound at least {share_of_base:.0%} of the {base:.0%} at {shortest:,}; {counts})"
    if shown >= min_tokens:
        return Result("pass", reason, shown, min_tokens, "tokens")
    longest = next((tokens for tokens in sorted(sizes) if tokens >= min_tokens), None)
    if longest is None:
        said = f"no document of {min_tokens:,} tokens was judged; {reason}"
        return Result("not_measured", said, shown, min_tokens, "tokens")
    if few := [n for tokens, _, n in rows if tokens <= longest and stats.wilson(n, n)[0] < bound]:
        said = f"{min(few)} questions a length can never show it; {reason}"
        return Result("not_measured", said, shown, min_tokens, "tokens")
    return Result("fail", reason, shown, min_tokens, "tokens")
