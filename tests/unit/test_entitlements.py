"""What an account may do: its tier, and what terms and add-ons make of it."""

from typing import Any

import pytest

from gateway.domain.accounts import Account
from gateway.domain.entitlements import Entitlements, Grant, Standing, entitlements
from gateway.domain.limits import MAXIMUM, Limit, Remedy, Tier, Unit, Window
from gateway.domain.subscriptions import Rules, Status, Subscription
from gateway.domain.terms import Terms, merged, unfit_terms

NOW_S = 1_795_262_400
FREE = Tier("free", (Limit(Unit.REQUESTS, Window.HOUR, 50), Limit(Unit.TOKENS, Window.DAY, 100)))
PRO = Tier(
    "pro",
    (
        Limit(Unit.TOKENS, Window.DAY, 1_000),
        Limit(Unit.TOKENS, Window.PERIOD, 50_000, Remedy.PAY),
        Limit(Unit.REQUESTS, Window.HOUR, 500),
    ),
    concurrency=4,
    numbers={"max_banks": 3, "max_storage_gb": 5.5},
    features={"exports": True},
)
TIERS = {"free": FREE, "pro": PRO}
SUBSCRIBED = Subscription("s1", "acme", "pro", Status.ACTIVE, period_start_s=NOW_S - 5, period_end_s=NOW_S + 500)


def of(*, now_s: int = NOW_S, tier: str = "free", **standing: Any) -> Entitlements:
    """The entitlements of an account with that standing."""
    account = Account("acme", "", tier, suspended=False, version=7, created_ms=0)
    return entitlements(Standing(account, **standing), now_s, TIERS, Rules())


def maxima(found: Entitlements) -> dict[str, int]:
    """Each limit's maximum, by its name."""
    assert found.tier is not None
    return {limit.name: limit.maximum for limit in found.tier.limits}


def grant(amount: int, unit: Unit = Unit.TOKENS, **fields: Any) -> Grant:
    """An add-on."""
    return Grant("g", "acme", unit, amount, **fields)


def test_nothing_special_is_the_tier_itself() -> None:
    """F1: accounts without add-ons share their tier's compiled plan; a copy for each would cost every request."""
    found = of()

    assert found.tier is FREE
    assert found.is_plain
    assert (found.version, found.until_s) == (7, None)
    assert of(tier="free", grants=(grant(5, window=Window.MONTH),)).is_plain


def test_a_billing_period_is_the_subscriptions_own() -> None:
    """A1: `tokens/period` runs with what the account pays for."""
    found = of(subscriptions=(SUBSCRIBED,))

    assert found.tier is not None
    assert found.tier.period == SUBSCRIBED.period
    assert not found.is_plain


def test_an_add_on_raises_what_paying_mends() -> None:
    """A1: bought tokens lift the period's limit and no brake on bursts."""
    found = of(subscriptions=(SUBSCRIBED,), grants=(grant(7_000), grant(3_000), grant(-1_000)))

    assert maxima(found) == {"tokens/day": 1_000, "tokens/period": 59_000, "requests/hour": 500}
    assert found.base["tokens/period"] == 50_000
    assert found.addons == {"tokens/day": 0, "tokens/period": 9_000, "requests/hour": 0}


def test_an_add_on_may_name_its_window() -> None:
    """A1: more per day, for those who sell it so; of a unit without a paid limit the longest window is raised."""
    assert maxima(of(grants=(grant(11, window=Window.DAY),)))["tokens/day"] == 111
    assert maxima(of(grants=(grant(11),)))["tokens/day"] == 111
    assert maxima(of(grants=(grant(9, Unit.REQUESTS),)))["requests/hour"] == 59


def test_add_ons_begin_and_end_at_their_seconds() -> None:
    """A1: what is bought for a span counts in it, without a job, and each edge is told in advance."""
    grants = (grant(10, from_s=NOW_S + 5, until_s=NOW_S + 9), grant(1, until_s=NOW_S + 7))

    seen = [(maxima(of(now_s=NOW_S + s, grants=grants))["tokens/day"], of(now_s=NOW_S + s, grants=grants).until_s)
            for s in (0, 4, 5, 6, 7, 8, 9)]  # fmt: skip

    assert [raised - 100 for raised, _ in seen] == [1, 1, 11, 11, 10, 10, 0]
    assert [until_s and until_s - NOW_S for _, until_s in seen] == [5, 5, 7, 7, 9, 9, None]


def test_taking_back_more_than_was_given_never_lowers_the_tier() -> None:
    """E10: a refund of an add-on ends the add-on; the plan that is paid for stays."""
    assert maxima(of(grants=(grant(10), grant(-500)))) == maxima(of())


def test_no_sum_leaves_what_counters_can_hold() -> None:
    """A1: two absurd add-ons don't turn into a number that Lua can't compare."""
    assert maxima(of(grants=(grant(MAXIMUM), grant(MAXIMUM))))["tokens/day"] == MAXIMUM


def test_terms_of_the_subscription_then_overrides() -> None:
    """A4, E8: the product's metadata replaces the tier's numbers, and what an operator set by hand comes last."""
    product = Terms({"tokens/period": 200_000, "tokens/day": 2_000}, numbers={"max_banks": 10, "seats": 2})
    by_hand = Terms({"tokens/day": None, "requests/minute": 9}, None, {"max_banks": 12}, {"exports": False})
    subscription = Subscription("s", "acme", "pro", Status.ACTIVE, terms=product)

    found = of(subscriptions=(subscription,), overrides=by_hand, grants=(grant(5),))

    assert maxima(found) == {"tokens/period": 200_005, "requests/hour": 500, "requests/minute": 9}
    assert found.tier is not None
    assert found.tier.concurrency is None
    assert found.tier.numbers == {"max_banks": 12, "max_storage_gb": 5.5, "seats": 2}
    assert found.tier.features == {"exports": False}


def test_terms_of_a_subscription_that_is_over_are_over() -> None:
    """D3: nobody keeps the limits of a plan whose tier is gone."""
    over = Subscription("s", "acme", "pro", Status.EXPIRED, terms=Terms({"tokens/day": None}))

    assert of(subscriptions=(over,)).tier is FREE


def test_a_tier_that_nobody_configured_is_told() -> None:
    """E2: a subscription to a tier that is missing from the settings is a clear fault, not somebody else's limits."""
    assert of(tier="gone").tier is None
    assert of(tier="gone").effective.tier == "gone"


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (Terms({"tokens/fortnight": 5}), "`tokens/fortnight` is no limit"),
        (Terms({"beans/day": None}), "`beans/day` is no limit"),
        (Terms({"tokens/day": -1}), "`tokens/day` has to be from 0"),
        (Terms({"tokens/day": MAXIMUM + 1}), "`tokens/day` has to be from 0"),
        (Terms(concurrency=-1), "`concurrency` has to be from 0"),
    ],
)
def test_terms_that_mean_nothing_are_told(terms: Terms, said: str) -> None:
    """E8: an operator who mistypes an override reads what is wrong instead of wondering why nothing changes."""
    assert unfit_terms(terms)[0].startswith(said)
    assert unfit_terms(Terms({"tokens/day": None, "requests/lifetime": 0}, 0)) == []


def test_merging_keeps_what_only_one_says() -> None:
    """A4: an override of one number leaves the rest of a product's metadata as it is."""
    assert merged(Terms({"tokens/day": 5}, 3), Terms({"tokens/month": 6})) == Terms(
        {"tokens/day": 5, "tokens/month": 6}, 3
    )
