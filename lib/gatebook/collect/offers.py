"""What a server offers, by some ten small requests, and its own words for what it does not."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from gatebook.collect.client import Lane
from gatebook.config.policies import Feature, Offer
from gatebook.config.profile import THINKING_TOKENS
from gatebook.engines import refused
from gatebook.record.answer import THOUGHT
from gatebook.record.exchange import Exchange, Timing
from gatebook.record.logprobs import read_logprobs
from gatebook.record.replies import error_message, parse, read_answer

DEADLINE_S = 60.0
SHORT = 8
"""Tokens of the first answers."""
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
GET_TIME = {"name": "get_time", "description": "The time in a city.", "parameters": CITY}
TOOL = {"type": "function", "function": GET_TIME}
NAMED = {"type": "function", "function": {"name": "get_time"}}
COLOUR = {"colour": {"enum": ["grue", "bleen"]}}
SCHEMA = {"type": "object", "properties": COLOUR, "required": ["colour"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "colour", "schema": SCHEMA, "strict": True}}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
HELLO = "Say hello."
NOTE = " ".join(f"remark {n} of the caller" for n in range(12))
CALLED = {"name": "get_time", "arguments": json.dumps({"city": "Oslo", "note": NOTE})}
USER, SYSTEM = {"role": "user", "content": HELLO}, {"role": "system", "content": "Be brief."}
GREETED = {"role": "assistant", "content": "Hello."}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "call00001", "type": "function", "function": CALLED}]}
CALL_TOKENS = 80
"""A history with the call in it costs more than so many prompt tokens beside the question alone; without it, about 50."""
RESULT = {"role": "tool", "tool_call_id": "call00001", "content": "It is 09:41 in Oslo, and the sun is up."}
ANY = {"role": "user", "content": "Write any word that comes to your mind."}
PART = {"type": "text", "text": HELLO}
PICTURE = {"role": "user", "content": [PART, {"type": "image_url", "image_url": {"url": PIXEL}}]}
WORDS = "no list of messages"
STRANGER = "gatebook-no-such-model"
Ask = Callable[..., Awaitable[Exchange]]
GREETING = 256
"""Tokens in which the thoughts about a greeting begin, and the greeting of a model that does not think ends."""
WITHOUT = {"chat_template_kwargs": {"enable_thinking": False}}


@dataclass(frozen=True)
class Thinks:
    """Where thoughts appear by default, and whether a request can switch them off."""

    where: Literal["", "field", "text"] = ""
    heeds: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """For the profile's target: what clients get, without thoughts where they would be in the answers."""
        if self.where == "field":
            return {"thinking": "parsed", "thinking_tokens": THINKING_TOKENS}
        return {"request": WITHOUT} if self.where and self.heeds else {}

    def __str__(self) -> str:
        without = f"target.request: {WITHOUT}".replace("'", "").replace("False", "false")
        heeded = f"{without}, which it {'heeds' if self.heeds else 'does not heed'}"
        if self.where == "field":
            return f"it thinks, in the reasoning field: written as target.thinking: parsed; to gate it without thoughts, put in its place {heeded}"
        with_ = "start it with a reasoning parser and run `gatebook init` again"
        if self.heeds:
            return f"it thinks, and its thoughts stand in the text: written with {heeded}; to gate it with thoughts, {with_}"
        return f"it thinks, its thoughts stand in the text, and it does not heed {without}: every answer fails till you {with_}"


@dataclass(frozen=True)
class Learned:
    offers: dict[Feature, Offer]
    ttft_ms: float | None
    """First token of a short streamed answer; None when it was not streamed."""
    itl_ms: float | None
    """Between its further tokens."""
    told_as: str | None
    """The model's name in replies."""
    exchanges: list[Exchange]
    thinks: Thinks = Thinks()

    @property
    def greeting_ms(self) -> float | None:
        """What a greeting of 32 tokens takes at this speed."""
        return None if self.ttft_ms is None or self.itl_ms is None else self.ttft_ms + 31 * self.itl_ms


