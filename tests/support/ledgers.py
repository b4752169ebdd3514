"""A migrated ledger per test, and events to put into it.

The migrations run once per process; each test gets a copy of the empty database that they made.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.domain.usage import CountedBy, Outcome, UsageEvent
from gateway.ledger.ledger import Ledger
from gateway.ledger.schema import ensure_schema

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


@pytest.fixture
async def ledger(ledger_path: Path) -> AsyncIterator[Ledger]:
    """This test's own ledger, open."""
    opened = Ledger.open(url_of(ledger_path))
    yield opened
    await opened.close()
