"""The connections to the ledger's database: one that writes, a few that read, and how their errors are told.

A commit is on disk when it returns (SQLite: WAL with synchronous=FULL), because the flusher deletes what it committed
from the usage stream: with synchronous=NORMAL a power cut could take the last commits after their entries are gone.
Batches of up to a thousand events share that one fsync. Writers of one process queue for the one write connection;
those of other processes wait for each other up to BUSY_TIMEOUT_MS. Readers never wait for writers.
A call that is cancelled runs on to its end: a connection that is dropped in mid-statement costs more than its answer.
Every failure of the database is a Fault(LEDGER_UNAVAILABLE), save a broken constraint, which the caller knows to name.
"""

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.domain.faults import LEDGER_UNAVAILABLE, Fault

BUSY_TIMEOUT_MS = 5_000
_READERS = 4
_PRAGMAS = (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "foreign_keys=ON")

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Kind = TypeVar("_Kind", bound="Database")
_Method = Callable[Concatenate[_Kind, _Parameters], Coroutine[Any, Any, _Result]]


def whole(method: _Method[_Kind, _Parameters, _Result]) -> _Method[_Kind, _Parameters, _Result]:
    """Let a method of a database run to its end when its caller is cancelled; `close` waits for it."""

    @wraps(method)
    async def call(database: _Kind, /, *args: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        task = asyncio.create_task(method(database, *args, **options))
        database.keep(task)
        return await asyncio.shield(task)

    return call


class Database:
    """An SQLite file by its URL (`sqlite+aiosqlite:///path`). Connects at first use; `close` is needed."""

    def __init__(self, url: str) -> None:
        self._writer = _engine(url, 1, "BEGIN IMMEDIATE", "synchronous=FULL")
        self._reader = _engine(url, _READERS, "BEGIN", "query_only=ON")
        self._calls: set[asyncio.Task[Any]] = set()

    @classmethod
    def open(cls, url: str) -> Self:
        """The database at `url`; nothing is read yet."""
        return cls(url)

    async def close(self) -> None:
        """Let calls end, then close every connection. The database can be used again, and connects anew."""
        while self._calls:
            await asyncio.wait(self._calls)
        await self._writer.dispose()
        await self._reader.dispose()

    @whole
    async def ping(self) -> None:
        """Raise Fault(LEDGER_UNAVAILABLE) unless the database answers."""
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))

    def keep(self, call: asyncio.Task[Any]) -> None:
        """Hold on to a call until it ends, whoever still waits for it."""
        self._calls.add(call)
        call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # marks it as seen, where the caller has left

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One consistent view of the database; writing through it fails."""
        async with _transaction(self._reader) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end, rolled back when the body raises. The process's only writer."""
        async with _transaction(self._writer) as connection:
            yield connection


@asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.begin() as connection:
            yield connection
    except IntegrityError:
        raise
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        # The driver's own words: SQLAlchemy's go on with the statement and its values, which are no log's business.
        cause = getattr(error, "orig", None) or error
        raise Fault(LEDGER_UNAVAILABLE, f"ledger: {str(cause).partition(chr(10))[0]}") from error


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
