"""The database: migrations lead to the schema in the code, and bad files are named."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from edge_sdk.errors import StorageError
from edge_sdk.server import records
from edge_sdk.server.db.engine import open_database
from edge_sdk.server.db.schema import metadata


def test_migrations_and_schema_agree(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "fleet.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    engine.dispose()


def test_opening_again_keeps_what_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        engine = open_database(tmp_path / "fleet.db")
        with engine.begin() as connection:
            records.add_event(connection, 1.0, "test", "line")
            lines = len(records.events_after(connection, 0, 10))
        engine.dispose()
    assert lines == 2


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "fleet.db")
    with pytest.raises(KeyboardInterrupt), engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE extra (id INTEGER)")
        records.add_event(connection, 1.0, "test", "line")
        raise KeyboardInterrupt
    with engine.connect() as connection:
        assert "extra" not in sa.inspect(connection).get_table_names()
        assert records.events_after(connection, 0, 10) == []
    engine.dispose()


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="bad-database"):
        open_database(path)
    assert path.read_bytes() == b"not a database" * 100


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    open_database(path).dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StorageError, match="database-too-new"):
        open_database(path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="bad-database"):
        open_database(tmp_path / "missing" / "fleet.db")


def test_the_event_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_EVENTS", 500)
    engine = open_database(tmp_path / "fleet.db")
    with engine.begin() as connection:
        for number in range(2500):
            records.add_event(connection, 1.0, "test", str(number))
        kept = records.events_after(connection, 0, 5000)
        assert [event.text for event in kept] == [str(n) for n in range(1500, 2500)]
        assert records.newest_events(connection, 1)[0].id == 2500
    engine.dispose()
