"""`tollway stripe`: what an operator sees who compares with Stripe, looks for what is wrong, and links customers."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.domain.audit import SYSTEM
from gateway.domain.subscriptions import Status, Subscription
from gateway.ledger.ledger import Ledger
from gateway.ledger.stripe_inbox import InboxEvent, State
from gateway.ledger.stripe_products import Product
from tests.support.command_line import Tollway
from tests.support.ledgers import NOON_MS, url_of
from tests.support.local_stripe import KEY, local_stripe


async def _in_ledger(home: Path, work: Any) -> None:
    ledger = Ledger.open(url_of(home / "data" / "ledger.db"))
    await work(ledger)
    await ledger.close()


def test_verify_lists_what_is_wrong(tollway: Tollway, home: Path) -> None:
    """A6: a product nobody gave entitlements, one whose metadata has a typo, a webhook that waits: a line for each."""
    tollway("accounts", "create", "acme")
    assert tollway("stripe", "verify")[:2] == (0, "nothing is wrong\n")

    async def spoil(ledger: Ledger) -> None:
        await ledger.keep_products(
            [
                Product("prod_1", "Starter", {}, 1),
                Product("prod_2", "Pro", {"tier": "gold"}, 1),
                Product("prod_3", "Max", {"tier": "premium", "max_banks": "many"}, 1),
            ]
        )
        await ledger.create_account("lost", "gone", "", NOON_MS)
        bought = Subscription("sub_1", "acme", "free", Status.ACTIVE, "stripe", price_id="price_9", product_id="prod_9")
        await ledger.upsert_subscription(msgspec.structs.replace(bought, period_end_s=NOON_MS), SYSTEM, NOON_MS)
        event = InboxEvent("evt_1", "invoice.paid", "in_1", "cus_1", "", 1, 1, State.PARKED, 3, 0, "no account")
        await ledger.store_stripe_event(event)

    asyncio.run(_in_ledger(home, spoil))
    status, told, _ = tollway("stripe", "verify")

    assert status == 1
    assert [line.partition(":")[0] for line in told.splitlines()] == [
        "account lost",
        "subscription sub_1 of acme",
        "product prod_1 (Starter)",
        "product prod_2 (Pro)",
        "product prod_3 (Max)",
        "event evt_1 (invoice.paid) parked after 3 tries",
    ]


def test_a_customer_is_linked_by_hand(tollway: Tollway, home: Path) -> None:
    """E10: customers from before the gateway get their account; a typo is told, and an unknown account too."""
    tollway("accounts", "create", "acme")
    assert tollway("stripe", "link", "cus_1", "acme")[:2] == (0, "cus_1 is acme\n")
    assert tollway("stripe", "link", "acme", "cus_1")[0] == 2
    assert tollway("stripe", "link", "cus_1", "nobody")[0] == 2

    async def look(ledger: Ledger) -> None:
        assert await ledger.accounts_of_customers(["cus_1", "cus_2"]) == {"cus_1": "acme"}
        assert (await ledger.audit_log("acme"))[0].action == "customer"

    asyncio.run(_in_ledger(home, look))


def test_without_a_key_there_is_nothing_to_compare_with(tollway: Tollway) -> None:
    """Who runs sync without a key is told which setting is missing."""
    status, _, said = tollway("stripe", "sync")
    assert (status, "stripe.api_key" in said) == (2, True)


@pytest.mark.slow
async def test_sync_tells_and_heals_what_differs(tollway: Tollway, home: Path) -> None:
    """E10, A5: subscriptions from before the gateway are taken over, over many pages; a dry run changes nothing."""
    async with local_stripe() as shop:
        with (home / "gateway.yaml").open("a") as file:
            file.write(f"stripe: {{ api_key: {KEY}, api_base: '{shop.url}' }}\n")
        await _fill(shop.http)
        await _run("accounts", "create", "acme")
        assert (await _run("stripe", "sync", "--dry-run"))[-1].startswith("105 subscriptions, 103 differed, 0 mended")
        healed = await _run("stripe", "sync")
        assert healed[-1] == "105 subscriptions, 103 differed, 103 mended, 2 of no known account"
        assert sum("no account" in line for line in healed) == 2
        again = await _run("stripe", "sync")
        assert again[-1] == "105 subscriptions, 0 differed, 0 mended, 2 of no known account"

    async def look(ledger: Ledger) -> None:
        found = await ledger.subscriptions_of("acme")
        assert (len(found), {one.tier for one in found}) == (103, {"premium"})
        assert {row.who for row in await ledger.audit_log("acme") if row.action == "subscription"} != {SYSTEM.who}

    await _in_ledger(home, look)


async def _fill(http: Any) -> None:
    """105 subscriptions of one customer, two of which name no account."""
    auth = {"authorization": f"Bearer {KEY}"}

    async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await http.post(path, json=body, headers=auth)
        answer.raise_for_status()
        made: dict[str, Any] = answer.json()
        return made

    product = await post("/v1/products", {"name": "Premium", "type": "service", "metadata": {"tier": "premium"}})
    plan = {"id": "p", "amount": 0, "currency": "usd", "interval": "month", "product": product["id"]}
    await post("/v1/plans", plan)
    named, unnamed = [(await post("/v1/customers", {}))["id"] for _ in range(2)]
    for number in range(105):
        whose = unnamed if number < 2 else named
        metadata = {} if number < 2 else {"account_id": "acme"}
        asked = {"customer": whose, "items": [{"plan": "p"}], "metadata": metadata, "trial_period_days": 30}
        await post("/v1/subscriptions", asked)


async def _run(*words: str) -> list[str]:
    """The lines that the command prints, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *words, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    return told.decode().splitlines()
