"""Random lives of subscriptions with time moving: the tier at each second is what the rules say, and nothing else."""

from random import Random

import hypothesis.strategies as st
from hypothesis import given

from gateway.domain.accounts import Account
from gateway.domain.entitlements import Grant, Standing, entitlements
from gateway.domain.limits import Limit, Remedy, Tier, Unit, Window
from gateway.domain.subscriptions import Access, Rules, Status, Subscription, effective_of, effective_tier
from gateway.domain.terms import Terms

TIERS = {
    "free": Tier("free", (Limit(Unit.TOKENS, Window.DAY, 10), Limit(Unit.REQUESTS, Window.HOUR, 3))),
    "pro": Tier("pro", (Limit(Unit.TOKENS, Window.DAY, 100), Limit(Unit.TOKENS, Window.PERIOD, 900, Remedy.PAY))),
    "ultra": Tier("ultra", (Limit(Unit.TOKENS, Window.DAY, 1000),), concurrency=5),
}
moments = st.integers(1_000, 1_200)
maybe = st.none() | moments
rules = st.builds(
    Rules,
    st.fixed_dictionaries({status: st.sampled_from(Access) for status in Status}),
    st.integers(0, 60),
    st.sampled_from(["", "free"]),
)
subscriptions = st.builds(
    Subscription,
    id=st.sampled_from(["a", "b", "c"]),
    account_id=st.just("acme"),
    tier=st.sampled_from(["pro", "ultra"]),
    status=st.sampled_from(Status),
    period_start_s=maybe,
    period_end_s=maybe,
    trial_end_s=maybe,
    cancel_at_s=maybe,
    expires_s=maybe,
    since_s=maybe,
    updated_ms=st.integers(0, 5),
    terms=st.just(Terms()) | st.builds(Terms, st.dictionaries(st.just("tokens/day"), st.none() | st.integers(0, 99))),
)
grants = st.builds(
    Grant,
    id=st.uuids().map(str),
    account_id=st.just("acme"),
    unit=st.sampled_from(Unit),
    amount=st.integers(-50, 50),
    window=st.none() | st.sampled_from(Window),
    from_s=moments,
    until_s=maybe,
)
standings = st.builds(
    Standing,
    st.just(Account("acme", "", "free", suspended=False, version=3, created_ms=0)),
    st.lists(subscriptions, max_size=3, unique_by=lambda one: one.id).map(tuple),
    st.just(Terms()) | st.builds(Terms, st.just({}), st.none() | st.integers(0, 9)),
    st.lists(grants, max_size=4).map(tuple),
)


@given(subscriptions, rules, moments)
def test_a_subscription_gives_its_tier_and_then_never_again(subscription: Subscription, by: Rules, now_s: int) -> None:
    """D3, E2: with nothing new told, time alone only ends a tier, once, at the very second that was foretold."""
    tiers = [effective_tier(subscription, second, by, "free").tier for second in range(990, 1_290)]
    ends = [second for second, tier in zip(range(990, 1_290), tiers, strict=True) if tier != subscription.tier]
    told = effective_tier(subscription, 990, by, "free").changes_at_s

    assert ends == list(range(ends[0], 1_290)) if ends else True
    assert told is None or told >= 1_290 or ends[0] == told
    assert effective_tier(subscription, now_s, by, "free").tier in {subscription.tier, "free"}


@given(st.lists(subscriptions, max_size=3, unique_by=lambda one: one.id), rules, moments, st.randoms())
def test_the_order_of_subscriptions_is_nothing(
    bought: list[Subscription], by: Rules, now_s: int, chance: Random
) -> None:
    """E10: webhooks come in any order, and the tier that results is the same; one that gives always beats none."""
    one = effective_of(tuple(bought), now_s, by, "free")
    chance.shuffle(bought)

    assert effective_of(tuple(bought), now_s, by, "free") == one
    alone = {effective_tier(each, now_s, by, "free").tier for each in bought if each.tier != one.tier}
    assert one.subscription is not None or alone <= {"free"}


@given(standings, rules)
def test_entitlements_hold_until_the_second_they_say(standing: Standing, by: Rules) -> None:
    """D3, A1: what a gateway keeps of an account is right until `until_s` and is worked out anew then: no second at
    which an add-on or a tier counts too long or too short.
    """  # noqa: D205
    known = entitlements(standing, 990, TIERS, by)
    for second in range(990, 1_230):
        if known.until_s is not None and second >= known.until_s:
            assert second == known.until_s
            known = entitlements(standing, second, TIERS, by)
        fresh = entitlements(standing, second, TIERS, by)
        assert (known.tier, known.addons, known.until_s) == (fresh.tier, fresh.addons, fresh.until_s)


@given(standings, rules, moments)
def test_add_ons_only_ever_raise(standing: Standing, by: Rules, now_s: int) -> None:
    """A1, E10: no mix of grants and refunds takes what the plan itself gives, and no limit is there twice."""
    found = entitlements(standing, now_s, TIERS, by)
    assert found.tier is not None
    maxima = {limit.name: limit.maximum for limit in found.tier.limits}

    assert len(maxima) == len(found.tier.limits)
    assert maxima == {name: maximum + found.addons[name] for name, maximum in found.base.items()}
    assert min(found.addons.values(), default=0) >= 0
    assert not found.is_plain or found.tier is TIERS[found.effective.tier]
