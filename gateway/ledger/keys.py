"""API keys in the ledger: made, listed, rotated, revoked.

Like every change of an account, each raises its version and writes an outbox row in the same transaction.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.accounts import ApiKey
from gateway.domain.audit import SYSTEM, Actor
from gateway.domain.faults import ALREADY_EXISTS, EXPIRED_KEY, NOT_FOUND, REVOKED_KEY, TOO_MANY_KEYS, Fault
from gateway.domain.key_terms import ANYTHING, KeyTerms
from gateway.ledger.accounts import raise_version, read_account
from gateway.ledger.audit import write_audit
from gateway.ledger.database import Database, whole
from gateway.ledger.tables import api_keys

MOST_LIMITED = 100
"""Living keys of one account with limits of their own: rebuilding the account's counters reads each."""


class KeyBook(Database):
    """Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def create_key(self, key: ApiKey, by: Actor = SYSTEM) -> None:
        """Write a new key down. Raises Fault: NOT_FOUND (its account), ALREADY_EXISTS (its id), TOO_MANY_KEYS."""
        async with self.writing() as connection:
            await raise_version(connection, key.account_id, key.created_ms)
            if key.terms.is_limited and len(await _limited(connection, key.account_id, key.created_ms)) >= MOST_LIMITED:
                raise Fault(TOO_MANY_KEYS)
            await _insert(connection, key, by, key.created_ms)

    @whole
    async def list_keys(self, account_id: str) -> list[ApiKey]:
        """Every key of the account, revoked ones too, oldest first. Raises Fault(NOT_FOUND)."""
        keys = select(api_keys).where(api_keys.c.account_id == account_id)
        async with self.reading() as connection:
            await read_account(connection, account_id)
            found = await connection.execute(keys.order_by(api_keys.c.created_ms, api_keys.c.id))
            return [as_key(row) for row in found]

    @whole
    async def limited_keys(self, account_id: str) -> list[ApiKey]:
        """The keys that have limits of their own, and those whose counters they share, whatever became of them."""
        keys = select(api_keys).where(api_keys.c.account_id == account_id, api_keys.c.terms.is_not(None))
        async with self.reading() as connection:
            found = [as_key(row) for row in await connection.execute(keys)]
        return [key for key in found if key.terms.is_limited]

    @whole
    async def rotate_key(
        self, key_id: str, successor: tuple[str, bytes], *, overlap_ms: int, now_ms: int, by: Actor = SYSTEM
    ) -> tuple[ApiKey, ApiKey]:
        """A new key (id, digest) with all that the old one has, which ends `overlap_ms` from now; the old, the new.

        The new one lives as long as the old one was made to live, and counts against the same limits. Raises Fault:
        NOT_FOUND, REVOKED_KEY, EXPIRED_KEY, ALREADY_EXISTS.
        """
        async with self.writing() as connection:
            old = await _locked(connection, key_id)
            _refuse_dead(old, now_ms)
            life_ms = None if old.expires_ms is None else old.expires_ms - old.created_ms
            terms = msgspec.structs.replace(old.terms, counter=old.terms.counter or old.id)
            new = ApiKey(
                successor[0],
                old.account_id,
                successor[1],
                old.name,
                now_ms,
                None if life_ms is None else now_ms + life_ms,
                terms=terms if terms.is_limited else old.terms,
            )
            ends_ms = min(now_ms + overlap_ms, old.expires_ms or now_ms + overlap_ms)
            await raise_version(connection, old.account_id, now_ms)
            ended = await _set(connection, old, by, now_ms, expires_ms=ends_ms)
            await _insert(connection, new, by, now_ms)
        return ended, new

    @whole
    async def revoke_key(self, key_id: str, now_ms: int, by: Actor = SYSTEM) -> ApiKey:
        """Refuse the key from now on; one that was revoked before stays as it was. Raises Fault(NOT_FOUND)."""
        async with self.writing() as connection:
            # Locked, where writers don't wait for each other anyway: of two revocations the first one stands.
            key = await _locked(connection, key_id)
            if key.revoked_ms is not None:
                return key
            await raise_version(connection, key.account_id, now_ms)
            return await _set(connection, key, by, now_ms, revoked_ms=now_ms)

    @whole
    async def set_key_expiry(self, key_id: str, expires_ms: int | None, now_ms: int, by: Actor = SYSTEM) -> ApiKey:
        """Say anew when the key stops working, None for never. Raises Fault(NOT_FOUND)."""
        async with self.writing() as connection:
            key = await _locked(connection, key_id)
            if key.expires_ms == expires_ms:
                return key
            await raise_version(connection, key.account_id, now_ms)
            return await _set(connection, key, by, now_ms, expires_ms=expires_ms)


async def _limited(connection: AsyncConnection, account_id: str, now_ms: int) -> list[ApiKey]:
    """The account's living keys with limits of their own."""
    keys = select(api_keys).where(api_keys.c.account_id == account_id, api_keys.c.terms.is_not(None))
    found = [as_key(row) for row in await connection.execute(keys)]
    living = [key for key in found if key.revoked_ms is None and (key.expires_ms is None or key.expires_ms > now_ms)]
    return [key for key in living if key.terms.is_limited]


def as_key(row: Sequence[Any]) -> ApiKey:
    """A row of the table as the domain's own."""
    values = list(row)
    values[-1] = ANYTHING if row[-1] is None else msgspec.json.decode(row[-1], type=KeyTerms)
    return ApiKey(*values)


async def _locked(connection: AsyncConnection, key_id: str) -> ApiKey:
    found = await connection.execute(select(api_keys).where(api_keys.c.id == key_id).with_for_update())
    row = found.first()
    if row is None:
        raise Fault(NOT_FOUND, public=f"There is no key `{key_id}`.")
    return as_key(row)


def _refuse_dead(key: ApiKey, now_ms: int) -> None:
    if key.revoked_ms is not None:
        raise Fault(REVOKED_KEY, public=f"The key `{key.id}` was revoked: make a new one.")
    if key.expires_ms is not None and key.expires_ms <= now_ms:
        raise Fault(EXPIRED_KEY, public=f"The key `{key.id}` has expired: make a new one.")


async def _insert(connection: AsyncConnection, key: ApiKey, by: Actor, now_ms: int) -> None:
    terms = None if key.terms == ANYTHING else msgspec.json.encode(key.terms).decode()
    try:
        await connection.execute(insert(api_keys), msgspec.structs.asdict(key) | {"terms": terms})
    except IntegrityError as error:
        raise Fault(ALREADY_EXISTS, public=f"There is a key `{key.id}` already.") from error
    await write_audit(connection, by, "key", key.account_id, (None, _told(key)), now_ms)


async def _set(connection: AsyncConnection, key: ApiKey, by: Actor, now_ms: int, **columns: int | None) -> ApiKey:
    await connection.execute(update(api_keys).where(api_keys.c.id == key.id).values(columns))
    after = msgspec.structs.replace(key, **columns)
    await write_audit(connection, by, "key", key.account_id, (_told(key), _told(after)), now_ms)
    return after


def _told(key: ApiKey) -> dict[str, Any]:
    """A key as the audit tells of it: without its digest."""
    told = {"id": key.id, "name": key.name, "expires_ms": key.expires_ms, "revoked_ms": key.revoked_ms}
    return told if key.terms == ANYTHING else told | {"terms": msgspec.to_builtins(key.terms)}
