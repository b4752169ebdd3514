"""Usage as it is seldom asked for: what an account used in all, from the daily sums, and what some of its keys did."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select

from gateway.ledger.database import Database, whole
from gateway.ledger.tables import SUMS, events, usage_daily
from gateway.ledger.usage import Totals


class HistoryBook(Database):
    """Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def totals_of_keys(self, account_id: str, key_ids: Sequence[str], start_s: int, end_s: int) -> Totals:
        """What these keys of the account used in [start_s, end_s): from its events, as no sums are kept by key."""
        column = events.c
        sums: list[ColumnElement[Any]] = [func.count()]
        sums += [func.coalesce(func.sum(column[name]), 0) for name in SUMS[1:]]
        within = and_(
            column.account_id == account_id,
            column.admitted_ms >= start_s * 1000,
            column.admitted_ms < end_s * 1000,
            column.key_id.in_(key_ids),
        )
        async with self.reading() as connection:
            row = (await connection.execute(select(*sums).where(within))).one()
        return Totals(*map(int, row))

    @whole
    async def lifetime(self, account_id: str) -> Totals:
        """All that the account ever used."""
        sums: list[ColumnElement[Any]] = [func.coalesce(func.sum(usage_daily.c[name]), 0) for name in SUMS]
        async with self.reading() as connection:
            row = (await connection.execute(select(*sums).where(usage_daily.c.account_id == account_id))).one()
        return Totals(*map(int, row))
