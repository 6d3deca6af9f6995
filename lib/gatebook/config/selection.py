"""Which cases a run asks: by suite, language and name, by effort, by shard; load cases in the numbers of the profile.

Everything is planned before anything is asked, and stands in the manifest. What a look decides: verdict/looking.py.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from math import ceil
from typing import Literal, NamedTuple, get_args

from pydantic import Field, ValidationInfo

from gatebook.config.cases import Case, refuse_twins
from gatebook.config.files import Strict
from gatebook.config.policies import Level, Load, LoadSettings
from gatebook.config.profile import Profile, Suite
from gatebook.errors import BadInput

INCLUDES: dict[Suite, tuple[Suite, ...]] = {"integration": ("smoke",), "scenario": ("smoke", "integration")}
"""A case of a smaller suite runs in the larger one too; demo is a sample of its own, full is everything."""
Effort = Literal["quick", "normal", "deep"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)
"""The lower before the higher."""
FIRST, FEWEST = 1 / 3, 8
"""Share of a group's cases that is asked before the look, and never fewer cases than FEWEST."""
SPENT = 1 / 16
"""So that look and end together have the level of a run that asks everything (a Haybittle-Peto boundary: Haybittle 1971, Peto et
al. 1976; the sum by Bonferroni)."""
MARGIN, WIDEST = 0.1, 0.25
"""Of few cases as much as they can exclude with one lost and what turns by chance, at most WIDEST."""
DEEPER, MOST_DRAWS = 4, 100
"""How many times as many draws a sampled case has under `deep`, and how many at most."""
MOST_SHARDS = 10_000


class Look(Strict):
    """What `--effort quick` planned: a look at a first part of the compared cases, and what is asked where it settles nothing."""

    later: list[str]
    """Ids of the cases that are not asked before the look."""
    spent: float = Field(default=SPENT, gt=0, lt=1)
    """Share of the levels of comparison that the look may spend; the end has the rest."""
    margin: float = Field(default=MARGIN, gt=0, lt=1)
    """An early PASS excludes, at 95 %, that a larger share of what passed in the baseline is lost."""
    went_on: bool = False
    """It settled nothing, so that everything is expected."""


def of_quick(look: Look | None, others: ValidationInfo) -> Look | None:
    """Refuse a look of another effort than quick, whose cases before it would pass for all, and an effort quick without one."""
    if (look is not None) != (others.data.get("effort") == "quick"):
        raise ValueError("a look belongs to effort quick, and effort quick has one")
    return look


