"""The run folder: the evidence bundle. What is written is never written over."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import stat
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gatebook.errors import BadInput, BrokenRecord, one_line
from gatebook.plan.cases import Case
from gatebook.plan.settings import Profile, Suite, Target
from gatebook.record.exchange import Exchange
from gatebook.record.gauges import Gauge, read_gauges
from gatebook.record.journal import MAX_RECORD_MIB, Journal, read_journal
from gatebook.record.measurement import Measurement
from gatebook.record.texts import Texts

SUMS = "SHA256SUMS"
LATEST = "latest"
PLAN = ("manifest.json", "cases.json")
HISTORY, UNREAD = "history.json", "could_not_be_read"
TROUBLES = "troubles.json"
MAX_FILES = 20_000
"""Of one run; a full one has some 500."""
MAX_JSON_MIB = 64
"""Of one file beside the records; all cases of params/cases make 1 MiB."""


class Against(BaseModel):
    """The second target, asked in turn with the one under test."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str
    target: Target
    base_url: str

    @property
    def name(self) -> str:
        return f"{self.target.model} at {self.base_url}"


SCRATCH = (".ipynb_checkpoints", "__pycache__", ".pytest_cache")


class Manifest(BaseModel):
    """Who asks what of which model with which code; written before anything is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    run: str
    created: str
    """UTC, ISO 8601."""
    profile: Profile
    base_url: str
    suite: Suite
    only: list[str] = []
    expected: dict[str, list[str]]
    """Notebook -> case ids, in the order in which they are asked."""
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}
    commit: str | None = None
    against: Against | None = None
    asked_by: str | None = None
    """Who started the run."""
    job_url: str | None = None
    """The CI job that it ran in."""
    judged_from: str | None = None
    """The run whose answers these are, when `gatebook judge` made this one."""

    @property
    def partial(self) -> bool:
        return bool(self.only)


class Run:
    """One folder in outputs/."""

    def __init__(self, path: Path) -> None:
        """Open an existing run. Raises BadInput when it is none, BrokenRecord when its plan is damaged."""
        self.path = path
        if not (path / "manifest.json").is_file():
            raise BadInput(
                f"{path}: not a run folder (no manifest.json); name one like outputs/2026-11-22T21-04-31Z-smollm2-7f3a"
            )
        _check_sizes(path)
        try:
            self.manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
            cases = [Case.model_validate(case) for case in json.loads((path / "cases.json").read_bytes())]
        except (ValidationError, ValueError, TypeError, OSError) as error:
            raise BrokenRecord(
                f"{path}: manifest.json or cases.json cannot be read: {str(error).splitlines()[0]}"
            ) from None
        self.cases: dict[str, Case] = {case.id: case for case in cases}
        missing = [i for ids in self.manifest.expected.values() for i in ids if i not in self.cases]
        if missing:
            raise BrokenRecord(f"{path}/cases.json: expected case {missing[0]!r} is not in it")
        self.anchor = _sha256(path / "cases.json")

    @classmethod
    def create(
        cls,
        path: Path,
        manifest: Manifest,
        cases: list[Case],
        baseline: bytes | None,
        history: list[Measurement] | str | None = None,
    ) -> Run:
        """Write a new folder with the plan in it. Raises BadInput when it exists.

        `history` is what the run is compared with, or why that could not be read.
        """
        if (inside := run_folder_of(path.parent)) or LATEST in (path.name, path.parent.name):
            raise BadInput(
                f"{path}: {'lies in a run folder' if inside else 'is where the copy of the last run goes'}; choose another --out"
            )
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise BadInput(
                f"{path}: exists already; a recorded run is never overwritten, choose another --out"
            ) from None
        except OSError as error:
            raise BadInput(f"{path}: cannot be made ({error.strerror}); choose another --out") from None
        write_new(
            path / "cases.json", json.dumps([c.model_dump(mode="json") for c in cases], ensure_ascii=False, indent=1)
        )
        if baseline is not None:
            write_new(path / "baseline.json", baseline.decode())
        if history is not None:
            kept = {UNREAD: history} if isinstance(history, str) else [m.model_dump(mode="json") for m in history]
            write_new(path / HISTORY, json.dumps(kept, ensure_ascii=False))
        write_new(path / "manifest.json", manifest.model_dump_json(indent=1))
        return cls(path)

    @property
    def notebooks(self) -> list[str]:
        return list(self.manifest.expected)

    def expected(self, notebook: str) -> list[Case]:
        return [self.cases[i] for i in self.manifest.expected.get(notebook, [])]

    def journal(self, notebook: str) -> Journal:
        return Journal(self.record_file(notebook), self.anchor)

    def record_file(self, notebook: str) -> Path:
        return self.path / f"{notebook}.exchanges.jsonl"

    def similarity_file(self, notebook: str) -> Path:
        """Derived from the record (judge/similarity.py); may be missing."""
        return self.path / f"{notebook}.similarity.json"

    def gauges_file(self, notebook: str) -> Path:
        """What GPU and engine showed while the notebook asked; may be missing."""
        return self.path / f"{notebook}.gauges.jsonl"

    def gauges(self, notebook: str) -> list[Gauge]:
        """Raises BrokenRecord when the file was edited."""
        return read_gauges(self.gauges_file(notebook))

    def exchanges(self, notebook: str) -> list[Exchange]:
        return read_journal(self.record_file(notebook), self.anchor)

    @property
    def troubles(self) -> list[str]:
        """What went wrong on our side before the last notebook told the verdict."""
        path = self.path / TROUBLES
        return list(json.loads(path.read_bytes())) if path.exists() else []

    def note_troubles(self, troubles: list[str]) -> None:
        """For the notebook that tells the verdict: no record shows a kernel that died after its last exchange."""
        path = self.path / TROUBLES
        path.unlink(missing_ok=True)
        if troubles:
            path.write_text(json.dumps(troubles, ensure_ascii=False, indent=1), encoding="utf-8")

    @property
    def history(self) -> list[Measurement]:
        """The window of past runs as it was when this run was planned; empty when there is none, and when it could not
        be read (`history_trouble`). `record.measured.comparable` has the rows of the same key. Raises BrokenRecord."""
        return self._history if isinstance(self._history, list) else []

    @property
    def history_trouble(self) -> str | None:
        """Why the past is not known: what compares with it is then not measured, and not compared with nothing."""
        return self._history if isinstance(self._history, str) else None

    @cached_property
    def _history(self) -> list[Measurement] | str:
        path = self.path / HISTORY
        try:
            said = json.loads(path.read_bytes()) if path.exists() else []
            if isinstance(said, dict):
                return f"history could not be read: {said[UNREAD]}"
            return [Measurement.model_validate(row) for row in said]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BrokenRecord(f"{path}: is no snapshot of a history: {str(error).splitlines()[0]}") from None

    @property
    def texts(self) -> Texts:
        """The long texts of its requests and answers."""
        return Texts(self.path / "texts")

    def without_records(self) -> Run:
        """The same plan with no exchanges: what is left to judge when a record is broken."""
        bare = Run(self.path)
        bare.exchanges = lambda notebook: []  # type: ignore[method-assign]
        bare.gauges = lambda notebook: []  # type: ignore[method-assign]
        return bare

    def seal(self) -> None:
        """Write SHA256SUMS over every file (`sha256sum -c SHA256SUMS` checks it too)."""
        (self.path / SUMS).write_text(self._sums(), encoding="utf-8")

    @property
    def sealed(self) -> bool:
        return (self.path / SUMS).is_file()

    def unseal(self) -> None:
        """Before a resumed run goes on: reports are made again from the record, the record itself stays."""
        (self.path / SUMS).unlink(missing_ok=True)

    def damage(self) -> list[str]:
        """What SHA256SUMS says is changed, missing or added; empty when the bundle is intact."""
        if not self.sealed:
            return [f"{SUMS} is missing: the run did not finish, or someone took it away"]
        text = (self.path / SUMS).read_bytes()
        said = {}
        for line in text.decode("utf-8", "replace").split("\n"):
            digest, _, name = line.partition("  ")
            said[name] = digest
        said.pop("", None)
        have = {p.relative_to(self.path).as_posix(): _sha256(p) for p in self._files()}
        shown = one_line
        found = [f"{shown(name)} is missing" for name in sorted(said.keys() - have.keys())]
        found += [f"{shown(name)} was added" for name in sorted(have.keys() - said.keys())]
        found += [
            f"{shown(name)} was changed" for name in sorted(said.keys() & have.keys()) if have[name] != said[name]
        ]
        return found or ([] if text == self._sums().encode() else [f"{SUMS} was changed"])

    def _sums(self) -> str:
        return "".join(f"{_sha256(p)}  {p.relative_to(self.path).as_posix()}\n" for p in self._files())

    def _files(self) -> list[Path]:
        return sorted(
            p for p in self.path.rglob("*") if p.is_file() and p.name != SUMS and not _scratch(p.relative_to(self.path))
        )

    def copy_to_latest(self) -> Path:
        """Copy the bundle to `latest/` beside it, for CI, which wants fixed names; a run resumed in `latest/` is there already."""
        if self.path.name == LATEST:
            return self.path
        fresh = self.path.parent / f".latest-{secrets.token_hex(4)}"
        shutil.copytree(self.path, fresh)
        drop_latest(self.path.parent)
        return fresh.rename(self.path.parent / LATEST)


def _check_sizes(path: Path) -> None:
    """Raises BrokenRecord where a bundle holds more than is read, or what is no file: its readers then need no limit of their own."""
    for number, file in enumerate(path.rglob("*")):
        if number > MAX_FILES:
            raise BrokenRecord(f"{path}: holds more than {MAX_FILES:,} files, which no run makes")
        try:
            told = file.stat()
        except OSError:  # a link to nothing
            continue
        if not (stat.S_ISREG(told.st_mode) or stat.S_ISDIR(told.st_mode)):
            raise BrokenRecord(f"{file}: is no file that a run makes, but a pipe, a socket or a device")
        most_mib = MAX_RECORD_MIB if file.suffix == ".jsonl" else MAX_JSON_MIB
        if told.st_size > most_mib << 20 and file.suffix != ".log":
            raise BrokenRecord(f"{file}: has {told.st_size:,} bytes; {most_mib} MiB at most are read")


def run_folder_of(path: Path) -> Path | None:
    """The run folder that `path` is or lies in."""
    path = path.resolve()
    return next((p for p in (path, *path.parents) if all((p / name).is_file() for name in PLAN)), None)


def check_latest(folder: Path) -> None:
    """Raises BadInput where `latest` in the folder of runs is something else than a copy of a run, which may be replaced."""
    latest = folder / LATEST
    if not latest.exists() or latest.is_symlink() or (latest.is_dir() and not any(latest.iterdir())):
        return
    if run_folder_of(latest) != latest.resolve():
        raise BadInput(
            f"{latest}: is no copy of a run, and would be replaced by one; move it away or choose another --out"
        )


def drop_latest(folder: Path) -> None:
    """Take the copy of the last run away, whole, so that half of one never stands there. Raises BadInput, OSError."""
    check_latest(folder)
    latest, old = folder / LATEST, folder / f".latest-{secrets.token_hex(4)}"
    if latest.is_symlink():
        latest.unlink()
    elif latest.exists():
        shutil.rmtree(latest.rename(old), ignore_errors=True)


def _scratch(path: Path) -> bool:
    return any(part in SCRATCH for part in path.parts)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist yet."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def now() -> str:
    """UTC with milliseconds, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_name(profile: str) -> str:
    """2026-11-22T21-04-31Z-smollm2-7f3a: sortable, unique, and safe in a URL."""
    slug = re.sub(r"[^a-z0-9.]+", "-", profile.lower()).strip("-") or "profile"
    return f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}-{slug}-{secrets.token_hex(2)}"
