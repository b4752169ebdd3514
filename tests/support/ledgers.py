"""A migrated ledger per test, on SQLite and on PostgreSQL, and events to put into it.

The migrations run once per process and database; each test gets a copy of the empty ledger that they made. A test that
asks for `ledger` or `ledger_url` runs once on each database; one that asks for `ledger_path` runs on SQLite alone.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy.event import listens_for

from gateway.domain.usage import CountedBy, Outcome, UsageEvent
from gateway.ledger.ledger import Ledger
from gateway.ledger.schema import ensure_schema
from tests.support.postgres import rows

NOON_MS = 1_795_262_400_000
"""2026-11-21 12:00 UTC."""

_EVENT = UsageEvent(
    request_id="r1",
    account_id="acme",
    key_id="abcdefghijkl",
    tier="free",
    route="/v1/*",
    endpoint="/v1/chat/completions",
    model="gpt-tiny",
    upstream="openai",
    admitted_ms=NOON_MS,
    settled_ms=NOON_MS + 900,
    status=200,
    outcome=Outcome.OK,
    counted_by=CountedBy.UPSTREAM,
    streamed=True,
    requests=1,
    input_tokens=10,
    output_tokens=20,
    cached_tokens=3,
    reasoning_tokens=4,
    estimated_tokens=500,
    request_bytes=100,
    response_bytes=2_000,
)


def an_event(request_id: str = "r1", **fields: Any) -> UsageEvent:
    """A settled request, plain but for `fields`."""
    return msgspec.structs.replace(_EVENT, request_id=request_id, **fields)


def packed(event: UsageEvent) -> bytes:
    """The event as it travels on the stream."""
    return msgspec.msgpack.encode(event)


def url_of(path: Path) -> str:
    """The URL of an SQLite file."""
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the schema and nothing in it. Copy it; don't open it."""
    path = tmp_path_factory.mktemp("ledger") / "empty.db"
    asyncio.run(ensure_schema(url_of(path)))
    return path


@pytest.fixture
def ledger_path(empty_ledger: Path, tmp_path: Path) -> Path:
    """This test's own empty ledger."""
    return Path(shutil.copy(empty_ledger, tmp_path / "ledger.db"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    return str(request.param)


@pytest.fixture
def ledger_url(database: str, request: pytest.FixtureRequest) -> str:
    """The URL of this test's own empty ledger."""
    if database == "sqlite":
        return url_of(request.getfixturevalue("ledger_path"))
    new: Callable[[str], str] = request.getfixturevalue("new_postgres")
    return new("ledger")


@pytest.fixture
def bare_url(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of this test's own database with nothing in it."""
    if database == "sqlite":
        return url_of(tmp_path / "bare.db")
    new: Callable[[str], str] = request.getfixturevalue("new_postgres")
    return new("template0")


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator[Ledger]:
    """This test's own ledger, open."""
    opened = Ledger.open(ledger_url)
    yield opened
    await opened.close()


def without_fsync(ledger: Ledger) -> Ledger:
    """The same, not open yet; SQLite then leaves it to the system when commits reach the disk. For tests of thousands
    of commits, which a slow disk would draw out to minutes, and in which no power is cut.
    """  # noqa: D205
    if ledger.single_writer:

        @listens_for(ledger._store.writer.sync_engine, "connect")
        def hurry(connection: Any, _record: object) -> None:
            with closing(connection.cursor()) as cursor:
                cursor.execute("PRAGMA synchronous=OFF")

    return ledger


def rows_of(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements behind the ledger's back, each committed; the rows of the last. Blocks."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.partition("///")[2], isolation_level=None)) as connection:
            return [connection.execute(statement).fetchall() for statement in statements][-1]
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, rows(url, *statements)).result()
