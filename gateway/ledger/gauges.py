"""Gauges in the ledger: where each level of an account stands, and every change of it.

A change, its check against the limit and its row are one transaction that holds the account, so that changes which come
at once pass no limit together.
"""

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.gauges import Change, ChangeRow, Gauge, Level, level
from gateway.ledger.accounts import locked_account
from gateway.ledger.database import Database, whole
from gateway.ledger.tables import gauge_changes, gauges


class GaugeBook(Database):
    """What the ledger knows of gauges. Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def gauges_of(self, account_id: str) -> list[Gauge]:
        """The account's gauges that were ever set, by name."""
        table = gauges.c
        found = select(table.name, table.value_milli).where(table.account_id == account_id).order_by(table.name)
        async with self.reading() as connection:
            return [Gauge(*row) for row in await connection.execute(found)]

    @whole
    async def change_gauge(self, change: Change, limit_milli: int | None) -> Level:
        """Change a level where the new one fits. The same request again changes nothing, and is told as it was.

        Raises Fault(NOT_FOUND) without the account.
        """
        async with self.writing() as connection:
            await locked_account(connection, change.account_id)
            made = await _made(connection, change)
            if made is not None:
                return Level(made, made, fits=True)
            standing = await _standing(connection, change.account_id, change.name)
            found = level(standing or 0, change, limit_milli)
            if found.fits:
                await _write(connection, change, found, is_new=standing is None)
            return found

    @whole
    async def gauge_history(self, account_id: str, name: str, limit: int = 100) -> list[ChangeRow]:
        """The latest changes of a gauge, newest first."""
        table = gauge_changes.c
        columns = table.request_id, table.delta_milli, table.value_milli, table.who, table.at_ms
        latest = select(*columns).where(table.account_id == account_id, table.name == name)
        async with self.reading() as connection:
            rows = await connection.execute(latest.order_by(table.row_id.desc()).limit(limit))
            return [ChangeRow(*row) for row in rows]


async def _made(connection: AsyncConnection, change: Change) -> int | None:
    """What the level was after the change, where it was made before."""
    table = gauge_changes.c
    if not change.request_id:
        return None
    mine = table.account_id == change.account_id, table.request_id == change.request_id, table.name == change.name
    value: int | None = await connection.scalar(select(table.value_milli).where(*mine))
    return value


async def _standing(connection: AsyncConnection, account_id: str, name: str) -> int | None:
    table = gauges.c
    mine = table.account_id == account_id, table.name == name
    value: int | None = await connection.scalar(select(table.value_milli).where(*mine))
    return value


async def _write(connection: AsyncConnection, change: Change, found: Level, *, is_new: bool) -> None:
    values = {"value_milli": found.asked_milli, "changed_ms": change.at_ms}
    mine = {"account_id": change.account_id, "name": change.name}
    if is_new:
        await connection.execute(insert(gauges), mine | values)
    else:
        where = gauges.c.account_id == change.account_id, gauges.c.name == change.name
        await connection.execute(update(gauges).where(*where).values(values))
    row = {
        "request_id": change.request_id,
        "delta_milli": found.asked_milli - found.used_milli,
        "value_milli": found.asked_milli,
        "who": change.who,
        "at_ms": change.at_ms,
    }
    await connection.execute(insert(gauge_changes), mine | row)
