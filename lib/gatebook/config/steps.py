"""Load cases as a profile asks them: a case a step, a case a long prompt, numbers in place of names."""

from __future__ import annotations

from collections.abc import Iterable

from gatebook.config.cases import Case, refuse_twins
from gatebook.config.policies import Level, Load, LoadSettings


def in_steps(cases: Iterable[Case], settings: LoadSettings) -> list[Case]:
    """Every case, load cases in the numbers of the profile. Raises BadInput when that gives two cases one id."""
    found = [one for case in cases for one in (_of(case, case.load, settings) if case.load else [case])]
    refuse_twins(found)
    return found


def _of(case: Case, load: Load, settings: LoadSettings) -> list[Case]:
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
    """The case at these levels. Each number reads a document of its own, so that no prefix cache has it."""
    load, document = Load(at_once=levels, requests=requests), case.document
    if document:
        own = {"seed": document.seed + number, "tokens": tokens or document.tokens}
        document = document.model_copy(update=own)
    return case.model_copy(update={"id": case.id + suffix, "load": load, "document": document})
