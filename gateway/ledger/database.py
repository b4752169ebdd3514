"""The connections to the ledger's database, and how its errors are told.

A call that is cancelled runs on to its end: a connection that is dropped in mid-statement costs more than its answer.
Every failure of the database is a Fault(LEDGER_UNAVAILABLE), save a broken constraint or a value beyond its column,
which the caller knows to name.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.domain.faults import LEDGER_UNAVAILABLE, Fault
from gateway.ledger.sqlite_store import SqliteStore
from gateway.ledger.store import Store
from gateway.settings.model import Database as Options

Connection = AsyncConnection
"""A transaction under way, for those who only pass it on."""

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Kind = TypeVar("_Kind", bound="Database")
_Method = Callable[Concatenate[_Kind, _Parameters], Coroutine[Any, Any, _Result]]

CLOSE_S = 2.0
"""How long `close` waits for the calls under way."""

DROP_S = 10.0
"""How long it waits then for their connections to be dropped. SQLite ends a statement by itself, BUSY_TIMEOUT_MS after
it began at the latest, and only then lets go.
"""

_DATA_EXCEPTION = "22"
"""The class of SQLSTATE for values that don't fit."""


def whole(method: _Method[_Kind, _Parameters, _Result]) -> _Method[_Kind, _Parameters, _Result]:
    """Let a method of a database run to its end when its caller is cancelled; `close` waits for it."""

    @wraps(method)
    async def call(database: _Kind, /, *args: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        task = asyncio.create_task(method(database, *args, **options))
        database.keep(task)
        return await asyncio.shield(task)

    return call


class Database:
    """A database by its URL: `sqlite+aiosqlite:///path`, `postgresql://…`. Connects at first use; `close` is needed."""

    def __init__(self, url: str, options: Options | None = None) -> None:
        self._store = _store(url, options or Options())
        self._failures: tuple[type[BaseException], ...] = (SQLAlchemyError, OSError, *self._store.failures)
        self._calls: set[asyncio.Task[Any]] = set()

    @classmethod
    def open(cls, url: str, options: Options | None = None) -> Self:
        """The database at `url`, with the settings' time-outs and pool; nothing is read yet."""
        return cls(url) if options is None else cls(url, options)

    async def close(self) -> None:
        """Let calls end, then close every connection. The database can be used again, and connects anew.

        Calls that a silent database holds up for longer than CLOSE_S are cancelled, and their connections dropped.
        """
        await self._wait_for_calls(CLOSE_S)
        # Once: another cancellation would break off the closing of the call's connection, which then never ends.
        for call in self._calls:
            call.cancel()
        await self._wait_for_calls(DROP_S)
        await self._store.writer.dispose()
        await self._store.reader.dispose()

    async def _wait_for_calls(self, longest_s: float) -> None:
        deadline_s = asyncio.get_running_loop().time() + longest_s
        while self._calls and (left_s := deadline_s - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._calls, timeout=left_s)

    @property
    def single_writer(self) -> bool:
        """Whether writers wait for each other's whole transactions, so that more than one is in the way."""
        return self._store.single_writer

    @property
    def partitioned(self) -> bool:
        """Whether events are kept in partitions, which have to be made."""
        return not self._store.single_writer

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
        async with self._transaction(self._store.reader) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end, rolled back when the body raises."""
        async with self._transaction(self._store.writer) as connection:
            yield connection

    @asynccontextmanager
    async def migrating(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction that no other process's migration runs beside."""
        async with self.writing() as connection:
            await self._store.begin_migration(connection)
            yield connection

    @asynccontextmanager
    async def _transaction(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        try:
            async with engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except self._failures as error:
            # The driver's own words: SQLAlchemy's go on with the statement and its values, which are no log's business.
            cause = getattr(error, "orig", None) or error
            if str(getattr(cause, "sqlstate", None) or "").startswith(_DATA_EXCEPTION):
                raise
            raise Fault(LEDGER_UNAVAILABLE, f"ledger: {_first_line(cause)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _store(url: str, options: Options) -> Store:
    if url.startswith("sqlite"):
        return SqliteStore(url)
    # By name: its driver and dialect are nothing that a start on SQLite should pay for.
    module = importlib.import_module("gateway.ledger.postgres_store")
    store: Store = module.PostgresStore(url, options)
    return store
