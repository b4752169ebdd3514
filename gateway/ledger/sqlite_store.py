"""A ledger in an SQLite file: one connection that writes, a few that read.

A commit is on disk when it returns (WAL with synchronous=FULL), because the flusher deletes what it committed from the
usage stream: with synchronous=NORMAL a power cut could take the last commits after their entries are gone. Batches of
up to a thousand events share that one fsync. Writers of one process queue for the one write connection; those of other
processes wait for each other up to BUSY_TIMEOUT_MS. Readers never wait for writers.
"""

import errno
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.domain.usage import UsageEvent
from gateway.ledger.store import Rows
from gateway.ledger.tables import SUMS, events

BUSY_TIMEOUT_MS = 5_000
_READERS = 4
_PRAGMAS = (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "foreign_keys=ON")


class SqliteStore:
    """An SQLite file by its URL (`sqlite+aiosqlite:///path`)."""

    single_writer = True
    failures: tuple[type[BaseException], ...] = (sqlite3.Error,)

    def __init__(self, url: str) -> None:
        self.writer = _engine(url, 1, "BEGIN IMMEDIATE", "synchronous=FULL")
        self.reader = _engine(url, _READERS, "BEGIN", "query_only=ON")

    def storable(self, events: Sequence[UsageEvent]) -> Sequence[UsageEvent]:
        """The events: SQLite holds every text."""
        return events

    async def insert_events(self, connection: AsyncConnection, events: Sequence[UsageEvent]) -> list[str]:
        """Insert those that are new; their request ids.

        A round to the database's thread costs as much as two hundred rows, so few statements take many rows each: what
        a statement has too much room for is filled with its last row, which conflicts with itself.
        """
        new: list[str] = []
        start = 0
        while start < len(events):
            size = min((size for size in _TAKING if size >= len(events) - start), default=max(_TAKING))
            part = msgspec.to_builtins(events[start : start + size])
            part += [part[-1]] * (size - len(part))
            inserted = await connection.exec_driver_sql(_TAKING[size], tuple(chain.from_iterable(part)))
            new += inserted.scalars().all()
            start += size
        return new

    async def add_sums(self, connection: AsyncConnection, table: Table, rows: Rows) -> None:
        """Insert rows of sums, or add them to those that stand."""
        row = insert(table)
        sums = {name: table.c[name] + row.excluded[name] for name in SUMS}
        await connection.execute(row.on_conflict_do_update(index_elements=table.primary_key, set_=sums), rows)

    async def insert_new(self, connection: AsyncConnection, table: Table, rows: Rows) -> None:
        """Insert rows, save those whose keys are taken."""
        await connection.execute(insert(table).on_conflict_do_nothing(), rows)

    async def begin_migration(self, connection: AsyncConnection) -> None:
        """Nothing: `BEGIN IMMEDIATE` has waited."""


def _engine(url: str, connections: int, begin: str, pragma: str) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=connections, max_overflow=0, pool_timeout=BUSY_TIMEOUT_MS / 1000)

    @event.listens_for(engine.sync_engine, "do_connect")
    def find_file(_dialect: object, _record: object, place: list[Any], _options: object) -> None:
        _find_file(Path(place[0]))

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        try:
            # Else the driver begins transactions where it sees fit, which is too late for a read before a write.
            connection.isolation_level = None
            cursor = connection.cursor()
            for line in (*_PRAGMAS, pragma):
                cursor.execute(f"PRAGMA {line}")
            cursor.close()
        except BaseException:
            connection.close()
            raise

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _find_file(path: Path) -> None:
    """Make the file where there is none, and see that it can be opened: the driver leaves a thread behind if it can't.

    Only this user may read a ledger; SQLite gives its other files the same mode. One that is there is never opened and
    closed: closing drops every POSIX lock this process holds on it, and with them SQLite's, so that another process
    takes itself for the last one and deletes the WAL under our feet.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    if not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _taking(rows: int) -> str:
    """The statement that inserts so many events, compiled once."""
    row = dict.fromkeys(events.columns.keys())
    taking = insert(events).values([row] * rows).on_conflict_do_nothing().returning(events.c.request_id)
    return str(taking.compile(dialect=sqlite.dialect(paramstyle="qmark")))


_TAKING = {rows: _taking(rows) for rows in (1, 8, 64, 512)}
