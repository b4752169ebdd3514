"""Accounts in the ledger, and the outbox that tells the limiter of their changes.

Every change raises the account's version by one and writes an outbox row in the same transaction, so that a crash
after the commit is caught up by whoever empties the outbox next (`outbox.py`).
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, insert, literal, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.accounts import Account
from gateway.domain.audit import SYSTEM, Actor
from gateway.domain.faults import ALREADY_EXISTS, NOT_FOUND, Fault
from gateway.ledger.audit import write_audit
from gateway.ledger.database import Database, whole
from gateway.ledger.tables import COUNT, accounts, outbox


class Bump(msgspec.Struct, frozen=True, gc=False):
    """One outbox row: the limiter is to be told that the account is at `version`."""

    row_id: int
    account_id: str
    version: int


class AccountBook(Database):
    """What the ledger knows of accounts. Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def create_account(self, account_id: str, tier: str, name: str, now_ms: int, by: Actor = SYSTEM) -> Account:
        """A new account at version 1. Raises Fault(ALREADY_EXISTS)."""
        account = Account(account_id, name, tier, suspended=False, version=1, created_ms=now_ms)
        row = msgspec.structs.asdict(account) | {"suspended": 0}
        try:
            async with self.writing() as connection:
                await connection.execute(insert(accounts), row)
                await write_audit(connection, by, "account", account_id, (None, account), now_ms)
        except IntegrityError as error:
            raise Fault(ALREADY_EXISTS, public=f"There is an account `{account_id}` already.") from error
        return account

    @whole
    async def account(self, account_id: str) -> Account:
        """The account. Raises Fault(NOT_FOUND)."""
        async with self.reading() as connection:
            return await read_account(connection, account_id)

    @whole
    async def list_accounts(self, after: str = "", limit: int = 100) -> list[Account]:
        """Up to `limit` accounts in order of their ids, those that come after the id `after`."""
        page = select(accounts).where(accounts.c.id > after).order_by(accounts.c.id).limit(limit)
        async with self.reading() as connection:
            return [as_account(row) for row in await connection.execute(page)]

    @whole
    async def set_tier(self, account_id: str, tier: str, now_ms: int, by: Actor = SYSTEM) -> Account:
        """Move the account to another tier. Raises Fault(NOT_FOUND)."""
        return await self._change(account_id, now_ms, by, tier=tier)

    @whole
    async def set_suspended(self, account_id: str, suspended: bool, now_ms: int, by: Actor = SYSTEM) -> Account:
        """Suspend the account, or let it in again. Raises Fault(NOT_FOUND)."""
        return await self._change(account_id, now_ms, by, suspended=int(suspended))

    async def _change(self, account_id: str, now_ms: int, by: Actor, **columns: str | int) -> Account:
        async with self.writing() as connection:
            return await change_account(connection, account_id, now_ms, by, **columns)

    @whole
    async def pending_bumps(self, limit: int = 1000) -> list[Bump]:
        """The oldest outbox rows."""
        async with self.reading() as connection:
            rows = await connection.execute(select(outbox).order_by(outbox.c.row_id).limit(limit))
            return [Bump(*row[:3]) for row in rows]

    @whole
    async def done_bumps(self, row_ids: Sequence[int]) -> None:
        """The limiter was told of these: take them out. Unknown ids are ignored."""
        async with self.writing() as connection:
            await connection.execute(delete(outbox).where(outbox.c.row_id.in_(row_ids)))


async def change_account(
    connection: AsyncConnection, account_id: str, now_ms: int, by: Actor, **columns: str | int
) -> Account:
    """Give columns of the account new values, within a transaction of the caller's. Raises Fault(NOT_FOUND)."""
    before = await locked_account(connection, account_id)
    await connection.execute(update(accounts).where(accounts.c.id == account_id).values(columns))
    after = await raise_version(connection, account_id, now_ms)
    await write_audit(connection, by, "account", account_id, (before, after), now_ms)
    return after


async def locked_account(connection: AsyncConnection, account_id: str) -> Account:
    """The account, which nobody else changes until the transaction ends. Raises Fault(NOT_FOUND)."""
    return await read_account(connection, account_id, lock=True)


async def raise_version(connection: AsyncConnection, account_id: str, now_ms: int) -> Account:
    """Tell that the account changed: its version grows by one, and the outbox has a row. Raises Fault(NOT_FOUND)."""
    raised = update(accounts).where(accounts.c.id == account_id).values(version=accounts.c.version + 1)
    await connection.execute(raised)
    account = await read_account(connection, account_id)
    row = {"account_id": account_id, "version": account.version, "changed_ms": now_ms}
    await connection.execute(insert(outbox), row)
    return account


async def raise_versions(connection: AsyncConnection, account_ids: Sequence[str], now_ms: int) -> None:
    """As `raise_version`, of many at once; of those that there are."""
    mine = accounts.c.id.in_(account_ids)
    await connection.execute(update(accounts).where(mine).values(version=accounts.c.version + 1))
    raised = select(accounts.c.id, accounts.c.version, literal(now_ms, COUNT)).where(mine).order_by(accounts.c.id)
    await connection.execute(insert(outbox).from_select(["account_id", "version", "changed_ms"], raised))


async def read_account(connection: AsyncConnection, account_id: str, *, lock: bool = False) -> Account:
    """The account; with `lock` as `locked_account`. Raises Fault(NOT_FOUND)."""
    found = select(accounts).where(accounts.c.id == account_id)
    row = (await connection.execute(found.with_for_update() if lock else found)).first()
    if row is None:
        raise Fault(NOT_FOUND, public=f"There is no account `{account_id}`.")
    return as_account(row)


def as_account(row: Sequence[Any]) -> Account:
    """A row of the table as the domain's own."""
    account_id, name, tier, suspended, version, created_ms = row
    return Account(account_id, name, tier, bool(suspended), version, created_ms)
