"""The plan of a run, as `manifest.json` has it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from gatebook.config.files import file_name
from gatebook.config.profile import Profile, Suite, Target
from gatebook.config.selection import MOST_SHARDS, Effort, Look, of_quick, shard_text
from gatebook.record.exchange import Recorded


class Against(Recorded):
    """The second target, asked in turn with the one under test."""

    profile: str
    target: Target
    base_url: str

    @property
    def name(self) -> str:
        return f"{self.target.model} at {self.base_url}"


class Manifest(Recorded):
    """Who asks what of which model with which code; written before anything is asked."""

    schema_version: int = 1
    run: str
    created: str
    """UTC, ISO 8601."""
    profile: Profile
    base_url: str
    suite: Suite
    only: list[str] = []
    expected: dict[str, list[str]]
    """Notebook -> case ids, in the order in which they are asked."""
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}
    commit: str | None = None
    against: Against | None = None
    asked_by: str | None = None
    """Who started the run."""
    job_url: str | None = None
    """The CI job that it ran in."""
    judged_from: str | None = None
    """The run whose answers these are, when `gatebook judge` made this one."""
    shard: Annotated[str | None, AfterValidator(shard_text)] = None
    """`3/8` where only the third of eight parts of the cases is asked."""
    merged_from: Annotated[list[str], Field(max_length=MOST_SHARDS)] = []
    """The runs of the shards, in their order, when `gatebook merge` made this one."""
    yes_load: bool = False
    """Whether load may be asked beside requests that are not ours."""
    left_out: dict[str, int] = {}
    """Language -> cases of the suite that the profile's `languages` leave out."""
    among: Annotated[int, Field(ge=1)] = 1
    """Deployments that are gated together (`gatebook fleet`) and share one error budget."""
    effort: Effort = "normal"
    look: Annotated[Look | None, AfterValidator(of_quick)] = Field(default=None, validate_default=True)
    """The stages of effort quick: `expected` holds the cases before the look, and all of them once that settled nothing."""

    @field_validator("expected")
    @classmethod
    def _no_paths(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        return {file_name(notebook): ids for notebook, ids in value.items()}

    @property
    def partial(self) -> bool:
        return bool(self.only or self.shard)

    @property
    def narrowed(self) -> str:
        """What it is narrowed to; empty for a complete run."""
        return ", ".join([*([f"shard {self.shard}"] if self.shard else []), *self.only])

    @property
    def suite_told(self) -> str:
        """The suite, what it is narrowed to, and the effort that is not the normal one."""
        effort = "" if self.effort == "normal" else f", effort {self.effort}"
        return f"{self.suite}{f' (PARTIAL: {self.narrowed})' if self.partial else ''}{effort}"

    @property
    def early(self) -> bool:
        """Whether only the first stage is expected."""
        return self.look is not None and not self.look.went_on

    @property
    def level_share(self) -> float:
        """The share of every level of comparison that this stage of this deployment may spend."""
        return (1.0 if self.look is None else self.look.spent if self.early else 1 - self.look.spent) / self.among

    @property
    def answers_of(self) -> str | None:
        """The runs that asked, where this one asked nothing."""
        return self.judged_from or ", ".join(self.merged_from) or None
