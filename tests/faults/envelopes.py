"""Wrong and harmless variations of a whole reply, for the contract that every answer must keep."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

Envelope = dict[str, Any]
Edit = Callable[[Envelope, random.Random], None]


def _message(reply: Envelope) -> dict[str, Any]:
    message: dict[str, Any] = reply["choices"][0]["message"]
    return message


def _text(change: Callable[[str, random.Random], str]) -> Edit:
    def edit(reply: Envelope, dice: random.Random) -> None:
        message = _message(reply)
        message["content"] = change(message["content"], dice)

    return edit


def _put(text: str, piece: str, dice: random.Random) -> str:
    at = dice.randrange(len(text)) if text else 0
    return text[:at] + piece + text[at:]


def _reasoning(reply: Envelope, dice: random.Random) -> None:
    message = _message(reply)
    message[dice.choice(("reasoning", "reasoning_content"))] = message["content"]
    message["content"] = dice.choice((None, ""))


def _usage(**changes: Any) -> Edit:
    return lambda reply, dice: reply["usage"].update(changes)


WRONG: dict[str, Edit] = {
    "U+FFFD": _text(lambda text, dice: _put(text, "\ufffd", dice)),
    "mojibake": _text(lambda text, dice: text + " " + "你好，世界".encode().decode("latin-1")),
    "special token": _text(
        lambda text, dice: _put(
            text, dice.choice(("<|im_end|>", "<|endoftext|>", "[/INST]", "<end_of_turn>", "<|eot_id|>")), dice
        )
    ),
    "thinking": _text(lambda text, dice: f"<think>\n{dice.choice(('Hm.', ''))}\n</think>\n\n{text}"),
    "role": _text(lambda text, dice: f"{dice.choice(('assistant', 'user', 'system'))}\n{text}"),
    "empty": _text(lambda text, dice: ""),
    "blank": _text(lambda text, dice: dice.choice((" ", "\n\n", "\t"))),
    "null": lambda reply, dice: _message(reply).update(content=None),
    "reasoning": _reasoning,
    "no choices": lambda reply, dice: reply.update(choices=[]),
    "no finish": lambda reply, dice: reply["choices"][0].update(finish_reason=None),
    "strange finish": lambda reply, dice: reply["choices"][0].update(
        finish_reason=dice.choice(("done", "eos", "abort", "error"))
    ),
    "no usage": lambda reply, dice: reply.pop("usage"),
    "half a usage": lambda reply, dice: reply["usage"].pop(dice.choice(sorted(reply["usage"]))),
    "zero usage": _usage(prompt_tokens=0, completion_tokens=0, total_tokens=0),
    "wrong sum": lambda reply, dice: reply["usage"].update(
        total_tokens=reply["usage"]["total_tokens"] + dice.choice((-1, 1, 100))
    ),
    "too many tokens": _usage(completion_tokens=99_999, total_tokens=100_007),
    "other model": lambda reply, dice: reply.update(
        model=dice.choice(("other", reply["model"] + "-mini", reply["model"].upper()))
    ),
    "error inside": lambda reply, dice: reply.update(error={"message": "engine died", "code": 500}),
    "old": lambda reply, dice: reply.update(created=1_700_000_000 + dice.randrange(9_999)),
}
HARMLESS: dict[str, Edit] = {
    "unknown fields": lambda reply, dice: reply.update(
        system_fingerprint="fp", service_tier="default", timings={"x": 1}
    ),
    "usage details": lambda reply, dice: reply["usage"].update(
        prompt_tokens_details={"cached_tokens": 3}, completion_tokens_details=None
    ),
    "dated model": lambda reply, dice: reply.update(model=reply["model"] + "-2026-01-31"),
    "empty reasoning": lambda reply, dice: _message(reply).update(reasoning_content=None, refusal=None, tool_calls=[]),
    "trailing newline": _text(lambda text, dice: text + "\n" * dice.randrange(1, 3)),
    "no created": lambda reply, dice: reply.pop("created"),
    "logprobs": lambda reply, dice: reply["choices"][0].update(logprobs=None, stop_reason=None),
    "emoji": _text(lambda text, dice: text + dice.choice((" 🙂", " 👩‍🚀", " ✓", " é", " ½"))),
}


def edited(reply: Envelope, edit: Edit, dice: random.Random) -> Envelope:
    copy = deepcopy(reply)
    edit(copy, dice)
    return copy
