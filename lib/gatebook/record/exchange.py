"""The rows that are recorded: exchanges (a request, everything that came back, and when), and measurements for the history."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field

from gatebook.config.files import Lean, demand
from gatebook.engines import REFUSED_KEY

Kind = Literal["ready", "probe", "ask", "canary", "stop", "skip", "note", "against", "parent", "replica"]
"""`against` went to the second target, `replica` to one of target.replicas, `parent` to the model that the one under test adapts.
`stop` (from there on) and `skip` (one request) say why something was not asked; by a `note` nothing is judged."""
FaultKind = Literal["connect", "no_byte", "deadline", "broken", "status"]
Packing = Literal["packed", "not packed", "broken", "more", "unknown"]
"""`more`: bytes after the packed ones, which clients ignore. `unknown`: no text, and packed in a way that the client cannot undo."""

ELSEWHERE = frozenset({"against", "replica"})
"""Kinds of requests that did not go to the address under test."""
BUSY = frozenset({429, 502, 503, 504})
PASSING = REFUSED_KEY | {408, 425, 429}
"""4xx of the moment or of who asks: the same request may be answered later."""

OUT_OF_TIME, GONE = ("limits.notebook_deadline_s", "limits.run_deadline_s"), "the server is gone"
IN_USE = "others use the server"
"""How the detail of a stop begins: at our own deadline, where nobody listens any more, or where load would meet others' requests."""
OVER_BUDGET, HANGING = "limits.tokens", "this kind of request hangs"
"""How the detail of a skip begins: the token budget has no room for it, or its like hung before."""


class Recorded(Lean):
    model_config = ConfigDict(extra="forbid", frozen=True)


Time = Annotated[str, demand(datetime.fromisoformat, "is no time")]
"""UTC, ISO 8601."""
Instant = Annotated[AwareDatetime, AfterValidator(lambda at: at.astimezone(UTC))]
"""In UTC, whatever zone it was given in; without a zone it is refused."""


class Attempt(Recorded):
    """One try on the wire."""

    at: Time
    elapsed_ms: float
    status: int | None = None
    fault: FaultKind | None = None
    detail: str = ""


class Timing(Recorded):
    """Milliseconds since the request of the last attempt was sent, its connection made; missing is null, never 0."""

    queued_ms: float
    """From schedule to the first attempt: our own waiting."""
    headers_ms: float | None = None
    first_chunk_ms: float | None = None
    first_token_ms: float | None = None
    """First chunk with content, reasoning or tool calls: TTFT."""
    last_token_ms: float | None = None
    end_ms: float | None = None
    from_schedule_ms: float | None = None

    def itl_ms(self, tokens: int | None) -> float | None:
        """Mean time between the tokens of an answer (ITL, TPOT): (last - first) / (completion tokens - 1)."""
        if self.first_token_ms is None or self.last_token_ms is None or not tokens or tokens < 2:
            return None
        return (self.last_token_ms - self.first_token_ms) / (tokens - 1)


class Client(Recorded):
    """What makes a latency sample valid."""

    in_flight: int
    cpu_share: float | None = None
    """CPU seconds of this process per wall second while the request was open."""
    loop_lag_ms: float | None = None
    """Largest delay of our event loop while the request was open."""


class Exchange(Recorded):
    """The unit of the record."""

    kind: Kind
    key: str
    """Unique in a notebook's record: `<case>/<ask>`."""
    case: str | None = None
    ask: str = ""
    target: str | None = None
    """Model and base URL of the second target, or the base URL of a replica; null for the address under test."""
    at: Time
    method: str = "POST"
    path: str = ""
    body: dict[str, Any] | None = None
    """The request as sent."""
    attempts: list[Attempt] = []
    status: int | None = None
    headers: dict[str, str] = {}
    events: list[tuple[float, str]] | None = None
    """A streamed reply: arrival in ms and the data of every server-sent event."""
    lines: list[tuple[int, str]] | None = None
    """(number of events before it, line) for each line of a stream that clients do not read, each text once: comments, event, id
    and retry fields, what is no field of the SSE standard, and data that no blank line ended."""
    text: str | None = None
    """A reply that was not streamed, or not a stream."""
    invalid_utf8: bool = False
    packing: Packing | None = None
    """The state of a body with a content coding; events and text are unpacked where possible."""
    after_done: Literal["open", "broken"] | None = None
    """What the connection did after [DONE] instead of closing. The answer is complete."""
    fault: FaultKind | None = None
    """Why there is no complete reply. A status other than 200 is `status`."""
    detail: str = ""
    timing: Timing | None = None
    client: Client | None = None

    @property
    def refused_for_good(self) -> bool:
        """A 4xx that the same request will get again: not of credentials, load or a time-out."""
        return 400 <= (self.status or 0) < 500 and self.status not in PASSING

    def had(self, seconds: float) -> bool:
        """Whether all attempts together were open that long, with 50 ms left to rounding."""
        if not self.attempts:
            return False
        first, last = (datetime.fromisoformat(a.at) for a in (self.attempts[0], self.attempts[-1]))
        return (last - first).total_seconds() + self.attempts[-1].elapsed_ms / 1000 >= seconds - 0.05

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The request's messages; whatever a hostile request sends in the place of one becomes its content."""
        sent = (self.body or {}).get("messages") or []
        return [m if isinstance(m, dict) else {"content": m} for m in (sent if isinstance(sent, list) else [sent])]


class Measurement(Recorded):
    """A row of the history: latencies in ms over the valid samples of one group of one run, without its warm-up.

    Rows with the same `key` are compared. It leaves out revision and engine version, so that an upgrade is compared with
    the week before it.
    """

    run: str
    group: str
    at: Instant
    """UTC: when the run was made."""
    profile: str
    engine: str
    gpu: str
    """Its name, or `none`."""
    suite: str
    workload: str
    """SHA-256 of what was asked of this group: prompts, options, concurrency, cache state."""
    revision: str | None = None
    """The profile's revision; `not NAME` when the fingerprint showed that something else answered."""
    engine_version: str | None = None
    verdict: str
    accepted: bool
    """Whether later runs may be compared with it: the run was PASS, or a person accepted it."""
    n: int = Field(ge=0)
    """Valid samples."""
    ttft_ms: list[float] = []
    itl_ms: list[float] = []
    """Mean time between tokens of each answer."""
    total_ms: list[float] = []
    prompt_tokens: list[int] = []
    completion_tokens: list[int] = []
    requests_per_s: float | None = None
    tokens_per_s: float | None = None
    """Generated tokens a second, all requests together."""
    gpu_peak_mib: float | None = None

    @property
    def key(self) -> tuple[str, str, str, str, str, str]:
        return self.profile, self.engine, self.gpu, self.suite, self.group, self.workload
