"""A part of a run's cases, by hash: many workers ask one suite, and `gatebook merge` makes one verdict of it."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

from gatebook.errors import BadInput

if TYPE_CHECKING:
    from gatebook.config.cases import Case

MOST = 10_000
"""Shards of one run."""
MEASURES_ALL = frozenset(
    {"prompt_tokens", "first_token_logprobs", "greedy_logprobs", "default_samples", "golden_logprobs"}
)
"""Checks whose values describe the whole deployment and are compared together."""


class Shard(NamedTuple):
    """The `number`-th of `total` parts."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


def shard_of(text: str) -> Shard:
    """`3/8`. Raises BadInput for anything else, and for parts that there are not."""
    found = re.fullmatch(r"([1-9]\d{0,4})/([1-9]\d{0,4})", text, re.ASCII)
    if found is None or not (shard := Shard(*map(int, found.groups()))).number <= shard.total <= MOST:
        raise BadInput(f"--shard has value {text!r}: must be K/N with K from 1 to N, such as 3/8 (N at most {MOST:,})")
    return shard


def shard_text(text: str | None) -> str | None:
    """The same in a manifest. Raises ValueError."""
    try:
        return text and str(shard_of(text))
    except BadInput as error:
        raise ValueError(str(error)) from None


def part_of(cases: list[Case], shard: Shard) -> list[Case]:
    """The cases of a shard, in their order; of all shards together each stands in exactly one. Raises BadInput where it has none.

    Cases of one cluster stay together. Notebooks that time, load or take the fingerprint belong to the first shard, and so
    does what is judged from the outcomes of other cases: only the merged run has them all.
    """
    whole = {case.notebook for case in cases if case.samples or case.load or _measures_all(case)}
    found = [case for case in cases if _number(case, whole, shard.total) == shard.number]
    if not found:
        raise BadInput(f"--shard {shard}: none of the {len(cases)} selected cases is in it; use fewer shards")
    return found


def _measures_all(case: Case) -> bool:
    return case.over in ("gauges", "settings") or any(name in MEASURES_ALL for item in case.expect for name in item)


def _number(case: Case, whole: set[str], total: int) -> int:
    if case.notebook in whole or case.over is not None:
        return 1
    return int(hashlib.sha256(case.cluster.encode()).hexdigest()[:12], 16) % total + 1
