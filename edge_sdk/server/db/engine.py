"""Opening the server's SQLite file: pragmas, migration, and errors a person can act on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DatabaseError

from edge_sdk.errors import StorageError

BUSY_TIMEOUT_MS = 10_000
_MIGRATIONS = "edge_sdk.server.db:migrations"


def open_database(path: Path) -> sa.Engine:
    """The engine of a database file that is created or migrated to this version's schema.

    Raises:
        StorageError: ``storage.bad-database`` or ``storage.database-too-new``.
    """
    engine = sa.create_engine(f"sqlite:///{path}")
    sa.event.listen(engine, "connect", _pragmas)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    try:
        migrate(engine)
    except CommandError as error:
        engine.dispose()
        raise StorageError(
            "database-too-new",
            f"{path} was written by a newer version of edge-sdk ({error}).",
            "Update edge-sdk on this machine, or restore the database's backup.",
        ) from error
    except DatabaseError as error:
        engine.dispose()
        raise StorageError(
            "bad-database",
            f"{path} cannot be used as the server's database: {error.orig}.",
            "Restore a backup, check that this user may write there, or choose another --data.",
        ) from error
    return engine


def migrate(engine: sa.Engine) -> None:
    """Bring the schema to the newest revision, in one transaction."""
    config = Config()
    config.set_main_option("script_location", _MIGRATIONS)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _pragmas(connection: Any, _record: Any) -> None:
    """Readers never wait for the writer, and references hold.

    The sqlite3 module's own transactions are turned off: they leave out schema changes.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # a counter that was issued must survive a power cut
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
