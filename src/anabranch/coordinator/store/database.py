"""The SQL side of the store: one engine, one transaction a call, errors in words.

SQLite runs with a write-ahead log and ``synchronous=FULL``: a commit is one append and one fsync,
and readers never wait (see ``docs/decisions``). What is special to SQLite stands in this file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from anabranch.coordinator.store import migrations, reads, tables
from anabranch.coordinator.store.points import Purpose
from anabranch.coordinator.store.problems import PATIENCE_MS, database_problem
from anabranch.disk import Faults, disk_problem

__all__ = ["Database"]

_WRITES: Final = "anabranch_writes"


class Database:
    """The store's tables in one SQLite file.

    Raises:
        AnabranchError: AB-606 newer schema, AB-612 not a store, AB-602, AB-603, AB-613, AB-614.
    """

    def __init__(self, path: Path, faults: Faults) -> None:
        self._path = path
        self._faults = faults
        self._engine = _engine(path)
        try:
            self._prepare()
        except BaseException:
            self._engine.dispose()
            raise

    def _prepare(self) -> None:
        with self.reading() as connection:
            found = migrations.schema_version(connection)
        if found == tables.SCHEMA_VERSION:
            return
        with self.writing("schema") as connection:  # look again: somebody else may have been faster
            migrations.prepare(connection, migrations.schema_version(connection))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view of all tables."""
        with self._explained("reading the store"), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, purpose: Purpose) -> Iterator[Connection]:
        """One transaction: durable when the block was left, or never happened."""
        with self._explained("writing to the store"), self._engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True})
            with connection.begin() as transaction:
                self._faults.reach(f"{purpose}.begin")
                yield connection
                self._faults.reach(f"{purpose}.commit.before")
                transaction.commit()
                self._faults.reach(f"{purpose}.commit.after")

    def named(self, digests: Collection[str]) -> set[str]:
        """Which of these blobs some row names."""
        with self.reading() as connection:
            return reads.named(connection, digests)

    def last_round(self, run: str) -> int | None:
        """Number of the run's last durable round."""
        with self.reading() as connection:
            return reads.last_round(connection, run)

    def close(self) -> None:
        """Close every connection; the last one folds the log into the file."""
        self._engine.dispose()

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise database_problem(error.orig, self._path, doing, str(error)) from error
        except OSError as error:
            raise disk_problem(error, self._path, doing) from error


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    # The driver must not begin transactions by itself: _on_begin does, of the right kind.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={PATIENCE_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
