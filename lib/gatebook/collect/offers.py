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
NAMED = {"type": "function", "function": {"name": "get_time"}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"colour": {"enum": ["grue", "bleen"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "colour", "schema": SCHEMA, "strict": True}}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
HELLO = "Say hello."
NOTE = " ".join(f"remark {n} of the caller" for n in range(12))
CITY = {"name": "get_time", "arguments": json.dumps({"city": "Oslo", "note": NOTE})}
USER, SYSTEM = {"role": "user", "content": HELLO}, {"role": "system", "content": "Be brief."}
GREETED = {"role": "assistant", "content": "Hello."}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "call00001", "type": "function", "function": CITY}]}
CALL_TOKENS = 80
"""A history with the call in it costs more than so many prompt tokens beside the question alone; without it, about 50."""
RESULT = {"role": "tool", "tool_call_id": "call00001", "content": "It is 09:41 in Oslo, and the sun is up."}
ANY = {"role": "user", "content": "Write any word that comes to your mind."}
PART = {"type": "text", "text": HELLO}
IMAGE = {"type": "image_url", "image_url": {"url": PIXEL}}
Ask = Callable[..., Awaitable[Exchange]]


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
    exchanges: list[Exchange] = []

    async def ask(**options: Any) -> Exchange:
        """A greedy greeting, but for these options; None takes one out."""
        body = {"model": model, "messages": [USER], "temperature": 0, **options}
        body = {k: v for k, v in body.items() if v is not None}
        key = f"offer/{len(exchanges)}"
        exchanges.append(await lane.ask(kind="probe", key=key, body=body, deadline_s=DEADLINE_S, retries=1))
        return exchanges[-1]

    plain = await ask(max_tokens=SHORT)
    streamed = await ask(max_tokens=SHORT, stream=True, stream_options={"include_usage": True})
    extras = await _extras(ask, plain)
    auto = await ask(max_tokens=1, tools=[TOOL])
    named = await ask(max_tokens=1, tools=[TOOL], tool_choice=NAMED)
    schema = await ask(max_tokens=16, response_format=FORMAT)
    anything = await ask(max_tokens=8, response_format={"type": "json_object"})
    history = await ask(max_tokens=1, messages=[USER, CALL, RESULT, USER])
    second = await ask(max_tokens=1, messages=[SYSTEM, USER, GREETED, SYSTEM, USER])
    several = await ask(max_tokens=SHORT, messages=[ANY], temperature=None, n=2)  # greedy, vLLM refuses it
    sampled = [await ask(max_tokens=SHORT, messages=[ANY], temperature=None) for _ in range(2)]
    media = await ask(max_tokens=1, messages=[{"role": "user", "content": [PART, IMAGE]}])
    malformed = await ask(max_tokens=1, messages="no list of messages", temperature=None)
    out = await ask(max_tokens=1, temperature="warm")

    def more(done: Exchange, why: str, least: int = 1) -> Offer:
        return _costs_more(done, plain, least, f"{why} ({{}} prompt tokens, {{}} without)")

    tools = _said_no(auto) or more(auto, "its chat template knows no tools")
    calls, system = "drops tool calls or their results", "drops a second system message"
    offers: dict[Feature, Offer] = {
        "lists_models": _lists(model, models),
        **_streams(streamed),
        **extras,
        "tools_accepted": _said_no(auto) or True,
        "tools": tools,
        "tool_choice": _said_no(named) or tools,
        "parallel_tools": tools,
        "json_schema": _said_no(schema) or _follows(schema),
        "json_object": _said_no(anything) or _begins(anything),
        "tool_history": _refusal(history) or more(history, f"its chat template {calls}", CALL_TOKENS),
        "n": _said_no(several) or (True if _choices(several) == 2 else "n is ignored"),
        "second_system": _refusal(second) or more(second, f"its chat template {system}"),
        **_samples(several, sampled),
        "refuses_media": _refuses(media, "an image"),
        "refuses_malformed": _refuses(malformed, "messages that are a text"),
        "refuses_parameters": _refuses(out, "a temperature that is no number"),
    }
    return Learned(offers, *_times(streamed), read_answer(plain).model, exchanges)


