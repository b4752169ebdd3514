"""Subscriptions in the ledger: what each account has bought, as it stands now.

A change, its audit row, the account's new version and its outbox row are one transaction. News may come in any order:
what is older than what is known, by the object's own time, changes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import and_, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.audit import Actor
from gateway.domain.periods import Interval
from gateway.domain.subscriptions import Status, Subscription
from gateway.domain.terms import Terms
from gateway.ledger.accounts import locked_account, raise_version
from gateway.ledger.audit import write_audit
from gateway.ledger.database import Database, whole
from gateway.ledger.tables import audit, subscriptions

CHANGED = "subscription"
"""The action of an audit row that tells of a subscription."""


class SubscriptionBook(Database):
    """What the ledger knows of subscriptions. Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def upsert_subscription(self, subscription: Subscription, by: Actor, now_ms: int) -> bool:
        """Write it down as it is now; whether anything is new. Raises Fault(NOT_FOUND) without its account."""
        async with self.writing() as connection:
            return await put_subscription(connection, subscription, by, now_ms)

    @whole
    async def subscription(self, subscription_id: str) -> Subscription | None:
        """One by its id."""
        async with self.reading() as connection:
            return await _known(connection, subscription_id)

    @whole
    async def subscriptions_of(self, account_id: str) -> list[Subscription]:
        """Those of an account, ended ones too, by id."""
        return await self._where(subscriptions.c.account_id == account_id)

    @whole
    async def subscriptions_of_customer(self, customer_id: str) -> list[Subscription]:
        """Those of a customer of the payment provider, by id."""
        return await self._where(subscriptions.c.customer_id == customer_id)

    @whole
    async def list_subscriptions(self, after_id: str = "", limit: int = 100) -> list[Subscription]:
        """Up to `limit` in order of their ids, those that come after the id `after_id`."""
        return await self._where(subscriptions.c.id > after_id, limit)

    @whole
    async def subscription_history(self, account_id: str) -> list[tuple[int, Subscription]]:
        """Every state that the account's subscriptions were in, with since when (Unix milliseconds), oldest first."""
        told = select(audit.c.at_ms, audit.c.after_json).where(
            audit.c.account_id == account_id, audit.c.action == CHANGED
        )
        async with self.reading() as connection:
            rows = (await connection.execute(told.order_by(audit.c.row_id))).all()
        return [(at_ms, msgspec.json.decode(after, type=Subscription)) for at_ms, after in rows if after is not None]

    @whole
    async def subscriptions_among(self, ids: Iterable[str]) -> dict[str, Subscription]:
        """Those of the ids that are known, by id."""
        return {one.id: one for one in await self._where(subscriptions.c.id.in_(list(ids)))}

    @whole
    async def subscriptions_to(self, product_id: str, after_id: str = "", limit: int = 100) -> list[Subscription]:
        """Up to `limit` of a product or a price, in order of their ids, those that come after `after_id`."""
        columns = subscriptions.c
        mine = or_(columns.product_id == product_id, columns.price_id == product_id)
        return await self._where(and_(mine, columns.id > after_id), limit)

    async def _where(self, condition: Any, limit: int | None = None) -> list[Subscription]:
        page = select(subscriptions).where(condition).order_by(subscriptions.c.id).limit(limit)
        async with self.reading() as connection:
            return [as_subscription(row) for row in await connection.execute(page)]


async def known_subscription(connection: AsyncConnection, subscription_id: str) -> Subscription | None:
    """As `SubscriptionBook.subscription`, within a transaction of the caller's."""
    return await _known(connection, subscription_id)


async def bought_by(connection: AsyncConnection, customer_id: str) -> list[Subscription]:
    """As `SubscriptionBook.subscriptions_of_customer`, within a transaction of the caller's."""
    found = select(subscriptions).where(subscriptions.c.customer_id == customer_id).order_by(subscriptions.c.account_id)
    return [as_subscription(row) for row in await connection.execute(found)]


async def put_subscription(connection: AsyncConnection, subscription: Subscription, by: Actor, now_ms: int) -> bool:
    """As `SubscriptionBook.upsert_subscription`, within a transaction of the caller's."""
    await locked_account(connection, subscription.account_id)
    before = await _known(connection, subscription.id, lock=True)
    if before is not None and before.updated_ms > subscription.updated_ms:
        return False
    after = carried(before, subscription, now_ms)
    if before is None:
        await connection.execute(insert(subscriptions), subscription_row(after))
    else:
        await connection.execute(
            update(subscriptions).where(subscriptions.c.id == after.id).values(subscription_row(after))
        )
        if msgspec.structs.replace(before, updated_ms=after.updated_ms) == after:
            return False
        if before.account_id != after.account_id:
            await raise_version(connection, before.account_id, now_ms)
    await write_audit(connection, by, CHANGED, after.account_id, (before, after), now_ms)
    await raise_version(connection, after.account_id, now_ms)
    return True


def as_subscription(row: Sequence[Any]) -> Subscription:
    """A row of the table as the domain's own."""
    fields: dict[str, Any] = dict(zip(subscriptions.columns.keys(), row, strict=True))
    months, days, terms = (fields.pop(name) for name in ("interval_months", "interval_days", "terms"))
    status = Status(fields.pop("status"))
    terms = msgspec.json.decode(terms, type=Terms)
    return Subscription(status=status, interval=Interval(months, days), terms=terms, **fields)


async def _known(connection: AsyncConnection, subscription_id: str, *, lock: bool = False) -> Subscription | None:
    found = select(subscriptions).where(subscriptions.c.id == subscription_id)
    row = (await connection.execute(found.with_for_update() if lock else found)).first()
    return None if row is None else as_subscription(row)


def carried(before: Subscription | None, after: Subscription, now_ms: int) -> Subscription:
    """`after`, with since when it is in its status and when its period last moved on, where the news don't say."""
    since_s, reset_ms = after.since_s, after.reset_ms
    if since_s is None:
        is_old = before is not None and before.status is after.status
        since_s = before.since_s if before is not None and is_old else (after.updated_ms or now_ms) // 1000
    if reset_ms is None:
        moved = before is None or (after.period_start_s or 0) > (before.period_start_s or 0)
        reset_ms = now_ms if moved or before is None else before.reset_ms
    return msgspec.structs.replace(after, since_s=since_s, reset_ms=reset_ms)


def subscription_row(subscription: Subscription) -> Mapping[str, Any]:
    """A subscription as a row of the table."""
    fields = msgspec.structs.asdict(subscription)
    interval = fields.pop("interval")
    fields["terms"] = msgspec.json.encode(subscription.terms).decode()
    return fields | {"interval_months": interval.months, "interval_days": interval.days}
