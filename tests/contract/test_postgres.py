"""The ledger on a real PostgreSQL: partitions, flushers at once, and transactions that are pooled."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import text

from gateway.ledger.ledger import Ledger
from gateway.ledger.partitions import AHEAD, make_partitions
from gateway.settings.model import Database
from tests.support.ledgers import NOON_MS, an_event, rows_of

NOON_S = NOON_MS // 1000
DAY_MS = 86_400_000
PLACES = "SELECT tableoid::regclass::text, request_id FROM events ORDER BY 2"


@pytest.fixture
def url(new_postgres: Callable[[str], str]) -> str:
    """An empty ledger on PostgreSQL."""
    return new_postgres("ledger")


async def test_partitions_are_made_ahead_by_a_start(url: str) -> None:
    """A start finds or makes the partitions of last month, this one and those ahead, so that no month begins without
    one and the events of a year can be dropped in an instant.
    """  # noqa: D205
    partitions = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass"
    ledger = Ledger.open(url)

    assert len(rows_of(url, partitions)) == 1 + 2 + AHEAD
    assert (
        await make_partitions(ledger, NOON_MS - 400 * DAY_MS)
        == [f"events_{month}" for month in ("2025_09", "2025_10", "2025_11", "2025_12", "2026_01")][: 2 + AHEAD]
    )
    assert await make_partitions(ledger, NOON_MS - 400 * DAY_MS) == []
    await ledger.close()


async def test_an_event_of_any_time_finds_a_place_and_moves_when_its_month_is_made(url: str) -> None:
    """No event is refused for want of a partition, and none is lost or counted again when its month is made."""
    ledger = Ledger.open(url)
    far = [an_event(f"r{number}", admitted_ms=number * 10**11) for number in range(30)]
    last_ms = 2_000_000_000_000 // DAY_MS * DAY_MS
    assert await ledger.take_events([*far, an_event("s", admitted_ms=last_ms)]) == 31
    assert {name: place for place, name in rows_of(url, PLACES)}["s"] == "events_default"

    made = await make_partitions(ledger, last_ms)

    assert "events_2033_05" in made
    assert {name: place for place, name in rows_of(url, PLACES)}["s"] == "events_2033_05"
    assert await ledger.take_events([*far, an_event("s", admitted_ms=last_ms)]) == 0
    assert len(await ledger.recent_events("acme", 100)) == 31
    await ledger.close()


async def test_a_request_id_counts_once_over_its_months(url: str) -> None:
    """Decision 13: the event of a reap has the gateway's time of admission, the settlement's the limiter's. Both of one
    id are one event, at the edge of two months too; a caller would pay twice.
    """  # noqa: D205
    ledger = Ledger.open(url)
    edge_ms = 1_796_083_200_000  # 2026-12-01 00:00 UTC

    assert await ledger.take_events([an_event(admitted_ms=edge_ms - 2)]) == 1
    assert await ledger.take_events([an_event(admitted_ms=edge_ms + 3), an_event("r1/late", admitted_ms=edge_ms)]) == 1
    assert {name for _, name in rows_of(url, PLACES)} == {"r1", "r1/late"}
    assert sum(day.totals.events for day in await ledger.usage_by_day("acme", 0, 2**40)) == 2
    await ledger.close()


async def test_four_flushers_at_once_neither_lock_each_other_out_nor_count_twice(url: str) -> None:
    """Every worker flushes: batches that share accounts, hours and request ids, in orders that clash, end without a
    deadlock, and every event is in the sums once.
    """  # noqa: D205
    ledgers = [Ledger.open(url) for _ in range(4)]
    pool = [
        an_event(f"r{number}", account_id=f"a{number % 7}", model=f"m{number % 5}", admitted_ms=NOON_MS + number * 997)
        for number in range(600)
    ]

    async def flush(one: int) -> int:
        taken = 0
        for turn in range(12):
            batch = pool[(turn * 50) % 600 :] + pool[: (turn * 50) % 600]
            taken += await ledgers[one].take_events(batch[::-1] if (one + turn) % 2 else batch)
        return taken

    assert sum(await asyncio.gather(*[flush(one) for one in range(4)])) == 600
    assert rows_of(url, "SELECT sum(events), sum(input_tokens) FROM usage_hourly") == [(600, 6000)]
    assert rows_of(url, "SELECT sum(events), sum(input_tokens) FROM usage_daily") == [(600, 6000)]
    assert rows_of(url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]
    await asyncio.gather(*[ledger.close() for ledger in ledgers])


async def test_nothing_outlives_a_transaction_where_they_are_pooled(url: str) -> None:
    """Behind a PgBouncer that gives each transaction another connection, a statement prepared by name or a setting on
    the connection would fail one request or meet another's.
    """  # noqa: D205
    ledger = Ledger.open(url, Database(transaction_pooling=True, pool_size=1, statement_timeout_s=7))
    await ledger.create_account("acme", "free", "", 1)
    assert await ledger.take_events([an_event(f"r{number}") for number in range(20)]) == 20
    async with ledger.reading() as connection:
        assert (await connection.execute(text("SELECT * FROM pg_prepared_statements"))).all() == []
        inside = await connection.scalar(text("SHOW statement_timeout"))
        outside = await connection.scalar(
            text("SELECT reset_val FROM pg_settings WHERE name = 'statement_timeout' AND source = 'session'")
        )
    assert (inside, outside) == ("7s", "0")
    await ledger.close()
