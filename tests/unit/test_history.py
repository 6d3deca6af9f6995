"""The history on a real SQLite file and a real PostgreSQL: nothing twice, nothing lost, old files read, the right window."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from gatebook.errors import BadInput, HistoryFailed
from gatebook.record.exchange import Measurement
from gatebook.record.history import MEASUREMENT, SCHEMA, VARIABLE, History, database_url, file_url, open_history
from pydantic import ValidationError

from tests.postgresql import PASSWORD, free_port, new_database
from tests.unit.measured import NOW, measurement, write_at_once

SCHEMA_1 = (
    "CREATE TABLE gatebook_schema (version INTEGER NOT NULL)",
    "INSERT INTO gatebook_schema VALUES (1)",
    """CREATE TABLE measurement (run VARCHAR NOT NULL, "group" VARCHAR NOT NULL, at {time} NOT NULL, profile VARCHAR NOT NULL,
    engine VARCHAR NOT NULL, gpu VARCHAR NOT NULL, suite VARCHAR NOT NULL, workload VARCHAR NOT NULL, revision VARCHAR,
    engine_version VARCHAR, verdict VARCHAR NOT NULL, accepted BOOLEAN NOT NULL, n INTEGER NOT NULL, ttft_ms JSON NOT NULL,
    itl_ms JSON NOT NULL, total_ms JSON NOT NULL, prompt_tokens JSON NOT NULL, completion_tokens JSON NOT NULL,
    requests_per_s FLOAT, tokens_per_s FLOAT, PRIMARY KEY (run, "group"))""",
    "CREATE INDEX measurement_window ON measurement (profile, suite, at)",
    """INSERT INTO measurement VALUES ('old', 'g.h', '2026-11-19 12:00:00', 'p', 'vllm', 'NVIDIA L4', 'full', 'w', 'rev-1', NULL, 'PASS',
    true, 2, '[100.0, 101.5]', '[10.0]', '[500.0, 501.0]', '[7, 7]', '[5, 5]', 1.5, NULL)""",
)
"""A database as schema 1 had it: written down when schema 2 came, not made by today's code."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that does not hold anything yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'deep' / 'history.sqlite'}"
    return new_database(request.getfixturevalue("postgresql"), tmp_path.name)


@pytest.fixture
def history(url: str) -> History:
    return History(database_url(url))


@pytest.fixture
def schema_1(url: str) -> str:
    """The same database as schema 1 left it."""
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        file.parent.mkdir()
        with sqlite3.connect(file) as old:
            old.executescript(";".join(SCHEMA_1).format(time="DATETIME"))
        old.close()
    else:
        with psycopg.connect(url) as connection:
            for statement in SCHEMA_1:
                connection.execute(statement.format(time="TIMESTAMP WITH TIME ZONE").encode())
    return url


def window(history: History, days: float = 7, groups: tuple[str, ...] = ("g.h",)) -> list[str]:
    return [row.run for row in history.window("p", "full", groups, NOW, days)]


def test_rows_come_back_as_they_went_in_and_in_utc(history: History) -> None:
    east = timezone(timedelta(hours=8))
    rows = [
        measurement(3, run="r1"),
        measurement(2, run="r2", revision=None, engine_version=None, gpu_peak_mib=None, requests_per_s=None, itl_ms=[]),
        measurement(run="r3", at=datetime(2026, 11, 20, 4, 0, 0, 123456, tzinfo=east)),
    ]
    assert history.enter(reversed(rows)) == 3
    assert history.rows() == rows
    assert rows[2].at == datetime(2026, 11, 19, 20, 0, 0, 123456, tzinfo=UTC)
    assert all(row.at.utcoffset() == timedelta() for row in history.rows())


def test_every_column_is_a_field_of_the_row() -> None:
    """A new field of Measurement wants a step of the schema."""
    assert list(MEASUREMENT.c.keys()) == list(Measurement.model_fields) and len(Measurement.model_fields) == 21
    assert SCHEMA == 2


def test_a_time_without_a_zone_is_no_instant() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        measurement(at=datetime(2026, 11, 20, 4, 0))  # noqa: DTZ001


def test_a_run_enters_once_however_often(history: History) -> None:
    for _ in range(3):
        history.enter([measurement(group="g.a"), measurement(group="g.b")])
    assert [row.group for row in history.rows()] == ["g.a", "g.b"]


OTHERS: dict[str, dict[str, Any]] = {
    "another time": {"at": NOW},
    "another suite": {"suite": "smoke"},
    "another profile": {"profile": "q"},
    "another revision": {"revision": "rev-2"},
    "a faster answer": {"ttft_ms": [100.0, 110.5, 12.0]},
    "a slow answer gone": {"total_ms": [500.0, 510.0]},
    "another group of another time": {"group": "g.other", "at": NOW},
}


