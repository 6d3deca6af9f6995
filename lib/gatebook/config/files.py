"""Strict reading of YAML and models: every mistake becomes one line with file, key, value and what to do."""

from __future__ import annotations

import codecs
import difflib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from gatebook.errors import BadInput, first_line

MAX_YAML_MIB = 4
MAX_NODES = 1_000_000
"""Of one YAML file, each alias counted as what it stands for: 300 bytes of them can stand for a billion."""
MAX_DEPTH = 500
"""Of one YAML file: libyaml's composer is recursive in C, where no RecursionError stops it."""
NUMBER_CHARS = 100
"""The longest number that is read: in base 60 a longer one takes minutes."""

M = TypeVar("M", bound=BaseModel)


def demand(right: Callable[[Any], object], said: str) -> AfterValidator:
    """Return a validator for `Annotated` that refuses a value which is not `right` with these words."""

    def checked(value: Any) -> Any:
        if not right(value):
            raise ValueError(said)
        return value

    return AfterValidator(checked)


def file_name(value: str) -> str:
    """Return the value if a file can safely be named after it: letters, digits, blanks and `.+-_`. Raises ValueError."""
    if not re.fullmatch(r"\w[\w .+\-]{0,119}", value):
        raise ValueError(
            "names a file, so it is letters, digits, '-', '_', '+' and '.', begins with a letter or digit, and is no path"
        )
    return value


FileName = Annotated[str, AfterValidator(file_name)]


_SETS: dict[frozenset[str], set[str]] = {}


class Lean(BaseModel):
    """A model that shares the set of its given fields with its like: a run of 20,000 cases has 200,000 models, and each of
    these sets takes up to 2 kB. For frozen models only, since nothing then changes a set."""

    def model_post_init(self, _: Any) -> None:
        given = frozenset(self.__pydantic_fields_set__)
        object.__setattr__(self, "__pydantic_fields_set__", _SETS.setdefault(given, set(given)))


class Strict(Lean):
    """A frozen model that refuses keys it does not know and values of another type."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def mistakes(self) -> Iterable[str]:
        """What its values cannot mean together, each as a message; the first is raised."""
        return ()

    @model_validator(mode="after")
    def _refuse_mistakes(self) -> Self:
        for said in self.mistakes():
            raise ValueError(said)
        return self


class _Loader(yaml.CSafeLoader):
    """YAML 1.1 as libyaml reads it (eight times faster than PyYAML's own parser), but a key written twice is an error and not
    a silent overwrite."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _error("a list or mapping is used as a key (quote a {{placeholder}})", key)
        if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
            raise _error(f"key {key.value!r} is written twice; keep one of them", key)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    if len(node.value) > NUMBER_CHARS:
        raise _error(f"a number of {len(node.value):,} characters", node)
    return yaml.SafeLoader.yaml_constructors[node.tag](loader, node)


def _date(loader: _Loader, node: yaml.ScalarNode) -> Any:
    try:
        return yaml.SafeLoader.yaml_constructors[node.tag](loader, node)
    except (ValueError, AttributeError) as error:
        raise _error(f"{node.value!r} is no date ({error})", node) from None


def _error(said: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, said, node.start_mark)


for _tag, _construct in (("int", _number), ("float", _number), ("timestamp", _date), ("map", _mapping)):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct)


def read_file(path: Path, most_mib: int) -> bytes:
    """Return the bytes of a regular file of at most so many MiB. Raises OSError, and BadInput for a larger or another file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer is not waited for
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadInput(f"{path}: is no regular file; name one")
        data = file.read((most_mib << 20) + 1)
    if len(data) > most_mib << 20:
        raise BadInput(f"{path}: has {path.stat().st_size:,} bytes; {most_mib} MiB at most are read")
    return data


def read_yaml(path: Path) -> Any:
    """Parse one YAML file. Raises BadInput when it is missing or unreadable."""
    try:
        text = read_file(path, MAX_YAML_MIB).decode()
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder; name a YAML file in it") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        coding = "UTF-16" if error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "GB18030"
        raise BadInput(
            f"{path}, line {line}: is not UTF-8; save it as UTF-8, such as: iconv -f {coding} -t UTF-8 {path.name}"
        ) from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error}); it must be a UTF-8 YAML file") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML; `where` names the file in the message. Raises BadInput."""
    depth, too_deep = 0, BadInput(f"{where}: is nested deeper than can be read; make it flatter")
    try:
        for event in yaml.parse(text, _Loader):  # events are read without recursion
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise too_deep
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, where, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, TypeError, ValueError, OverflowError, LookupError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        said = " ".join(str(getattr(error, "problem", None) or error).split())
        todo = "" if ";" in said else "; fix this line (quote it if it is text)"
        raise BadInput(f"{where}{line}: not valid YAML: {said}{todo}") from None
    except RecursionError:
        raise too_deep from None


