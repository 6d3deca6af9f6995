"""Strict reading of YAML and models: every mistake becomes one line with file, key, value and what to do."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from gatebook.errors import BadInput

M = TypeVar("M", bound=BaseModel)
_FILE_NAME = re.compile(r"\w[\w .+\-]{0,119}")


def file_name(value: str) -> str:
    """The value, when a file can safely be named after it: one name of letters, digits, blanks and `.+-_`. Raises ValueError."""
    if not _FILE_NAME.fullmatch(value):
        raise ValueError(
            "names a file, so it is letters, digits, '-', '_', '+' and '.', begins with a letter or digit, and is no path"
        )
    return value


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know and values of another type."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class _UniqueKeys(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but a key written twice is an error and not a silent overwrite."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a list or mapping is used as a key (quote a {{placeholder}})", key_node.start_mark
            )
        if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key_node.value!r} is written twice", key_node.start_mark
            )
        seen.add(key_node.value)
    loader.flatten_mapping(node)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> Any:
    """Parse one YAML file. Raises BadInput when it is missing or unreadable."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder; name a YAML file in it") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"{path}, line {line}: is not UTF-8; save it as UTF-8, such as: iconv -f GB18030 -t UTF-8 {path.name}"
        ) from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error}); it must be a UTF-8 YAML file") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML; `where` names the file in the message. Raises BadInput."""
    try:
        return yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, TypeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        said = " ".join(str(getattr(error, "problem", None) or error).split())
        raise BadInput(f"{where}{line}: not valid YAML: {said}; fix this line (quote it if it is text)") from None
    except RecursionError:
        raise BadInput(f"{where}: is nested deeper than can be read; make it flatter") from None


def build(model: type[M], data: Any, where: str) -> M:
    """Validate `data`; `where` names the file (and case) in the message. Raises BadInput."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise BadInput(f"{where}: {_first(error, model)}") from None


def _first(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first mistake; the others are only counted, so that the line stays readable."""
    first, more = error.errors()[0], len(error.errors()) - 1
    parts = [str(part) for part in first["loc"] if not str(part).startswith(("function-", "literal["))]
    key, value, kind = ".".join(parts), first.get("input"), first["type"]
    tail = f" (and {more} more)" if more else ""
    if kind == "extra_forbidden":
        return f"unknown key {key!r} (value {_short(value)}); {_suggest(parts, model)}{tail}"
    if kind == "missing":
        return f"key {key!r} is missing; add it{tail}"
    said = first["msg"].removeprefix("Value error, ")
    return f"key {key!r} has value {_short(value)}: {said}{tail}" if key else f"{said}{tail}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _suggest(parts: list[str], model: type[BaseModel]) -> str:
    known = _known_keys(parts[:-1], model)
    near = difflib.get_close_matches(parts[-1], known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"


def _known_keys(path: list[str], model: type[BaseModel]) -> list[str]:
    for name in path:
        field = model.model_fields.get(name)
        inner = _models_in(field.annotation) if field else []
        model = inner[0] if inner else model
    return sorted(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's type names, also inside list[...] and dict[...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
