"""A subscription of Stripe's as the domain's own. Pure."""

from collections.abc import Mapping

import msgspec

from gateway.billing.stripe_objects import Item, Recurring, StripeSubscription, id_of
from gateway.billing.tariff import Tariff
from gateway.domain.periods import Interval
from gateway.domain.subscriptions import Status, Subscription
from gateway.ledger.stripe_products import Product

SOURCE = "stripe"

_UNITS = {"day": (0, 1), "week": (0, 7), "month": (1, 0), "year": (12, 0)}


def subscription_of(stripe: StripeSubscription, account_id: str, tariff: Tariff, updated_ms: int) -> Subscription:
    """Tier and terms are left for `Tariff.plan`. Raises ValueError for a status or an interval that nobody knows."""
    item = item_of(stripe, tariff)
    price = item.bought
    start_s = stripe.current_period_start if item.current_period_start is None else item.current_period_start
    end_s = stripe.current_period_end if item.current_period_end is None else item.current_period_end
    cancel_at_s = stripe.cancel_at
    if cancel_at_s is None and stripe.cancel_at_period_end:
        cancel_at_s = end_s
    return Subscription(
        id=stripe.id,
        account_id=account_id,
        tier="",
        status=Status(stripe.status),
        source=SOURCE,
        customer_id=id_of(stripe.customer),
        product_id=id_of(price.product),
        price_id=price.id,
        period_start_s=start_s,
        period_end_s=end_s,
        interval=interval_of(price.paid),
        anchor_s=stripe.billing_cycle_anchor,
        trial_end_s=stripe.trial_end,
        cancel_at_s=cancel_at_s,
        canceled_at_s=stripe.canceled_at,
        expires_s=stripe.ended_at,
        updated_ms=updated_ms,
    )


def item_of(stripe: StripeSubscription, tariff: Tariff) -> Item:
    """The item that decides: the first whose price is a tier's by the settings, else the first."""
    items = stripe.items.data or [Item()]
    return next((item for item in items if item.bought.id in tariff.prices), items[0])


def interval_of(paid: Recurring) -> Interval:
    """How far apart renewals are. Raises ValueError for a word that Stripe doesn't have yet."""
    if paid.interval not in _UNITS:
        raise ValueError(f"an interval of `{paid.interval}` is not known")
    months, days = _UNITS[paid.interval]
    return Interval(months * paid.interval_count, days * paid.interval_count)


def made_out(
    stripe: StripeSubscription, account_id: str, products: Mapping[str, Product], tariff: Tariff, updated_ms: int
) -> Subscription:
    """As `subscription_of`, with its tier and terms by those products and prices that are known."""
    return priced(subscription_of(stripe, account_id, tariff, updated_ms), products, tariff)


def priced(subscription: Subscription, products: Mapping[str, Product], tariff: Tariff) -> Subscription:
    """The subscription with the tier and terms that its price and product give now."""
    price, product = products.get(subscription.price_id), products.get(subscription.product_id)
    tier, terms = tariff.plan(
        subscription.price_id,
        {} if price is None else price.metadata,
        None if product is None else product.metadata,
        subscription.interval,
    )
    return msgspec.structs.replace(subscription, tier=tier, terms=terms)
