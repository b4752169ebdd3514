"""Usage over long spans, from the daily sums alone: what an account used in all, and on which days."""

from typing import Any

from sqlalchemy import ColumnElement, func, select

from gateway.ledger.database import Database, whole
from gateway.ledger.tables import SUMS, usage_daily
from gateway.ledger.usage import Totals


class HistoryBook(Database):
    """Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def lifetime(self, account_id: str) -> Totals:
        """All that the account ever used."""
        sums: list[ColumnElement[Any]] = [func.coalesce(func.sum(usage_daily.c[name]), 0) for name in SUMS]
        async with self.reading() as connection:
            row = (await connection.execute(select(*sums).where(usage_daily.c.account_id == account_id))).one()
        return Totals(*map(int, row))
