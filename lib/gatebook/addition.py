"""A new case at the end of a case file: checked first, whole or not at all, and the file's comments stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gatebook.errors import BadInput
from gatebook.judge.examples import try_examples
from gatebook.opening import check_case
from gatebook.plan import project
from gatebook.plan.cases import Case, cases_in, load_cases
from gatebook.plan.secrets import holds_secret
from gatebook.plan.strict import parse_yaml
from gatebook.plan.writing import SCHEMA_LINE, replace_text, to_yaml


def draft_case(entry: dict[str, Any]) -> str:
    """The YAML of one new case. Raises BadInput when a run would refuse it, when an example disagrees or a key stands in it."""
    where = f"new case {entry.get('id')!r}"
    for name, value in entry.items():
        if any(holds_secret(text) for text in _texts(value)):
            raise BadInput(
                f"{where}: key {name!r} holds what looks like a secret; take it out, case files are committed"
            )
    [case] = cases_in([entry], where)
    check_case(case)
    if any(known.id == case.id for known in load_cases(project.cases_dir())):
        raise BadInput(f"{where}: another case has this id; choose a new one")
    for tried in try_examples(case):
        if not tried.agrees:
            raise BadInput(
                f"{where}: {tried.kind} answer {tried.number} is {tried.outcome} ({tried.said}); correct it or the checks"
            )
    text = to_yaml([entry])
    _same(case, cases_in(parse_yaml(text, where), where)[0], where)
    return text


def add_case(entry: dict[str, Any], into: Path) -> Path:
    """Append the case to a file of params/cases, which is made when it is missing. Raises BadInput; then nothing was written."""
    path = (into if into.is_absolute() else project.root() / into).resolve()
    if path.parent != project.cases_dir().resolve() or path.suffix not in (".yaml", ".yml"):
        raise BadInput(f"{into}: a run reads only {project.cases_dir()}/*.yaml; name a file there")
    text = draft_case(entry)
    try:
        old = path.read_bytes().decode("utf-8") if path.exists() else SCHEMA_LINE
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not UTF-8; save it as UTF-8 first") from None
    end = "\r\n" if "\r\n" in old else "\n"
    new = old + ("" if old.endswith("\n") else end) + end + text.replace("\n", end)
    before = cases_in(parse_yaml(old, str(path)), str(path)) if path.exists() else []
    try:
        after = cases_in(parse_yaml(new, str(path)), str(path))
    except BadInput:
        after = []
    if [c.model_dump() for c in after[:-1]] != [c.model_dump() for c in before] or len(after) != len(before) + 1:
        raise BadInput(f"{path}: its list of cases cannot be continued at the end of the file; name a new file")
    replace_text(path, new)
    return path


def _same(a: Case, b: Case, where: str) -> None:
    if a.model_dump() != b.model_dump():
        raise BadInput(f"{where}: cannot be written as YAML without loss; take odd characters out of its texts")


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _texts(part)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []
