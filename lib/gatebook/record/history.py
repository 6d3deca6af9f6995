"""The measurements of past runs: a SQLite file of the project, or a PostgreSQL database that many runners share. Imported only
where a history is opened, since SQLAlchemy loads slowly."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from gatebook.config import project
from gatebook.errors import BadInput, HistoryFailed
from gatebook.record.exchange import Measurement

VARIABLE = "GATEBOOK_HISTORY_URL"
"""Names the database; without it the history is outputs/history.sqlite of the project."""
BUSY_S = 30
"""How long a writer waits for another one."""
CONNECT_S = 5
DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite"}
LOCK = int.from_bytes(b"gatebook"[:7])
SAMPLES = ("ttft_ms", "total_ms", "prompt_tokens", "completion_tokens")
SCHEMA = 2
STEPS = {1: "ALTER TABLE measurement ADD COLUMN gpu_peak_mib FLOAT"}
"""From this schema to the next one. A step is never edited once it has run anywhere."""


class Utc(sa.TypeDecorator[datetime]):
    """An instant, in UTC in the database and in Python, also where the database knows no time zones (SQLite)."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


_META = sa.MetaData()
_VERSION = sa.Table("gatebook_schema", _META, sa.Column("version", sa.Integer, nullable=False))
MEASUREMENT = sa.Table(
    "measurement", _META,
    sa.Column("run", sa.String, primary_key=True), sa.Column("group", sa.String, primary_key=True),
    sa.Column("at", Utc, nullable=False),
    *(sa.Column(name, sa.String, nullable=False) for name in ("profile", "engine", "gpu", "suite", "workload")),
    sa.Column("revision", sa.String), sa.Column("engine_version", sa.String),
    sa.Column("verdict", sa.String, nullable=False), sa.Column("accepted", sa.Boolean, nullable=False),
    sa.Column("n", sa.Integer, nullable=False),
    *(sa.Column(name, sa.JSON, nullable=False) for name in ("ttft_ms", "itl_ms", "total_ms", "prompt_tokens", "completion_tokens")),
    *(sa.Column(name, sa.Float) for name in ("requests_per_s", "tokens_per_s", "gpu_peak_mib")),
    sa.Index("measurement_window", "profile", "suite", "at"),
)  # fmt: skip
"""One row a group of a run, as `Measurement` has it."""


def open_history() -> History:
    """The history that GATEBOOK_HISTORY_URL names, else the project's own file. Raises BadInput."""
    given = os.environ.get(VARIABLE)
    return History(database_url(given) if given else file_url(project.outputs() / "history.sqlite"))


def file_url(path: Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(path))


def database_url(given: str) -> sa.URL:
    """Raises BadInput for what is no URL of SQLite or PostgreSQL; the message never repeats it, for its password."""
    try:
        url = sa.make_url(given)
    except (ArgumentError, ValueError):
        url = sa.URL.create("none")
    if url.get_backend_name() not in DRIVERS or not url.database:
        raise BadInput(
            f"environment variable {VARIABLE} is not the URL of a database that Gatebook knows; "
            "write postgresql://user@host:5432/name or sqlite:////path/to/file, or unset it for outputs/history.sqlite"
        )
    return url.set(drivername=DRIVERS[url.get_backend_name()])


