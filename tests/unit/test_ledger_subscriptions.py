"""Subscriptions, grants and overrides in the ledger: kept whole, in any order, audited, and told to gateways."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import event

from gateway.domain.accounts import Account, ApiKey
from gateway.domain.audit import SYSTEM, Actor
from gateway.domain.entitlements import Credential, Grant, Standing
from gateway.domain.faults import Fault
from gateway.domain.limits import Unit, Window
from gateway.domain.periods import Interval
from gateway.domain.subscriptions import Status, Subscription
from gateway.domain.terms import NO_TERMS, Terms
from gateway.ledger.ledger import Ledger

BY = Actor("stripe", "evt_1")
KEY = ApiKey("abcdefghijkl", "acme", b"digest", "ci", created_ms=7, expires_ms=90)
TERMS = Terms({"tokens/month": 200_000, "tokens/day": None}, None, {"max_storage_gb": 5.5}, {"exports": True})
BOUGHT = Subscription(
    "sub_1",
    "acme",
    "pro",
    Status.PAST_DUE,
    source="stripe",
    customer_id="cus_1",
    product_id="prod_1",
    price_id="price_1",
    period_start_s=1_000,
    period_end_s=2_000,
    interval=Interval(12, 0),
    anchor_s=900,
    trial_end_s=1_100,
    cancel_at_s=1_200,
    canceled_at_s=1_300,
    expires_s=1_400,
    since_s=1_500,
    updated_ms=50_000,
    reset_ms=60_000,
    terms=TERMS,
)
ADDED = Grant("g1", "acme", Unit.TOKENS, 500, Window.PERIOD, 5, 90, "stripe", "a pack", 8)


@pytest.fixture
async def acme(ledger: Ledger) -> Account:
    """An account at version 1."""
    return await ledger.create_account("acme", "free", "Acme", 5)


def changed(**fields: Any) -> Subscription:
    """The subscription, with other fields."""
    return msgspec.structs.replace(BOUGHT, **fields)


async def test_all_of_it_comes_back(ledger: Ledger, acme: Account) -> None:
    """A1, E2: each date and number of a subscription, an add-on and an override is kept as it was told."""
    await ledger.create_key(KEY)
    other = changed(id="sub_0", status=Status.CANCELED, terms=NO_TERMS, anchor_s=None, period_end_s=None)
    for one in (BOUGHT, other):
        assert await ledger.upsert_subscription(one, BY, 9)
    refund = msgspec.structs.replace(ADDED, id="g2", amount=-20, window=None, until_s=None)
    for grant in (ADDED, refund):
        assert await ledger.add_grant(grant, BY, 9)
    assert await ledger.set_overrides("acme", TERMS, BY, 9)

    standing = Standing(await ledger.account("acme"), (other, BOUGHT), TERMS, (ADDED, refund))
    assert await ledger.standing("acme") == standing
    assert await ledger.credential(KEY.id) == Credential(KEY, standing)
    assert await ledger.subscription("sub_1") == BOUGHT
    assert await ledger.subscriptions_of("acme") == [other, BOUGHT]
    assert await ledger.subscriptions_of_customer("cus_1") == [other, BOUGHT]
    assert await ledger.list_subscriptions("sub_0") == [BOUGHT]
    assert await ledger.grants_of("acme") == [ADDED, refund]
    assert await ledger.granted("acme", Unit.TOKENS) == 480
    assert await ledger.overrides_of("acme") == TERMS


async def test_a_credential_is_one_question(ledger: Ledger, acme: Account) -> None:
    """F4: what a gateway needs of a key it reads at one moment, in one round to the database."""
    await ledger.create_key(KEY)
    await ledger.upsert_subscription(BOUGHT, BY, 9)
    asked: list[str] = []
    reader = ledger._store.reader.sync_engine
    event.listen(reader, "before_cursor_execute", lambda *call: asked.append(call[2]))

    assert await ledger.credential(KEY.id) is not None

    assert [one.split()[0] for one in asked if one != "BEGIN"] == ["SELECT"]


CHANGES: dict[str, Callable[[Ledger], Awaitable[object]]] = {
    "subscription": lambda ledger: ledger.upsert_subscription(BOUGHT, BY, 9),
    "grant": lambda ledger: ledger.add_grant(ADDED, BY, 9),
    "overrides": lambda ledger: ledger.set_overrides("acme", TERMS, BY, 9),
    "account": lambda ledger: ledger.set_tier("acme", "pro", 9, BY),
}


@pytest.mark.parametrize(("action", "change"), CHANGES.items())
async def test_a_change_is_audited_and_told_once(
    ledger: Ledger, acme: Account, action: str, change: Callable[[Ledger], Awaitable[object]]
) -> None:
    """E8: who did what stands beside the change or not at all; and every gateway hears of the new version."""
    await change(ledger)

    (row,) = await ledger.audit_log("acme", limit=1)
    assert (row.action, row.who, row.source, row.account_id, row.at_ms) == (action, "stripe", "evt_1", "acme", 9)
    assert row.after is not None
    assert (await ledger.account("acme")).version == 2
    assert [bump.version for bump in await ledger.pending_bumps()] == [2]


@pytest.mark.parametrize("change", [one for name, one in CHANGES.items() if name != "account"])
async def test_the_same_again_is_nothing(
    ledger: Ledger, acme: Account, change: Callable[[Ledger], Awaitable[object]]
) -> None:
    """E10: a webhook that comes twice adds no second pack, no second audit row and no reload on any gateway."""
    assert await change(ledger)
    rows = await ledger.audit_log()

    assert not await change(ledger)
    assert await ledger.audit_log() == rows
    assert (await ledger.account("acme")).version == 2


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_without_the_account_nothing_is_written(
    ledger: Ledger, change: Callable[[Ledger], Awaitable[object]]
) -> None:
    """E10: a subscription of nobody is a fault that its sender can park, not a row that no one finds."""
    with pytest.raises(Fault) as raised:
        await change(ledger)

    assert raised.value.kind.code == "not_found"
    assert await ledger.audit_log() == []
    assert await ledger.list_subscriptions() == []


async def test_older_news_changes_nothing(ledger: Ledger, acme: Account) -> None:
    """E10: news that was overtaken never takes a paid tier away again."""
    await ledger.upsert_subscription(BOUGHT, BY, 9)

    assert not await ledger.upsert_subscription(changed(status=Status.CANCELED, updated_ms=49_999), BY, 10)
    assert await ledger.subscription("sub_1") == BOUGHT
    assert not await ledger.upsert_subscription(changed(updated_ms=70_000), BY, 11)
    assert not await ledger.upsert_subscription(changed(status=Status.CANCELED, updated_ms=60_000), BY, 12)
    assert await ledger.upsert_subscription(changed(status=Status.ACTIVE, updated_ms=70_000), BY, 13)


async def test_a_renewal_is_a_reset_and_is_recorded(ledger: Ledger, acme: Account) -> None:
    """B7, E2: when the period moved on stands written, and grace is counted from when the status began."""

    async def told(period_start_s: int, status: Status, now_ms: int) -> tuple[int | None, int | None]:
        news = changed(since_s=None, reset_ms=None, period_start_s=period_start_s, status=status, updated_ms=now_ms)
        await ledger.upsert_subscription(news, BY, now_ms)
        found = await ledger.subscription("sub_1")
        assert found is not None
        return found.since_s, found.reset_ms

    assert await told(1_000, Status.ACTIVE, 100_000) == (100, 100_000)
    assert await told(2_000, Status.ACTIVE, 200_000) == (100, 200_000)
    assert await told(2_000, Status.PAST_DUE, 300_000) == (300, 200_000)
    assert await told(2_000, Status.PAST_DUE, 400_000) == (300, 200_000)
    assert await told(1_500, Status.ACTIVE, 500_000) == (500, 200_000)
    statuses = [one.status for _, one in await ledger.subscription_history("acme")]
    assert statuses == [Status.ACTIVE, Status.ACTIVE, Status.PAST_DUE, Status.ACTIVE]


async def test_a_subscription_that_moves_bumps_both_accounts(ledger: Ledger, acme: Account) -> None:
    """E10: who loses a subscription to another account loses its tier at once."""
    await ledger.create_account("other", "free", "", 5)
    await ledger.upsert_subscription(BOUGHT, BY, 9)

    await ledger.upsert_subscription(changed(account_id="other"), BY, 10)

    assert [(await ledger.account(one)).version for one in ("acme", "other")] == [3, 2]


async def test_overrides_can_be_taken_away(ledger: Ledger, acme: Account) -> None:
    """E8: back to the tier's own, with what stood before in the audit."""
    await ledger.set_overrides("acme", TERMS, BY, 9)

    assert await ledger.set_overrides("acme", NO_TERMS, BY, 10)
    assert await ledger.overrides_of("acme") == NO_TERMS
    before = (await ledger.audit_log("acme", limit=1))[0].before
    assert before is not None
    assert msgspec.json.decode(before, type=Terms) == TERMS


async def test_the_audit_is_read_in_pages_and_tells_no_digest(ledger: Ledger, acme: Account) -> None:
    """E8: everything that was done to an account, keys too, newest first; and nothing in it helps to forge a key."""
    await ledger.create_key(KEY, Actor("cli:ann"))
    await ledger.revoke_key(KEY.id, 20)

    rows = await ledger.audit_log("acme", limit=2)
    older = await ledger.audit_log("acme", before_id=rows[-1].row_id)

    assert [(row.action, row.who) for row in rows + older] == [
        ("key", SYSTEM.who),
        ("key", "cli:ann"),
        ("account", SYSTEM.who),
    ]
    assert "digest" not in repr(rows)