@pytest.mark.parametrize("fields", OTHERS.values(), ids=OTHERS.keys())
def test_a_run_is_not_replaced_by_another_one_of_its_name(history: History, fields: dict[str, Any]) -> None:
    history.enter([measurement()])
    with pytest.raises(BadInput, match=r"run r1 has entered with other evidence \(group g\.h\); nothing was stored"):
        history.enter([measurement(run="r0"), measurement(**fields)])
    assert history.rows() == [measurement()]


def test_a_resumed_run_has_more_samples_and_one_judged_again_other_rules(history: History) -> None:
    history.enter([measurement()])
    more = measurement(ttft_ms=[130.0, 100.0, 110.5, 120.0], n=4, workload="v" * 64, revision="not rev-1")
    history.enter([more])
    assert history.rows() == [more]
    judged = measurement(profile="q", revision="rev-2", ttft_ms=[100.0])
    history.enter([judged], judged_again=True)
    assert history.rows() == [judged]
    with pytest.raises(BadInput, match="other evidence"):
        history.enter([measurement(at=NOW)], judged_again=True)


@pytest.mark.parametrize(
    ("before", "after", "accepted"),
    [
        (("ERROR", False), ("PASS", True), True),  # resumed to its end
        (("PASS", True), ("FAIL", False), False),
        (("INCONCLUSIVE", True), ("INCONCLUSIVE", False), True),  # a person accepted it
        (("FAIL", False), ("FAIL", True), True),  # a person accepts it
    ],
)
def test_a_run_that_enters_again_has_its_new_verdict_and_keeps_a_persons_acceptance(
    history: History, before: tuple[str, bool], after: tuple[str, bool], accepted: bool
) -> None:
    for verdict, said in (before, after):
        history.enter([measurement(verdict=verdict, accepted=said, n=4 if (verdict, said) == after else 3)])
    [row] = history.rows()
    assert (row.verdict, row.accepted, row.n) == (after[0], accepted, 4)


def test_the_window_takes_slow_days_of_accepted_revisions_and_nothing_of_others(history: History) -> None:
    history.enter([
        measurement(2, run="good"),
        measurement(1, run="slow-day", verdict="FAIL"),
        measurement(3, run="slow-before-it-was-accepted", verdict="INCONCLUSIVE"),
        measurement(1, run="faulty-build", revision="rev-2", verdict="FAIL"),
        measurement(1, run="something-else", revision="not rev-1", verdict="FAIL"),
        measurement(1, run="unnamed-good", revision=None),
        measurement(1, run="unnamed-bad", revision=None, verdict="FAIL"),
    ])  # fmt: skip
    assert window(history) == ["slow-before-it-was-accepted", "good", "slow-day", "unnamed-good"]
    assert all(row.accepted for row in history.window("p", "full", ["g.h"], NOW, 7))
    assert sum(row.accepted for row in history.rows()) == 2


def test_acceptance_counts_for_its_group_and_profile_only(history: History) -> None:
    history.enter([
        measurement(1, run="a", group="g.a"),
        measurement(1, run="a", group="g.h", verdict="FAIL"),
        measurement(1, run="b", profile="q"),
    ])  # fmt: skip
    assert window(history) == []


def test_the_window_ends_where_it_ends(history: History) -> None:
    history.enter([
        measurement(7, run="first"), measurement(7.001, run="too-old"), measurement(0, run="itself"), measurement(0.001, run="last"),
        measurement(1, run="other-suite", suite="demo"), measurement(1, run="other-group", group="g.z"),
        measurement(1, run="other-gpu", gpu="NVIDIA H100", engine="sglang", workload="x"),
    ])  # fmt: skip
    assert window(history) == ["first", "other-gpu", "last"]
    assert window(history, days=2) == ["other-gpu", "last"]
    assert window(history, groups=()) == []


def test_rows_are_narrowed_and_pruned(history: History) -> None:
    history.enter([
        measurement(3, run="a"), measurement(2, run="b", group="g.a"), measurement(1, run="c", profile="q")
    ])  # fmt: skip
    assert [row.run for row in history.rows(profile="p")] == ["a", "b"]
    assert [row.run for row in history.rows(group="g.h")] == ["a", "c"]
    assert [row.run for row in history.rows(since=NOW - timedelta(days=2))] == ["b", "c"]
    assert history.prune(NOW - timedelta(days=2)) == (1, 2)
    assert [row.run for row in history.rows()] == ["b", "c"]


