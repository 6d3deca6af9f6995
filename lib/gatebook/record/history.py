"""The measurements of past runs: a SQLite file of the project, or a PostgreSQL database that many runners share.

Imported only where a history is opened: SQLAlchemy takes a while to load.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    and_,
    create_engine,
    delete,
    event,
    exists,
    func,
    insert,
    inspect,
    make_url,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from gatebook.config import project
from gatebook.errors import BadInput, HistoryFailed
from gatebook.record.measurement import Measurement

VARIABLE = "GATEBOOK_HISTORY_URL"
"""Names the database; without it the history is outputs/history.sqlite of the project."""
BUSY_S = 30
"""How long a writer waits for another one."""
CONNECT_S = 5


def open_history() -> History:
    """The history that GATEBOOK_HISTORY_URL names, else the project's own file. Raises BadInput."""
    given = os.environ.get(VARIABLE)
    return History(database_url(given) if given else file_url(project.outputs() / "history.sqlite"))


def file_url(path: Path) -> URL:
    return URL.create("sqlite", database=str(path))


def database_url(given: str) -> URL:
    """Raises BadInput for what is no URL of SQLite or PostgreSQL; the message never repeats it, for its password."""
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        url = URL.create("none")
    driver = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite"}
    if url.get_backend_name() not in driver or not url.database:
        raise BadInput(
            f"environment variable {VARIABLE} is not the URL of a database that Gatebook knows; "
            "write postgresql://user@host:5432/name or sqlite:////path/to/file, or unset it for outputs/history.sqlite"
        )
    return url.set(drivername=driver[url.get_backend_name()])


class History:
    """One database. Every method raises HistoryFailed, in one line, when it cannot be reached, read or written."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._engine = _engine(url)

    @property
    def place(self) -> str:
        """Where it is, for messages: no user, no password, no options."""
        if self._url.get_backend_name() == "sqlite":
            return str(self._url.database)
        port = f":{self._url.port}" if self._url.port else ""
        return f"postgresql://{self._url.host or ''}{port}/{self._url.database}"

    def enter(self, rows: Iterable[Measurement]) -> int:
        """Store rows; a run that enters again replaces its own rows. What a person accepted stays accepted.

        Returns how many rows were given.
        """
        values = [row.model_dump() for row in sorted(rows, key=lambda row: (row.run, row.group))]
        with self._transaction() as connection:
            if values:
                connection.execute(_upsert(connection), values)
        return len(values)

    def window(
        self, profile: str, suite: str, groups: Collection[str], before: datetime, days: float
    ) -> list[Measurement]:
        """What a run made at `before` is compared with: the `days` before it.

        A revision counts when any of its rows was accepted, then with all of its rows, also those of slow days that were
        not green: taking only the green ones would lower the limit with every noisy day. A row without a revision
        counts only when it was itself accepted. Every row that comes back says `accepted`.
        """
        other = MEASUREMENT.alias()
        known = exists().where(
            other.c.accepted, *(other.c[name] == MEASUREMENT.c[name] for name in ("profile", "group", "revision"))
        )
        rows = self._rows(
            MEASUREMENT.c.profile == profile,
            MEASUREMENT.c.suite == suite,
            MEASUREMENT.c.group.in_(groups),
            MEASUREMENT.c.at >= before - timedelta(days=days),
            MEASUREMENT.c.at < before,
            or_(MEASUREMENT.c.accepted, known),
        )
        return [row.model_copy(update={"accepted": True}) for row in rows]

    def rows(
        self, profile: str | None = None, group: str | None = None, since: datetime | None = None
    ) -> list[Measurement]:
        """Every row, oldest first, narrowed by what is given."""
        given = {"profile": profile, "group": group}
        narrow = [MEASUREMENT.c[name] == value for name, value in given.items() if value is not None]
        return self._rows(*narrow, *([MEASUREMENT.c.at >= since] if since else []))

    def prune(self, before: datetime) -> tuple[int, int]:
        """Delete the rows of runs made before an instant: (how many, how many remain)."""
        with self._transaction() as connection:
            gone = connection.execute(delete(MEASUREMENT).where(MEASUREMENT.c.at < before)).rowcount
            return gone, connection.execute(select(func.count()).select_from(MEASUREMENT)).scalar_one()

    def _rows(self, *narrow: Any) -> list[Measurement]:
        query = select(MEASUREMENT).where(*narrow).order_by(MEASUREMENT.c.at, MEASUREMENT.c.run, MEASUREMENT.c.group)
        with self._transaction() as connection:
            return [Measurement.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            if self._url.get_backend_name() == "sqlite":
                Path(str(self._url.database)).parent.mkdir(parents=True, exist_ok=True)
            with self._engine.begin() as connection:
                bring_up_to_date(connection)
                yield connection
        except (SQLAlchemyError, sqlite3.Error, OSError, ValueError, HistoryFailed) as error:
            raise HistoryFailed(f"history {self.place}: {self._said(error)}") from None

    def _said(self, error: Exception) -> str:
        """The database's own words without what the URL keeps secret."""
        said = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        options = [v for name, values in self._url.normalized_query.items() if "password" in name for v in values]
        for secret in filter(None, (self._url.password, *options)):
            said = said.replace(str(secret), "[redacted]")
        return said


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        waits = {"connect_timeout": str(CONNECT_S), "tcp_user_timeout": str(BUSY_S * 1000)}
        engine = create_engine(url.update_query_dict({**waits, **url.query}), poolclass=NullPool)
        event.listen(engine, "begin", _wait_no_longer)
        return engine
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", _write_ahead)
    event.listen(engine, "begin", _lock_at_once)
    return engine


