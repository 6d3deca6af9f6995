"""Which cases a run asks: by suite, by language, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from gatebook.config.cases import Case
from gatebook.config.profile import Suite
from gatebook.errors import BadInput

INCLUDES: dict[Suite, tuple[Suite, ...]] = {"integration": ("smoke",), "scenario": ("smoke", "integration")}
"""A case of a smaller suite runs in the larger one too; demo is a sample of its own, full is everything."""


def in_suite(case: Case, suite: Suite) -> bool:
    """Whether a case runs in a suite; everything is in `full`."""
    return suite == "full" or bool(set(case.suites) & {suite, *INCLUDES.get(suite, ())})


def in_languages(cases: Iterable[Case], languages: Collection[str] | None) -> list[Case]:
    """What a model of these languages is asked: of the cases and of their asks those that have no other; all without `languages`.
    A case over a group of which nothing is left is not left."""
    if languages is None:
        return list(cases)
    known, found = {None, *languages}, list(cases)
    had, left = {case.group for case in found}, [case for case in found if known.issuperset(case.languages)]
    have = {case.group for case in left}
    return [_of_asks(case, known) for case in left if case.over not in had or case.over in have]


def _of_asks(case: Case, known: Collection[str | None]) -> Case:
    asks = [ask for ask in case.asks if ask.language in known]
    return case if len(asks) == len(case.asks) else case.model_copy(update={"asks": asks})


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


def left_out(cases: Iterable[Case], suite: Suite, languages: Collection[str] | None) -> dict[str, int]:
    """Language -> cases of a suite that are tagged with it and not asked because the profile has other languages."""
    found = [case for case in cases if in_suite(case, suite)]
    asked = {case.id for case in in_languages(found, languages)}
    return dict(Counter(case.languages[-1] for case in found if case.languages and case.id not in asked))


def told_languages(languages: Collection[str] | None, out: dict[str, int]) -> str:
    """One line; empty where every language is asked."""
    if not languages:
        return ""
    told = ", ".join(f"{count} in {name}" for name, count in sorted(out.items())) or "none"
    return f"languages of the profile: {', '.join(languages)}; cases in others are not expected: {told}"


def _matches(case: Case, pattern: str) -> bool:
    return bool(pattern) and (case.notebook.startswith(pattern) or pattern in (case.group, case.id))
