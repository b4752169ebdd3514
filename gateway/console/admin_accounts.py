"""Accounts, their keys, and the audit, as operators work with them. See `admin_desk.py`."""

from datetime import datetime

import msgspec

from gateway.console.admin_answers import (
    AccountPage,
    AccountTold,
    AuditPage,
    AuditTold,
    KeyList,
    KeyTold,
    NewKeyTold,
)
from gateway.console.admin_bodies import AuditQuery, KeyExpiry, NewAccount, NewKey, Paging, TierChange
from gateway.console.admin_desk import Desk
from gateway.console.moments import at_ms
from gateway.domain.accounts import Account, ApiKey
from gateway.domain.audit import Actor, AuditRow
from gateway.domain.faults import NOT_FOUND, Fault
from gateway.identity.keys import new_key


async def create_account(desk: Desk, asked: NewAccount, by: Actor) -> AccountTold:
    """Make an account. Raises Fault: ALREADY_EXISTS, INVALID_BODY."""
    tier = desk.known_tier(asked.tier)
    return told_account(await desk.ledger.create_account(asked.id, tier, asked.name, desk.now_ms(), by))


async def list_accounts(desk: Desk, asked: Paging) -> AccountPage:
    """One page, by id."""
    found = await desk.ledger.list_accounts(asked.after, asked.limit)
    after = found[-1].id if len(found) == asked.limit else None
    return AccountPage(items=[told_account(one) for one in found], next=after)


async def get_account(desk: Desk, account_id: str) -> AccountTold:
    """One account. Raises Fault(NOT_FOUND)."""
    return told_account(await desk.ledger.account(account_id))


async def set_tier(desk: Desk, account_id: str, asked: TierChange, by: Actor) -> AccountTold:
    """Move an account to another tier. Raises Fault: NOT_FOUND, INVALID_BODY."""
    account = await desk.ledger.set_tier(account_id, desk.known_tier(asked.tier), desk.now_ms(), by)
    await desk.tell_gateways()
    return told_account(account)


async def set_suspended(desk: Desk, account_id: str, suspended: bool, by: Actor) -> AccountTold:
    """Suspend an account, or let it in again. Raises Fault(NOT_FOUND)."""
    account = await desk.ledger.set_suspended(account_id, suspended, desk.now_ms(), by)
    await desk.tell_gateways()
    return told_account(account)


async def create_key(desk: Desk, account_id: str, asked: NewKey, by: Actor) -> NewKeyTold:
    """Make a key: its text is told this once. Raises Fault(NOT_FOUND)."""
    key_id, text, digest = new_key(desk.digest_key)
    now_ms = desk.now_ms()
    key = ApiKey(key_id, account_id, digest, asked.name, now_ms, _ms(asked.expires_at))
    await desk.ledger.create_key(key, by)
    await desk.tell_gateways()
    return NewKeyTold(key=text, **msgspec.structs.asdict(told_key(key, now_ms)))


async def list_keys(desk: Desk, account_id: str) -> KeyList:
    """Every key of an account, revoked ones too, oldest first. Raises Fault(NOT_FOUND)."""
    keys = await desk.ledger.list_keys(account_id)
    return KeyList(items=[told_key(key, desk.now_ms()) for key in keys])


async def get_key(desk: Desk, key_id: str) -> KeyTold:
    """One key. Raises Fault(NOT_FOUND)."""
    found = await desk.ledger.credential(key_id)
    if found is None:
        raise Fault(NOT_FOUND, public=f"There is no key `{key_id}`.")
    return told_key(found.key, desk.now_ms())


async def revoke_key(desk: Desk, key_id: str, by: Actor) -> KeyTold:
    """Refuse a key from now on. Raises Fault(NOT_FOUND)."""
    key = await desk.ledger.revoke_key(key_id, desk.now_ms(), by)
    await desk.tell_gateways()
    return told_key(key, desk.now_ms())


async def set_key_expiry(desk: Desk, key_id: str, asked: KeyExpiry, by: Actor) -> KeyTold:
    """Say anew when a key stops working. Raises Fault(NOT_FOUND)."""
    key = await desk.ledger.set_key_expiry(key_id, _ms(asked.expires_at), desk.now_ms(), by)
    await desk.tell_gateways()
    return told_key(key, desk.now_ms())


async def audit(desk: Desk, asked: AuditQuery) -> AuditPage:
    """Who did what, newest first."""
    rows = await desk.ledger.audit_log(asked.account, asked.before, asked.limit)
    before = rows[-1].row_id if len(rows) == asked.limit else None
    return AuditPage(items=[_told_audit(row) for row in rows], next=before)


def told_account(account: Account) -> AccountTold:
    """An account as it is told."""
    return AccountTold(
        id=account.id,
        name=account.name,
        tier=account.tier,
        suspended=account.suspended,
        version=account.version,
        created_at=at_ms(account.created_ms),
    )


def told_key(key: ApiKey, now_ms: int) -> KeyTold:
    """A key as it is told: without its digest."""
    over = key.expires_ms is not None and key.expires_ms <= now_ms
    return KeyTold(
        id=key.id,
        account=key.account_id,
        name=key.name,
        state="revoked" if key.revoked_ms is not None else "expired" if over else "active",
        created_at=at_ms(key.created_ms),
        expires_at=None if key.expires_ms is None else at_ms(key.expires_ms),
        revoked_at=None if key.revoked_ms is None else at_ms(key.revoked_ms),
    )


def _told_audit(row: AuditRow) -> AuditTold:
    before, after = (None if text is None else msgspec.json.decode(text) for text in (row.before, row.after))
    return AuditTold(
        id=row.row_id,
        at=at_ms(row.at_ms),
        who=row.who,
        source=row.source,
        action=row.action,
        account=row.account_id,
        before=before,
        after=after,
    )


def _ms(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1000)
