"""What every complete answer must satisfy before anyone asks what it means (DESIGN §7), and how its stream arrived."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any

from gatebook.checks.evidence import Reply
from gatebook.checks.text import ROLE, broken_characters, leaked_markup
from gatebook.engines.engine import same_model
from gatebook.record.answer import THOUGHT, Answer
from gatebook.record.exchange import ELSEWHERE, Exchange
from gatebook.record.replies import is_token, read_answer, whole

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")
STALE_S = 300
"""`created` may lag behind our clock by this much before it is taken for an old answer."""
STANDING_S = 5
AFTER = {"broken": "broke off", "open": "was closed late"}
SAMPLED_ENOUGH = 4
"""Answers of one case from which a single broken character is told from an engine that breaks them."""
UNTOLD_TOKEN = re.compile(r"token_id:\d+$|bytes:\\x|<0x[0-9A-F]{2}>$")
"""Stand-ins for a token without a text of its own: vLLM's ids, OpenAI's and SentencePiece's bytes."""
MARKER = re.compile(r"<[^<>\s]{1,40}>")
"""What a special token looks like, such as `<jupyter_code>`, which a model at a high temperature may draw."""
VOCABULARY = set("ĠĊ▁")
"""How byte-level BPE writes a blank and a line's end, and SentencePiece a blank, in its vocabulary."""
LATEST = 2**40
"""Seconds; a `created` beyond it is not a time."""
PACKING_FLAWS = {
    "not packed": "but the body is not packed",
    "broken": "but the body cannot be unpacked",
    "more": "and the body has more bytes after the packed ones, which clients do not read",
    "unknown": "though identity was asked, and clients need a library more to read it",
}


def violations(
    reply: Reply,
    model: str,
    seen_ids: dict[str, str],
    context_tokens: int | None = None,
    *,
    ends_with_done: bool = True,
    counts_streams: bool = True,
    is_alias: Callable[[str, str], bool] = lambda asked, told: same_model(asked, told, []),
    behind_s: float = 0.0,
    thinks: bool = False,
    leaves_open: bool = True,
) -> Iterator[str]:
    """Every broken clause of one 200 reply, the most telling first. `seen_ids`: response id -> the request it first answered.

    A server whose profile offers no [DONE] or no usage in streams owes none. `is_alias(asked, told)`: whether the name `told` is
    the asked model's. `behind_s`: how far the server's clock is behind ours. `thinks`: thoughts come before answers, in a field
    of their own. `leaves_open`: the server leaves connections open as a rule.
    """
    exchange, answer = reply.exchange, reply.answer
    if (unreadable := _unreadable(exchange, answer)) is not None:
        yield unreadable
        return
    yield from answer.flaws
    if not answer.choices and not answer.flaws:
        yield "the reply has no choices"
    if not answer.choices or (answer.flaws and not (answer.text or answer.tool_calls)):
        return
    yield from _envelope(exchange, answer, ends_with_done, leaves_open)
    yield from text_flaws(answer, thinks)
    yield from _finish(exchange, answer, context_tokens)
    if answer.usage is not None or exchange.events is None or counts_streams:
        yield from _usage(exchange, answer)
    yield from _misspelt(exchange, answer)
    yield from _stale(exchange, answer, seen_ids, behind_s)
    asked = (exchange.body or {}).get("model", model)
    if asked == model and answer.model is not None and not is_alias(model, answer.model):
        yield f"answered by model {answer.model!r}, asked for {model!r}"


def _unreadable(exchange: Exchange, answer: Answer) -> str | None:
    """Return why a reply cannot be read at all, so that nothing else is judged; None when it can."""
    streamed = exchange.events is not None
    if answer.error:
        return f"the {'stream' if streamed else 'reply'} carries an error: {answer.error}"
    if said := packing_flaw(exchange):
        return said
    if streamed and not (exchange.body or {}).get("stream"):
        return f"a stream ({exchange.headers.get('content-type', 'no content type')}) where a plain reply was asked"
    return answer.malformed


def notes(reply: Reply, thinks: bool = True) -> Iterator[str]:
    """What is unusual on the wire and breaks nothing: every client reads it."""
    if reply.answer.reasoning.strip() and not thinks:
        yield "thoughts stand in the reasoning field beside the answer; target.thinking: parsed gives them room of their own"
    if reply.exchange.packing == "packed":
        yield f"packed with {reply.exchange.headers.get('content-encoding')} although identity was asked"
    if reply.exchange.after_done is not None:
        yield f"the answer is complete, the connection {AFTER[reply.exchange.after_done]} after it"


