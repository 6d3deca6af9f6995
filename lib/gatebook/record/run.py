"""The run folder: the evidence bundle. What is written is never written over."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from gatebook.config.cases import Case
from gatebook.config.files import first_mistake, replace_own, replace_text
from gatebook.config.sending import asked_hash
from gatebook.errors import BadInput, BrokenRecord, CannotMeasure, first_line, one_line, os_reason
from gatebook.record.exchange import Exchange, Measurement
from gatebook.record.folder import (
    JOURNAL,
    bounded,
    check_sizes,
    journals_of,
    plain_files,
    read_cases,
    run_folder_of,
    sha256_of,
)
from gatebook.record.gauges import Gauge, read_gauges
from gatebook.record.journal import Journal, Texts, read_journal
from gatebook.record.manifest import Manifest

T = TypeVar("T")
SUMS, TROUBLES, LATEST = "SHA256SUMS", "troubles.json", "latest"
HISTORY, UNREAD = "history.json", "could_not_be_read"
SCRATCH = (".ipynb_checkpoints", "__pycache__", ".pytest_cache")


Past = list[Measurement] | str
"""The window of past runs as it was when a run was planned, or why it could not be read."""


class Run:
    """One folder in outputs/."""

    def __init__(self, path: Path) -> None:
        """Open an existing run. Raises BadInput when it is none, BrokenRecord when its plan is damaged or something in it is no
        plain file: nothing read or written through this class leaves the folder."""
        self.path = path
        self._read: dict[Path, tuple[tuple[int, int, int], list[Any]]] = {}
        self.measure: bytes | None = None
        if not (path / "manifest.json").is_file():
            raise BadInput(
                f"{path}: not a run folder (no manifest.json); name one like outputs/2026-11-22T21-04-31Z-smollm2-7f3a"
            )
        check_sizes(path)
        with bounded(f"{path}: reading its plan"):
            try:
                self.manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
                self.anchor, self.cases = read_cases(path / "cases.json")
            except (ValueError, TypeError, RecursionError, OSError) as error:
                said = first_mistake(error)
                raise BrokenRecord(f"{path}: manifest.json or cases.json cannot be read: {said}") from None
        for name in (self.manifest.run, self.manifest.judged_from, *self.manifest.merged_from):
            if name is not None and (not name or "/" in name or one_line(name) != name):
                raise BrokenRecord(f"{path}/manifest.json: {name!r} is no name of a run")
        if missing := [i for ids in self.manifest.expected.values() for i in ids if i not in self.cases]:
            raise BrokenRecord(f"{path}/cases.json: expected case {missing[0]!r} is not in it")

    @classmethod
    def create(
        cls, path: Path, manifest: Manifest, cases: list[Case], baseline: bytes | None, history: Past | None = None
    ) -> Run:
        """Write a new folder with the plan, whole or not at all, compared with `history`. Raises BadInput when it exists."""
        if (inside := run_folder_of(path.parent)) or LATEST in (path.name, path.parent.name):
            where = "lies in a run folder" if inside else "is where the copy of the last run goes"
            raise BadInput(f"{path}: {where}; choose another --out")
        if os.path.lexists(path):
            raise BadInput(f"{path}: exists already; a recorded run is never overwritten, choose another --out")
        fresh = path.with_name(f".new-{secrets.token_hex(4)}")
        try:
            fresh.mkdir(parents=True)
        except OSError as error:
            raise BadInput(f"{path}: cannot be made ({os_reason(error)}); choose another --out") from None
        try:
            for name, text in _plan(manifest, cases, baseline, history).items():
                replace_text(fresh / name, text)
            fresh.rename(path)
        except BaseException as error:
            shutil.rmtree(fresh, ignore_errors=True)  # half a plan could neither be resumed nor judged
            if isinstance(error, OSError):
                raise CannotMeasure(
                    f"{path}: cannot be written ({os_reason(error)}), so nothing was asked; free space or choose another --out"
                ) from None
            raise
        return cls(path)

    @property
    def notebooks(self) -> list[str]:
        return list(self.manifest.expected)

    def expected(self, notebook: str) -> list[Case]:
        return [self.cases[i] for i in self.manifest.expected.get(notebook, [])]

    def asked(self, case: str) -> str:
        """A hash of what a case was asked."""
        return asked_hash(self.manifest.profile.target, self.cases[case])

    def record_file(self, notebook: str, shard: int = 1) -> Path:
        """The journal of a notebook; those of further shards of a merged run stand beside the first one's."""
        return self.path / f"{notebook}{f'.shard-{shard}' if shard > 1 else ''}{JOURNAL}"

    def record_files(self, notebook: str) -> list[Path]:
        """Its journals, each with its own chain: one, or in a merged run one a shard that had cases of the notebook."""
        return self._journals.get(notebook) or [self.record_file(notebook)]

    @cached_property
    def _journals(self) -> dict[str, list[Path]]:
        """Notebook -> those of a merged run, which asks nothing."""
        return journals_of(self.path, len(self.manifest.merged_from)) if self.manifest.merged_from else {}

    def similarity_file(self, notebook: str) -> Path:
        """Derived from the record (checks/similarity.py); may be missing."""
        return self.path / f"{notebook}.similarity.json"

    def findings_file(self, notebook: str) -> Path:
        """Derived from the record (verdict/findings.py) by the notebook that asked; may be missing."""
        return self.path / f"{notebook}.findings.json"

    def gauges_file(self, notebook: str) -> Path:
        """What GPU and engine showed while the notebook asked; may be missing."""
        return self.path / f"{notebook}.gauges.jsonl"

    @property
    def texts(self) -> Texts:
        return Texts(self.path / "texts")

    def journal(self, notebook: str) -> Journal:
        return Journal(self.record_file(notebook), self.anchor)

    def exchanges(self, notebook: str) -> list[Exchange]:
        """In the order of the record, read and checked once while the file stays the same. Raises BrokenRecord."""
        files = self.record_files(notebook)
        return [e for file in files for e in self.once(file, lambda path: read_journal(path, self.anchor))]

    def gauges(self, notebook: str) -> list[Gauge]:
        """Read and parsed once while the file stays the same. Raises BrokenRecord when it was edited."""
        return self.once(self.gauges_file(notebook), read_gauges)

    def once(self, path: Path, read: Callable[[Path], list[T]]) -> list[T]:
        """The result of `read`, made once while the file stays the same."""
        try:
            stat = path.stat()
        except OSError:
            return read(path)
        state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        known = self._read.get(path)
        if known is None or known[0] != state:
            known = self._read[path] = (state, read(path))
        return list(known[1])

    def without_records(self) -> Run:
        """The same plan with no exchanges: what is left to judge when a record is broken."""
        bare = Run(self.path)
        bare.once = lambda path, read: []  # type: ignore[method-assign]
        return bare

    @property
    def troubles(self) -> list[str]:
        """What went wrong on our side before the verdict. Raises BrokenRecord."""
        path = self.path / TROUBLES
        try:
            return TypeAdapter(list[str]).validate_json(path.read_bytes()) if path.exists() else []
        except (OSError, ValueError) as error:
            raise BrokenRecord(f"{path}: is no list of texts: {first_line(error)}") from None

    def note_troubles(self, troubles: list[str]) -> None:
        """Keep them for the notebook of the verdict: no record shows a kernel that died after its last exchange. Raises
        CannotMeasure when the disk does not take it; an older file is gone then."""
        path = self.path / TROUBLES
        try:
            path.unlink(missing_ok=True)
            if troubles:
                self.write(TROUBLES, json.dumps(troubles, ensure_ascii=False, indent=1))
        except OSError as error:
            raise CannotMeasure(f"{path}: cannot write ({os_reason(error)}); free space and resume") from None

    @property
    def history(self) -> list[Measurement]:
        """The window of past runs as of the plan; empty when there is none or it could not be read (`history_trouble`).
        `record.samples.comparable` has the rows of the same key. Raises BrokenRecord."""
        return self._history if isinstance(self._history, list) else []

    @property
    def history_trouble(self) -> str | None:
        """Why the past is unknown: what compares with it is then not measured."""
        return self._history if isinstance(self._history, str) else None

    @cached_property
    def _history(self) -> Past:
        path = self.path / HISTORY
        try:
            said = json.loads(path.read_bytes()) if path.exists() else []
            if isinstance(said, dict):
                return f"history could not be read: {said[UNREAD]}"
            return [Measurement.model_validate(row) for row in said]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise BrokenRecord(f"{path}: is no snapshot of a history: {first_line(error)}") from None

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all, replacing what has this name; a link there is not followed."""
        replace_own(self.path / name, text)

    def seal(self) -> None:
        """Write SHA256SUMS over every file (`sha256sum -c SHA256SUMS` checks it too)."""
        self.write(SUMS, _sums(self._digests()))

    @property
    def sealed(self) -> bool:
        return (self.path / SUMS).is_file()

    def unseal(self) -> None:
        """Before a resumed run goes on: its reports are made again, the record stays."""
        (self.path / SUMS).unlink(missing_ok=True)

    def damage(self) -> list[str]:
        """What is changed, missing or added by SHA256SUMS; empty when the bundle is intact."""
        if not self.sealed:
            return [f"{SUMS} is missing: the run did not finish, or someone took it away"]
        text, have = (self.path / SUMS).read_bytes(), self._digests()
        lines = [line.partition("  ") for line in text.decode("utf-8", "surrogateescape").split("\n")]
        said = {name: digest for digest, _, name in lines if name}
        differences = {
            "is missing": said.keys() - have.keys(),
            "was added": have.keys() - said.keys(),
            "was changed": {name for name in said.keys() & have.keys() if have[name] != said[name]},
        }
        found = [f"{one_line(name)} {what}" for what, names in differences.items() for name in sorted(names)]
        return found or ([] if text == os.fsencode(_sums(have)) else [f"{SUMS} was changed"])

    def _digests(self) -> dict[str, str]:
        """Name -> SHA-256 of every file that is sealed, in their order."""
        names = [p.relative_to(self.path) for p in sorted(plain_files(self.path)) if p != self.path / SUMS]
        return {name.as_posix(): sha256_of(self.path / name) for name in names if not {*name.parts} & {*SCRATCH}}


def now() -> str:
    """UTC with milliseconds, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _plan(manifest: Manifest, cases: list[Case], baseline: bytes | None, history: Past | None) -> dict[str, str]:
    """Name -> text of the files that a run begins with; the manifest, which makes the folder a run, is last."""
    plan = {"cases.json": TypeAdapter(list[Case]).dump_json(cases, indent=1).decode()}
    if baseline is not None:
        plan["baseline.json"] = baseline.decode()
    if history is not None:
        kept = {UNREAD: history} if isinstance(history, str) else [m.model_dump(mode="json") for m in history]
        plan[HISTORY] = json.dumps(kept, ensure_ascii=False)
    return plan | {"manifest.json": manifest.model_dump_json(indent=1)}


def _sums(digests: dict[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items())
