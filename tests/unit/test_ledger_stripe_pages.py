"""A page of subscriptions in one transaction: the ledger is then as if each had been written down by itself."""

import random
from typing import Any

import msgspec

from gateway.domain.audit import Actor
from gateway.domain.periods import Interval
from gateway.domain.subscriptions import Status, Subscription
from gateway.domain.terms import Terms
from gateway.ledger.ledger import Ledger

BY = Actor("cli:ann", "sync")
ACCOUNTS = 12


def a_page(draw: random.Random, turn: int) -> list[Subscription]:
    """Some that are new, some that are as before, some older than what is known, some of another account now."""
    numbers = draw.sample(range(40), 20)
    return [
        Subscription(
            f"sub_{one}",
            f"{one % ACCOUNTS if draw.random() < 0.9 else 0}",
            draw.choice(("pro", "free")),
            draw.choice((Status.ACTIVE, Status.CANCELED)),
            source="stripe",
            customer_id=f"cus_{one % 7}",
            period_start_s=1_000 * draw.randrange(1, 4),
            period_end_s=90_000,
            interval=Interval(1),
            updated_ms=turn * 1_000 + draw.choice((-5_000, 0)),
            terms=Terms(numbers={"max_banks": 3.0}),
        )
        for one in numbers
    ]


def under(prefix: str, one: Subscription) -> Subscription:
    """The same in another part of the ledger."""
    return msgspec.structs.replace(
        one, id=prefix + one.id, account_id=prefix + one.account_id, customer_id=prefix + one.customer_id
    )


async def told(ledger: Ledger, prefix: str) -> list[Any]:
    """All that one part holds, without its prefix; a version only as far as it was raised."""
    found = await ledger.list_subscriptions(limit=1_000)
    audit = [row for row in await ledger.audit_log(limit=5_000) if row.account_id.startswith(prefix)]
    customers = await ledger.accounts_of_customers([f"{prefix}cus_{one}" for one in range(7)])
    rows = [[row.who, row.action, row.account_id, row.before, row.after] for row in audit if row.action != "account"]
    texts = [
        [msgspec.json.encode(one).decode() for one in found if one.id.startswith(prefix)],
        sorted(msgspec.json.encode(row).decode() for row in rows),
        sorted(f"{customer} {account}" for customer, account in customers.items()),
    ]
    return [[text.replace(prefix, "") for text in part] for part in texts]


async def test_a_page_at_once_is_as_one_by_one(ledger: Ledger) -> None:
    """A5, E8: a pass in bulk leaves the same subscriptions, customers and audit as webhooks do, and tells of them."""
    draw = random.Random(5)
    for number in range(ACCOUNTS - 1):  # the last has none: what is its is left out
        for prefix in ("page-", "each-"):
            await ledger.create_account(f"{prefix}{number}", "free", "", 1)

    for turn in range(1, 7):
        page = a_page(draw, turn)
        before = {one.id: one.version for one in await ledger.list_accounts(limit=100)}
        news = await ledger.take_subscriptions([under("page-", one) for one in page], BY, turn)
        alone = set()
        for one in (under("each-", one) for one in page if one.account_id != str(ACCOUNTS - 1)):
            if await ledger.upsert_subscription(one, BY, turn):
                alone.add(one.id)
                if not await ledger.accounts_of_customers([one.customer_id]):
                    await ledger.link_customer(one.customer_id, one.account_id, BY, turn)
        after = {one.id: one.version for one in await ledger.list_accounts(limit=100)}
        raised = {one for one, version in after.items() if version > before[one]}

        assert {one.removeprefix("page-") for one in news} == {one.removeprefix("each-") for one in alone}
        assert {one[5:] for one in raised if one.startswith("page-")} == {
            one[5:] for one in raised if one.startswith("each-")
        }
    newest = {bump.account_id: bump.version for bump in await ledger.pending_bumps()}

    bulk, each = await told(ledger, "page-"), await told(ledger, "each-")
    assert bulk == each
    assert len(bulk[0]) > 30
    assert len(bulk[2]) == 7
    assert newest == {one.id: one.version for one in await ledger.list_accounts(limit=100) if one.version > 1}
    assert await ledger.take_subscriptions([under("page-", one) for one in page_again(draw)], BY, 99) == set()


def page_again(draw: random.Random) -> list[Subscription]:
    """News that are older than all that is known."""
    return [msgspec.structs.replace(one, updated_ms=-1) for one in a_page(draw, 0)]