class Shard(NamedTuple):
    """The `number`-th of `total` parts."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


def in_suite(case: Case, suite: Suite) -> bool:
    """Whether a case runs in a suite; everything is in `full`."""
    return suite == "full" or bool(set(case.suites) & {suite, *INCLUDES.get(suite, ())})


def in_languages(cases: Iterable[Case], languages: Collection[str] | None) -> list[Case]:
    """What a model of these languages is asked: the cases, and their asks, that need no other; all without `languages`.
    A case over a group of which nothing is left is not left."""
    found = list(cases)
    if languages is None:
        return found
    known = {None, *languages}
    left = [case for case in found if known.issuperset(case.languages)]
    had, have = ({case.group for case in some} for some in (found, left))

    def known_asks(case: Case) -> Case:
        asks = [ask for ask in case.asks if ask.language in known]
        return case if len(asks) == len(case.asks) else case.model_copy(update={"asks": asks})

    return [known_asks(case) for case in left if case.over not in had or case.over in have]


def select(
    cases: list[Case], suite: Suite, only: list[str] | None, languages: Collection[str] | None = None
) -> list[Case]:
    """The expected cases of a run, by notebook and then in file order. Raises BadInput when nothing is left.

    `only` holds beginnings of notebook names (`02`), group names or case ids.
    """
    chosen = in_languages((case for case in cases if in_suite(case, suite)), languages)
    where = f"suite {suite!r}" + (f" in {', '.join(languages)}" if languages else "")
    for pattern in only or []:
        if not any(_matches(case, pattern) for case in chosen):
            names = sorted({case.notebook for case in chosen})
            raise BadInput(f"--only {pattern!r} matches no case of {where}; notebooks here: {', '.join(names)}")
    if only:
        chosen = [case for case in chosen if any(_matches(case, pattern) for pattern in only)]
    if not chosen:
        raise BadInput(f"{where} selects no case; choose another with --suite")
    return sorted(chosen, key=lambda case: case.notebook)


def _matches(case: Case, pattern: str) -> bool:
    return bool(pattern) and (case.notebook.startswith(pattern) or pattern in (case.group, case.id))


def left_out(cases: Iterable[Case], suite: Suite, languages: Collection[str] | None) -> dict[str, int]:
    """Language -> cases of a suite that are tagged with it and not asked because the profile has other languages."""
    found = [case for case in cases if in_suite(case, suite)]
    asked = {case.id for case in in_languages(found, languages)}
    return dict(Counter(case.languages[-1] for case in found if case.languages and case.id not in asked))


def told_languages(languages: Collection[str] | None, out: dict[str, int]) -> str:
    """Report the languages in one line; empty where every language is asked."""
    if not languages:
        return ""
    told = ", ".join(f"{count} in {name}" for name, count in sorted(out.items())) or "none"
    return f"languages of the profile: {', '.join(languages)}; cases in others are not expected: {told}"


def in_steps(cases: Iterable[Case], settings: LoadSettings) -> list[Case]:
    """Every case, load cases in the numbers of the profile: a case a step, a case a long prompt.
    Raises BadInput when that gives two cases one id."""
    found = [one for case in cases for one in (_stepped(case, case.load, settings) if case.load else [case])]
    refuse_twins(found)
    return found


def _stepped(case: Case, load: Load, settings: LoadSettings) -> list[Case]:
    asked, long = load.requests, settings.long_prompts
    if load.at_once == ["step"]:
        return [_at([n], asked or max(settings.requests, 2 * n), case, f"-{n}") for n in settings.steps]
    if load.at_once == ["long_prompts"]:
        return [_at([long.at_once], asked, case, f"-{i + 1}", i, long.tokens) for i in range(long.at_once)]
    levels = dict.fromkeys(settings.peak if level == "peak" else level for level in load.at_once)
    return [_at(list(levels), asked, case)]


def _at(
    levels: list[Level], requests: int | None, case: Case, suffix: str = "", number: int = 0, tokens: int | None = None
) -> Case:
    """Return the case at these levels. Each number reads its own document, so that no prefix cache has it."""
    load, document = Load(at_once=levels, requests=requests), case.document
    if document:
        own = {"seed": document.seed + number, "tokens": tokens or document.tokens}
        document = document.model_copy(update=own)
    return case.model_copy(update={"id": case.id + suffix, "load": load, "document": document})


def later(profile: Profile, cases: list[Case]) -> list[str]:
    """The ids of the cases that `quick` asks only where the look at the others does not settle it. Raises BadInput without any.

    Whole clusters, chosen by the hash of their names: the same in every run. Never of a group under another policy than
    `no_worse`, timed, loaded, of the whole deployment, or looked at as a whole by another case.
    """
    looked_at = {case.over for case in cases}
    staged = [
        case
        for case in cases
        if profile.policy(case.group).policy == "no_worse"
        and case.group not in looked_at
        and not (case.samples or case.load or case.over or case.of_deployment)
    ]
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for case in staged:
        groups[case.group][case.cluster] += 1
    first: set[str] = set()
    for counts in groups.values():
        wanted, taken = max(FEWEST, ceil(FIRST * counts.total())), sum(counts[name] for name in first)
        for name in sorted(counts.keys() - first, key=lambda cluster: _sha256(f"first/{cluster}")):
            if taken < wanted:
                first.add(name)
                taken += counts[name]
    found = [case.id for case in staged if case.cluster not in first]
    if not found:
        raise BadInput(
            f"--effort quick: no group of the selection under no_worse has more than {FEWEST} cases that can wait, so everything would be asked; leave it out"
        )
    return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def of_effort(cases: list[Case], effort: Effort) -> list[Case]:
    """The cases as they are asked: under `deep` sampled ones with more draws of the same question. Raises BadInput where none is."""
    if effort != "deep":
        return cases
    if not any(case.draws for case in cases):
        raise BadInput(
            "--effort deep: no case of the selection is sampled (`draws`), so nothing would be asked more often; leave it out"
        )
    return [c.model_copy(update={"drawn": min(DEEPER * c.draws, MOST_DRAWS)}) if c.draws else c for c in cases]


def shard_of(text: str) -> Shard:
    """Parse `3/8`. Raises BadInput for anything else, and for a part that does not exist."""
    found = re.fullmatch(r"([1-9]\d{0,4})/([1-9]\d{0,4})", text, re.ASCII)
    if found is None or not (shard := Shard(*map(int, found.groups()))).number <= shard.total <= MOST_SHARDS:
        said = f"must be K/N with K from 1 to N, such as 3/8 (N at most {MOST_SHARDS:,})"
        raise BadInput(f"--shard has value {text!r}: {said}")
    return shard


def shard_text(text: str | None) -> str | None:
    """Check the text of a shard in a manifest. Raises ValueError."""
    try:
        return text and str(shard_of(text))
    except BadInput as error:
        raise ValueError(str(error)) from None


def part_of(cases: list[Case], shard: Shard) -> list[Case]:
    """The cases of a shard, in their order; of all shards together each stands in exactly one. Raises BadInput where it has none.

    Cases of one cluster stay together. Notebooks that time, load or take the fingerprint belong to the first shard, and so
    does what is judged from the outcomes of other cases: only the merged run has them all.
    """
    whole = {c.notebook for c in cases if c.samples or c.load or c.of_deployment or c.over in ("gauges", "settings")}

    def number(case: Case) -> int:
        first = case.notebook in whole or case.over is not None
        return 1 if first else int(_sha256(case.cluster)[:12], 16) % shard.total + 1

    found = [case for case in cases if number(case) == shard.number]
    if not found:
        raise BadInput(f"--shard {shard}: none of the {len(cases)} selected cases is in it; use fewer shards")
    return found
