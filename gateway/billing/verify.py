"""What is wrong between accounts, plans and Stripe: a line for each, with what to do about it."""

from collections.abc import AsyncIterator, Mapping

from gateway.billing.effects import product_of
from gateway.billing.stripe_objects import id_of
from gateway.billing.stripe_source import StripeSource
from gateway.billing.stripe_subscriptions import SOURCE
from gateway.billing.tariff import DEFAULT_NUMBERS, TOKENS_KEY, Tariff, read_metadata, tariff_of
from gateway.domain.subscriptions import Status, Subscription
from gateway.ledger.ledger import Ledger
from gateway.ledger.stripe_products import Product
from gateway.settings.model import Settings

_PAGE = 500
_PAID = frozenset({Status.ACTIVE, Status.TRIALING, Status.PAST_DUE})


async def problems(settings: Settings, ledger: Ledger, source: StripeSource | None) -> AsyncIterator[str]:
    """Every problem, page by page. Raises Fault where the ledger or Stripe can't be asked."""
    tariff = tariff_of(settings)
    async for one in _accounts(settings, ledger):
        yield one
    async for one in _subscriptions(settings, tariff, ledger):
        yield one
    async for one in _products(settings, tariff, _of_stripe(source) if source is not None else _of_ledger(ledger)):
        yield one
    async for one in _events(ledger):
        yield one


async def _accounts(settings: Settings, ledger: Ledger) -> AsyncIterator[str]:
    after = ""
    while page := await ledger.list_accounts(after, _PAGE):
        after = page[-1].id
        for account in page:
            if account.tier not in settings.tiers:
                yield f"account {account.id}: its tier `{account.tier}` is not in the settings"


async def _subscriptions(settings: Settings, tariff: Tariff, ledger: Ledger) -> AsyncIterator[str]:
    after = ""
    while page := await ledger.list_subscriptions(after, _PAGE):
        after = page[-1].id
        told = await ledger.products({one.price_id for one in page} | {one.product_id for one in page})
        for one in page:
            if one.tier not in settings.tiers:
                yield f"subscription {one.id} of {one.account_id}: its tier `{one.tier}` is not in the settings"
            if one.source == SOURCE and one.status is Status.ACTIVE and one.period_end_s is None:
                yield f"subscription {one.id} of {one.account_id}: it has no billing period; run tollway stripe sync"
            if one.source == SOURCE and one.status in _PAID and _untold(one, tariff, told):
                yield (
                    f"subscription {one.id} of {one.account_id}: nobody told what {one.price_id} gives, so it is on"
                    f" `{one.tier}`; name the price under tiers.*.prices, or set stripe.api_key and run stripe sync"
                )


def _untold(one: Subscription, tariff: Tariff, told: Mapping[str, Product]) -> bool:
    """Whether its tier is the default one for want of news of its price and product."""
    price = told.get(one.price_id)
    named = one.price_id in tariff.prices or (price is not None and "tier" in price.metadata)
    return not named and one.product_id not in told


async def _products(settings: Settings, tariff: Tariff, products: AsyncIterator[Product]) -> AsyncIterator[str]:
    async for product in products:
        told = product.metadata
        tier = told.get("tier", "")
        if tier and tier not in settings.tiers:
            yield f"product {product.id} ({product.name}): its tier `{tier}` is not in the settings"
        for name in read_metadata(told).wrong:
            yield f"product {product.id} ({product.name}): its {name} is not a number; its default counts"
        lacking = [name for name in (TOKENS_KEY, *DEFAULT_NUMBERS) if name not in told]
        if product.id.startswith("prod_") and not tier and lacking and not tariff.prices:
            yield f"product {product.id} ({product.name}): no tier, and no {', '.join(lacking)}; defaults count"


async def _events(ledger: Ledger) -> AsyncIterator[str]:
    after = ""
    while page := await ledger.open_stripe_events(after, _PAGE):
        after = page[-1].id
        for event in page:
            yield f"event {event.id} ({event.type}) {event.state} after {event.attempts} tries: {event.error}"


async def _of_ledger(ledger: Ledger) -> AsyncIterator[Product]:
    after = ""
    while page := await ledger.list_products(after, _PAGE):
        after = page[-1].id
        for product in page:
            yield product


async def _of_stripe(source: StripeSource) -> AsyncIterator[Product]:
    after = ""
    while page := await source.products(after):
        after = id_of(page[-1])
        for found in page:
            if found.get("active", True):
                yield product_of(found, 0)
