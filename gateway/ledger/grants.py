"""Grants and overrides in the ledger: what accounts have beyond their tier and subscription.

Grants are added and never changed: what is taken back is one more row, and their sum is what was given. Each change,
its audit row, the account's new version and its outbox row are one transaction.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.audit import Actor
from gateway.domain.entitlements import Grant
from gateway.domain.limits import Unit, Window
from gateway.domain.terms import NO_TERMS, Terms
from gateway.ledger.accounts import locked_account, raise_version
from gateway.ledger.audit import write_audit
from gateway.ledger.database import Database, whole
from gateway.ledger.tables import grants, overrides


class GrantBook(Database):
    """What the ledger knows of grants and overrides. Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def add_grant(self, grant: Grant, by: Actor, now_ms: int) -> bool:
        """Add it; False where its id is there already. Raises Fault(NOT_FOUND) without its account."""
        async with self.writing() as connection:
            return await put_grant(connection, grant, by, now_ms)

    @whole
    async def grants_of(self, account_id: str) -> list[Grant]:
        """Every grant of an account, oldest first."""
        found = select(grants).where(grants.c.account_id == account_id).order_by(grants.c.created_ms, grants.c.id)
        async with self.reading() as connection:
            return [as_grant(row) for row in await connection.execute(found)]

    @whole
    async def granted(self, account_id: str, unit: Unit) -> int:
        """The sum of all grants of a unit, those that are over included."""
        total = select(func.coalesce(func.sum(grants.c.amount), 0))
        async with self.reading() as connection:
            mine = total.where(grants.c.account_id == account_id, grants.c.unit == unit.value)
            return int(await connection.scalar(mine) or 0)

    @whole
    async def set_overrides(self, account_id: str, terms: Terms, by: Actor, now_ms: int) -> bool:
        """Let these be the account's overrides, in place of all before; whether that is new.

        Raises Fault(NOT_FOUND) without the account.
        """
        async with self.writing() as connection:
            return await put_overrides(connection, account_id, terms, by, now_ms)

    @whole
    async def overrides_of(self, account_id: str) -> Terms:
        """The account's overrides."""
        async with self.reading() as connection:
            return await _overrides(connection, account_id)


async def known_grant(connection: AsyncConnection, grant_id: str, *, lock: bool = False) -> Grant | None:
    """One grant by its id; with `lock`, its account is not changed by others until the transaction ends."""
    found = select(grants).where(grants.c.id == grant_id)
    row = (await connection.execute(found)).first()
    if row is None:
        return None
    if lock:
        await locked_account(connection, row.account_id)
    return as_grant(row)


async def taken_back(connection: AsyncConnection, grant_id: str) -> int:
    """How much of a grant was taken back, by grants whose ids are its own and `/refund/…`."""
    mine = grants.c.id.startswith(f"{grant_id}/refund/", autoescape=True)
    return -int(await connection.scalar(select(func.coalesce(func.sum(grants.c.amount), 0)).where(mine)) or 0)


async def put_grant(connection: AsyncConnection, grant: Grant, by: Actor, now_ms: int) -> bool:
    """As `GrantBook.add_grant`, within a transaction of the caller's."""
    await locked_account(connection, grant.account_id)
    if await connection.scalar(select(grants.c.id).where(grants.c.id == grant.id)) is not None:
        return False
    grant = msgspec.structs.replace(grant, created_ms=grant.created_ms or now_ms)
    await connection.execute(insert(grants), grant_row(grant))
    await write_audit(connection, by, "grant", grant.account_id, (None, grant), now_ms)
    await raise_version(connection, grant.account_id, now_ms)
    return True


async def put_overrides(connection: AsyncConnection, account_id: str, terms: Terms, by: Actor, now_ms: int) -> bool:
    """As `GrantBook.set_overrides`, within a transaction of the caller's."""
    await locked_account(connection, account_id)
    before = await _overrides(connection, account_id)
    if before == terms:
        return False
    await connection.execute(delete(overrides).where(overrides.c.account_id == account_id))
    if terms != NO_TERMS:
        row = {"account_id": account_id, "terms": msgspec.json.encode(terms).decode(), "changed_ms": now_ms}
        await connection.execute(insert(overrides), row)
    await write_audit(connection, by, "overrides", account_id, (before, terms), now_ms)
    await raise_version(connection, account_id, now_ms)
    return True


def grant_row(grant: Grant) -> dict[str, Any]:
    """A grant as a row of the table."""
    row = msgspec.structs.asdict(grant)
    return row | {"unit": grant.unit.value, "limit_window": row.pop("window")}


def as_grant(row: Sequence[Any]) -> Grant:
    """A row of the table as the domain's own."""
    grant_id, account_id, unit, amount, window, *rest = row
    return Grant(grant_id, account_id, Unit(unit), amount, None if window is None else Window(window), *rest)


async def _overrides(connection: AsyncConnection, account_id: str) -> Terms:
    text = await connection.scalar(select(overrides.c.terms).where(overrides.c.account_id == account_id))
    return NO_TERMS if text is None else msgspec.json.decode(text, type=Terms)
