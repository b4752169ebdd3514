"""What was set aside in the ledger: told, and tried again, as a newer gateway may read what an older one could not."""

import hashlib

import msgspec
from sqlalchemy import delete, select

from gateway.domain.audit import Actor
from gateway.domain.usage import UsageEvent
from gateway.ledger.audit import write_audit
from gateway.ledger.database import whole
from gateway.ledger.tables import set_aside
from gateway.ledger.usage import UsageBook


class SetAside(msgspec.Struct, frozen=True):
    """An entry of the usage stream that was no event: its bytes whole, why, and when it was set aside (Unix ms)."""

    digest: bytes
    payload: bytes
    reason: str
    set_aside_ms: int


class SetAsideBook(UsageBook):
    """Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def list_set_aside(self, after: bytes, limit: int) -> list[SetAside]:
        """Up to `limit` entries in the order of their digests, from behind `after`, b"" being the start."""
        columns = set_aside.c
        page = select(columns.digest, columns.payload, columns.reason, columns.set_aside_ms)
        page = page.where(columns.digest > after).order_by(columns.digest).limit(limit)
        async with self.reading() as connection:
            return [SetAside(*row) for row in await connection.execute(page)]

    @whole
    async def replay_set_aside(self, payload: bytes, event: UsageEvent, by: Actor, now_ms: int) -> bool:
        """Take the event that an entry turned out to be, in place of the entry, all or nothing; whether it was new.

        Whoever comes second finds no entry and does nothing.
        """
        digest = hashlib.sha256(payload).digest()
        async with self.writing() as connection:
            gone = await connection.execute(delete(set_aside).where(set_aside.c.digest == digest))
            if not gone.rowcount:
                return False
            new = await self._put_events(connection, [event])
            change = None, {"request_id": event.request_id, "new": bool(new)}
            await write_audit(connection, by, "usage.replayed", event.account_id, change, now_ms)
        return bool(new)
