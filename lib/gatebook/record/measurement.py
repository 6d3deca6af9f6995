"""One row of the history: how fast one group of one run was answered, and what it was asked by and of."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field

from gatebook.record.exchange import Recorded

Instant = Annotated[AwareDatetime, AfterValidator(lambda at: at.astimezone(UTC))]
"""In UTC, whatever zone it was given in; without a zone it is no instant."""


class Measurement(Recorded):
    """Latencies in milliseconds over the valid samples of one group (warm-up and invalid samples are not in them).

    Two rows compare when `key` is the same. Revision and engine version are not part of it, so that an upgrade is
    compared with the week before it.
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
    """What the profile says was deployed; `not NAME` when the fingerprint showed that something else answered."""
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