class History:
    """One database. Every method raises HistoryFailed, in one line, when it cannot be reached, read or written."""

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self._is_file = url.get_backend_name() == "sqlite"
        self._engine = (_sqlite if self._is_file else _postgresql)(url)

    @property
    def place(self) -> str:
        """Where it is, for messages: no user, no password, no options."""
        if self._is_file:
            return str(self._url.database)
        where = {name: getattr(self._url, name) for name in ("host", "port", "database")}
        return sa.URL.create("postgresql", **where).render_as_string()

    def enter(self, rows: Iterable[Measurement], judged_again: bool = False) -> int:
        """Store rows and return their number; a run that enters again replaces its own. What a person accepted stays accepted.

        Raises BadInput, and stores nothing, where a run of this name has entered with other evidence. `judged_again`: rows by
        another profile, which names the deployment and says which samples count.
        """
        found = sorted(rows, key=lambda row: (row.run, row.group))
        with self._transaction() as connection:
            for known in _read(connection, MEASUREMENT.c.run.in_({row.run for row in found})):
                if wrong := next((row for row in found if _is_another(known, row, judged_again)), None):
                    said = f"run {wrong.run} has entered with other evidence (group {known.group})"
                    raise BadInput(
                        f"history {self.place}: {said}; nothing was stored, find out which bundle is that run"
                    )
            if found:
                connection.execute(self._upsert(), [row.model_dump() for row in found])
        return len(found)

    def window(
        self, profile: str, suite: str, groups: Collection[str], before: datetime, days: float
    ) -> list[Measurement]:
        """The rows of the `days` before `before` that a run made then is compared with, each marked `accepted`.

        A revision with an accepted row counts with all of its rows, slow days that were not green included: taking only the
        green ones would lower the limit with every noisy day. A row without a revision counts only when accepted itself.
        """
        row, other = MEASUREMENT.c, MEASUREMENT.alias().c
        known = sa.exists().where(other.accepted, *(other[n] == row[n] for n in ("profile", "group", "revision")))
        asked = (row.profile == profile, row.suite == suite, row.group.in_(groups))
        when = (row.at >= before - timedelta(days=days), row.at < before)
        return [m.model_copy(update={"accepted": True}) for m in self._rows(*asked, *when, row.accepted | known)]

    def rows(
        self, profile: str | None = None, group: str | None = None, since: datetime | None = None
    ) -> list[Measurement]:
        """Every row, oldest first, narrowed by what is given."""
        given = {"profile": profile, "group": group}
        narrow = [MEASUREMENT.c[name] == value for name, value in given.items() if value is not None]
        return self._rows(*narrow, *([MEASUREMENT.c.at >= since] if since else []))

    def prune(self, before: datetime) -> tuple[int, int]:
        """Delete the rows of runs made before an instant. Returns the number deleted and the number left."""
        with self._transaction() as connection:
            gone = connection.execute(sa.delete(MEASUREMENT).where(MEASUREMENT.c.at < before)).rowcount
            return gone, connection.execute(sa.select(sa.func.count()).select_from(MEASUREMENT)).scalar_one()

    def _rows(self, *narrow: Any) -> list[Measurement]:
        with self._transaction() as connection:
            return _read(connection, *narrow)

    def _upsert(self) -> Any:
        statement = (sqlite if self._is_file else postgresql).insert(MEASUREMENT)
        new, old = statement.excluded, MEASUREMENT.c
        values = {c.name: new[c.name] for c in old if not c.primary_key}
        values["accepted"] = new["accepted"] | (old.accepted & (old.verdict != "PASS"))  # by hand
        return statement.on_conflict_do_update(index_elements=list(MEASUREMENT.primary_key), set_=values)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            if self._is_file:
                Path(str(self._url.database)).parent.mkdir(parents=True, exist_ok=True)
            with self._engine.begin() as connection:
                _bring_up_to_date(connection)
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


def _read(connection: sa.Connection, *narrow: Any) -> list[Measurement]:
    order = (MEASUREMENT.c[name] for name in ("at", "run", "group"))
    found = connection.execute(sa.select(MEASUREMENT).where(*narrow).order_by(*order)).mappings()
    return [Measurement.model_validate(dict(row)) for row in found]


def _is_another(known: Measurement, row: Measurement, judged_again: bool) -> bool:
    """Whether a row of the same run as a known one is not of the same evidence. A run that was resumed has more samples."""
    if known.run != row.run:
        return False
    if judged_again:
        return (known.at, known.suite) != (row.at, row.suite)
    had, has = ((r.at, r.suite, r.profile, (r.revision or "").removeprefix("not ")) for r in (known, row))
    lost = any(Counter(getattr(known, name)) - Counter(getattr(row, name)) for name in SAMPLES)
    return had != has or (known.group == row.group and lost)


def _postgresql(url: sa.URL) -> sa.Engine:
    waits = {"connect_timeout": str(CONNECT_S), "tcp_user_timeout": str(BUSY_S * 1000)}
    engine = sa.create_engine(url.update_query_dict({**waits, **url.query}), poolclass=NullPool)
    _begin_with(engine, f"SET LOCAL statement_timeout = '{BUSY_S}s'")
    return engine


def _sqlite(url: sa.URL) -> sa.Engine:
    """WAL and explicit transactions: the driver's own leave changes of tables outside, and a lock taken at the first write
    fails without waiting when another process has written meanwhile."""
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_S, "isolation_level": None})
    sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA journal_mode = WAL"))
    _begin_with(engine, "BEGIN IMMEDIATE")
    return engine


def _begin_with(engine: sa.Engine, statement: str) -> None:
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(statement))


def _bring_up_to_date(connection: sa.Connection) -> None:
    """Create the tables, or change older ones step by step, in the transaction of `connection`; one process at a time.
    Raises HistoryFailed when a newer Gatebook made them."""
    if connection.dialect.name == "postgresql":  # in SQLite the transaction itself is the lock
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    there = sa.inspect(connection).has_table(_VERSION.name)
    have = connection.execute(sa.select(_VERSION.c.version)).scalar() if there else None
    if have is None:
        _META.create_all(connection)
        connection.execute(sa.insert(_VERSION).values(version=SCHEMA))
        return
    if have > SCHEMA:
        raise HistoryFailed(f"its schema is {have}, this Gatebook knows {SCHEMA}; use the newer Gatebook that made it")
    for version in range(have, SCHEMA):
        connection.execute(sa.text(STEPS[version]))
    if have < SCHEMA:
        connection.execute(sa.update(_VERSION).values(version=SCHEMA))