def drawn_by_chance(replies: list[Reply]) -> tuple[Reply, str] | None:
    """The one answer with broken characters or a role's name as its first line among SAMPLED_ENOUGH, and its violation.

    A small model draws half a character, mojibake or `system` now and then; an engine that breaks characters, or a template
    that leaks, breaks more than one answer of a case, or a greedy one.
    """
    sampled = [r for r in replies if (r.exchange.body or {}).get("temperature") != 0]
    broken = [(r, said) for r in sampled if (said := _broken(r.answer, r.thinks) or _role(r.answer))]
    return broken[0] if len(sampled) >= SAMPLED_ENOUGH and len(broken) == 1 else None


def _broken(answer: Answer, thinks: bool) -> str | None:
    """Broken characters of the answer. Thoughts that stand for it (`Reply.raw`) may be cut within a character by their budget."""
    if thinks and answer.text and answer.text == answer.reasoning.lstrip("\n"):
        return None
    return broken_characters(answer.text, answer.finish_reason == "length")


def _role(answer: Answer) -> str | None:
    said = leaked_markup(answer.text)
    return said if said and said.startswith(ROLE) else None


def packing_flaw(exchange: Exchange) -> str | None:
    """Where header and body disagree about the content coding, or no client without a library more can undo it."""
    if said := PACKING_FLAWS.get(exchange.packing or ""):
        return f"the header says Content-Encoding: {exchange.headers.get('content-encoding')}, {said}"
    if exchange.invalid_utf8 and (exchange.text or "").startswith("\x1f\ufffd"):
        return "the body is packed with gzip" + (" once more" if exchange.packing else ", and no header says so")
    return None


def _envelope(exchange: Exchange, answer: Answer, ends_with_done: bool, leaves_open: bool) -> Iterator[str]:
    streamed, kind = exchange.events is not None, exchange.headers.get("content-type", "no content type")
    flaws = {
        f"asked for a stream, got {kind!r}": (exchange.body or {}).get("stream") and not streamed,
        "the stream ended without [DONE]": streamed and not answer.done and ends_with_done,
        "the answer is complete, the connection was not closed": exchange.after_done == "open" and leaves_open,
        "the reply is not valid UTF-8": exchange.invalid_utf8,
        f"one reply has {len(answer.ids)} different response ids": len(answer.ids) > 1,
    }
    yield from (said for said, holds in flaws.items() if holds)


def text_flaws(answer: Answer, thinks: bool) -> Iterator[str]:
    """What is wrong with the text alone: other weights, another template or sampling make a model say it on a sound wire."""
    if said := thoughts_astray(answer, thinks):
        yield said
    elif _empty(answer) and not (thinks and answer.ends_in_thoughts):
        yield f"content is {'null' if answer.content is None else 'blank' if answer.content else 'empty'}"
    yield from filter(None, (_broken(answer, thinks), leaked_markup(answer.text)))


def thoughts_astray(answer: Answer, thinks: bool) -> str | None:
    """Text in the reasoning field where the answer should be; beside an answer it takes nothing from clients (`notes`)."""
    if not answer.reasoning.strip() or not _empty(answer) or (thinks and answer.ends_in_thoughts):
        return None
    return f"content is empty and the answer is in the reasoning field: {answer.reasoning[:60]!r}"


def thinking_advice(answer: Answer, thinks: bool) -> str | None:
    """What to do where an answer has thoughts in a place that the profile does not name."""
    without = "to gate it without thoughts, set target.request: {chat_template_kwargs: {enable_thinking: false}}"
    if THOUGHT.search(answer.text):
        parser = "start the server with a reasoning parser"
        if thinks:
            return f"target.thinking is parsed, and the server parses no thoughts: {parser} (vLLM: --reasoning-parser); {without} and target.thinking: off"
        return f"{without}; to gate it with them, {parser} and set target.thinking: parsed"
    astray = thoughts_astray(answer, thinks) and not thinks
    return f"to gate a model that thinks, set target.thinking: parsed; {without}" if astray else None


def _empty(answer: Answer) -> bool:
    """Neither text nor tool call, and not cut before its first character."""
    cut = answer.finish_reason == "length" and (answer.tokens("completion_tokens") or 9) <= 4
    return not answer.text.strip() and not answer.tool_calls and not cut


