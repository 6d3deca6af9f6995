"""Check case files as a run would read them, try every example answer, and append a new case."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatebook.config import project
from gatebook.config.cases import Case, case_files, cases_in, load_cases, read_case_file, refuse_twins
from gatebook.config.files import parse_yaml, replace_text, to_yaml
from gatebook.config.secrets import holds_secret
from gatebook.errors import BadInput
from gatebook.opening import check_case
from gatebook.report.text import visible
from gatebook.verdict.examples import Tried, text_checks, try_examples

SHOWN_CHARS = 60


@dataclass
class Checked:
    """What was found in one file."""

    path: Path
    cases: int = 0
    good: int = 0
    bad: int = 0
    problems: list[str] = field(default_factory=list)
    """Examples that disagree, or that are missing: exit 1."""
    refused: str | None = None
    """Why a run would not read the file: exit 2."""

    def __str__(self) -> str:
        if self.refused:
            return f"{self.path}: bad input"
        cases = f"{self.path}: {self.cases} case{'s' if self.cases != 1 else ''}"
        if not self.good + self.bad:
            return f"{cases}, nothing to try: no example answers"
        return f"{cases}, {self.good} good and {self.bad} bad answers tried"


def check_files(paths: list[Path], allow_missing: bool = False, every_check: bool = False) -> list[Checked]:
    """Check these files, or all of params/cases; `every_check` demands a bad example of each check that judges a text.
    Raises BadInput when there is none to check."""
    here = Path.cwd()
    chosen = paths or [p.relative_to(here) if p.is_relative_to(here) else p for p in case_files(project.cases_dir())]
    found = [Checked(path) for path in dict.fromkeys(chosen)]
    known: list[Case] = []
    for one in found:
        try:
            cases = read_case_file(one.path)
            one.cases = len(cases)
            for case in cases:
                check_case(case)
                _try(case, one, allow_missing, every_check)
            known += cases
            refuse_twins(known)
        except BadInput as error:
            one.refused = str(error)
    if not any(one.refused for one in found):
        _refuse_twins_elsewhere(found, known)
    return found


def _try(case: Case, one: Checked, allow_missing: bool, every_check: bool) -> None:
    where, judged, examples = f"{one.path}, case {case.id!r}", text_checks(case), try_examples(case)
    missing = " and no ".join(kind for kind in ("good", "bad") if judged and not getattr(case, kind))
    if missing and not allow_missing:
        said = f"no {missing} example, though {', '.join(judged)} judges a text; add it (or --allow-missing)"
        one.problems.append(f"{where}: {said}")
    idle = [name for name in judged if not any(name in tried.failed for tried in examples)]
    if every_check and idle and case.bad:
        one.problems.append(f"{where}: {', '.join(idle)} fails no bad example; add one that only it breaks")
    one.problems += [f"{where}, {_problem(tried)}" for tried in examples if not tried.agrees]
    one.good += len(case.good)
    one.bad += len(case.bad)


def _problem(tried: Tried) -> str:
    text = " ".join(visible(tried.text).split())
    name = f"{tried.kind} answer {tried.number} {text[:SHOWN_CHARS] + ('…' if len(text) > SHOWN_CHARS else '')!r}"
    if tried.kind == "good" or tried.outcome != "pass":
        return f"{name}: {visible(tried.said)}"
    return f"{name}: passes every check; correct the example or expect something that it breaks"


def _refuse_twins_elsewhere(found: list[Checked], known: list[Case]) -> None:
    """Refuse an id that another file of params/cases has, also one that was not named."""
    folder = project.cases_dir().resolve()
    named = {one.path.resolve(): one for one in found}
    inside = {str(one.path): one for path, one in named.items() if path.parent == folder}
    others = case_files(*project.case_folders()) if inside else []
    for other in (file for file in others if file.resolve() not in named):
        theirs = set[str]()
        with suppress(BadInput):  # not asked about; its own check reports it
            theirs = {case.id for case in read_case_file(other)}
        for case in reversed(known):  # of several, the first is named
            if case.id in theirs and (one := inside.get(case.source)):
                one.refused = f"{one.path}: key 'id' has value {case.id!r}, which {other} has too; give it another"


def draft_case(entry: dict[str, Any]) -> str:
    """Return one new case as YAML. Raises BadInput when a run would refuse it, an example disagrees or it holds a key."""
    where = f"new case {entry.get('id')!r}"
    for name, value in entry.items():
        if holds_secret(value):
            todo = "take it out, case files are committed"
            raise BadInput(f"{where}: key {name!r} holds what looks like a secret; {todo}")
    [case] = cases_in([entry], where)
    check_case(case)
    if any(known.id == case.id for known in load_cases(*project.case_folders())):
        raise BadInput(f"{where}: another case has this id; choose a new one")
    for tried in try_examples(case):
        if not tried.agrees:
            said = f"{tried.kind} answer {tried.number} is {tried.outcome} ({tried.said})"
            raise BadInput(f"{where}: {said}; correct it or the checks")
    text = to_yaml([entry])
    if cases_in(parse_yaml(text, where), where) != [case]:
        raise BadInput(f"{where}: cannot be written as YAML without loss; take odd characters out of its texts")
    return text


def add_case(entry: dict[str, Any], into: Path) -> Path:
    """Append the case to a file of params/cases, which is made when it is missing. Raises BadInput; then nothing was written."""
    path = (into if into.is_absolute() else project.root() / into).resolve()
    if path.parent != project.cases_dir().resolve() or path.suffix not in (".yaml", ".yml"):
        raise BadInput(f"{into}: a run reads only {project.cases_dir()}/*.yaml; name a file there")
    text = draft_case(entry)
    try:
        old = path.read_bytes().decode("utf-8") if path.exists() else project.schema_line("case", "../../")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not UTF-8; save it as UTF-8 first") from None
    end = "\r\n" if "\r\n" in old else "\n"
    gap = "" if not old else end if old.endswith("\n") else 2 * end
    new = old + gap + text.replace("\n", end)
    before = cases_in(parse_yaml(old, str(path)), str(path)) if path.exists() else []
    try:
        after = cases_in(parse_yaml(new, str(path)), str(path))
    except BadInput:
        after = []
    if after[:-1] != before or len(after) != len(before) + 1:
        raise BadInput(f"{path}: its list of cases cannot be continued at the end of the file; name a new file")
    path.parent.mkdir(exist_ok=True)
    replace_text(path, new)
    return path
