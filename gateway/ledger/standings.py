"""What the ledger knows of what an account may do, as of one moment and by one statement."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, func, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.entitlements import Credential, Standing
from gateway.domain.faults import NOT_FOUND, Fault
from gateway.domain.terms import NO_TERMS, Terms
from gateway.ledger.accounts import as_account
from gateway.ledger.database import Database, whole
from gateway.ledger.grants import as_grant
from gateway.ledger.keys import as_key
from gateway.ledger.subscriptions import as_subscription
from gateway.ledger.tables import accounts, api_keys, grants, overrides, subscriptions


class StandingBook(Database):
    """Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def credential(self, key_id: str) -> Credential | None:
        """The key and its account's standing; None for an id that no key has."""
        rows = await self._rows(_BY_KEY.where(api_keys.c.id == key_id))
        if not rows:
            return None
        width = len(api_keys.c)
        return Credential(as_key(rows[0][:width]), _standing([row[width:] for row in rows]))

    @whole
    async def standing(self, account_id: str) -> Standing:
        """The account's standing. Raises Fault(NOT_FOUND)."""
        rows = await self._rows(_BY_ACCOUNT.where(accounts.c.id == account_id))
        if not rows:
            raise Fault(NOT_FOUND, public=f"There is no account `{account_id}`.")
        return _standing(rows)

    @whole
    async def accounts_on(self, tiers: Sequence[str]) -> dict[str, int]:
        """How many accounts are on each of these tiers, by their own tier or by a subscription of whatever status."""
        own = select(accounts.c.tier, accounts.c.id)
        bought = select(subscriptions.c.tier, subscriptions.c.account_id)
        either = union(own, bought).subquery()
        counted = select(either.c.tier, func.count()).where(either.c.tier.in_(tiers)).group_by(either.c.tier)
        found = {str(row[0]): int(row[1]) for row in await self._rows(counted)}
        return {tier: found.get(tier, 0) for tier in tiers}

    @whole
    async def list_standings(self, after: str = "", limit: int = 100) -> list[Standing]:
        """Up to `limit` in order of their accounts' ids, those that come after the id `after`."""
        page = select(accounts.c.id).where(accounts.c.id > after).order_by(accounts.c.id).limit(limit)
        async with self.reading() as connection:
            ids = list((await connection.scalars(page)).all())
            found = await standings_of(connection, ids)
        return [found[one] for one in ids]

    async def _rows(self, question: Select[Any]) -> list[tuple[Any, ...]]:
        async with self.reading() as connection:
            return [tuple(row) for row in await connection.execute(question)]


def _whole(*tables: Any) -> Select[Any]:
    """Rows of each subscription with each grant: both are few, and one statement sees them at one moment."""
    first = tables[0]
    joined = first if first is accounts else first.join(accounts)
    for table in (overrides, subscriptions, grants):
        joined = joined.outerjoin(table, table.c.account_id == accounts.c.id)
    own = (column for table in (*tables, subscriptions, grants) for column in table.c)
    return select(*own, overrides.c.terms.label("overrides")).select_from(joined)


async def standings_of(connection: AsyncConnection, account_ids: Sequence[str]) -> dict[str, Standing]:
    """The standing of each of the accounts that there is, within a transaction of the caller's."""
    rows: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in await connection.execute(_BY_ACCOUNT.where(accounts.c.id.in_(account_ids))):
        rows[row[0]].append(tuple(row))
    return {account_id: _standing(own) for account_id, own in rows.items()}


_BY_KEY = _whole(api_keys, accounts)
_BY_ACCOUNT = _whole(accounts)
_GRANTS_AT = len(accounts.c) + len(subscriptions.c)


def _standing(rows: Sequence[Sequence[Any]]) -> Standing:
    first = rows[0]
    bought = {row[len(accounts.c)]: row[len(accounts.c) : _GRANTS_AT] for row in rows}
    given = {row[_GRANTS_AT]: row[_GRANTS_AT:-1] for row in rows}
    return Standing(
        as_account(first[: len(accounts.c)]),
        tuple(as_subscription(bought[one]) for one in sorted(bought, key=str) if one is not None),
        NO_TERMS if first[-1] is None else msgspec.json.decode(first[-1], type=Terms),
        tuple(as_grant(given[one]) for one in sorted(given, key=str) if one is not None),
    )
