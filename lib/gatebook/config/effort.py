"""How much of the compared cases is asked: a first part with one look at it, everything, or sampled cases more often.

Everything here is planned before anything is asked, and stands in the manifest. What a look decides: verdict/looking.py.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection
from math import ceil
from typing import Literal, get_args

from pydantic import ConfigDict, Field

from gatebook.config.cases import FINGERPRINT, Case
from gatebook.config.files import Lean
from gatebook.config.profile import Profile
from gatebook.config.shards import MEASURES_ALL
from gatebook.errors import BadInput

Effort = Literal["quick", "normal", "deep"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)
"""The lower before the higher."""
FIRST, FEWEST = 1 / 3, 8
"""Of a group's cases, what is asked before the look: so many of them, and never fewer cases than FEWEST."""
SPENT = 1 / 16
"""The share of every level of comparison that the look may spend; the end has the rest, so that both together have the level of a
run that asks everything (a Haybittle-Peto boundary: Haybittle 1971, Peto et al. 1976; the sum by Bonferroni)."""
MARGIN, WIDEST = 0.1, 0.25
"""An early PASS excludes, at 95 %, that more than this share of what passed in the baseline is lost; of few cases so much as they
can exclude with one lost and what turns by chance, at most WIDEST."""
DEEPER = 4
"""How many times as many draws a sampled case has under `deep`."""
MOST_DRAWS = 100


class Look(Lean):
    """What `--effort quick` planned: a look at a first part of the compared cases, and what is asked where it settles nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    later: list[str]
    """Ids of the cases that are not asked before the look."""
    spent: float = Field(default=SPENT, gt=0, lt=1)
    """Share of the levels of comparison that the look may spend; the end has the rest."""
    margin: float = Field(default=MARGIN, gt=0, lt=1)
    """An early PASS excludes, at 95 %, that a larger share of what passed in the baseline is lost."""
    went_on: bool = False
    """It settled nothing, so that everything is expected."""


def later(profile: Profile, cases: list[Case]) -> list[str]:
    """The ids of the cases that `quick` asks only where the look at the others does not settle it. Raises BadInput without any.

    Whole clusters, chosen by the hash of their names: the same in every run. Never of a group under another policy than
    `no_worse`, timed, loaded, scored, of the fingerprint, or looked at as a whole by another case.
    """
    looked_at = {case.over for case in cases}
    strata: dict[str, dict[str, list[Case]]] = defaultdict(lambda: defaultdict(list))
    for case in cases:
        if _staged(case, profile, looked_at):
            strata[case.group][case.cluster].append(case)
    first: set[str] = set()
    for clusters in strata.values():
        wanted = max(FEWEST, ceil(FIRST * sum(map(len, clusters.values()))))
        for name in sorted(clusters, key=_draw):
            if sum(len(clusters[taken]) for taken in clusters.keys() & first) < wanted:
                first.add(name)
    found = [c.id for c in cases if c.cluster not in first and _staged(c, profile, looked_at)]
    if not found:
        raise BadInput(
            f"--effort quick: no group of the selection under no_worse has more than {FEWEST} cases that can wait, so everything would be asked; leave it out"
        )
    return found


def _staged(case: Case, profile: Profile, looked_at: Collection[str | None]) -> bool:
    whole = case.samples or case.load or case.over or case.group in looked_at
    measured = any(name in MEASURES_ALL or name in FINGERPRINT for item in case.expect for name in item)
    return profile.policy(case.group).policy == "no_worse" and not whole and not measured


def _draw(name: str) -> str:
    return hashlib.sha256(f"first/{name}".encode()).hexdigest()


def of_effort(cases: list[Case], effort: Effort) -> list[Case]:
    """The cases as they are asked: under `deep` sampled ones with more draws of the same question. Raises BadInput where none is."""
    if effort != "deep":
        return cases
    if not any(case.draws for case in cases):
        raise BadInput(
            "--effort deep: no case of the selection is sampled (`draws`), so nothing would be asked more often; leave it out"
        )
    return [c.model_copy(update={"drawn": min(DEEPER * c.draws, MOST_DRAWS)}) if c.draws else c for c in cases]