def _count(node: yaml.Node, where: str, counts: dict[int, int]) -> int:
    """Count the values of a node, aliases written out. Raises BadInput past MAX_NODES, and for an alias of itself."""
    if id(node) not in counts:
        counts[id(node)] = 0  # until it is counted
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = chain.from_iterable(inner) if isinstance(node, yaml.MappingNode) else inner
        counts[id(node)] = 1 + sum(_count(part, where, counts) for part in parts)
    if not 0 < counts[id(node)] <= MAX_NODES:
        said = f"holds more than {MAX_NODES:,} values once its aliases are written out; write less"
        said = said if counts[id(node)] else "an alias stands in what it stands for; write it out"
        raise BadInput(f"{where}, line {node.start_mark.line + 1}: {said}")
    return counts[id(node)]


@cache
def material(name: str) -> Any:
    """Return the words of a generator, by language. They are part of the code, not a setting: a seed means one text for ever."""
    return read_yaml(Path(__file__).parent / "material" / f"{name}.yaml")


def build(model: type[M], data: Any, where: str) -> M:
    """Validate `data`; `where` names the file (and case) in the message. Raises BadInput, in one line for the first mistake."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first, *others = error.errors()
    parts = [str(part) for part in first["loc"] if not str(part).startswith(("function-", "literal["))]
    key, value = ".".join(parts), repr(first.get("input"))
    value = value if len(value) <= 60 else f"{value[:57]}..."
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        said = f"unknown key {key!r} (value {value}); {_suggest(parts, model)}"
    elif first["type"] == "missing":
        said = f"key {key!r} is missing; add it"
    elif key:
        said = f"key {key!r} has value {value}: {said}"
    raise BadInput(f"{where}: {said}{f' (and {len(others)} more)' if others else ''}")


def first_mistake(error: Exception) -> str:
    """Return what is wrong in one line, without the value."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
    return first_line(error)


def _suggest(path: list[str], model: type[BaseModel]) -> str:
    """Name the key that was probably meant, or the known ones."""
    for name in path[:-1]:
        field = model.model_fields.get(name)
        model = next(_models_in(field.annotation), model) if field else model
    known = sorted(model.model_fields)
    near = difflib.get_close_matches(path[-1], known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field's type names, also inside list[...] and dict[...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


LINE_CHARS = 100


class _Dumper(yaml.SafeDumper):
    """Nothing is an anchor, a text of several lines is a block, and short lists and mappings stand on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Write several lines as a block; quote and escape line ends that YAML sees and people do not."""
    odd = any(sign in text for sign in "\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if odd else "|" if "\n" in text else None)


def _collection(dumper: yaml.SafeDumper, data: Any) -> yaml.Node:
    """A list or mapping, on one line where it holds a few scalars."""
    items = [*data, *data.values()] if isinstance(data, dict) else data
    node = dumper.represent_dict(data) if isinstance(data, dict) else dumper.represent_list(data)
    flat = not any(isinstance(item, list | dict) or "\n" in str(item) for item in items)
    node.flow_style = flat and sum(len(str(item)) + 2 for item in items) <= LINE_CHARS
    return node


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _collection)
_Dumper.add_representer(dict, _collection)


def to_yaml(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=LINE_CHARS + 20)


def replace_own(path: Path, text: str) -> None:
    """Write a file of ours whole or not at all, replacing what has this name; a link there is not followed."""
    if path.is_symlink():
        path.unlink()
    replace_text(path, text)


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, where a link leads; line ends stay as they are in `text`."""
    path = path.resolve()
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        fresh.chmod(mode)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
