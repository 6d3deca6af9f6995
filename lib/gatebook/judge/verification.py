"""What a verification re-computed: one step each, with what was counted and what does not fit."""

from __future__ import annotations

from dataclasses import dataclass, field

from gatebook.judge.verdict import Verdict
from gatebook.record.run import Manifest


@dataclass(frozen=True)
class Step:
    """One thing that was checked."""

    what: str
    done: str
    """How much of it there was, in numbers."""
    wrong: str | None
    """What does not fit; None when all does."""
    more: str = ""
    """Lines that show it, as they were found."""


@dataclass
class Verification:
    """Everything that was re-computed of a bundle, in order."""

    run: str
    manifest: Manifest | None = None
    seal: str | None = None
    """SHA-256 of SHA256SUMS: it stands for the whole bundle, and is what a signature signs."""
    verdict: Verdict | None = None
    """Computed from the record now."""
    steps: list[Step] = field(default_factory=list)
    not_replayed: str | None = None
    """Which code of the bundle is not ours, so that no cell was executed."""

    @property
    def reproduced(self) -> bool:
        return self.verdict is not None and all(step.wrong is None for step in self.steps)

    @property
    def line(self) -> str:
        """What it comes to."""
        if self.not_replayed and self.verdict is not None and sum(step.wrong is not None for step in self.steps) == 1:
            return (
                f"NOT REPRODUCED: {self.run}: {self.not_replayed}; the rest was computed again: {self.verdict.verdict}"
            )
        if not self.reproduced or self.verdict is None:
            return f"NOT REPRODUCED: {self.run}: this bundle is not the evidence of the verdict that it states"
        partial = " PARTIAL" if self.verdict.partial else ""
        return f"reproduced, {self.verdict.verdict}{partial}: {self.run}: {self.verdict.reason}"
