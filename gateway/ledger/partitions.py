"""The partitions of the events on PostgreSQL: one for each month (UTC) of admission, made ahead of time.

Promises: an event of any time finds a place, in the default partition where its month has none; a month that is made
later takes its events out of there. Making one never waits long for others, nor makes them wait: it attaches a table
that is ready, and gives up after the lock's time-out, to be tried again. On SQLite there is nothing to make.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import NoReturn

from sqlalchemy import Column, Table, delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.ledger.database import Database
from gateway.ledger.tables import events
from gateway.telemetry.log import log

AHEAD = 3
"""Months that have their partition before they begin."""

_LOCK = 0x70617274
_INTERVAL_S = 6 * 3600.0
_PARTITIONS = text(
    # From the tables themselves: a look-up by name may be answered from before another process's commit.
    "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = 'events'::regclass"
)


async def make_partitions(database: Database, now_ms: int) -> list[str]:
    """Make the partitions that lack, from last month's to the last one ahead; their names.

    Raises Fault(LEDGER_UNAVAILABLE), also where a lock could not be had in time.
    """
    if not database.partitioned:
        return []
    async with database.reading() as connection:
        there = await _partitions(connection)
    made: list[str] = []
    for month in _months(now_ms):
        if month[0] not in there:
            async with database.writing() as connection:
                made += await _make(connection, *month)
    return made


async def run_partitions(database: Database, *, interval_s: float = _INTERVAL_S) -> NoReturn:
    """Keep partitions ahead of time, until cancelled. A failure is logged; the default partition bridges it."""
    while True:
        try:
            for name in await make_partitions(database, time.time_ns() // 1_000_000):
                log.info("partition_made", partition=name)
        except Exception as error:  # noqa: BLE001  # a background task: it must outlive whatever goes wrong
            log.warning("partition_failed", detail=repr(error))
        await asyncio.sleep(interval_s)


async def _make(connection: AsyncConnection, name: str, start_ms: int, end_ms: int) -> list[str]:
    """One partition, unless another process has made it meanwhile. The names and bounds are of our own making."""
    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    if name in await _partitions(connection):
        return []
    await connection.execute(text(f"CREATE TABLE {name} (LIKE events INCLUDING ALL)"))
    await connection.execute(text("LOCK TABLE events_default IN ACCESS EXCLUSIVE MODE"))
    default, month = _like_events("events_default"), _like_events(name)
    within = default.c.admitted_ms.between(start_ms, end_ms - 1)
    strays = delete(default).where(within).returning(*default.c).cte("strays")
    await connection.execute(insert(month).from_select(list(month.c.keys()), select(*strays.c)))
    bounds = f"FROM ({start_ms}) TO ({end_ms})"
    await connection.execute(text(f"ALTER TABLE events ATTACH PARTITION {name} FOR VALUES {bounds}"))
    return [name]


async def _partitions(connection: AsyncConnection) -> set[str]:
    return set(await connection.scalars(_PARTITIONS))


def _like_events(name: str) -> Table:
    return Table(name, events.metadata.__class__(), *[Column(column.name, column.type) for column in events.columns])


def _months(now_ms: int) -> list[tuple[str, int, int]]:
    """(name, first ms, first ms of the next) of each month that is to have a partition."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    first = now.year * 12 + now.month - 2
    months = [divmod(number, 12) for number in range(first, first + AHEAD + 3)]
    starts_ms = [int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp()) * 1000 for year, month in months]
    names = [f"events_{year:04}_{month + 1:02}" for year, month in months]
    return list(zip(names, starts_ms, starts_ms[1:], strict=False))