def _finish(exchange: Exchange, answer: Answer, context_tokens: int | None) -> Iterator[str]:
    if len(answer.finish_reasons) != 1:
        yield f"{len(answer.finish_reasons) or 'no'} finish_reason{'s in one reply' if answer.finish_reasons else ''}"
        return
    if answer.finish_reason not in FINISH_REASONS:
        yield f"finish_reason is {answer.finish_reason!r}, which is none of {', '.join(FINISH_REASONS)}"
    if answer.finish_reason != "length":
        return
    limit, used, total = max_tokens(exchange), answer.tokens("completion_tokens"), answer.tokens("total_tokens")
    if limit is not None and used is not None and used < limit:
        yield f"cut after {used} tokens although {limit} were allowed (the server has a limit of its own; context used: {total})"
    if limit is None and total is not None and context_tokens and total < context_tokens:
        yield f"cut after {used} tokens though the request sets no limit (a default of the server; {total} of {context_tokens} tokens of context used)"


def _usage(exchange: Exchange, answer: Answer) -> Iterator[str]:
    prompt, completion, total = (answer.tokens(f"{part}_tokens") for part in ("prompt", "completion", "total"))
    if prompt is None or completion is None or total is None:
        yield "usage is missing" if answer.usage is None else f"usage is incomplete: {answer.usage}"
        return
    if prompt < 1 or (completion < 1 and answer.text):
        yield f"usage counts no tokens: prompt {prompt}, completion {completion}"
    if total != prompt + completion:
        yield f"usage does not add up: {prompt} + {completion} is not {total}"
    limit, choices = max_tokens(exchange), 1 + len(answer.others)
    if limit is not None and completion > limit * choices:
        yield f"{completion} completion tokens although max_tokens is {limit}"
    size = len("".join([answer.text, answer.reasoning, *answer.others.values()]).encode())
    if size and not answer.tool_calls and completion - answer.thought_tokens > size + 16 * choices:
        yield f"usage says {completion} completion tokens for {size} bytes of text"


def _misspelt(exchange: Exchange, answer: Answer) -> Iterator[str]:
    """Tokens of logprobs that do not spell the answer: vocabulary spellings such as `Ġthe`, or another text's (vllm#19177).

    Judged only where every token has a text or bytes of its own: a part of a character has none on vLLM. What a parser or a
    stop string took off the answer's ends is among its tokens, and a special token is no part of the text wherever it stands.
    """
    other = answer.reasoning or answer.tool_calls or answer.others or (exchange.body or {}).get("tools")
    tokens = [_token_bytes(entry) for entry in answer.logprobs if not other]
    if not tokens or None in tokens:
        return
    spelled = b"".join(filter(None, tokens)).decode("utf-8", "replace")
    text = answer.text.rstrip("\ufffd").strip()
    plain = MARKER.sub("", text)
    if not (text in spelled or (plain and plain in MARKER.sub("", spelled))) or VOCABULARY & set(spelled) - set(text):
        yield f"logprob tokens do not spell the answer: {spelled[:40]!r} for {text[:40]!r}"


def _token_bytes(entry: Any) -> bytes | None:
    """None where it tells neither text nor bytes."""
    token, raw = (entry.get("token"), entry.get("bytes")) if isinstance(entry, dict) else (None, None)
    if isinstance(token, str) and token and "\ufffd" not in token and not UNTOLD_TOKEN.match(token):
        return whole(token).encode()
    if isinstance(raw, list) and raw and all(isinstance(b, int) and 0 <= b < 256 for b in raw):
        return bytes(raw)
    return None


def _stale(exchange: Exchange, answer: Answer, seen_ids: dict[str, str], behind_s: float) -> Iterator[str]:
    for name in sorted(answer.ids):
        if seen_ids.setdefault(name, exchange.key) != exchange.key:
            yield f"answered from a cache: response id {name!r} was already given to {seen_ids[name]}"
    age_s = _age_s(exchange, answer)
    if age_s is not None and age_s - behind_s > STALE_S and not _clock_agrees(exchange, answer.created or 0):
        yield f"answered from a cache: created {age_s - behind_s:,.0f} s before it was asked"


def _age_s(exchange: Exchange, answer: Answer) -> float | None:
    """By our clock and the reply's own `created`; None where it tells no time."""
    if not answer.created or not 0 < answer.created < LATEST or not exchange.attempts:
        return None
    return datetime.fromisoformat(exchange.attempts[-1].at).timestamp() - answer.created


