"""The connections to the ledger's database: one that writes, a few that read, and how their errors are told.

A commit is on disk when it returns (SQLite: WAL with synchronous=FULL), because the flusher deletes what it committed
from the usage stream: with synchronous=NORMAL a power cut could take the last commits after their entries are gone.
Batches of up to a thousand events share that one fsync. Writers of one process queue for the one write connection;
those of other processes wait for each other up to BUSY_TIMEOUT_MS. Readers never wait for writers.
Every failure of the database is a Fault(LEDGER_UNAVAILABLE), save a broken constraint, which the caller knows to name.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.domain.faults import LEDGER_UNAVAILABLE, Fault

BUSY_TIMEOUT_MS = 5_000
_READERS = 4
_PRAGMAS = (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "foreign_keys=ON")


class Database:
    """An SQLite file by its URL (`sqlite+aiosqlite:///path`). Connects at first use; `close` is needed."""

    def __init__(self, url: str) -> None:
        self._writer = _engine(url, 1, "BEGIN IMMEDIATE", "synchronous=FULL")
        self._reader = _engine(url, _READERS, "BEGIN", "query_only=ON")

    @classmethod
    def open(cls, url: str) -> Self:
        """The database at `url`; nothing is read yet."""
        return cls(url)

    async def close(self) -> None:
        """Close every connection. The database can be used again, and connects anew."""
        await self._writer.dispose()
        await self._reader.dispose()

    async def ping(self) -> None:
        """Raise Fault(LEDGER_UNAVAILABLE) unless the database answers."""
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One consistent view of the database; writing through it fails."""
        with_faults = _faults_of(self._reader)
        async with with_faults as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end, rolled back when the body raises. The process's only writer."""
        with_faults = _faults_of(self._writer)
        async with with_faults as connection:
            yield connection


@asynccontextmanager
async def _faults_of(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.begin() as connection:
            yield connection
    except IntegrityError:
        raise
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise Fault(LEDGER_UNAVAILABLE, f"ledger: {error}") from error


def _engine(url: str, connections: int, begin: str, pragma: str) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=connections, max_overflow=0, pool_timeout=BUSY_TIMEOUT_MS / 1000)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # Without this the driver begins transactions where it sees fit, which is too late for a read before a write.
        connection.isolation_level = None
        cursor = connection.cursor()
        for line in (*_PRAGMAS, pragma):
            cursor.execute(f"PRAGMA {line}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