async def learn(lane: Lane, model: str, models: tuple[str, ...]) -> Learned:
    """Ask for each part of the API; never raises for what the server does. A part without a clear answer counts as offered."""
    exchanges: list[Exchange] = []
    common: dict[str, Any] = {}

    async def ask(**options: Any) -> Exchange:
        """A greedy greeting, but for these options; None takes one out."""
        body = {"model": model, "messages": [USER], "temperature": 0, **common, **options}
        body = {k: v for k, v in body.items() if v is not None}
        key = f"offer/{len(exchanges)}"
        exchanges.append(await lane.ask(kind="probe", key=key, body=body, deadline_s=DEADLINE_S, retries=1))
        return exchanges[-1]

    thinks, plain = await _thinks(ask)
    common |= thinks.settings.get("request", {})
    room = thinks.settings.get("thinking_tokens", 0)
    streamed = await ask(max_tokens=SHORT, stream=True, stream_options={"include_usage": True})
    extras = await _extras(ask, plain)
    auto = await ask(max_tokens=1, tools=[TOOL])
    named = await ask(max_tokens=1, tools=[TOOL], tool_choice=NAMED)
    schema = await ask(max_tokens=16 + room, response_format=FORMAT)
    anything = await ask(max_tokens=8 + room, response_format={"type": "json_object"})
    history = await ask(max_tokens=1, messages=[USER, CALL, RESULT, USER])
    second = await ask(max_tokens=1, messages=[SYSTEM, USER, GREETED, SYSTEM, USER])
    several = await ask(max_tokens=SHORT, messages=[ANY], temperature=None, n=2)  # greedy, vLLM refuses it
    stranger = await ask(max_tokens=1, model=STRANGER)
    drawn = max(_choices(several), 1)  # three draws in all
    sampled = [await ask(max_tokens=SHORT, messages=[ANY], temperature=None) for _ in range(drawn, 3)]

    def more(done: Exchange, why: str, least: int = 1) -> Offer:
        return _costs_more(plain, least, f"{why} ({{}} prompt tokens, {{}} without)", done)

    template = "its chat template"
    tools = _said_no(auto) or more(auto, f"{template} knows no tools")
    is_object = read_answer(anything).text.lstrip()[:1] in ("{", "")
    others = f"others: {', '.join(models[:3])}" if models else "no models"
    offers: dict[Feature, Offer] = {
        "lists_models": model in models or f"/v1/models lists {others}",
        **_streams(streamed),
        **extras,
        "tools_accepted": _said_no(auto) or True,
        "tools": tools,
        "tool_choice": _said_no(named) or tools,
        "parallel_tools": tools,
        "json_schema": _said_no(schema) or _follows(schema),
        "json_object": _said_no(anything) or is_object or "response_format is ignored",
        "tool_history": _refusal(history)
        or more(history, f"{template} drops tool calls or their results", CALL_TOKENS),
        "n": _said_no(several) or _choices(several) == 2 or "n is ignored",
        "second_system": _refusal(second) or more(second, f"{template} drops a second system message"),
        **_samples(several, sampled),
        "refuses_media": _refuses(await ask(max_tokens=1, messages=[PICTURE]), "an image"),
        "refuses_malformed": _refuses(
            await ask(max_tokens=1, messages=WORDS, temperature=None), "messages that are a text"
        ),
        "refuses_parameters": _refuses(await ask(max_tokens=1, temperature="warm"), "a temperature that is no number"),
        "unknown_model": stranger.fault is None or _refuses(stranger, "a model name that it does not serve"),
    }
    times, tokens = streamed.timing or Timing(queued_ms=0), read_answer(streamed).tokens("completion_tokens") or SHORT
    itl_ms, told_as = times.itl_ms(max(tokens, 2)), read_answer(plain).model
    return Learned(offers, times.first_token_ms, itl_ms, told_as, exchanges, thinks)


async def _thinks(ask: Ask) -> tuple[Thinks, Exchange]:
    """Ask for a greeting, and where it has thoughts for one without; the exchange is the one as the profile will ask."""
    greeted = await ask(max_tokens=GREETING)
    if not (where := _thoughts(greeted)):
        return Thinks(), greeted
    without = await ask(max_tokens=GREETING, **WITHOUT)
    thinks = Thinks(where, bool(read_answer(without).text.strip()) and not _thoughts(without))
    return thinks, without if "request" in thinks.settings else greeted