async def _extras(ask: Ask, plain: Exchange) -> dict[Feature, Offer]:
    """All options that a plain request may carry in one; where one of them is refused or not seen, each alone."""
    text = read_answer(plain).text
    stop, dropped = text[2:4], "text parts are dropped: {} prompt tokens instead of {}"
    checks: dict[Feature, tuple[dict[str, Any], Callable[[Exchange], Offer]]] = {
        "logprobs": (
            {"logprobs": True, "top_logprobs": 2},
            lambda e: True if read_logprobs(e) else "logprobs are ignored",
        ),
        "max_completion_tokens": ({"max_completion_tokens": 3}, _kept_to_three),
        "stop": (
            {"stop": [stop]},
            lambda e: "the stop string stays in the text" if stop in read_answer(e).text else True,
        ),
        "text_parts": (
            {"messages": [{"role": "user", "content": [PART]}]},
            lambda e: _costs_more(e, plain, 0, dropped),
        ),
    }
    if len(text) <= 6:
        del checks["stop"]
    together = await ask(**{name: value for options, _ in checks.values() for name, value in options.items()})
    offers = {feature: judge(together) for feature, (_, judge) in checks.items()}
    if together.fault is None and all(said is True for said in offers.values()):
        return offers
    for feature, (options, judge) in checks.items():
        done = await ask(**{"max_tokens": None if feature == "max_completion_tokens" else 8, **options})
        no = _refusal if feature in ("max_completion_tokens", "text_parts") else _said_no
        offers[feature] = no(done) or judge(done)
    return offers


def _times(streamed: Exchange) -> tuple[float | None, float | None]:
    """(time to first token, mean time between tokens) in ms."""
    timing, tokens = streamed.timing, read_answer(streamed).tokens("completion_tokens") or SHORT
    if timing is None or timing.first_token_ms is None or timing.last_token_ms is None:
        return None, None
    return timing.first_token_ms, (timing.last_token_ms - timing.first_token_ms) / max(tokens - 1, 1)


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


def _samples(several: Exchange, sampled: list[Exchange]) -> dict[Feature, Offer]:
    texts = {read_answer(e).text for e in [several, *sampled] if e.fault is None}
    if len(texts) != 1 or any(e.fault for e in sampled):
        return {}
    return {"default_sampling": "without parameters its answers are all the same"}


def _follows(schema: Exchange) -> Offer:
    text = read_answer(schema).text
    begun = "".join(text.split())  # engines allow blanks between the parts, and the answer may be cut
    follows = any(whole.startswith(begun) for whole in ('{"colour":"grue"}', '{"colour":"bleen"}'))
    return True if follows else f"response_format is ignored: {text[:40]!r}"


def _begins(done: Exchange) -> Offer:
    return True if read_answer(done).text.lstrip()[:1] in ("{", "") else "response_format is ignored"


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
    at_most = 4 * max(_choices(done), 1)
    return True if used <= at_most else f"max_completion_tokens is ignored: {used} tokens for 3"


def _choices(done: Exchange) -> int:
    body = parse(done.text or "")
    found = body.get("choices") if isinstance(body, dict) else None
    return len(found) if isinstance(found, list) else 0


def _costs_more(done: Exchange, plain: Exchange, least: int, told: str) -> Offer:
    """Whether a request costs so many more prompt tokens than the plain one; `told` takes both numbers."""
    here, there = (read_answer(e).tokens("prompt_tokens") for e in (done, plain))
    return told.format(here, there) if here and there and here < there + least else True


def problem(done: Exchange) -> str:
    """What is wrong with a reply to /v1/models, for a person: the status, the server's words, or that it is no list."""
    if done.fault is not None:
        return done.detail
    body = parse(done.text or "")
    if not isinstance(body, dict):
        kind = done.headers.get("content-type", "no content type")
        return f"HTTP {done.status} with {kind}, which is no JSON: {' '.join((done.text or '').split())[:60]!r}; is the URL the API's?"
    return "it lists no models" if not body.get("error") else error_message(done.text)
