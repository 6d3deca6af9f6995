"""Where a worker works on one job: in the store where that is a folder, else in a scratch folder whose journals are shipped."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType

from gatebook.config.files import file_name
from gatebook.fleet.store import Store, StoreFailed
from gatebook.record.run import HISTORY, LATEST

PLAN = ("cases.json", "baseline.json", HISTORY, "manifest.json")
"""What a run begins with; the manifest is the last."""
SHIP_S, SHIP_LINES = 2.0, 50
"""Journals are shipped so often, or when so many exchanges are new."""


class LeaseLost(StoreFailed):
    """Another worker has taken this job over."""


class Place:
    """A folder with the run of one job in it, as far as an earlier worker came. Methods raise StoreFailed."""

    def __init__(self, store: Store, key: str, kept: str) -> None:
        """`key` names the job, `kept` where its bundle is kept."""
        self._store, self._name, self._kept = store, f"work/{key}", kept
        self._token, self._scratch = secrets.token_hex(8), None if store.local else Path(tempfile.mkdtemp())
        self.folder = self._scratch or (store.local or Path()) / self._name
        self._sent: dict[str, int] = {}
        self._parts: dict[str, int] = {}
        self._at = time.monotonic()
        self.taken = 0
        """How many workers had this job before."""

    def __enter__(self) -> Place:
        self.taken = int((self._store.read(f"{self._name}/lease") or b"0 ").split()[0])
        self._store.write(f"{self._name}/lease", f"{self.taken + 1} {self._token}".encode())
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.run is None:
            self._restore()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def run(self) -> Path | None:
        """The run folder in it, once there is one."""
        found = (file.parent for file in self.folder.glob("*/manifest.json"))
        return next((path for path in sorted(found) if path.name != LATEST), None)

    def tick(self) -> None:
        """While the child asks: ship what is new. Raises LeaseLost where another worker has the job."""
        due = time.monotonic() - self._at >= SHIP_S
        if due:
            said = (self._store.read(f"{self._name}/lease") or b"").split()
            if said[1:] != [self._token.encode()]:
                raise LeaseLost(f"{self._name}: another worker went on with it")
        run = None if self._store.local else self.run
        if run and (due or self._new_lines(run) >= SHIP_LINES):
            self._ship(run)
        if due:
            self._at = time.monotonic()

    def keep(self, run: Path) -> None:
        """Put the finished bundle where it stays; nothing of the work is left beside it."""
        self._store.put(run, self._kept)
        self._store.drop(self._name)

    def _new(self, file: Path) -> bytes:
        """What a journal has more than was shipped, up to its last whole line."""
        with file.open("rb") as opened:
            opened.seek(self._sent.get(file.name, 0))
            data = opened.read()
        return data[: data.rfind(b"\n") + 1]

    def _new_lines(self, run: Path) -> int:
        return sum(self._new(file).count(b"\n") for file in run.glob("*.exchanges.jsonl"))

    def _ship(self, run: Path) -> None:
        """The plan once, then every journal's new whole lines, each after the long texts that it refers to."""
        into = f"{self._name}/run"
        if "manifest.json" not in self._sent:
            self._store.write(f"{into}/name", run.name.encode())
            for name in (name for name in PLAN if (run / name).exists()):
                self._store.write(f"{into}/{name}", (run / name).read_bytes())
            self._sent["manifest.json"] = 1
        journals = {file.name: self._new(file) for file in sorted(run.glob("*.jsonl"))}
        for text in (file for file in sorted(run.glob("texts/*.txt")) if file.name not in self._sent):
            self._store.write(f"{into}/texts/{text.name}", text.read_bytes())
            self._sent[text.name] = 1
        for name, data in journals.items():
            if data:
                part = self._parts.get(name, 0) + 1
                self._store.write(f"{into}/{name}/{part:06}", data)
                self._sent[name], self._parts[name] = self._sent.get(name, 0) + len(data), part

    def _restore(self) -> None:
        """What an earlier worker left: its segments joined, or the bundle of an ERROR, which is gone on with."""
        kept = self._store.read(f"{self._kept}/manifest.json")
        if kept is not None:
            run = self.folder / _named(str(json.loads(kept)["run"]))
            self._store.get(self._kept, run)
            return
        into = f"{self._name}/run"
        named = self._store.read(f"{into}/name")
        if self._store.local or named is None or self._store.read(f"{into}/manifest.json") is None:
            return
        run = self.folder / _named(named.decode())
        for file in self._store.names(into):
            inner = file.removeprefix(f"{into}/")
            journal, _, part = inner.partition("/")
            target = run / (journal if part.isdigit() else inner)
            if not target.resolve().is_relative_to(run.resolve()):
                raise StoreFailed(f"{file}: is no name of a file in a run")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("ab") as joined:
                joined.write(self._store.read(file) or b"")
            if part.isdigit():
                self._parts[journal], self._sent[journal] = int(part), target.stat().st_size
            else:
                self._sent[target.name] = 1
        (run / "name").unlink()


def _named(name: str) -> str:
    try:
        return file_name(name)
    except ValueError:
        raise StoreFailed(f"{name!r}: is no name of a run") from None


def last_line(text: str) -> str:
    """What a command said at its end, without its own name."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("gatebook: ") if lines else "it said nothing"
