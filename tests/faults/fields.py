"""Faults of single fields, of the request on its way and of the answer on its way back. Registered like those of faults.py."""

from __future__ import annotations

import json

from tests.faults.call import Call, Event, Events, Json, Reply, dump
from tests.faults.faults import NEEDS_ARG, Context, answer_fault, fault, instead

NEEDS_ARG |= {"drop_field", "lose_field", "preamble", "reply"}


@fault
def reply(call: Call, context: Context) -> None:
    """200 with the JSON `arg`, whatever is asked."""
    call.reply = Reply(200, str(context.arg).encode())


@fault
def missing(call: Call, context: Context) -> None:
    """404: there is no such page."""
    call.reply = Reply(404, dump({"detail": "Not Found"}))


@fault
def drop_field(call: Call, context: Context) -> None:
    """The request field `arg` (seed, stop, max_tokens, tools ...) is ignored."""
    call.body.pop(str(context.arg), None)


@fault
def lose_field(call: Call, context: Context) -> None:
    """The field `arg` of the answer (id, model, usage.total_tokens, choices.logprobs ...) is missing."""
    *path, name = str(context.arg).split(".")

    def change(document: Json) -> None:
        owners = [document]
        for step in path:
            found = [owner.get(step) for owner in owners]
            owners = [item for value in found for item in (value if isinstance(value, list) else [value]) if item]
        for owner in owners:
            owner.pop(name, None)

    call.edit(change)


THOUGHTS = "The user wants an answer. I should be brief and to the point. "
ANSWER_TOKENS = 512
"""The most that a model that thinks says after its thoughts: the embedded one has no end, and is given room for thousands."""
THOUGHT_TOKENS = 12


@fault
def thinks(call: Call, context: Context) -> None:
    """A model that thinks, no fault: twelve tokens in the field `arg` (reasoning_content) first, unless enable_thinking is false."""
    cap, told = call.body.get("max_tokens"), call.body.get("chat_template_kwargs")
    if isinstance(told, dict) and told.get("enable_thinking") is False:
        return
    cut = isinstance(cap, int) and 0 < cap <= THOUGHT_TOKENS
    if isinstance(cap, int) and cap > THOUGHT_TOKENS:
        call.body["max_tokens"] = min(cap - THOUGHT_TOKENS, ANSWER_TOKENS)
    thought: set[int] = set()

    def change(document: Json) -> None:
        for choice in document.get("choices") or []:
            part, index = choice.get("delta") or choice.get("message") or {}, choice.get("index", 0)
            if part.get("content") and (cut or index not in thought):
                part[str(context.arg or "reasoning_content")] = part["content"] if cut else THOUGHTS
                part["content"] = None if cut else part["content"]
                thought.add(index)
            if choice.get("finish_reason") and cut:
                choice["finish_reason"] = "length"
        if usage := document.get("usage"):
            usage["completion_tokens"] = cap if cut else usage["completion_tokens"] + THOUGHT_TOKENS
            usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]

    call.edit(change)


@fault
def preamble(call: Call, context: Context) -> None:
    """The server puts `arg` before the system prompt (or makes one of it)."""
    messages = call.messages
    if messages and isinstance(messages[0], dict) and messages[0].get("role") == "system":
        messages[0]["content"] = f"{context.arg}\n{messages[0]['content']}"
    else:
        call.body["messages"] = [{"role": "system", "content": str(context.arg)}, *messages]


@answer_fault
async def overthink(events: Events, call: Call, context: Context) -> Events:
    """Thinking eats all tokens: the text is in reasoning_content, content is empty, finish_reason is length."""
    async for event in events:
        for choice, part in event.choices():
            if part.get("content"):
                part["reasoning_content"], part["content"] = part["content"], ""
            if choice.get("finish_reason"):
                choice["finish_reason"] = "length"
        yield event


@fault
def previous(call: Call, context: Context) -> None:
    """Answers swapped between users: the content is that of the answer before."""
    memory, mine = context.memory, [""]

    async def listen(events: Events) -> Events:
        async for event in events:
            mine[0] += "".join(part.get("content") or "" for _, part in event.choices())
            if event.finishes():
                memory["text"] = mine[0]
            yield event

    call.transforms.append(listen)
    if "text" in memory:
        instead(call, memory["text"])


@fault
def no_quotes(call: Call, context: Context) -> None:
    """A grammar without its escape branch: quotes and newlines inside JSON strings are dropped."""
    call.edit_parts(
        lambda part: part.update(content=part["content"].replace('\\"', "").replace("\\n", "").replace("\\", ""))
    )


@answer_fault
async def first_chunk_only(events: Events, call: Call, context: Context) -> Events:
    """The text ends after its first piece, and the envelope is complete with finish_reason stop."""
    seen = False
    async for event in events:
        for choice, part in event.choices():
            if part.get("content"):
                part["content"] = (
                    _first_words(part["content"]) if "message" in choice else "" if seen else part["content"]
                )
                seen = True
            if choice.get("finish_reason"):
                choice["finish_reason"] = "stop"
        yield event


def _first_words(text: str) -> str:
    return text[: max(len(text) // 8, 1)]


# --- conversations: what of a request never reaches the model --------------------------------------------------


@fault
def first_part(call: Call, context: Context) -> None:
    """Of content given as parts only the first is read."""
    for message in call.messages:
        if isinstance(message.get("content"), list):
            message["content"] = message["content"][:1]


@fault
def print_parts(call: Call, context: Context) -> None:
    """The template prints a list of parts into the prompt as it stands in the program."""
    for message in call.messages:
        if isinstance(message.get("content"), list):
            message["content"] = str(message["content"])


@fault
def drop_calls(call: Call, context: Context) -> None:
    """Tool calls of earlier turns are left out of the prompt, a template that knows tools would show them."""
    for message in call.messages:
        message.pop("tool_calls", None)


@fault
def show_calls(call: Call, context: Context) -> None:
    """A template that knows tools, not a fault: earlier tool calls stand in the prompt."""
    for message in call.messages:
        if message.get("tool_calls"):
            message["content"] = json.dumps([called["function"] for called in message.pop("tool_calls")])


@fault
def drop_results(call: Call, context: Context) -> None:
    """A template that opens a turn for the role tool and leaves out what the tool found."""
    for message in call.messages:
        if message.get("role") == "tool":
            message["content"] = ""


@fault
def one_system(call: Call, context: Context) -> None:
    """Of several system messages only the first is read."""
    system = [message for message in call.messages if message.get("role") == "system"]
    call.body["messages"] = [message for message in call.messages if message not in system[1:]]


@fault
def merge_calls(call: Call, context: Context) -> None:
    """Every streamed piece of a tool call says that it belongs to the first."""
    call.edit(lambda document: [piece.update(index=0) for piece in _pieces(document)])


@fault
def lose_call(call: Call, context: Context) -> None:
    """Tool calls after the first are lost on their way."""

    def change(document: Json) -> None:
        for _, part in Event(b"", document).choices():
            if part.get("tool_calls"):
                part["tool_calls"] = [piece for piece in part["tool_calls"] if not piece.get("index")]

    call.edit(change)


def _pieces(document: Json) -> list[Json]:
    return [piece for _, part in Event(b"", document).choices() for piece in part.get("tool_calls") or []]
