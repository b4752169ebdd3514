"""The audit in the ledger: one row for each change of an account, written in the transaction of the change itself."""

from typing import Any

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.audit import Actor, AuditRow
from gateway.ledger.database import Database, whole
from gateway.ledger.tables import audit


class AuditBook(Database):
    """Who did what to which account. Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def audit_log(self, account_id: str = "", before_id: int | None = None, limit: int = 100) -> list[AuditRow]:
        """Up to `limit` rows, newest first: of one account or of all, those older than the row `before_id`."""
        page = select(audit).order_by(audit.c.row_id.desc()).limit(limit)
        if account_id:
            page = page.where(audit.c.account_id == account_id)
        if before_id is not None:
            page = page.where(audit.c.row_id < before_id)
        async with self.reading() as connection:
            return [AuditRow(*row) for row in await connection.execute(page)]


async def write_audit(
    connection: AsyncConnection, by: Actor, action: str, account_id: str, change: tuple[Any, Any], now_ms: int
) -> None:
    """Write one row down. `change` is what stood before and what stands after, None where nothing did or does.

    Both are kept as JSON: whoever calls sees to it that no secret is in them.
    """
    await connection.execute(insert(audit), audit_row(by, action, account_id, change, now_ms))


def audit_row(by: Actor, action: str, account_id: str, change: tuple[Any, Any], now_ms: int) -> dict[str, Any]:
    """One row of the table; see `write_audit`."""
    before, after = (None if one is None else msgspec.json.encode(one).decode() for one in change)
    return {
        "at_ms": now_ms,
        "who": by.who,
        "source": by.source,
        "action": action,
        "account_id": account_id,
        "before_json": before,
        "after_json": after,
    }
