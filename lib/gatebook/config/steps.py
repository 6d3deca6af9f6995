"""Load cases as a profile asks them: a case a step, a case a long prompt, numbers in place of names."""

from __future__ import annotations

from collections.abc import Iterable

from gatebook.config.cases import Case, refuse_twins
from gatebook.config.policies import Level, Load, LoadSettings


def in_steps(cases: Iterable[Case], settings: LoadSettings) -> list[Case]:
    """Every case, load cases in the numbers of the profile. Raises BadInput when that gives two cases one id."""
    found = [one for case in cases for one in _of(case, settings)]
    refuse_twins(found)
    return found


def _of(case: Case, settings: LoadSettings) -> list[Case]:
    load = case.load
    if load is None:
        return [case]
    if load.at_once == ["step"]:
        return [
            _at(case, f"{case.id}-{n}", [n], load.requests or max(settings.requests, 2 * n)) for n in settings.steps
        ]
    if load.at_once == ["long_prompts"]:
        long = settings.long_prompts
        return [
            _with_document(_at(case, f"{case.id}-{i + 1}", [long.at_once], load.requests), i, long.tokens)
            for i in range(long.at_once)
        ]
    numbers = dict.fromkeys(settings.peak if level == "peak" else level for level in load.at_once)
    return [_at(case, case.id, list(numbers), load.requests)]


def _at(case: Case, name: str, at_once: list[Level], requests: int | None) -> Case:
    return case.model_copy(update={"id": name, "load": Load(at_once=at_once, requests=requests)})


def _with_document(case: Case, number: int, tokens: int | None) -> Case:
    """Every prompt reads a document of its own, so that no prefix cache has it."""
    if case.document is None:
        return case
    changes = {"seed": case.document.seed + number, "tokens": tokens or case.document.tokens}
    return case.model_copy(update={"document": case.document.model_copy(update=changes)})