def _wait_no_longer(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{BUSY_S}s'")


def _write_ahead(connection: Any, _: Any) -> None:
    """WAL, and transactions that are ours alone to begin: the driver's own leave a change of tables outside them."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")


def _lock_at_once(connection: Connection) -> None:
    """A lock taken only at the first write fails at once, without waiting, when another has written meanwhile."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _upsert(connection: Connection) -> Any:
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(MEASUREMENT)
    new = insert.excluded
    by_hand = and_(MEASUREMENT.c.accepted, MEASUREMENT.c.verdict != "PASS")
    values = {c.name: new[c.name] for c in MEASUREMENT.c if not c.primary_key}
    return insert.on_conflict_do_update(
        index_elements=list(MEASUREMENT.primary_key), set_={**values, "accepted": or_(new["accepted"], by_hand)}
    )


SCHEMA = 2
STEPS: dict[int, Callable[[Connection], None]] = {
    1: lambda connection: _run(connection, "ALTER TABLE measurement ADD COLUMN gpu_peak_mib FLOAT"),
}
"""From this schema to the next one. A step is never edited once it has run anywhere."""


class Utc(TypeDecorator[datetime]):
    """An instant, in UTC in the database and in Python, also where the database knows no time zones (SQLite)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


_META = MetaData()
_VERSION = Table("gatebook_schema", _META, Column("version", Integer, nullable=False))
MEASUREMENT = Table(
    "measurement", _META,
    Column("run", String, primary_key=True), Column("group", String, primary_key=True),
    Column("at", Utc, nullable=False),
    *(Column(name, String, nullable=False) for name in ("profile", "engine", "gpu", "suite", "workload")),
    Column("revision", String), Column("engine_version", String),
    Column("verdict", String, nullable=False), Column("accepted", Boolean, nullable=False),
    Column("n", Integer, nullable=False),
    *(Column(name, JSON, nullable=False) for name in ("ttft_ms", "itl_ms", "total_ms", "prompt_tokens", "completion_tokens")),
    Column("requests_per_s", Float), Column("tokens_per_s", Float), Column("gpu_peak_mib", Float),
    Index("measurement_window", "profile", "suite", "at"),
)  # fmt: skip
"""One row a group of a run, as `Measurement` has it."""

_LOCK = int.from_bytes(b"gatebook"[:7])


def bring_up_to_date(connection: Connection) -> None:
    """Make the tables, or change older ones step by step, in the transaction of `connection`; one process at a time.

    Raises HistoryFailed when a newer Gatebook made them.
    """
    if connection.dialect.name == "postgresql":  # in SQLite the transaction itself is the lock
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    have = connection.execute(select(_VERSION.c.version)).scalar() if _is_there(connection) else None
    if have is None:
        _META.create_all(connection)
        connection.execute(insert(_VERSION).values(version=SCHEMA))
        return
    if have > SCHEMA:
        raise HistoryFailed(f"its schema is {have}, this Gatebook knows {SCHEMA}; use the newer Gatebook that made it")
    for version in range(have, SCHEMA):
        STEPS[version](connection)
    if have < SCHEMA:
        connection.execute(update(_VERSION).values(version=SCHEMA))


def _run(connection: Connection, statement: str) -> None:
    connection.execute(text(statement))


def _is_there(connection: Connection) -> bool:
    return inspect(connection).has_table(_VERSION.name)
