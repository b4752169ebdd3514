"""A PostgreSQL that is slow, locked, killed, silent or someone else's: a fault in time, and whole again afterwards."""

import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from gateway.cli.worker import FLUSH_S
from gateway.domain.faults import Fault
from gateway.ledger.database import CLOSE_S
from gateway.ledger.ledger import Ledger
from gateway.ledger.schema import ensure_schema
from gateway.settings.model import Database
from tests.support.ledgers import NOON_MS, an_event, rows_of
from tests.support.postgres import PostgresServer
from tests.support.serving import Serving
from tests.support.until import until

Opened = Callable[..., Ledger]
GRACE_S = 20
"""Of `Serving`."""

DAY_S = NOON_MS // 1000 - 43_200


@pytest.fixture
def url(new_postgres: Callable[[str], str]) -> str:
    """An empty ledger on PostgreSQL."""
    return new_postgres("ledger")


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may kill; what it has committed outlives that."""
    with (
        tempfile.TemporaryDirectory(prefix="twp") as path,
        PostgresServer(Path(path), "synchronous_commit=on") as server,
    ):
        yield server


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    """Opens ledgers that are closed with the test, also where it fails: a loop that ends with a connection may hang."""
    ledgers: list[Ledger] = []

    def at(url: str, options: Database | None = None) -> Ledger:
        ledgers.append(Ledger.open(url, options))
        return ledgers[-1]

    yield at
    for ledger in ledgers:
        await ledger.close()


@pytest.mark.parametrize("transaction_pooling", [False, True])
async def test_a_lock_is_waited_for_no_longer_than_was_said(
    opened: Opened, url: str, *, transaction_pooling: bool
) -> None:
    """D6: a table that someone holds costs a fault in time, not a gateway that hangs; and nothing is half written."""
    options = Database(lock_timeout_s=0.1, transaction_pooling=transaction_pooling)
    ledger, other = opened(url, options), opened(url)
    async with other.writing() as connection:
        await connection.execute(text("LOCK TABLE usage_daily"))
        with pytest.raises(Fault, match="lock timeout") as raised:
            await ledger.take_events([an_event()])
    assert raised.value.kind.code == "ledger_unavailable"
    assert raised.value.public == raised.value.kind.public, "the database's words are the log's alone"

    assert await ledger.take_events([an_event()]) == 1


async def test_a_statement_runs_no_longer_than_was_said(opened: Opened, url: str) -> None:
    """D6: a query that got out of hand is ended by the server, and its connection is of use again."""
    ledger = opened(url, Database(statement_timeout_s=2, pool_size=1))
    with pytest.raises(Fault, match="statement timeout"):
        async with ledger.reading() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))
    await ledger.ping()


async def test_a_reader_cannot_write(opened: Opened, url: str) -> None:
    """What is said to read changes nothing, whoever made a mistake in it."""
    ledger = opened(url)
    with pytest.raises(Fault, match="read-only"):
        async with ledger.reading() as connection:
            await connection.execute(text("DELETE FROM accounts"))


async def test_a_value_beyond_its_column_is_no_outage(opened: Opened, url: str) -> None:
    """The flusher waits for a ledger that is away and sets aside an event that can't be stored: the two are told
    apart, or one event whose sum overflows would hold up all billing for ever.
    """  # noqa: D205
    ledger = opened(url)
    rows_of(url, f"INSERT INTO usage_daily VALUES ('acme', {DAY_S}, 1, 1, {2**63 - 1}, 0, 0, 0)", "SELECT 1")
    with pytest.raises(DBAPIError, match="out of range"):
        await ledger.take_events([an_event()])
    assert await ledger.event("r1") is None


async def test_a_server_that_was_killed_is_found_again(opened: Opened, own_server: PostgresServer) -> None:
    """E8: a database that crashes and comes back is used again by itself; what was committed is there, once."""
    url = own_server.url()
    await ensure_schema(url)
    ledger = opened(url)
    await asyncio.gather(*[ledger.take_events([an_event(f"r{number}")]) for number in range(5)])

    own_server.kill()
    with pytest.raises(Fault) as raised:
        await ledger.take_events([an_event("later")])
    assert raised.value.kind.code == "ledger_unavailable"
    assert raised.value.internal.startswith("ledger: ")
    own_server.start()

    assert await ledger.take_events([an_event("r1"), an_event("later")]) == 1
    assert len(await ledger.recent_events("acme", 10)) == 6


async def test_a_server_that_restarts_while_nobody_asks_is_found_again(
    opened: Opened, own_server: PostgresServer
) -> None:
    """A connection that died while it was idle is replaced, at the latest once its end was seen."""
    ledger = opened(own_server.url(), Database(pool_size=1))
    await ledger.ping()
    own_server.kill()
    own_server.start()

    async def mended() -> bool:
        with suppress(Fault):
            await ledger.ping()
            return True
        return False

    await until(mended)
    await ledger.ping()


async def test_nobody_home_is_a_fault_in_time(opened: Opened, own_server: PostgresServer) -> None:
    """D6: a wrong address or a silent server is a fault within the connect time-out, and names no password."""
    missing = opened(own_server.url("not_there"))
    away = opened("postgresql://user:hunter2@127.0.0.1:1/db", Database(connect_timeout_s=0.5))
    with pytest.raises(Fault, match="not_there"):
        await missing.ping()
    with pytest.raises(Fault) as raised:
        await away.ping()
    assert "hunter2" not in raised.value.internal
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = opened(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/db", Database(connect_timeout_s=0.3))
        begun_s = time.monotonic()
        with pytest.raises(Fault):
            await mute.ping()
        assert time.monotonic() - begun_s < 20


async def test_a_server_that_stands_still_holds_up_no_close(own_server: PostgresServer, opened: Opened) -> None:
    """D6: a server that takes bytes and answers nothing costs a fault in time, and a gateway that stops then ends its
    idle connections and its statement under way all the same.
    """  # noqa: D205
    ledger = opened(own_server.url(), Database(pool_size=2))
    await asyncio.gather(ledger.ping(), ledger.ping())
    with own_server.frozen():
        asking = asyncio.create_task(ledger.ping())
        await asyncio.sleep(0)
        begun_s = time.monotonic()
        await ledger.close()
        assert time.monotonic() - begun_s < CLOSE_S + 10
        with pytest.raises((Fault, asyncio.CancelledError)):
            await asking
    await ledger.ping()


@pytest.mark.timeout(180)
def test_a_gateway_stops_in_time_though_its_database_stands_still(tmp_path: Path, own_server: PostgresServer) -> None:
    """C7: SIGTERM to the whole tree with PostgreSQL silent, usage unflushed and connections open ends each worker by
    itself with status 0, within the time that the supervisor gives; else a deployment hangs until it is killed.
    """  # noqa: D205
    serving = Serving(tmp_path, "--workers", "2")
    file = tmp_path / "gateway.yaml"
    file.write_text(file.read_text() + f'database: {{ url: "{own_server.url()}" }}\n')
    with serving:
        serving.known_to_each("/v1/models", serving.key, 2)
        with own_server.frozen():
            assert [serving.get("/v1/models", serving.key) for _ in range(6)] == [200] * 6
            begun_s = time.monotonic()
            assert serving.stop() == 0
            assert time.monotonic() - begun_s < GRACE_S + FLUSH_S, "it was killed by its supervisor"
            assert not serving.orphans()
        assert "process_died" not in "".join(serving.log)
