"""Long context judged: what is found, what was cut, and up to which length it is shown to hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gatebook.checks.boundaries import clauses_found, effective_length, length_kept, needle_found
from gatebook.checks.evidence import Evidence, Reply
from gatebook.checks.finding import Outcome
from gatebook.collect.lengths import Lengths, Unfit, shelves
from gatebook.config.cases import Case
from gatebook.config.documents import Document, question, ruler, text
from gatebook.record.identity import Identity

from tests.unit.replies import USAGE, case, chat_body, plain, profile

SINGLE = Document(kind="needles", tokens=1000, family="single", depth=50)
SPEC = Document(kind="specification", language="zh", seed=4, tokens=2000)
CHARS_A_TOKEN = 3


def asking(document: Document) -> Case:
    return case(
        "a",
        messages=[{"role": "user", "content": "{document}\n\n{question}"}],
        document=document,
        options={"max_tokens": 24},
    )


def answered(document: Document, said: str, sent: str | None = None, tokens: int = 1000) -> Evidence:
    body = chat_body(said, usage={**USAGE, "prompt_tokens": tokens, "total_tokens": tokens + 5})
    content = text(document, 4000) + question(document).text if sent is None else sent
    asked = asking(document)
    reply = Reply(asked.requests()[0], plain(body, sent={"messages": [{"role": "user", "content": content}]}))
    return Evidence(asked, [reply], Identity(), profile())


VALUE = question(SINGLE).answers[0]
OTHER = question(SINGLE.model_copy(update={"depth": 0})).answers[0]


@pytest.mark.parametrize(
    ("said", "outcome", "reason"),
    [
        (f"The access code is {VALUE}.", "pass", "found at 50 %"),
        (OTHER, "fail", f"it names {OTHER}, which is said of something else"),
        (f"{VALUE} or {OTHER}", "fail", "which is said of something else"),
        (f"{VALUE}7", "fail", "not found"),
        ("I do not know.", "fail", "it says 'I do not know.'"),
    ],
)
def test_a_needle_is_its_value_and_no_other(said: str, outcome: Outcome, reason: str) -> None:
    result = needle_found(answered(SINGLE, said))
    assert (result.outcome, reason in result.reason) == (outcome, True), result


def test_a_needle_that_was_never_sent_is_our_own_error() -> None:
    assert needle_found(answered(SINGLE, VALUE, sent="nothing of it")).outcome == "error"


PAIRS = question(SPEC).answers
RIGHT = "；".join(f"{module}：{clause}" for module, clause in zip(PAIRS[::2], PAIRS[1::2], strict=True))


@pytest.mark.parametrize(
    ("said", "outcome", "reason"),
    [
        (RIGHT, "pass", "all 3 modules"),
        (f"第12节的 12.1 由 {RIGHT} 实现", "pass", "all 3 modules"),
        (RIGHT.replace(PAIRS[3], "99.9"), "fail", f"{PAIRS[2]} {PAIRS[3]}"),
        (f"{RIGHT}；还有 9.9", "fail", "cites 9.9"),
        ("没有模块。", "fail", "3 of 3 missing"),
    ],
)
def test_clauses_are_named_all_and_no_others(said: str, outcome: Outcome, reason: str) -> None:
    result = clauses_found(answered(SPEC, said))
    assert (result.outcome, reason in result.reason) == (outcome, True), result


@pytest.mark.parametrize(
    ("tokens", "outcome", "reason"),
    [
        (1000, "pass", "1,000 prompt tokens"),
        (961, "pass", "961"),
        (950, "fail", "5% was cut silently"),
        (1200, "fail", "20% more"),
    ],
)
def test_the_length_that_was_sent_is_the_length_that_was_counted(tokens: int, outcome: Outcome, reason: str) -> None:
    record = {SINGLE.counted_key: tokenized("draft", 1000)}
    result = length_kept(answered(SINGLE, "x", tokens=tokens).replies[0], SINGLE, record)
    assert (result.outcome, reason in result.reason) == (outcome, True), result


@pytest.mark.parametrize(("tokens", "outcome"), [(920, "pass"), (890, "fail")])
def test_a_server_that_does_not_tokenize_is_held_to_a_ruler_s_precision(tokens: int, outcome: Outcome) -> None:
    assert length_kept(answered(SINGLE, "x", tokens=tokens).replies[0], SINGLE, {}).outcome == outcome


def tokenized(text: str, tokens: int) -> Any:
    return plain(json.dumps({"tokens": [1] * tokens}), sent={"prompt": text}, path="/tokenize")


def test_a_document_measured_in_characters_is_compared_with_the_ruler() -> None:
    pages = Document(kind="specification", language="zh", seed=4, chars=30_000)
    sample = ruler(pages).entries

    def counted(content: str, tokens: int) -> Any:
        body = chat_body(usage={**USAGE, "prompt_tokens": tokens, "total_tokens": tokens + 5})
        return plain(body, sent={"messages": [{"role": "user", "content": content}]})

    record = {"ruler/template": counted(".", 11), "ruler/specification-zh": counted(sample, 10 + len(sample))}
    sent = "长" * 30_000
    assert length_kept(answered(pages, "x", sent, 30_010).replies[0], pages, record).outcome == "pass"
    assert length_kept(answered(pages, "x", sent, 20_000).replies[0], pages, record).outcome == "fail"
    assert length_kept(answered(pages, "x", sent, 20_000).replies[0], pages, {}).outcome == "error"
    exact = {"ruler/template": counted(".", 11), pages.counted_key: tokenized("长" * 29_000, 14_500)}
    assert length_kept(answered(pages, "x", sent, 15_010).replies[0], pages, exact).outcome == "pass"
    assert length_kept(answered(pages, "x", sent, 14_000).replies[0], pages, exact).outcome == "fail"


def seen(*counts: tuple[int, int, int]) -> list[Evidence]:
    """(tokens, passed, asked) as judged cases."""
    found = []
    for tokens, passed, asked in counts:
        one = asking(SINGLE.model_copy(update={"tokens": tokens}))
        said: list[Outcome] = ["pass" if n < passed else "fail" for n in range(asked)]
        found += [Evidence(one, [], Identity(), profile(), outcome=outcome) for outcome in said]
    return found


def effective(over: list[Evidence], min_tokens: int = 4000) -> Any:
    looking = case("e", messages=[], over="g.needles", expect=[{"effective_length": {"min_tokens": min_tokens}}])
    seen = Evidence(looking, [], Identity(), profile(), over=over)
    return effective_length(seen, min_tokens=min_tokens, share_of_base=0.8)


@pytest.mark.parametrize(
    ("counts", "outcome", "measured"),
    [
        ([(1000, 20, 20), (2000, 20, 20), (4000, 20, 20)], "pass", 4000),
        ([(1000, 20, 20), (2000, 20, 20), (4000, 14, 20)], "fail", 2000),
        ([(1000, 20, 20), (2000, 10, 20), (4000, 20, 20)], "fail", 1000),  # a gap ends it
        ([(1000, 20, 20), (2000, 20, 20)], "not_measured", 2000),
        ([(1000, 5, 5), (4000, 5, 5)], "not_measured", 0),  # five questions cannot show 80 %
        ([(1000, 0, 20), (4000, 0, 20)], "fail", 0),
        ([], "not_measured", None),
    ],
)
def test_the_effective_length_is_shown_by_a_bound(
    counts: list[tuple[int, int, int]], outcome: Outcome, measured: Any
) -> None:
    result = effective(seen(*counts))
    assert (result.outcome, result.measured) == (outcome, measured), result


def lengths(
    cases: list[Case],
    budget: int | None = None,
    limit: int | None = None,
    tell: int | None = None,
    tokenizes: bool = False,
) -> Lengths:
    """A server that counts a third of the characters."""

    async def chat(key: str, sample: str) -> int | None:
        return tell if tell is not None else 20 + len(sample) // CHARS_A_TOKEN

    async def tokenize(key: str, sample: str) -> int | None:
        return drifting(sample) if tokenizes else None

    return Lengths(cases, budget, limit, chat, tokenize)


def drifting(text: str) -> int:
    """Tokens of a text whose later parts cost a quarter more than its beginning, which is all that a ruler sees."""
    return len(text) // CHARS_A_TOKEN + max(len(text) - 1500, 0) // (4 * CHARS_A_TOKEN)


async def written(one: Case, by: Lengths) -> str:
    return str((await by.messages(one, one.requests()[0]))[0]["content"])


def run(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)


@pytest.mark.parametrize("tokens", [1000, 2000, 16_000])
@pytest.mark.parametrize("document", [SINGLE, SPEC], ids=["needles", "specification"])
def test_a_document_has_the_length_that_was_asked_for(document: Document, tokens: int) -> None:
    one = asking(document.model_copy(update={"tokens": max(tokens, 1500) if document is SPEC else tokens}))
    assert one.document and one.document.tokens
    sent = run(written(one, lengths([one])))
    assert abs(20 + len(sent) / CHARS_A_TOKEN - one.document.tokens) <= max(0.02 * one.document.tokens, 40)
    assert question(one.document).text in sent


def test_a_server_that_tokenizes_corrects_what_the_ruler_cannot_know() -> None:
    one = asking(SINGLE.model_copy(update={"tokens": 8000}))
    exact, rough = (run(written(one, lengths([one], tokenizes=yes))) for yes in (True, False))
    assert abs(20 + drifting(exact) - 8000) <= 160 < abs(20 + drifting(rough) - 8000)


def test_questions_of_a_length_share_one_text() -> None:
    both = [asking(SINGLE.model_copy(update={"depth": depth})) for depth in (0, 100)]
    by = lengths(both)
    first, second = (run(written(one, by)) for one in both)
    assert first.rsplit("\n\n", 1)[0] == second.rsplit("\n\n", 1)[0]
    assert [len(shelf) for shelf in shelves([both[0], case("z"), both[1]])] == [2, 1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"limit": 1020}, "the server serves 1,020"),
        ({"budget": 900}, "cut by limits.document_budget_tokens"),
        ({"tell": 7}, "too few to be the whole text"),
    ],
)
def test_what_is_not_asked_says_why(given: dict[str, Any], said: str) -> None:
    one = asking(SINGLE)
    with pytest.raises(Unfit, match=said):
        run(written(one, lengths([one], **given)))


def test_the_budget_cuts_the_longest_first() -> None:
    short, long = asking(SINGLE), asking(SINGLE.model_copy(update={"tokens": 4000}))
    by = lengths([long, short], budget=4999)
    assert run(written(short, by))
    with pytest.raises(Unfit):
        run(written(long, by))
