"""A run folder as files: what may lie in it, how much of it is read, where it is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from weakref import WeakValueDictionary

from gatebook.config.cases import Case
from gatebook.errors import BrokenRecord
from gatebook.record.journal import MAX_RECORD_MIB, MAX_VALUES, has_too_many_values
from gatebook.stopping import within

JOURNAL = ".exchanges.jsonl"
MAX_FILES = 20_000
"""Of one run; a full one has some 500."""
MAX_S, MAX_MEMORY_MIB = 300, 4096
"""Of reading or judging a bundle: wall time, and memory beside what is in use before."""
MAX_JSON_MIB = 128
"""Of one file beside the records; all cases of params/cases make 1 MiB, and 100,000 small ones 70, their findings 90."""


def plain_files(folder: Path) -> Iterator[Path]:
    """Every file under a folder, however deep. Raises BrokenRecord for a link, a pipe, or whatever is neither file nor folder."""
    folders = [folder]
    while folders:
        try:
            found = list(os.scandir(folders.pop()))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BrokenRecord(f"{folder}: a folder in it cannot be read ({error.strerror})") from None
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
            elif os.path.lexists(entry.path):  # else it was taken away meanwhile
                raise BrokenRecord(
                    f"{folder}: {Path(entry.path).relative_to(folder)} is a link or no file at all; a bundle holds plain files and folders only"
                )


def check_sizes(path: Path) -> None:
    """Raises BrokenRecord where a bundle holds more than is read, or what is no file: its readers need no limits then."""
    for number, file in enumerate(plain_files(path)):
        if number > MAX_FILES:
            raise BrokenRecord(f"{path}: holds more than {MAX_FILES:,} files, which no run makes")
        most_mib, size = MAX_RECORD_MIB if file.suffix == ".jsonl" else MAX_JSON_MIB, file.lstat().st_size
        if size > most_mib << 20 and file.suffix != ".log":
            raise BrokenRecord(f"{file}: has {size:,} bytes; {most_mib} MiB at most are read")
        if size > MAX_VALUES and file.suffix in (".json", ".ipynb") and has_too_many_values(file.read_bytes()):
            raise BrokenRecord(f"{file}: has more than {MAX_VALUES:,} values, which no run writes")


def journals_of(folder: Path, shards: int) -> dict[str, list[Path]]:
    """Notebook -> its journals in a merged run, by shard; the folder is listed once."""
    found: dict[str, dict[int, Path]] = {}
    for file in folder.iterdir():
        if file.name.endswith(JOURNAL):
            notebook = file.name.removesuffix(JOURNAL)
            found.setdefault(notebook, {})[1] = file
            first, _, number = notebook.rpartition(".shard-")
            if number.isdecimal() and str(shard := int(number)) == number and 2 <= shard <= shards:
                found.setdefault(first, {})[shard] = file
    return {notebook: [files[shard] for shard in sorted(files)] for notebook, files in found.items()}


class Cases(dict[str, Case]):
    """The cases of a run by their ids. Other runs may hold the same, so nobody changes them."""


_known: WeakValueDictionary[str, Cases] = WeakValueDictionary()
"""By the hash of the file, while a run holds them: all shards of a run have one."""


def read_cases(path: Path) -> tuple[str, Cases]:
    """The hash of cases.json, and the cases in it. Raises ValueError, TypeError, RecursionError, OSError."""
    data = path.read_bytes()
    anchor = hashlib.sha256(data).hexdigest()
    if (found := _known.get(anchor)) is None:
        cases = [Case.model_validate(case) for case in json.loads(data)]
        found = _known[anchor] = Cases((case.id, case) for case in cases)
        if len(found) != len(cases):
            del _known[anchor]
            raise ValueError("a case is in it twice")
    return anchor, found


def bounded(what: str) -> AbstractContextManager[None]:
    """Limit a block that reads a bundle, in time and memory; it raises TookTooMuch."""
    return within(MAX_S, MAX_MEMORY_MIB, what)


def run_folder_of(path: Path) -> Path | None:
    """The run folder that `path` is or lies in."""
    path, plan = path.resolve(), ("manifest.json", "cases.json")
    return next((p for p in (path, *path.parents) if all((p / name).is_file() for name in plan)), None)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