def _thoughts(done: Exchange) -> Literal["", "field", "text"]:
    answer = read_answer(done)
    return "field" if answer.reasoning.strip() else "text" if THOUGHT.search(answer.text) else ""


async def _extras(ask: Ask, plain: Exchange) -> dict[Feature, Offer]:
    """Ask for all options that a plain request may carry at once; where one is refused or ignored, for each alone."""
    text = read_answer(plain).text
    stop, dropped = text[2:4], "text parts are dropped: {} prompt tokens instead of {}"
    checks: dict[Feature, tuple[dict[str, Any], Callable[[Exchange], Offer]]] = {
        "logprobs": ({"logprobs": True, "top_logprobs": 2}, lambda e: bool(read_logprobs(e)) or "logprobs are ignored"),
        "max_completion_tokens": ({"max_completion_tokens": 3}, _kept_to_three),
        "stop": ({"stop": [stop]}, lambda e: stop not in read_answer(e).text or "the stop string stays in the text"),
        "text_parts": ({"messages": [{"role": "user", "content": [PART]}]}, partial(_costs_more, plain, 0, dropped)),
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


def _streams(streamed: Exchange) -> dict[Feature, Offer]:
    answer = read_answer(streamed)
    if streamed.fault is not None or streamed.events is None:
        return {}  # a stream that fails is no missing part: the gate says so
    return {
        "stream_usage": bool(answer.usage) or "include_usage is ignored",
        "stream_done": answer.done or "streams end without [DONE]",
    }


def _samples(several: Exchange, sampled: list[Exchange]) -> dict[Feature, Offer]:
    answers = [read_answer(e) for e in [several, *sampled] if e.fault is None]
    texts = {text for answer in answers for text in (answer.generated, *filter(None, answer.others.values()))}
    if len(texts) != 1 or any(e.fault for e in sampled):
        return {}
    return {"default_sampling": "without parameters its answers are all the same"}


def _follows(schema: Exchange) -> Offer:
    text = read_answer(schema).text
    begun = "".join(text.split())  # engines allow blanks between the parts, and the answer may be cut
    follows = any(whole.startswith(begun) for whole in ('{"colour":"grue"}', '{"colour":"bleen"}'))
    return follows or f"response_format is ignored: {text[:40]!r}"


def _refuses(done: Exchange, what: str) -> Offer:
    said = done.status is None or refused(done.status, done.detail)
    return said or f"{what} is answered with HTTP {done.status}"


def _said_no(done: Exchange) -> str | None:
    """Its refusal, in one line; None when it answered."""
    if done.fault is None:
        answer = read_answer(done)
        return answer.error if answer.error and not answer.choices else None
    return done.detail if done.status is not None else None


def _refusal(done: Exchange) -> str | None:
    """The same for what clients send to every server: its 5xx is no refusal but a fault, which the gate reports."""
    return None if done.status is not None and done.status >= 500 else _said_no(done)


def _kept_to_three(done: Exchange) -> Offer:
    used = read_answer(done).tokens("completion_tokens") or 0
    return used <= 4 * max(_choices(done), 1) or f"max_completion_tokens is ignored: {used} tokens for 3"


def _choices(done: Exchange) -> int:
    answer = read_answer(done)
    return answer.choices + len(answer.others)


def _costs_more(plain: Exchange, least: int, told: str, done: Exchange) -> Offer:
    """Whether a request costs at least so many more prompt tokens than the plain one; `told` takes both numbers."""
    here, there = (read_answer(e).tokens("prompt_tokens") for e in (done, plain))
    return not here or not there or here >= there + least or told.format(here, there)


def problem(done: Exchange) -> str:
    """What is wrong with a reply to /v1/models, for a person: the status, the server's words, or that it is no list."""
    if done.fault is not None:
        return done.detail
    body = parse(done.text or "")
    if not isinstance(body, dict):
        kind = done.headers.get("content-type", "no content type")
        return f"HTTP {done.status} with {kind}, which is no JSON: {' '.join((done.text or '').split())[:60]!r}; is the URL the API's?"
    return "it lists no models" if not body.get("error") else error_message(done.text)
