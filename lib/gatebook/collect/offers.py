"""What a server offers, asked of it once: some ten small requests, and why not in the server's own words."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from gatebook.collect.client import Lane
from gatebook.config.policies import Feature, Offer
from gatebook.engines import refused
from gatebook.record.exchange import Exchange
from gatebook.record.logprobs import read_logprobs
from gatebook.record.replies import error_message, parse, read_answer

DEADLINE_S = 60.0
SHORT = 8
"""Tokens of the first answers."""
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"colour": {"enum": ["grue", "bleen"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
HELLO = "Say hello."
OPEN = "Write any word that comes to your mind."
NOTE = " ".join(f"remark {n} of the caller" for n in range(12))
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00001",
            "type": "function",
            "function": {"name": "get_time", "arguments": json.dumps({"city": "Oslo", "note": NOTE})},
        }
    ],
}
CALL_TOKENS = 80
"""A history with the call in it costs more than so many prompt tokens beside the question alone; without it, about 50."""
RESULT = {"role": "tool", "tool_call_id": "call00001", "content": "It is 09:41 in Oslo, and the sun is up."}
Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Learned:
    """What the server did."""

    offers: dict[Feature, Offer]
    ttft_ms: float | None
    """First token of a short streamed answer; None when it was not streamed."""
    itl_ms: float | None
    """Between its further tokens."""
    told_as: str | None
    """The model's name in replies."""
    exchanges: list[Exchange]

    @property
    def greeting_ms(self) -> float | None:
        """What a greeting of 32 tokens takes at this speed."""
        return None if self.ttft_ms is None or self.itl_ms is None else self.ttft_ms + 31 * self.itl_ms


async def learn(lane: Lane, model: str, models: tuple[str, ...]) -> Learned:
    """Ask for each part of the API. Never raises for what the server does; what has no clear answer counts as offered."""
    asker = _Asker(lane, model)
    plain = await asker.chat(HELLO, max_tokens=SHORT)
    streamed = await asker.chat(HELLO, max_tokens=SHORT, stream=True, stream_options={"include_usage": True})
    offers: dict[Feature, Offer] = {"lists_models": _lists(model, models)}
    offers |= _streams(streamed)
    offers |= await _extras(asker, plain)
    offers |= await _tools(asker, plain)
    offers |= await _formats(asker)
    offers |= await _conversations(asker, plain)
    offers |= await _refusals(asker)
    return Learned(offers, *_times(streamed), read_answer(plain).model, asker.exchanges)


def _times(streamed: Exchange) -> tuple[float | None, float | None]:
    """(time to first token, mean time between tokens) in ms."""
    timing, tokens = streamed.timing, read_answer(streamed).tokens("completion_tokens") or SHORT
    if timing is None or timing.first_token_ms is None or timing.last_token_ms is None:
        return None, None
    return timing.first_token_ms, (timing.last_token_ms - timing.first_token_ms) / max(tokens - 1, 1)


class _Asker:
    def __init__(self, lane: Lane, model: str) -> None:
        self._lane, self.model = lane, model
        self.exchanges: list[Exchange] = []

    async def chat(self, messages: str | Messages, **options: Any) -> Exchange:
        """One chat, greedy unless `temperature` is None."""
        said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        body = {"model": self.model, "messages": said, "temperature": 0, **options}
        return await self.send({k: v for k, v in body.items() if v is not None})

    async def send(self, body: dict[str, Any]) -> Exchange:
        done = await self._lane.ask(
            kind="probe", key=f"offer/{len(self.exchanges)}", body=body, deadline_s=DEADLINE_S, retries=1
        )
        self.exchanges.append(done)
        return done


def _lists(model: str, models: tuple[str, ...]) -> Offer:
    if not models:
        return "/v1/models lists no models"
    return True if model in models else f"/v1/models lists others: {', '.join(models[:3])}"


