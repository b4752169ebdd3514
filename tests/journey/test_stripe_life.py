"""The life of a subscription at a stateful Stripe, by Stripe's own library: the gateway's limits follow each step."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.audit import SYSTEM
from gateway.domain.subscriptions import Subscription
from tests.support.local_stripe import KEY, LocalStripe, local_stripe
from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, SETTINGS, Stand, stand
from tests.support.stripe_objects import SECRET
from tests.support.truth_balance import PROMPT, bearer
from tests.support.until import until
from tests.support.valkey import ValkeyServer

TIERS = """
  free: {limits: {requests: {hour: 1000}, tokens: {period: 900000}}}
  pro:
    limits: {requests: {hour: 7000}, tokens: {period: 900000}}
    prices: {month: {cents: 1900, stripe_price: price_pro}}
  max:
    limits: {requests: {hour: 9000}, tokens: {period: 900000}}
    prices: {year: {cents: 99000, stripe_price: price_max}}
"""
REPLY = http(completion(prompt=9, output=4))
FINE, EMPTY = "4242424242424242", "4000000000000341"
"""Stripe's test cards: one that pays, one that can be kept and does not pay."""


async def hourly(here: Stand, key: str) -> str:
    """The requests an hour that the next answer tells of."""
    answer = await here.client.post(CHAT, json=PROMPT, headers=bearer(key))
    return str(answer.headers["x-ratelimit-limit-requests"])


async def becomes(here: Stand, key: str, limit: str) -> None:
    """Wait until the limit is that."""

    async def there() -> bool:
        return await hourly(here, key) == limit

    await until(there, 20)


async def bought(here: Stand) -> Subscription:
    """The account's subscription."""
    return (await here.ledger.subscriptions_of("acme"))[0]


async def card(shop: LocalStripe, number: str) -> str:
    """A token for a card."""
    return (await shop.client.v1.tokens.create_async({"card": _card(number)})).id


def _card(number: str) -> Any:
    return {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "123"}


async def invoice(shop: LocalStripe, customer: str, subscription: str) -> str:
    """Charge the customer for the subscription's period; the invoice's id."""
    made = await shop.client.v1.invoices.create_async({"customer": customer, "subscription": subscription})
    assert made.id
    await shop.client.v1.invoices.pay_async(made.id)
    return made.id


async def price(shop: LocalStripe, price_id: str, product: str, interval: Any, cents: int) -> None:
    """A plan, which is a price by its older name."""
    await shop.client.v1.plans.create_async(
        {"id": price_id, "amount": cents, "currency": "usd", "interval": interval, "product": product}
    )


class Life:
    """A customer's subscription, step by step. Each step returns once the gateway follows it."""

    def __init__(self, shop: LocalStripe, here: Stand, key: str) -> None:
        self.shop = shop
        self.here = here
        self.key = key
        self.customer = self.subscription = ""

    async def begins(self) -> None:
        """A plan is bought."""
        shop, client = self.shop, self.shop.client.v1
        product = (await client.products.create_async({"name": "Plans", "metadata": {"max_banks": "4"}})).id
        await price(shop, "price_pro", product, "month", 1_900)
        await price(shop, "price_max", product, "year", 99_000)
        self.customer = (await client.customers.create_async({"source": await card(shop, FINE)})).id
        assert await hourly(self.here, self.key) == "1000"
        named: Any = {"customer": self.customer, "items": [{"plan": "price_pro"}], "metadata": {"account_id": "acme"}}
        self.subscription = (await client.subscriptions.create_async(named)).id
        await becomes(self.here, self.key, "7000")
        await shop.has_told()
        first = await bought(self.here)
        assert (first.status, first.customer_id, first.terms.numbers) == ("active", self.customer, {"max_banks": 4})

    async def is_upgraded(self) -> None:
        """A larger plan takes its place, paid by the year."""
        upgrade: Any = {"items": [{"plan": "price_max"}]}
        await self.shop.client.v1.subscriptions.update_async(self.subscription, upgrade)
        await becomes(self.here, self.key, "9000")

    async def is_renewed(self) -> None:
        """A period begins and is paid for."""
        start_s = int(time.time())
        await self.shop.renew(self.subscription, start_s)
        await invoice(self.shop, self.customer, self.subscription)
        await self._stands(lambda one: one.period_start_s == start_s)
        await self.shop.has_told()
        reset_ms = (await bought(self.here)).reset_ms
        assert reset_ms is not None
        assert reset_ms >= start_s * 1000

    async def is_not_paid(self) -> None:
        """The card has nothing left; the plan goes on in its grace."""
        client = self.shop.client.v1
        empty: Any = {"type": "card", "card": _card(EMPTY)}
        method = (await client.payment_methods.create_async(empty)).id
        await client.payment_methods.attach_async(method, {"customer": self.customer})
        await client.customers.update_async(self.customer, {"invoice_settings": {"default_payment_method": method}})
        await self.shop.fail(await invoice(self.shop, self.customer, self.subscription))
        await self._stands(lambda one: one.status == "past_due")
        await self.shop.has_told()
        assert await hourly(self.here, self.key) == "9000"

    async def is_given_notice(self) -> None:
        """It ends at a second. No webhook tells of it: the comparison finds it, and no job runs at that second."""
        cancel_at_s = int(time.time()) + 3
        await self.shop.client.v1.subscriptions.update_async(self.subscription, {"cancel_at": cancel_at_s})
        reconcile = self.here.gateway._billing.reconcile
        assert reconcile is not None
        tally = await reconcile.run(SYSTEM, lambda _: None, lambda _: None, heals=True)
        assert (tally.seen, tally.drifted, tally.healed) == (1, 1, 1)
        assert (await bought(self.here)).cancel_at_s == cancel_at_s
        await becomes(self.here, self.key, "1000")
        assert time.time() >= cancel_at_s

    async def ends(self) -> None:
        """Stripe ends it."""
        await self.shop.client.v1.subscriptions.cancel_async(self.subscription)
        await self._stands(lambda one: one.status == "canceled")
        await self.shop.has_told()
        assert await self.here.ledger.count_open_stripe_events() == 0

    async def _stands(self, holds: Callable[[Subscription], bool]) -> None:
        async def there() -> bool:
            return holds(await bought(self.here))

        await until(there, 20)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Stripe's library posts so by httpx
async def test_limits_follow_a_subscription_through_its_life(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A5, B7, E2, E10: customer, subscription, upgrade, renewal, failed payment, cancel, expiry: after each of them the
    account has what it has paid for, the lost webhook of the cancel made up for by the comparison.
    """  # noqa: D205
    async with local_stripe() as shop, odd_peer(always(REPLY)) as peer:
        on = f'stripe: {{{{ api_key: {KEY}, webhook_secrets: [{SECRET}], api_base: "{shop.url}" }}}}\n'
        async with stand(tmp_path, valkey, peer.port, tiers=TIERS, settings=SETTINGS + on) as here:
            await shop.tell(f"{here.url}/_tollway/stripe/webhook", SECRET)
            life = Life(shop, here, await here.account())
            await life.begins()
            await life.is_upgraded()
            await life.is_renewed()
            await life.is_not_paid()
            await life.is_given_notice()
            await life.ends()