def clock_behind_s(exchanges: Iterable[Exchange]) -> float:
    """How far the server's clock is behind ours (negative: ahead), by its replies to chats; 0.0 while it is within STALE_S.

    No reply is older than it says, so the freshest one bounds it from above: a clock that is behind makes all replies old
    alike, and a cache makes some older than others. One time in replies that were asked STANDING_S apart is no clock at all.
    """
    chats = (e for e in exchanges if e.method == "POST" and e.kind not in {"probe", *ELSEWHERE} and e.status == 200)
    told = [(_age_s(e, answer), answer.created) for e in chats for answer in [read_answer(e)]]
    ages, times = [age_s for age_s, _ in told if age_s is not None], {at for age_s, at in told if age_s is not None}
    if not ages or (len(times) == 1 and max(ages) - min(ages) > STANDING_S):
        return 0.0
    behind_s, ahead_s = min(ages), max(ages)
    return behind_s if behind_s > STALE_S else ahead_s if ahead_s < -STALE_S else 0.0


def _clock_agrees(exchange: Exchange, created: int) -> bool:
    """Whether the server's own Date header says that `created` is now, so that only its clock is behind ours."""
    with suppress(KeyError, ValueError, TypeError):
        return abs(parsedate_to_datetime(exchange.headers["date"]).timestamp() - created) <= STALE_S
    return False


def max_tokens(exchange: Exchange) -> int | None:
    """The cap that the request set, under either name."""
    body = exchange.body or {}
    value = body.get("max_completion_tokens", body.get("max_tokens"))
    return value if isinstance(value, int) else None


TOKENS, TOTAL_MS = 30, 400.0
"""A stream with fewer tokens, or one that is over sooner, tells nothing: a fast server answers at once, and 10 % of less is no
more than what a busy machine of ours may be late. A GPU writes 64 tokens in 0.5 to 1.5 s."""
PIECE_TOKENS = 15
"""A silence for so many tokens is allowed: buffers of 4 KiB fill after that many, speculative decoding writes fewer at a time."""
WRITTEN_SHARE, WRITTEN_MS = 0.1, 1.0
"""What is left of a buffered stream without these silences: under this share of the whole, and under so many ms a token, which
no model writes. The second tells it from a wait in a queue, or for a long prompt, before tokens that come one by one."""
STREAMS = 2
"""One alone may be chance."""
OPEN_SHARE = 0.1
"""A busy server, or a busy machine of ours, closes a connection late now and then."""


def pieces(exchange: Exchange) -> str | None:
    """In words, how a stream arrived that something kept; empty where it came as it was written, None where it tells nothing."""
    body, timing, client = exchange.body or {}, exchange.timing, exchange.client
    if exchange.events is None or exchange.fault or body.get("tools") or timing is None or timing.last_token_ms is None:
        return None
    total_ms, told = timing.last_token_ms, read_answer(exchange).tokens("completion_tokens")
    if total_ms < TOTAL_MS or (told and told < TOKENS):
        return None
    came = [at for at, data in exchange.events if is_token(data)]
    tokens = told or len(came)
    late = client is not None and (client.loop_lag_ms or 0.0) > WRITTEN_SHARE * total_ms
    if tokens < TOKENS or late:
        return None
    silences = sorted((b - a for a, b in pairwise([0.0, *came])), reverse=True)[: tokens // PIECE_TOKENS]
    written_ms = total_ms - sum(silences)
    if written_ms >= WRITTEN_SHARE * total_ms or written_ms >= WRITTEN_MS * tokens:
        return ""
    count = 1 + sum(silence >= WRITTEN_SHARE * total_ms for silence in silences[1:])
    return f"{tokens} tokens in {count} {'piece' if count == 1 else 'pieces'}, the first after {came[0]:,.0f} of {total_ms:,.0f} ms"


def kept_back(exchanges: Iterable[Exchange]) -> dict[str, str]:
    """Key of each stream that something kept -> how it arrived; none unless all streams that tell are so, STREAMS at least."""
    found = {e.key: said for e in exchanges if e.kind == "ask" and (said := pieces(e)) is not None}
    return found if len(found) >= STREAMS and all(found.values()) else {}


def leaves_open(exchanges: Iterable[Exchange]) -> bool:
    """Whether the server leaves connections open behind whole answers, and not one among many that it was late to close."""
    ended = [e.after_done == "open" for e in exchanges if e.status == 200 and e.events is not None and not e.fault]
    return sum(ended) >= STREAMS and sum(ended) > OPEN_SHARE * len(ended) or all(ended)
