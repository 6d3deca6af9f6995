"""The tables that a history lives in, and the steps that bring an older one up to date. Imported only where a history is opened.

Schema 1: latencies and rates. Schema 2: the peak of GPU memory.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    insert,
    inspect,
    select,
    text,
    update,
)

from gatebook.errors import HistoryFailed

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