def _streams(streamed: Exchange) -> dict[Feature, Offer]:
    answer = read_answer(streamed)
    if streamed.fault is not None or streamed.events is None:
        return {}  # a stream that fails is no missing part: the gate says so
    return {
        "stream_usage": True if answer.usage else "include_usage is ignored",
        "stream_done": True if answer.done else "streams end without [DONE]",
    }


async def _extras(asker: _Asker, plain: Exchange) -> dict[Feature, Offer]:
    """All options that a plain request may carry in one; where one of them is refused or not seen, each alone."""
    text = read_answer(plain).text
    stop = text[2:4] if len(text) > 6 else None
    checks: dict[Feature, tuple[dict[str, Any], Callable[[Exchange], Offer]]] = {
        "logprobs": (
            {"logprobs": True, "top_logprobs": 2},
            lambda e: True if read_logprobs(e) else "logprobs are ignored",
        ),
        "max_completion_tokens": ({"max_completion_tokens": 3}, _kept_to_three),
    }
    if stop:
        checks["stop"] = (
            {"stop": [stop]},
            lambda e: "the stop string stays in the text" if stop in read_answer(e).text else True,
        )
    together = {k: v for options, _ in checks.values() for k, v in options.items()}
    done = await asker.chat([{"role": "user", "content": [{"type": "text", "text": HELLO}]}], **together)
    parts: Callable[[Exchange], Offer] = lambda e: _read(e, plain, "text parts")  # noqa: E731
    if done.fault is None:
        offers: dict[Feature, Offer] = {feature: judge(done) for feature, (_, judge) in checks.items()}
        offers["text_parts"] = parts(done)
        if all(said is True for said in offers.values()):
            return offers
    alone = await _each(checks, lambda options: asker.chat(HELLO, **{"max_tokens": 8, **options}))
    apart = await asker.chat([{"role": "user", "content": [{"type": "text", "text": HELLO}]}], max_tokens=8)
    return {**alone, "text_parts": _refusal(apart) or parts(apart)}


async def _each(
    checks: dict[Feature, tuple[dict[str, Any], Callable[[Exchange], Offer]]],
    ask: Callable[[dict[str, Any]], Awaitable[Exchange]],
) -> dict[Feature, Offer]:
    found: dict[Feature, Offer] = {}
    for feature, (options, judge) in checks.items():
        options = {"max_tokens": None, **options} if feature == "max_completion_tokens" else options
        done = await ask(options)
        no = _refusal if feature == "max_completion_tokens" else _said_no
        found[feature] = no(done) or judge(done)
    return found


async def _tools(asker: _Asker, plain: Exchange) -> dict[Feature, Offer]:
    auto = await asker.chat(HELLO, max_tokens=1, tools=[TOOL])
    named = await asker.chat(
        HELLO, max_tokens=1, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "get_time"}}
    )
    refusal = _said_no(auto)
    offer = refusal or _read_more(auto, plain, "its chat template knows no tools")
    choice: Offer = _said_no(named) or offer
    return {"tools_accepted": refusal or True, "tools": offer, "tool_choice": choice, "parallel_tools": offer}


async def _formats(asker: _Asker) -> dict[Feature, Offer]:
    wanted = {"type": "json_schema", "json_schema": {"name": "colour", "schema": SCHEMA, "strict": True}}
    schema = await asker.chat(HELLO, max_tokens=16, response_format=wanted)
    anything = await asker.chat(HELLO, max_tokens=8, response_format={"type": "json_object"})
    text = read_answer(schema).text
    begun = "".join(text.split())  # engines allow blanks between the parts, and the answer may be cut
    follows = any(whole.startswith(begun) for whole in ('{"colour":"grue"}', '{"colour":"bleen"}'))
    return {
        "json_schema": _said_no(schema) or (True if follows else f"response_format is ignored: {text[:40]!r}"),
        "json_object": _said_no(anything)
        or (True if read_answer(anything).text.lstrip()[:1] in ("{", "") else "response_format is ignored"),
    }


