"""Where the evidence of a fleet is kept: a folder, or any place that fsspec reaches by its URL."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gatebook.config import project
from gatebook.config.secrets import is_secret_url
from gatebook.errors import BadInput, CannotMeasure, first_line, os_reason
from gatebook.record.run import SUMS

INSTALL = "install it: pip install 'dask[distributed]' s3fs (requirements-fleet.txt has the versions)"
UNSAFE = ("", ".", "..")


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
        """The bytes of one file; None where there is none."""
        with self._told(name), suppress(FileNotFoundError, NotADirectoryError):
            if self.local:
                return (self.local / name).read_bytes()
            found: bytes = self._fs.cat_file(f"{self._root}/{name}")
            return found
        return None

    def names(self, under: str) -> list[str]:
        """Every file under a folder, from the store's own one, sorted; none where there is no folder."""
        with self._told(under), suppress(FileNotFoundError):
            if self.local:
                return sorted(str(p.relative_to(self.local)) for p in (self.local / under).rglob("*") if p.is_file())
            found = self._fs.find(f"{self._root}/{under}")
            return sorted(path.removeprefix(f"{self._root}/") for path in found)
        return []

    def put(self, folder: Path, name: str) -> None:
        """A folder with all its files; the list of its checksums comes last, so that half a bundle is none."""
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
        """Take a folder away, if it is there."""
        with self._told(name), suppress(FileNotFoundError):
            if self.local:
                shutil.rmtree(self.local / name, ignore_errors=True)
            else:
                self._fs.rm(f"{self._root}/{name}", recursive=True)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Whatever a store's own package raises, as one line."""
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