def test_writers_at_once_lose_nothing(url: str, history: History) -> None:
    """Also the tables are made by whichever comes first."""
    write_at_once(url, writers=3, count=12)
    expected = {(f"w{w}-{n}", g) for w in range(3) for n in range(12) for g in ("g.a", "g.b")}
    rows = [(row.run, row.group) for row in history.rows()]
    assert set(rows) == expected | {("shared", "g.a"), ("shared", "g.b")} and len(rows) == len(set(rows))


def test_an_older_schema_is_brought_up_to_date_and_loses_nothing(schema_1: str) -> None:
    history = History(database_url(schema_1))
    [old] = history.rows()
    assert old.at == datetime(2026, 11, 19, 12, tzinfo=UTC) and old.ttft_ms == [100.0, 101.5] and old.accepted
    assert old.gpu_peak_mib is None and old.requests_per_s == 1.5
    history.enter([measurement(0, gpu_peak_mib=123.5)])
    assert [row.gpu_peak_mib for row in History(database_url(schema_1)).rows()] == [None, 123.5]


def test_an_older_schema_is_brought_up_to_date_once_by_writers_at_once(schema_1: str) -> None:
    write_at_once(schema_1, writers=3, count=2)
    assert len(History(database_url(schema_1)).rows()) == 1 + 3 * 2 * 2 + 2


def test_a_newer_schema_is_left_alone(url: str, history: History) -> None:
    history.enter([measurement()])
    _execute(url, f"UPDATE gatebook_schema SET version = {SCHEMA + 1}")
    with pytest.raises(HistoryFailed, match=f"its schema is {SCHEMA + 1}, this Gatebook knows {SCHEMA}; use the newer"):
        history.enter([measurement(run="r2")])
    _execute(url, f"UPDATE gatebook_schema SET version = {SCHEMA}")
    assert [row.run for row in history.rows()] == ["r1"]


def test_a_writer_that_is_cut_off_leaves_nothing_half_done(history: History) -> None:
    bad = measurement(group="g.z").model_copy(update={"gpu": None})
    with pytest.raises(HistoryFailed):
        history.enter([measurement(group="g.a"), bad])
    assert history.rows() == []


def test_a_message_never_holds_the_password(postgresql: str) -> None:
    wrong = postgresql.replace(PASSWORD, "wr0ng-password") + "/postgres?sslpassword=an0ther-secret"
    port = free_port()
    for url, said in [
        (wrong, "password authentication failed"),
        (f"postgres://u:{PASSWORD}@127.0.0.1:{port}/x", f"postgresql://127.0.0.1:{port}/x: connection failed"),
        (f"{postgresql}/{PASSWORD}", "does not exist"),
    ]:
        with pytest.raises(HistoryFailed, match=said) as caught:
            History(database_url(url)).rows()
        text = str(caught.value).split(": ", 1)[1]
        assert not any(secret in text for secret in (PASSWORD, "wr0ng-password", "an0ther-secret")) and "\n" not in text


@pytest.mark.parametrize("given", ["nonsense", "mysql://u:geheim@h/d", "sqlite://", "postgresql://u:geheim@h", "postgresql://u:geheim@h:port/d"])  # fmt: skip
def test_what_is_no_url_of_a_known_database_is_bad_input(given: str) -> None:
    with pytest.raises(BadInput, match=r"GATEBOOK_HISTORY_URL is not the URL.*write postgresql://") as caught:
        database_url(given)
    assert "geheim" not in str(caught.value)


def test_a_file_that_is_no_database_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    file.write_text("not a database, and longer than its header would be: " + "x" * 100)
    before = file.read_bytes()
    with pytest.raises(HistoryFailed, match=r"history\.sqlite: file is not a database"):
        History(file_url(file)).rows()
    assert file.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryFailed, match="history.sqlite: "):
        History(file_url(tmp_path / "file" / "x" / "history.sqlite")).rows()


def test_the_variable_names_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEBOOK_ROOT", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert open_history().place == str(tmp_path / "outputs" / "history.sqlite")
    monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path}/mine.sqlite")
    assert open_history().place == f"{tmp_path}/mine.sqlite"
    monkeypatch.setenv(VARIABLE, "postgresql://someone:geheim@db.example:5433/gatebook?sslmode=require")
    assert open_history().place == "postgresql://db.example:5433/gatebook"


def _execute(url: str, statement: str) -> None:
    run: dict[str, Callable[[], object]] = {
        "sqlite": lambda: _sqlite(url, statement),
        "postgresql": lambda: _postgresql(url, statement),
    }
    run[url.split(":")[0]]()


def _sqlite(url: str, statement: str) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute(statement)
    connection.close()


def _postgresql(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())
