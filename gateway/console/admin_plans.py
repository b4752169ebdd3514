"""What accounts have bought and been given, and the tiers, as operators work with them. See `admin_desk.py`."""

import secrets
from collections.abc import Mapping

import msgspec

from gateway.console.admin_answers import (
    AddonList,
    AddonTold,
    LimitTold,
    NewAddonTold,
    PriceTold,
    ScheduleTold,
    SubscriptionPage,
    SubscriptionTold,
    TierList,
    TierTold,
)
from gateway.console.admin_bodies import Ending, Every, NewAddon, Overrides, Paging, SubscriptionBody
from gateway.console.admin_desk import Desk
from gateway.console.moments import at_ms, at_s, seconds_of
from gateway.domain.audit import Actor
from gateway.domain.entitlements import Grant
from gateway.domain.faults import INVALID_BODY, KEPT_ELSEWHERE, NOT_FOUND, Fault
from gateway.domain.limits import Tier
from gateway.domain.periods import Interval
from gateway.domain.subscriptions import Subscription
from gateway.domain.terms import Terms, unfit_terms
from gateway.settings.plans import TierSettings
from gateway.settings.tiers import tier_of

BY_HAND = frozenset({"manual", "import"})
"""Sources of subscriptions that operators may change: any other would undo it with its next news."""


async def list_subscriptions(desk: Desk, asked: Paging) -> SubscriptionPage:
    """One page, by id."""
    found = await desk.ledger.list_subscriptions(asked.after, asked.limit)
    after = found[-1].id if len(found) == asked.limit else None
    return SubscriptionPage(items=[told_subscription(one) for one in found], next=after)


async def get_subscription(desk: Desk, subscription_id: str) -> SubscriptionTold:
    """One by its id. Raises Fault(NOT_FOUND)."""
    return told_subscription(await _found(desk, subscription_id))


async def put_subscription(desk: Desk, subscription_id: str, asked: SubscriptionBody, by: Actor) -> SubscriptionTold:
    """Make it, or let it be as asked. Raises Fault: NOT_FOUND, INVALID_BODY, KEPT_ELSEWHERE."""
    known = await desk.ledger.subscription(subscription_id)
    _refuse_foreign(known)
    desk.known_tier(asked.tier)
    _refuse_unfit(terms_of(asked.terms), "terms")
    period = asked.period_start, asked.period_end
    if period[1] is not None and (period[0] is None or period[0] >= period[1]):
        raise Fault(INVALID_BODY, public="`period_end`: a period has a `period_start`, and ends after it.")
    await _upsert(desk, _subscription(subscription_id, asked, known, desk.now_ms()), by)
    return await get_subscription(desk, subscription_id)


async def end_subscription(desk: Desk, subscription_id: str, asked: Ending, by: Actor) -> SubscriptionTold:
    """Let it be over, now or at the moment asked. Raises Fault: NOT_FOUND, KEPT_ELSEWHERE."""
    known = await _found(desk, subscription_id)
    _refuse_foreign(known)
    ends_s = desk.now_s if asked.at is None else seconds_of(asked.at)
    updated_ms = max(desk.now_ms(), known.updated_ms)
    await _upsert(desk, msgspec.structs.replace(known, expires_s=ends_s, updated_ms=updated_ms), by)
    return await get_subscription(desk, subscription_id)


async def get_overrides(desk: Desk, account_id: str) -> Overrides:
    """What was set for an account by hand. Raises Fault(NOT_FOUND)."""
    return told_terms((await desk.ledger.standing(account_id)).overrides)


async def set_overrides(desk: Desk, account_id: str, asked: Overrides, by: Actor) -> Overrides:
    """Let these be the account's overrides, in place of all before. Raises Fault: NOT_FOUND, INVALID_BODY."""
    terms = terms_of(asked)
    _refuse_unfit(terms, "overrides")
    await desk.ledger.set_overrides(account_id, terms, by, desk.now_ms())
    await desk.tell_gateways()
    return await get_overrides(desk, account_id)


async def list_addons(desk: Desk, account_id: str) -> AddonList:
    """Every add-on of an account, oldest first. Raises Fault(NOT_FOUND)."""
    await desk.ledger.account(account_id)
    return AddonList(items=[told_addon(one) for one in await desk.ledger.grants_of(account_id)])


async def add_addon(desk: Desk, account_id: str, asked: NewAddon, by: Actor) -> NewAddonTold:
    """Add it, or find it added; told as it stands. Raises Fault: NOT_FOUND, INVALID_BODY."""
    begins_s, ends_s = seconds_of(asked.begins_at) or 0, seconds_of(asked.ends_at)
    if asked.amount == 0:
        raise Fault(INVALID_BODY, public="`amount`: 0 would change nothing.")
    if ends_s is not None and ends_s <= begins_s:
        raise Fault(INVALID_BODY, public="`ends_at`: an add-on ends after its `begins_at`.")
    addon_id = asked.id or f"addon_{secrets.token_hex(12)}"
    grant = Grant(
        addon_id,
        account_id,
        asked.unit,
        asked.amount,
        asked.window,
        begins_s,
        ends_s,
        by.who,
        asked.note,
        desk.now_ms(),
    )
    added = await desk.ledger.add_grant(grant, by, desk.now_ms())
    await desk.tell_gateways()
    known = {one.id: one for one in await desk.ledger.grants_of(account_id)}
    if addon_id not in known:
        raise Fault(INVALID_BODY, public="`id`: another account has an add-on of this id.")
    return NewAddonTold(**msgspec.structs.asdict(told_addon(known[addon_id])), added=added)


