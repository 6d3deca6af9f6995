"""Where the evidence of a fleet is kept, a folder or a URL that fsspec reaches, and where a worker makes it."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from gatebook.config import project
from gatebook.config.files import file_name
from gatebook.config.secrets import is_secret_url
from gatebook.errors import BadInput, CannotMeasure, first_line, os_reason
from gatebook.record.run import HISTORY, SUMS
from gatebook.record.shelf import held, run_folders

INSTALL = "install it: pip install 'dask[distributed]' s3fs (requirements-fleet.txt has the versions)"
UNSAFE = ("", ".", "..")
PLAN = ("cases.json", "baseline.json", HISTORY, "manifest.json")
"""What a run begins with; the manifest is the last."""
SHIP_S, SHIP_LINES = 2.0, 50
"""Journals are shipped so often, or when so many exchanges are new."""


class StoreFailed(CannotMeasure):
    """A store that does not take, give or reach what it is asked for."""


class Store:
    """One folder of a store. Every method raises StoreFailed when the store refuses."""

    def __init__(self, url: str) -> None:
        """Raises BadInput for a URL that names no store, and where its package is not installed."""
        if is_secret_url(url):
            raise BadInput("the store's URL holds a secret; leave it out, the environment gives it to fsspec")
        self.local: Path | None = None if "://" in url else _folder(url)
        self.url = str(self.local) if self.local else url.rstrip("/")
        if self.local is None:
            self._fs, self._root = _filesystem(self.url)

    def __truediv__(self, name: str) -> Store:
        return Store(f"{self.url}/{name}")

    def held(self, by: str) -> AbstractContextManager[None]:
        """Hold the lock of this folder, for the command `by`; a URL has none. Raises BadInput with the holder's name."""
        if self.local is None:
            return nullcontext()
        try:
            self.local.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            return nullcontext()  # the first write says why
        return held(self.local, by)

    def write(self, name: str, data: bytes) -> None:
        """Put one file, in the place of one of this name."""
        with self._told(name):
            if self.local:
                (self.local / name).parent.mkdir(parents=True, exist_ok=True)
                fresh = self.local / f"{name}.new"
                fresh.write_bytes(data)
                fresh.replace(self.local / name)
            else:
                self._fs.pipe_file(f"{self._root}/{name}", data)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of one file; None where there is none."""
        with self._told(name), suppress(FileNotFoundError, NotADirectoryError):
            if self.local:
                return (self.local / name).read_bytes()
            found: bytes = self._fs.cat_file(f"{self._root}/{name}")
            return found
        return None

    def names(self, under: str) -> list[str]:
        """Return every file under a folder, sorted, as paths from the store's root; none where there is no folder."""
        with self._told(under), suppress(FileNotFoundError):
            if self.local:
                return sorted(str(p.relative_to(self.local)) for p in (self.local / under).rglob("*") if p.is_file())
            found = self._fs.find(f"{self._root}/{under}")
            return sorted(path.removeprefix(f"{self._root}/") for path in found)
        return []

    def put(self, folder: Path, name: str) -> None:
        """Store a folder with all its files, its checksums last, so that half a bundle is none."""
        with self._told(name):
            if self.local:
                (self.local / name).parent.mkdir(parents=True, exist_ok=True)
                if (self.local / name).exists():
                    shutil.rmtree(self.local / name)
                shutil.move(folder, self.local / name)
                return
            files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.name == SUMS)
            for file in files:
                self._fs.put_file(str(file), f"{self._root}/{name}/{file.relative_to(folder).as_posix()}")

    def get(self, name: str, folder: Path) -> None:
        """Copy a folder of the store; none of its names leads out of it."""
        files = self.names(name)
        with self._told(name):
            for file in files:
                inner = file[len(name) :].lstrip("/") if name else file
                if any(part in UNSAFE for part in inner.split("/")):
                    raise StoreFailed(f"{self.url}/{file}: is no name of a file in a bundle")
                (folder / inner).parent.mkdir(parents=True, exist_ok=True)
                (folder / inner).write_bytes(self.read(file) or b"")

    def drop(self, name: str) -> None:
        """Remove a folder, if it exists."""
        with self._told(name), suppress(FileNotFoundError):
            if self.local:
                shutil.rmtree(self.local / name, ignore_errors=True)
            else:
                self._fs.rm(f"{self._root}/{name}", recursive=True)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Raise whatever the store's own package raises as one line."""
        try:
            yield
        except CannotMeasure:
            raise
        except Exception as error:
            why = os_reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {first_line(error)}"
            raise StoreFailed(f"the store {self.url} refuses {name}: {why[:200]}") from None


def _folder(url: str) -> Path:
    path = Path(url)
    return (path if path.is_absolute() or path.exists() else project.root() / path).resolve()


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        import fsspec.core

        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise BadInput(f"store {url}: {first_line(error)}; {INSTALL}") from None
    except Exception as error:
        raise BadInput(f"store {url}: {first_line(error)}; name a folder, or a URL such as s3://bucket/gates") from None
    return fs, str(root).rstrip("/")


@contextmanager
def fetched(url: str) -> Iterator[Path]:
    """A folder of a store as a local one: itself, or a copy in a scratch folder. Raises BadInput, StoreFailed."""
    if "://" not in url:
        yield Path(url)
        return
    store = Store(url)
    with tempfile.TemporaryDirectory(prefix="gatebook-") as scratch:
        folder = Path(scratch) / store.url.rpartition("/")[2]
        store.get("", folder)
        if not folder.exists():
            raise BadInput(f"{url}: there is nothing; name a run folder in the store")
        yield folder


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

    def __exit__(self, *_: object) -> None:
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def run(self) -> Path | None:
        """The run folder in it, once there is one."""
        return next(iter(run_folders(self.folder)), None)

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
        """Return what was appended to a journal since it was shipped, up to its last whole line."""
        with file.open("rb") as opened:
            opened.seek(self._sent.get(file.name, 0))
            data = opened.read()
        return data[: data.rfind(b"\n") + 1]

    def _new_lines(self, run: Path) -> int:
        return sum(self._new(file).count(b"\n") for file in run.glob("*.exchanges.jsonl"))

    def _ship(self, run: Path) -> None:
        """Ship the plan once, then every journal's new whole lines, after the long texts that they refer to."""
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
        """Restore what an earlier worker left: its joined segments, or the bundle of an ERROR, to continue."""
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
