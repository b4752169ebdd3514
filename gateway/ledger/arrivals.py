"""Accounts that come from another system, many at a time: each with what it has bought, was given and has used.

Promises: taking the same arrivals again changes nothing; a batch is one transaction, so that an import which was cut
off is taken up again by running it once more. New accounts are written in bulk, those that are there one by one and
only where something is other. Every change has its audit row.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.accounts import Account
from gateway.domain.audit import Actor
from gateway.domain.entitlements import Grant, Standing
from gateway.domain.subscriptions import Subscription
from gateway.domain.terms import NO_TERMS, Terms
from gateway.domain.usage import UsageEvent
from gateway.ledger.accounts import change_account
from gateway.ledger.audit import audit_row
from gateway.ledger.database import whole
from gateway.ledger.grants import grant_row, put_grant, put_overrides
from gateway.ledger.standings import standings_of
from gateway.ledger.subscriptions import CHANGED, carried, put_subscription, subscription_row
from gateway.ledger.tables import accounts, audit, grants, overrides, subscriptions
from gateway.ledger.usage import UsageBook


class Arrival(msgspec.Struct, frozen=True):
    """One account as it comes. What is None or empty is left as it stands, should the account be there already.

    `keeps_tier`: one that is there stays on its own tier. `used` are events with ids of their own, the same each time.
    """

    account: Account
    keeps_tier: bool = False
    subscription: Subscription | None = None
    overrides: Terms | None = None
    grant: Grant | None = None
    used: tuple[UsageEvent, ...] = ()


class Taken(msgspec.Struct, frozen=True):
    """What became of a batch: account ids. `refused` says why; `moved` were there and have usage that is new."""

    made: tuple[str, ...]
    changed: tuple[str, ...]
    refused: dict[str, str]
    moved: tuple[str, ...]


class ArrivalBook(UsageBook):
    """Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def take_arrivals(self, batch: Sequence[Arrival], by: Actor, now_ms: int, *, dry_run: bool = False) -> Taken:
        """Write them down, each account at most once in a batch; a dry run tells what would become of them."""
        async with self.writing() as connection:
            taken = await self._take(connection, batch, by, now_ms)
            if dry_run:
                await connection.rollback()
        return taken

    async def _take(self, connection: AsyncConnection, batch: Sequence[Arrival], by: Actor, now_ms: int) -> Taken:
        known = await standings_of(connection, [one.account.id for one in batch])
        refused = await _refused(connection, batch)
        welcome = [one for one in batch if one.account.id not in refused]
        made = [one for one in welcome if one.account.id not in known]
        if made:
            await _insert(connection, made, by, now_ms)
        there = [one for one in welcome if one.account.id in known]
        changed = {one.account.id: await _merge(connection, known[one.account.id], one, by, now_ms) for one in there}
        events = [event for one in welcome for event in one.used]
        new = {event.account_id for event in await self._put_events(connection, events)} if events else set()
        moved = new & changed.keys()
        return Taken(
            tuple(one.account.id for one in made),
            tuple(account_id for account_id, is_other in changed.items() if is_other or account_id in moved),
            refused,
            tuple(sorted(moved)),
        )


async def _refused(connection: AsyncConnection, batch: Sequence[Arrival]) -> dict[str, str]:
    """Those whose subscription is another account's."""
    wanted = {one.subscription.id: one.account.id for one in batch if one.subscription is not None}
    owners = select(subscriptions.c.id, subscriptions.c.account_id).where(subscriptions.c.id.in_(wanted))
    refused = {
        wanted[subscription_id]: f"the subscription `{subscription_id}` is that of the account `{owner}`"
        for subscription_id, owner in await connection.execute(owners)
        if owner != wanted[subscription_id]
    }
    for one in batch:
        bought = one.subscription
        if bought is not None and wanted[bought.id] != one.account.id:
            refused[one.account.id] = f"the subscription `{bought.id}` is that of the account `{wanted[bought.id]}`"
    return refused


async def _insert(connection: AsyncConnection, made: Sequence[Arrival], by: Actor, now_ms: int) -> None:
    """New accounts: nobody knows of them yet, so that nobody has to be told."""
    told = [audit_row(by, "account", one.account.id, (None, one.account), now_ms) for one in made]
    bought = [carried(None, one.subscription, now_ms) for one in made if one.subscription is not None]
    told += [audit_row(by, CHANGED, one.account_id, (None, one), now_ms) for one in bought]
    said = [(one.account.id, one.overrides) for one in made if one.overrides is not None and one.overrides != NO_TERMS]
    told += [audit_row(by, "overrides", account_id, (NO_TERMS, terms), now_ms) for account_id, terms in said]
    given = [one.grant for one in made if one.grant is not None]
    told += [audit_row(by, "grant", one.account_id, (None, one), now_ms) for one in given]
    terms_rows = [
        {"account_id": account_id, "terms": msgspec.json.encode(terms).decode(), "changed_ms": now_ms}
        for account_id, terms in said
    ]
    account_rows = [msgspec.structs.asdict(one.account) | {"suspended": int(one.account.suspended)} for one in made]
    for table, rows in (
        (accounts, account_rows),
        (subscriptions, [dict(subscription_row(one)) for one in bought]),
        (overrides, terms_rows),
        (grants, [grant_row(one) for one in given]),
        (audit, told),
    ):
        if rows:
            await connection.execute(insert(table), rows)


async def _merge(connection: AsyncConnection, known: Standing, one: Arrival, by: Actor, now_ms: int) -> bool:
    """An account that is there; whether anything was other."""
    changed, account_id = False, known.account.id
    columns: dict[str, str | int] = {}
    if not one.keeps_tier and one.account.tier != known.account.tier:
        columns["tier"] = one.account.tier
    if one.account.name and one.account.name != known.account.name:
        columns["name"] = one.account.name
    if columns:
        await change_account(connection, account_id, now_ms, by, **columns)
        changed = True
    if one.subscription is not None and _is_news(known, one.subscription, now_ms):
        changed |= await put_subscription(connection, one.subscription, by, now_ms)
    if one.overrides is not None and one.overrides != known.overrides:
        changed |= await put_overrides(connection, account_id, one.overrides, by, now_ms)
    if one.grant is not None and one.grant.id not in {grant.id for grant in known.grants}:
        changed |= await put_grant(connection, one.grant, by, now_ms)
    return changed


def _is_news(known: Standing, subscription: Subscription, now_ms: int) -> bool:
    """Whether it is other than what is known, and not older."""
    before = next((one for one in known.subscriptions if one.id == subscription.id), None)
    if before is None:
        return True
    if before.updated_ms > subscription.updated_ms:
        return False
    after = carried(before, subscription, now_ms)
    return msgspec.structs.replace(before, updated_ms=after.updated_ms) != after