def tiers(desk: Desk) -> TierList:
    """Every tier as it is in force."""
    settings = desk.settings()
    told = [_told_tier(tier_of(name, one), one, settings.default_tier) for name, one in settings.tiers.items()]
    return TierList(items=told)


def terms_of(asked: Overrides) -> Terms:
    """What is asked as the domain's own."""
    return Terms(asked.limits, asked.concurrency, asked.numbers, asked.features)


def told_terms(terms: Terms) -> Overrides:
    """Terms as they are told."""
    return Overrides(limits=terms.limits, concurrency=terms.concurrency, numbers=terms.numbers, features=terms.features)


def told_subscription(one: Subscription) -> SubscriptionTold:
    """A subscription as it is told."""
    return SubscriptionTold(
        id=one.id,
        account=one.account_id,
        tier=one.tier,
        status=one.status,
        source=one.source,
        customer_id=one.customer_id,
        product_id=one.product_id,
        price_id=one.price_id,
        period_start=at_s(one.period_start_s),
        period_end=at_s(one.period_end_s),
        interval=Every(months=one.interval.months, days=one.interval.days),
        anchor=at_s(one.anchor_s),
        trial_end=at_s(one.trial_end_s),
        cancel_at=at_s(one.cancel_at_s),
        canceled_at=at_s(one.canceled_at_s),
        expires_at=at_s(one.expires_s),
        since=at_s(one.since_s),
        updated_at=at_ms(one.updated_ms),
        last_reset=None if one.reset_ms is None else at_ms(one.reset_ms),
        terms=told_terms(one.terms),
    )


def told_addon(grant: Grant) -> AddonTold:
    """An add-on as it is told."""
    return AddonTold(
        id=grant.id,
        account=grant.account_id,
        unit=grant.unit,
        amount=grant.amount,
        window=grant.window,
        begins_at=at_s(grant.from_s or None),
        ends_at=at_s(grant.until_s),
        source=grant.source,
        note=grant.note,
        created_at=at_ms(grant.created_ms),
    )


async def _found(desk: Desk, subscription_id: str) -> Subscription:
    known = await desk.ledger.subscription(subscription_id)
    if known is None:
        raise Fault(NOT_FOUND, public=f"There is no subscription `{subscription_id}`.")
    return known


async def _upsert(desk: Desk, subscription: Subscription, by: Actor) -> None:
    await desk.ledger.upsert_subscription(subscription, by, desk.now_ms())
    await desk.tell_gateways()


def _refuse_foreign(known: Subscription | None) -> None:
    if known is not None and known.source not in BY_HAND:
        text = f"The subscription `{known.id}` is kept by {known.source}: change it there, or set overrides."
        raise Fault(KEPT_ELSEWHERE, public=text)


def _refuse_unfit(terms: Terms, field: str) -> None:
    wrong = unfit_terms(terms)
    if wrong:
        raise Fault(INVALID_BODY, public=f"`{field}`: {' '.join(wrong)}")


def _subscription(
    subscription_id: str, asked: SubscriptionBody, known: Subscription | None, now_ms: int
) -> Subscription:
    return Subscription(
        id=subscription_id,
        account_id=asked.account,
        tier=asked.tier,
        status=asked.status,
        source="manual" if known is None else known.source,
        customer_id=asked.customer_id,
        product_id=asked.product_id,
        price_id=asked.price_id,
        period_start_s=seconds_of(asked.period_start),
        period_end_s=seconds_of(asked.period_end),
        interval=Interval(asked.interval.months, asked.interval.days),
        anchor_s=seconds_of(asked.anchor),
        trial_end_s=seconds_of(asked.trial_end),
        cancel_at_s=seconds_of(asked.cancel_at),
        canceled_at_s=seconds_of(asked.canceled_at),
        expires_s=seconds_of(asked.expires_at),
        updated_ms=now_ms if known is None else max(now_ms, known.updated_ms),
        terms=terms_of(asked.terms),
    )


def _told_tier(tier: Tier, settings: TierSettings, default_tier: str) -> TierTold:
    prices: Mapping[str, PriceTold] = {
        interval: PriceTold(
            interval=interval, cents=price.cents, currency=price.currency, stripe_price=price.stripe_price
        )
        for interval, price in settings.prices.items()
    }
    return TierTold(
        name=tier.name,
        is_default=tier.name == default_tier,
        limits=[LimitTold(name=one.name, maximum=one.maximum, remedy=one.remedy) for one in tier.limits],
        concurrency=tier.concurrency,
        time_zone=tier.time_zone.key,
        on_exhausted=tier.on_exhausted,
        on_disconnect=tier.on_disconnect,
        when_unavailable=tier.when_unavailable,
        numbers=dict(tier.numbers),
        features=dict(tier.features),
        prices=list(prices.values()),
        bandwidth_mbit_s=settings.bandwidth_mbit_s,
        schedules={
            name: ScheduleTold(at=list(one.at), open_minutes=one.open_minutes, on_request=one.on_request)
            for name, one in settings.schedules.items()
        },
    )
