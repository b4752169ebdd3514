"""A page of Stripe's subscriptions, written down at once: one transaction, where news by webhook take one each.

Promises of each what `subscriptions.put_subscription` does: its audit row, its account's new version and the outbox
row, and that what is older than what is known changes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import bindparam, insert, select, update

from gateway.domain.audit import Actor
from gateway.domain.subscriptions import Subscription
from gateway.ledger.accounts import raise_versions
from gateway.ledger.audit import audit_row
from gateway.ledger.database import Connection, Database, whole
from gateway.ledger.subscriptions import CHANGED, as_subscription, carried, subscription_row
from gateway.ledger.tables import accounts, audit, stripe_customers, subscriptions

_Change = tuple[Subscription | None, Subscription]


class StripePageBook(Database):
    """Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def take_subscriptions(self, page: Iterable[Subscription], by: Actor, now_ms: int) -> set[str]:
        """Write them down as they are now; the ids of those that were other. Those without their account are left out.

        A customer that is nobody's yet becomes the account's.
        """
        async with self.writing() as connection:
            return await _take(connection, {one.id: one for one in page}, by, now_ms)


async def _take(connection: Connection, page: Mapping[str, Subscription], by: Actor, now_ms: int) -> set[str]:
    known = await _known(connection, page)
    owners = {one.account_id for one in (*page.values(), *known.values())}
    # Always in this order, so that two who lock some of the same accounts never wait for each other.
    locked = select(accounts.c.id).where(accounts.c.id.in_(owners)).order_by(accounts.c.id).with_for_update()
    there = set(await connection.scalars(locked))
    known = await _known(connection, page)
    told = [
        (known.get(one.id), carried(known.get(one.id), one, now_ms)) for one in page.values() if one.account_id in there
    ]
    newer = [(before, after) for before, after in told if before is None or before.updated_ms <= after.updated_ms]
    await _write(connection, newer)
    changes = [(before, after) for before, after in newer if before is None or _differs(before, after)]
    if changes:
        rows = [audit_row(by, CHANGED, change[1].account_id, change, now_ms) for change in changes]
        rows += await _link(connection, [after for _, after in changes], by, now_ms)
        await connection.execute(insert(audit), rows)
        touched = {one.account_id for change in changes for one in change if one is not None}
        await raise_versions(connection, sorted(touched), now_ms)
    return {after.id for _, after in changes}


async def _known(connection: Connection, ids: Iterable[str]) -> dict[str, Subscription]:
    found = select(subscriptions).where(subscriptions.c.id.in_(list(ids)))
    return {row.id: as_subscription(row) for row in await connection.execute(found)}


def _differs(before: Subscription, after: Subscription) -> bool:
    return msgspec.structs.replace(before, updated_ms=after.updated_ms) != after


async def _write(connection: Connection, changes: Sequence[_Change]) -> None:
    made = [subscription_row(after) for before, after in changes if before is None]
    moved = [{**subscription_row(after), "known_id": after.id} for before, after in changes if before is not None]
    if made:
        await connection.execute(insert(subscriptions), made)
    if moved:
        await connection.execute(update(subscriptions).where(subscriptions.c.id == bindparam("known_id")), moved)


async def _link(
    connection: Connection, bought: Sequence[Subscription], by: Actor, now_ms: int
) -> list[dict[str, object]]:
    """Link the customers that nobody is; the rows for the audit."""
    wanted: dict[str, str] = {}
    for one in bought:
        if one.customer_id:
            wanted.setdefault(one.customer_id, one.account_id)
    linked = set(await connection.scalars(select(stripe_customers.c.id).where(stripe_customers.c.id.in_(wanted))))
    new = {customer_id: account_id for customer_id, account_id in wanted.items() if customer_id not in linked}
    if new:
        rows = [{"id": one, "account_id": account_id, "linked_ms": now_ms} for one, account_id in new.items()]
        await connection.execute(insert(stripe_customers), rows)
    return [
        audit_row(by, "customer", account_id, (None, {"customer_id": customer_id}), now_ms)
        for customer_id, account_id in new.items()
    ]
