"""How an account stands with what it has bought: its billing period, its subscription, its entitlements. Pure.

The same is told in a legacy shape on demand, under the names of older systems.
"""

from typing import Any

from gateway.console.moments import second
from gateway.domain.entitlements import Entitlements
from gateway.domain.limits import Limit, Tier, Unit, Window
from gateway.domain.periods import period_bounds
from gateway.domain.schedules import Schedule
from gateway.domain.subscriptions import Subscription
from gateway.domain.windows import bounds, span


def period_limit(tier: Tier) -> Limit | None:
    """The limit on tokens that the account's billing period is about: of the period itself, else of the month."""
    by_window = {limit.window: limit for limit in tier.limits if limit.unit is Unit.TOKENS}
    return by_window.get(Window.PERIOD) or by_window.get(Window.MONTH)


def period_span(entitled: Entitlements, tier: Tier, now_s: int) -> tuple[int, int]:
    """The window of that limit (Unix seconds, half-open); without one the billing period that runs, or the month."""
    limit = period_limit(tier)
    if limit is not None:
        return span(tier, limit, now_s)[1:]
    subscription = entitled.effective.subscription
    period = None if subscription is None else subscription.period
    if period is None:
        return bounds(Window.MONTH, now_s, tier.time_zone)
    return period_bounds(period, now_s, tier.time_zone)


def period_body(entitled: Entitlements, tier: Tier, running: tuple[int, int], used: int) -> dict[str, Any]:
    """The tokens of the running billing period. `max_tokens` is without add-ons; None where nothing limits them."""
    limit, (start_s, end_s) = period_limit(tier), running
    return {
        "start": second(start_s),
        "end": second(end_s),
        "last_reset": second(_last_reset_s(entitled.effective.subscription, start_s)),
        "tokens": used,
        "max_tokens": None if limit is None else entitled.base[limit.name],
        "addon_tokens": 0 if limit is None else entitled.addons[limit.name],
        "remaining": None if limit is None else max(0, limit.maximum - used),
    }


def standing_body(entitled: Entitlements, tier: Tier, now_s: int) -> dict[str, Any]:
    """Which tier, why and until when, what was bought, and the entitlements that apps act on."""
    effective = entitled.effective
    return {
        "kind": effective.kind,
        "tier_reason": effective.reason,
        "tier_until": second(effective.changes_at_s),
        "subscription": None if effective.subscription is None else _subscription(effective.subscription),
        "numbers": dict(tier.numbers),
        "features": dict(tier.features),
        "schedules": {name: _schedule(schedule, now_s) for name, schedule in tier.schedules.items()},
    }


def _schedule(schedule: Schedule, now_s: int) -> dict[str, Any]:
    """Times of day are UTC. `open` now, and when it opens next."""
    return {
        "at": [f"{at_s // 3600:02}:{at_s // 60 % 60:02}" for at_s in schedule.at_s],
        "open_minutes": schedule.open_s // 60,
        "on_request": schedule.on_request,
        "open": schedule.is_open(now_s),
        "next": second(schedule.next_s(now_s)),
    }


def legacy_body(body: dict[str, Any]) -> dict[str, Any]:
    """The answer of `usage` under the names that systems before this one used for it."""
    period, subscription = body["period"], body["subscription"] or {}
    return {
        "maxChatsPerMonth": period["max_tokens"],
        "currentChatsUsed": period["tokens"],
        "addonChats": period["addon_tokens"],
        "lifetimeChatsUsed": body["lifetime"]["tokens"],
        "lastResetDate": period["last_reset"],
        "currentPeriodStart": period["start"],
        "currentPeriodEnd": period["end"],
        "plan": body["tier"],
        "status": subscription.get("status", "free"),
    }


def _last_reset_s(subscription: Subscription | None, start_s: int) -> int:
    """When the counting of this period began: as it was recorded, if that was in this period; else its start."""
    recorded_ms = None if subscription is None else subscription.reset_ms
    return start_s if recorded_ms is None else max(start_s, recorded_ms // 1000)


def _subscription(subscription: Subscription) -> dict[str, Any]:
    return {
        "id": subscription.id,
        "status": subscription.status,
        "tier": subscription.tier,
        "period_start": second(subscription.period_start_s),
        "period_end": second(subscription.period_end_s),
        "trial_end": second(subscription.trial_end_s),
        "cancel_at": second(subscription.cancel_at_s),
        "canceled_at": second(subscription.canceled_at_s),
        "expires_at": second(subscription.expires_s),
    }
