"""The ledger held against itself: what its sums should be by its events, and the mending of those that are not.

A difference is read by one statement, which sees each batch of events with its sums or without both; it is mended by
adding it, so that flushers may go on meanwhile.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Select, Table, cast, delete, func, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.audit import Actor
from gateway.ledger.audit import write_audit
from gateway.ledger.database import Database, whole
from gateway.ledger.tables import SUMS, events, usage_daily, usage_hourly
from gateway.ledger.usage import DAY_S, HOUR_S, Totals

_STARTS = {"usage_hourly": ("hour_s", HOUR_S), "usage_daily": ("day_s", DAY_S)}


class SumDrift(msgspec.Struct, frozen=True):
    """A row of sums that its events don't add up to: its keys, and by how much the events have more of each sum."""

    table: str
    account_id: str
    start_s: int
    rest_of_key: tuple[str, ...]
    lacking: tuple[int, ...]


class VerificationBook(Database):
    """Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def sum_drifts(self) -> list[SumDrift]:
        """Every row of the hourly and daily sums that drifted, by account. Reads all events."""
        async with self.reading() as connection:
            return await _drifts(connection)

    @whole
    async def mend_sums(self, by: Actor, now_ms: int) -> list[SumDrift]:
        """Make the sums those of the events; what was mended. One audit row for each account."""
        async with self.writing() as connection:
            drifts = await _drifts(connection)
            for table in (usage_hourly, usage_daily):
                if rows := [_row(table, drift) for drift in drifts if drift.table == table.name]:
                    await self._store.add_sums(connection, table, rows)
                    await connection.execute(delete(table).where(table.c.events == 0))
            for account_id, group in groupby(drifts, attrgetter("account_id")):
                change = [msgspec.structs.asdict(drift) for drift in group], None
                await write_audit(connection, by, "usage.sums_mended", account_id, change, now_ms)
        return drifts

    @whole
    async def audit_rebuilt(self, account_id: str, found: Sequence[object], by: Actor, now_ms: int) -> None:
        """Write down that the account's live counters were given up for the ledger's, and what was found."""
        async with self.writing() as connection:
            await write_audit(connection, by, "counters.rebuilt", account_id, (found, None), now_ms)

    @whole
    async def settled(self, account_id: str, start_s: int, end_s: int, until_ms: int, without: Sequence[str]) -> Totals:
        """What the account's events of [start_s, end_s) admitted up to `until_ms` add up to, save those requests'."""
        admitted = events.c.admitted_ms
        columns: list[ColumnElement[Any]] = [func.count(), *[_sum(events.c[name]) for name in SUMS[1:]]]
        question = select(*columns).where(
            events.c.account_id == account_id,
            admitted >= start_s * 1000,
            admitted < end_s * 1000,
            admitted <= until_ms,
            events.c.request_id.not_in(without),
        )
        async with self.reading() as connection:
            return Totals(*(await connection.execute(question)).one())


async def _drifts(connection: AsyncConnection) -> list[SumDrift]:
    found: list[SumDrift] = []
    for table in (usage_hourly, usage_daily):
        width = len(table.primary_key)
        found += [
            SumDrift(str(table.name), row[0], row[1], tuple(row[2:width]), tuple(map(int, row[width:])))
            for row in await connection.execute(_question(table))
        ]
    return sorted(found, key=attrgetter("account_id"))


def _question(table: Table) -> Select[Any]:
    """Events less sums, by the table's keys, where that is anything."""
    start, length_s = _STARTS[table.name]
    rest = [name for name in table.primary_key.columns.keys() if name not in {"account_id", start}]  # noqa: SIM118  # not a dict
    begins = (events.c.admitted_ms // (length_s * 1000) * length_s).label(start)
    counts = [literal(1, BigInteger).label("events"), *[events.c[name] for name in SUMS[1:]]]
    true = select(events.c.account_id, begins, *[events.c[name] for name in rest], *counts)
    kept = select(table.c.account_id, table.c[start], *[table.c[name] for name in rest])
    both = union_all(true, kept.add_columns(*[(-table.c[name]).label(name) for name in SUMS])).subquery()
    keys = [both.c[name] for name in ("account_id", start, *rest)]
    sums = [_sum(both.c[name]) for name in SUMS]
    return select(*keys, *sums).group_by(*keys).having(or_(*[one != 0 for one in sums]))


def _row(table: Table, drift: SumDrift) -> dict[str, Any]:
    key = (drift.account_id, drift.start_s, *drift.rest_of_key)
    return dict(zip(table.columns.keys(), (*key, *drift.lacking), strict=True))


def _sum(column: ColumnElement[int]) -> ColumnElement[int]:
    # PostgreSQL adds 64-bit integers up to a decimal.
    return cast(func.coalesce(func.sum(column), 0), BigInteger)
