"""What Stripe's prices and products give: tiers, defaults, limits, numbers, and both placements of a period."""

import msgspec
import pytest

from gateway.billing.stripe_objects import Invoice, StripeSubscription
from gateway.billing.stripe_subscriptions import subscription_of
from gateway.billing.tariff import Tariff, read_metadata
from gateway.domain.periods import Interval
from gateway.domain.terms import NO_TERMS, Terms
from tests.support.stripe_objects import example, subscription

MONTH, YEAR = Interval(1), Interval(12)
TARIFF = Tariff({"price_pro": "pro"}, {"free": frozenset(), "cal": frozenset({"tokens/month"})}, "free")


@pytest.mark.parametrize(
    ("metadata", "terms"),
    [
        ({}, Terms({"tokens/period": 50_000}, numbers={"max_banks": 3, "max_storage_gb": 5})),
        (
            {"max_tokens_per_month": "1000000", "max_banks": "40", "max_storage_gb": "2.5", "seats": "7", "note": "x"},
            Terms({"tokens/period": 1_000_000}, numbers={"max_banks": 40, "max_storage_gb": 2.5, "seats": 7}),
        ),
        ({"max_tokens_per_month": "lots", "max_banks": "3", "max_storage_gb": "5"}, None),
    ],
)
def test_a_product_is_a_plan_by_itself(metadata: dict[str, str], terms: Terms | None) -> None:
    """A4: Starter, Pro and Business are sold by metadata alone, with 50,000 tokens, 3 banks and 5 GB left out."""
    default = Terms({"tokens/period": 50_000}, numbers={"max_banks": 3, "max_storage_gb": 5})
    assert TARIFF.plan("price_other", {}, metadata, MONTH) == ("free", terms or default)


def test_a_tier_is_found_in_order() -> None:
    """E1: by the price in the settings, the price's metadata, the product's; defaults never lower a tier's own."""
    assert TARIFF.plan("price_pro", {"tier": "a"}, {"tier": "b"}, MONTH) == ("pro", NO_TERMS)
    assert TARIFF.plan("price_1", {"tier": "a"}, {"tier": "b"}, MONTH) == ("a", NO_TERMS)
    assert TARIFF.plan("price_1", {}, {"tier": "b", "exports": "true"}, MONTH) == (
        "b",
        Terms(features={"exports": True}),
    )
    assert TARIFF.plan("price_1", {}, None, MONTH) == ("free", NO_TERMS)


def test_a_month_is_the_billing_period_where_that_is_a_month() -> None:
    """B7: a renewal resets what is sold by the month; paid by the year, a month stays the calendar's."""
    told = {"tier": "pro", "max_tokens_per_month": "9", "max_requests_per_day": "unlimited"}
    assert TARIFF.plan("p", {}, told, MONTH)[1].limits == {"tokens/period": 9, "requests/day": None}
    assert TARIFF.plan("p", {}, told, YEAR)[1].limits == {"tokens/month": 9, "requests/day": None}
    assert TARIFF.plan("p", {}, told | {"tier": "cal"}, MONTH)[1].limits["tokens/month"] == 9


def test_what_cannot_be_read_is_named() -> None:
    """A6: a typo in Stripe's dashboard is found by verify, and is never a limit of something else."""
    read = read_metadata({"max_tokens_per_month": "-5", "max_banks": "many", "max_chats_per_month": "9", "hint": "1e9"})
    assert (read.wrong, read.limits, read.numbers) == (
        ["max_tokens_per_month", "max_banks"],
        {},
        {"max_chats_per_month": 9},
    )


@pytest.mark.parametrize("old", [True, False])
def test_the_period_is_found_at_both_places(old: bool) -> None:
    """A5: the same subscription in the shape of older API versions and of those since 2025-03-31."""
    told = msgspec.convert(subscription(period=(1_000, 2_000), old=old), StripeSubscription)
    made = subscription_of(told, "acme", TARIFF, 5)
    assert (made.period_start_s, made.period_end_s, made.interval, made.anchor_s) == (1_000, 2_000, MONTH, 1_000)
    assert (made.customer_id, made.product_id, made.price_id) == ("cus_1", "prod_pro", "price_pro")


def test_notice_at_the_end_of_the_period_is_a_moment() -> None:
    """E2: older API versions tell of it without its moment."""
    told = msgspec.convert(subscription(period=(1_000, 2_000), cancel_at_period_end=True), StripeSubscription)
    assert subscription_of(told, "acme", TARIFF, 5).cancel_at_s == 2_000


def test_an_invoice_names_its_subscription_in_both_shapes() -> None:
    """B7: a renewal is recognised before and since 2025-03-31; an invoice of anything else is none."""
    new = {"type": "subscription_details", "subscription_details": {"subscription": "sub_1"}}
    for told in ({"subscription": "sub_1", "parent": None}, {"parent": new}, {"subscription": {"id": "sub_1"}}):
        assert msgspec.convert(example("invoice", **told), Invoice).subscription_id == "sub_1"
    assert msgspec.convert(example("invoice", subscription=None, parent=None), Invoice).subscription_id == ""
