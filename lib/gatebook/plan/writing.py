"""Case files as a person would write them: YAML in block style, long texts as blocks, characters as they are."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

SCHEMA_LINE = "# yaml-language-server: $schema=../../docs/schema/case.schema.json\n"
"""Tells editors which schema completes the file; right for the files of params/cases."""

LINE_CHARS = 100


class _Dumper(yaml.SafeDumper):
    """Nothing is an anchor, a text of several lines is a block, and short lists and mappings stand on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Many lines as they are; what YAML takes for the end of a line and people do not see, escaped in quotes."""
    odd = any(sign in text for sign in "\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if odd else "|" if "\n" in text else None)


def _list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=_short(items))


def _mapping(dumper: yaml.SafeDumper, items: dict[Any, Any]) -> yaml.MappingNode:
    return dumper.represent_mapping("tag:yaml.org,2002:map", items, flow_style=_short([*items, *items.values()]))


def _short(items: list[Any]) -> bool:
    """A few scalars fit on one line."""
    flat = not any(isinstance(item, list | dict) or "\n" in str(item) for item in items)
    return flat and sum(len(str(item)) + 2 for item in items) <= LINE_CHARS


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(dict, _mapping)


def to_yaml(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=LINE_CHARS + 20)


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; line ends stay as they are in `text`."""
    path = path.resolve()
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(fresh).chmod(mode)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
