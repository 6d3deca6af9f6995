"""The baseline: what a person accepted. Small, one line a case, readable in a diff."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import Field, ValidationError

from gatebook.checks.finding import Outcome
from gatebook.errors import BadInput
from gatebook.record.exchange import Recorded
from gatebook.verdict.fingerprint import case_of


class AcceptedCase(Recorded):
    group: str
    outcome: Outcome
    prompt: str
    """Hash of what was asked; another hash is another case."""
    measured: float | None = None
    """Coverage of the required facts, where the case has any."""
    score: float | None = None
    """Its graded score in [0, 1] (share of facts, words, identifiers ...), where its checks count anything; baselines from before have none."""


class Flips(Recorded):
    """How many of the compared cases turned between the accepted run and another one of the same deployment."""

    run: str
    paired: int
    turned: int

    @property
    def rate(self) -> float:
        return self.turned / self.paired


class Acceptance(Recorded):
    """One entry of the log: who took which run as the measure, why, and what that changed."""

    at: str
    """UTC, ISO 8601."""
    by: str
    run: str
    reason: str
    group: str | None = None
    """Only this group was taken over."""
    newly_passing: list[str] = []
    newly_failing: list[str] = []
    """Cases that passed in the baseline before and now count as failing, so that no later run is red for them."""
    added: list[str] = []
    gone: list[str] = []
    other_prompt: list[str] = []
    """Cases that are asked differently now."""
    fingerprint: list[str] = []
    """What of the deployment is not what it was, in words."""
    waived: list[str] = []
    """Failing cases that a waiver excused in the accepted run."""
    content: str | None = None
    """`Baseline.content` of what was accepted: a run that was compared with it can still be told from one with a baseline of its own."""


class Baseline(Recorded):
    """`params/baselines/<profile>.json`."""

    schema_version: int = 1
    profile: str
    run: str
    accepted: str
    """UTC, ISO 8601."""
    reason: str
    model: str
    revision: str | None
    suite: str
    languages: list[str] | None = Field(default=None, exclude_if=lambda value: not value)
    """Of the profile, where it named any: a case over a group of others is another question."""
    fingerprint: dict[str, Any]
    latency_ms: dict[str, float]
    """Medians of the run, for `run --plan`: ttft, total and tpot."""
    cases: dict[str, AcceptedCase]
    keywords: dict[str, list[str]] = {}
    """Case id -> key words of its answer: shown as drift, never judged."""
    flips: Flips | None = None
    """What `accept --again` measured."""
    log: list[Acceptance] = []
    """Every acceptance, oldest first; entries are only added."""

    @property
    def content(self) -> str:
        """SHA-256 of everything but the log."""
        said = json.dumps(self.model_dump(mode="json", exclude={"log"}), sort_keys=True)
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()

    def to_json(self) -> str:
        """Return stable text: sorted, one line per case and per acceptance."""
        data = self.model_dump(mode="json", exclude={"cases", "keywords", "log"})
        head = json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True)[:-2]
        cases = _rows({i: case.model_dump(mode="json", exclude_none=True) for i, case in self.cases.items()})
        more = f',\n "keywords": {{\n{_rows(self.keywords)}\n }}' if self.keywords else ""
        entries = (json.dumps(entry.model_dump(exclude_defaults=True), ensure_ascii=False) for entry in self.log)
        log = ",\n  ".join(entries)
        more += f',\n "log": [\n  {log}\n ]' if log else ""
        return f'{head},\n "cases": {{\n{cases}\n }}{more}\n}}\n'


def values_asked_alike(baseline: Baseline, prompts: dict[str, str]) -> dict[str, Any]:
    """Return the fingerprint without the values of cases that are asked differently now. `prompts`: case id -> hash."""
    old = {i: case.prompt for i, case in baseline.cases.items()}
    other = {i for i, prompt in prompts.items() if i in old and old[i] != prompt}
    return {name: value for name, value in baseline.fingerprint.items() if case_of(name) not in other}


def _rows(items: dict[str, Any]) -> str:
    rows = ((json.dumps(k), json.dumps(v, ensure_ascii=False, sort_keys=True)) for k, v in sorted(items.items()))
    return ",\n".join(f"  {key}: {value}" for key, value in rows)


def read_baseline(raw: bytes | None, where: str) -> Baseline | None:
    """Parse a baseline file; None stays None. Raises BadInput when it is damaged."""
    if raw is None:
        return None
    try:
        return Baseline.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise BadInput(
            f"{where}: {key} is not what a baseline has ({first['msg']}); accept a run again with `gatebook accept`"
        ) from None
