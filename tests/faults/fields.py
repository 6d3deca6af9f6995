"""Faults of single fields, of the request on its way and of the answer on its way back. Registered like those of faults.py."""

from __future__ import annotations

from tests.faults.call import Call, Events, Json, Reply, dump
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
