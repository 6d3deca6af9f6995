"""One assistant reply, however it was sent."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from gatebook.engines.engine import Json, obj, whole_number

THOUGHT = re.compile(r"</?think(?:ing)?>", re.IGNORECASE)
"""How thoughts begin or end in a text."""


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants called; empty fields were left out."""

    name: str = ""
    arguments: str = ""
    """JSON text, as it was sent."""
    id: str = ""


@dataclass
class Answer:
    """One assistant reply. Fields that the server left out are None."""

    content: str | None = None
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    """Streamed pieces are joined by their index."""
    finish_reasons: list[str] = field(default_factory=list)
    usage: Json | None = None
    ids: set[str] = field(default_factory=set)
    created: int | None = None
    model: str | None = None
    choices: int = 0
    """Chunks (or replies) that carried a choice."""
    others: dict[int, str] = field(default_factory=dict)
    """The texts of further choices (`n`) by their index."""
    choice_indexes: set[int] = field(default_factory=set)
    """The indexes that were sent."""
    logprobs: list[Any] = field(default_factory=list)
    """Entries of `logprobs.content`, as they were sent."""
    done: bool = False
    """[DONE] was seen; true for a reply that is not streamed."""
    error: str | None = None
    """The server's own error message, in whatever way it stands in a body or in a stream."""
    error_code: int | None = None
    """The `code` or `status` that the error names: 400 where vLLM refuses inside a 200 stream."""
    malformed: str | None = None
    """What is wrong with the first piece that is no JSON object."""
    flaws: list[str] = field(default_factory=list)
    """What the official client cannot read, loses, or reads as something else, in words."""

    @property
    def text(self) -> str:
        return self.content or ""

    @property
    def generated(self) -> str:
        """The text; where there is none, what was thought."""
        return self.text if self.text.strip() else self.reasoning

    @property
    def thought_tokens(self) -> int:
        """Tokens of thoughts as usage reports them (`reasoning_tokens`)."""
        told = [obj(self.usage, *path).get("reasoning_tokens") for path in ((), ("completion_tokens_details",))]
        return max([n for n in told if isinstance(n, int) and n > 0], default=0)

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that a prefix cache answered for, where usage reports them."""
        return whole_number(obj(self.usage, "prompt_tokens_details").get("cached_tokens"))

    @property
    def has_thoughts(self) -> bool:
        """In their field, or hidden and counted."""
        return bool(self.reasoning.strip()) or self.thought_tokens > 0

    @property
    def ends_in_thoughts(self) -> bool:
        """Cut before the thoughts came to an end."""
        said = self.text.strip() or self.tool_calls
        return self.finish_reason == "length" and self.has_thoughts and not said

    @property
    def has_token(self) -> bool:
        """Whether there is generated text: content, reasoning or tool calls. A role alone is not a token."""
        return bool(self.content or self.reasoning or self.tool_calls)

    @property
    def has_anything(self) -> bool:
        """Whether a client would miss something if it were lost."""
        return bool(self.has_token or self.finish_reasons or self.usage)

    @property
    def finish_reason(self) -> str | None:
        return self.finish_reasons[-1] if self.finish_reasons else None

    def texts(self) -> list[str]:
        """Every text of the answer that a server may have sent in several pieces."""
        calls = [text for call in self.tool_calls for text in (call.name, call.arguments, call.id)]
        entries = [obj(entry) for entry in self.logprobs]
        tokens = "".join(str(entry.get("token")) for entry in entries)
        raw = [b for entry in entries if isinstance(some := entry.get("bytes"), list) for b in some]
        packed = "".join(chr(b) for b in raw if type(b) is int and 0 <= b < 256)
        said = [self.text, self.reasoning, self.error or "", self.malformed or "", tokens, packed]
        return [*said, *calls, *self.others.values(), *self.flaws, *self.ids, *self.finish_reasons]

    def tokens(self, name: str) -> int | None:
        """`prompt_tokens`, `completion_tokens` or `total_tokens` from usage, when it is a whole number."""
        return whole_number(obj(self.usage).get(name))