async def _conversations(asker: _Asker, plain: Exchange) -> dict[Feature, Offer]:
    ask, told = {"role": "user", "content": HELLO}, {"role": "system", "content": "Be brief."}
    history = await asker.chat([ask, CALL, RESULT, ask], max_tokens=1)
    second = await asker.chat([told, ask, {"role": "assistant", "content": "Hello."}, told, ask], max_tokens=1)
    several = await asker.chat(OPEN, max_tokens=SHORT, temperature=None, n=2)  # greedy, vLLM refuses it
    sampled = [several, *[await asker.chat(OPEN, max_tokens=SHORT, temperature=None) for _ in range(2)]]
    texts = {read_answer(e).text for e in sampled if e.fault is None}
    offers: dict[Feature, Offer] = {
        "tool_history": _refusal(history)
        or _read_more(history, plain, "its chat template drops tool calls or their results", CALL_TOKENS),
        "n": _said_no(several) or (True if _choices(several) == 2 else "n is ignored"),
        "second_system": _refusal(second)
        or _read_more(second, plain, "its chat template drops a second system message"),
    }
    if len(texts) == 1 and not any(e.fault for e in sampled[1:]):
        offers["default_sampling"] = "without parameters its answers are all the same"
    return offers


async def _refusals(asker: _Asker) -> dict[Feature, Offer]:
    image = [{"type": "text", "text": HELLO}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    media = await asker.chat([{"role": "user", "content": image}], max_tokens=1)
    malformed = await asker.send({"model": asker.model, "messages": "no list of messages", "max_tokens": 1})
    out = await asker.chat(HELLO, max_tokens=1, temperature="warm")
    return {
        "refuses_media": _refuses(media, "an image"),
        "refuses_malformed": _refuses(malformed, "messages that are a text"),
        "refuses_parameters": _refuses(out, "a temperature that is no number"),
    }


def _refuses(done: Exchange, what: str) -> Offer:
    if done.status is None or refused(done.status, done.detail):
        return True
    return f"{what} is answered with HTTP {done.status}"


def _said_no(done: Exchange) -> str | None:
    """Its refusal, in one line; None when it answered."""
    if done.fault is None:
        answer = read_answer(done)
        return answer.error if answer.error and not answer.choices else None
    return done.detail if done.status is not None else None


def _refusal(done: Exchange) -> str | None:
    """The same where clients send it to every server: an error of the server's own (5xx) is no refusal, and the gate says so."""
    return None if done.status is not None and done.status >= 500 else _said_no(done)


def _kept_to_three(done: Exchange) -> Offer:
    used = read_answer(done).tokens("completion_tokens") or 0
    choices = max(_choices(done), 1)
    return True if used <= 3 * choices + choices else f"max_completion_tokens is ignored: {used} tokens for 3"


def _choices(done: Exchange) -> int:
    body = parse(done.text or "")
    found = body.get("choices") if isinstance(body, dict) else None
    return len(found) if isinstance(found, list) else 0


def _read(done: Exchange, plain: Exchange, what: str) -> Offer:
    """Whether the prompt of one request was read as the plain one's was."""
    here, there = (read_answer(e).tokens("prompt_tokens") for e in (done, plain))
    return f"{what} are dropped: {here} prompt tokens instead of {there}" if here and there and here < there else True


def _read_more(done: Exchange, plain: Exchange, why: str, least: int = 1) -> Offer:
    """Whether a request with more in it costs more prompt tokens than the plain one."""
    here, there = (read_answer(e).tokens("prompt_tokens") for e in (done, plain))
    return f"{why} ({here} prompt tokens, {there} without)" if here and there and here < there + least else True


def problem(done: Exchange) -> str:
    """What is wrong with a reply to /v1/models, for a person: the status, the server's words, or that it is no list."""
    if done.fault is not None:
        return done.detail
    body = parse(done.text or "")
    if not isinstance(body, dict):
        kind = done.headers.get("content-type", "no content type")
        return f"HTTP {done.status} with {kind}, which is no JSON: {' '.join((done.text or '').split())[:60]!r}; is the URL the API's?"
    return "it lists no models" if not body.get("error") else error_message(done.text)
