"""A real PostgreSQL server for the tests, on a data folder and a port of its own; Debian's package has it (.ci/packages)."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

OWNER, PASSWORD = "gatebook", "s3cret-of-the-tests"
START_S = 60.0


def programs() -> Path | None:
    """The folder with initdb and postgres: GATEBOOK_POSTGRESQL_BIN, the newest of Debian's, or that on the PATH."""
    if named := os.environ.get("GATEBOOK_POSTGRESQL_BIN"):
        folders = [Path(named)]
    else:
        debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: p.parent.name.zfill(4), reverse=True)
        folders = [*debian, *(Path(found).resolve().parent for found in [shutil.which("initdb")] if found)]
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a server, password in it, without a database name: `postgresql://...:port`."""
    if (found := programs()) is None:
        said = "no PostgreSQL here (.ci/packages installs Debian's, GATEBOOK_POSTGRESQL_BIN names another)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(said)
    with server(found) as port:
        yield f"postgresql://{OWNER}:{PASSWORD}@127.0.0.1:{port}"


@contextmanager
def server(bin_folder: Path) -> Iterator[int]:
    """The port of a fresh server. As root it runs as `postgres` or `nobody`, because PostgreSQL refuses root."""
    user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="gatebook-postgresql-"))
    if os.geteuid() == 0:
        account = next(a for name in ("postgres", "nobody") for a in pwd.getpwall() if a.pw_name == name)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(folder, account.pw_uid, account.pw_gid)
    word, data = folder / "password", folder / "data"
    word.write_text(PASSWORD)
    word.chmod(0o644)  # its folder is its owner's alone
    try:
        subprocess.run(
            [bin_folder / "initdb", "-D", data, "-U", OWNER, "--pwfile", word, "--auth", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale", "C"],
            check=True, capture_output=True, timeout=START_S, cwd=folder, **user,
        )  # fmt: skip
        port = free_port()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [bin_folder / "postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
                stdout=log, stderr=log, cwd=folder, **user,
            )  # fmt: skip
        try:
            _wait(process, port, folder / "log")
            yield port
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(START_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_database(url: str, name: str) -> str:
    """The URL of an empty database of the server."""
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"{url}/{name}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(f"postgresql://{OWNER}:{PASSWORD}@127.0.0.1:{port}/postgres", connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from None
            time.sleep(0.1)
