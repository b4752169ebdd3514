"""Subscriptions: what an account has bought, and which tier that gives it at a moment. Pure.

`effective_tier` needs nothing but the subscription, the moment and the rules: a subscription that ends at a second is
over at that second, without a job, a message or a clock of this file's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import assert_never

import msgspec

from gateway.domain.periods import Interval, Period, period_of
from gateway.domain.terms import NO_TERMS, Terms


class Status(StrEnum):
    """Where a subscription stands. First Tollway's own words, then Stripe's (API reference, Subscription.status)."""

    FREE = "free"
    ACTIVE = "active"
    CANCELLED = "cancelled"
    """Given notice, and paid until the period's end."""
    EXPIRED = "expired"
    PENDING = "pending"
    CANCELED = "canceled"
    """Over: Stripe's word for a subscription that has ended."""
    PAST_DUE = "past_due"
    TRIALING = "trialing"
    INCOMPLETE = "incomplete"
    INCOMPLETE_EXPIRED = "incomplete_expired"
    UNPAID = "unpaid"
    PAUSED = "paused"


class Access(StrEnum):
    """What a status gives: the tier, for how long."""

    FULL = "full"
    UNTIL_PERIOD_END = "until_period_end"
    GRACE = "grace"
    NONE = "none"


class Kind(StrEnum):
    """What kind of account it is right now."""

    FREE = "free"
    TRIAL = "trial"
    SUBSCRIBED = "subscribed"


class Subscription(msgspec.Struct, frozen=True):
    """One subscription of an account. Moments are Unix seconds, None where there is none.

    `id` is the source's own (`sub_…` of Stripe), unique over all sources. `since_s` is when it came to its status, from
    which grace is counted. `expires_s` ends it whatever its status says. `updated_ms` is the object's own time: who is
    told of an older one keeps the newer. `reset_ms` is when its period was last seen to move on.
    """

    id: str
    account_id: str
    tier: str
    status: Status
    source: str = "manual"
    customer_id: str = ""
    product_id: str = ""
    price_id: str = ""
    period_start_s: int | None = None
    period_end_s: int | None = None
    interval: Interval = Interval()
    anchor_s: int | None = None
    trial_end_s: int | None = None
    cancel_at_s: int | None = None
    canceled_at_s: int | None = None
    expires_s: int | None = None
    since_s: int | None = None
    updated_ms: int = 0
    reset_ms: int | None = None
    terms: Terms = NO_TERMS

    @property
    def period(self) -> Period | None:
        """Its billing period, None where none is known."""
        return period_of(self.period_start_s, self.period_end_s, self.interval, self.anchor_s)


DEFAULT_ACCESS: Mapping[Status, Access] = MappingProxyType(
    {
        Status.FREE: Access.NONE,
        Status.ACTIVE: Access.FULL,
        Status.CANCELLED: Access.UNTIL_PERIOD_END,
        Status.EXPIRED: Access.NONE,
        Status.PENDING: Access.NONE,
        Status.CANCELED: Access.NONE,
        Status.PAST_DUE: Access.GRACE,
        Status.TRIALING: Access.FULL,
        Status.INCOMPLETE: Access.NONE,
        Status.INCOMPLETE_EXPIRED: Access.NONE,
        Status.UNPAID: Access.NONE,
        Status.PAUSED: Access.NONE,
    }
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What each status gives. `fallback_tier` is for accounts whose subscription gives nothing; "": their own."""

    access: Mapping[Status, Access] = field(default_factory=lambda: DEFAULT_ACCESS)
    grace_s: int = 3 * 86_400
    fallback_tier: str = ""


DEFAULT_RULES = Rules()


class Effective(msgspec.Struct, frozen=True):
    """The tier at a moment, why, and when that will change if nobody does anything (Unix seconds; None: never).

    `subscription` is the one that gives the tier, None where none does.
    """

    tier: str
    reason: str
    changes_at_s: int | None
    kind: Kind
    subscription: Subscription | None = None


def effective_tier(subscription: Subscription | None, now_s: int, rules: Rules, account_tier: str) -> Effective:
    """The tier that an account is on at `now_s`. `account_tier` is its own, which it has without any subscription."""
    if subscription is None:
        return Effective(account_tier, "no subscription", None, Kind.FREE)
    access, status = rules.access[subscription.status], subscription.status
    fallback = rules.fallback_tier or account_tier
    if access is Access.NONE:
        return Effective(fallback, f"its subscription is {status}", None, Kind.FREE)
    end_s, why = _end(subscription, access, rules)
    if end_s is not None and now_s >= end_s:
        return Effective(fallback, f"its subscription ({status}) was over at {_moment(end_s)}: {why}", None, Kind.FREE)
    reason = f"its subscription is {status}"
    if end_s is not None:
        reason += f", until {_moment(end_s)}: {why}"
    kind = Kind.TRIAL if status is Status.TRIALING else Kind.SUBSCRIBED
    return Effective(subscription.tier, reason, end_s, kind, subscription)


def effective_of(subscriptions: Sequence[Subscription], now_s: int, rules: Rules, account_tier: str) -> Effective:
    """As `effective_tier`, of an account that may have several: of those that give a tier the one whose period began
    last, else what the one touched last says.
    """  # noqa: D205
    found = [effective_tier(one, now_s, rules, account_tier) for one in sorted(subscriptions, key=_rank)]
    giving = [one for one in found if one.subscription is not None]
    if giving or found:
        return (giving or found)[-1]
    return effective_tier(None, now_s, rules, account_tier)


def _rank(subscription: Subscription) -> tuple[int, int, str]:
    return subscription.period_start_s or 0, subscription.updated_ms, subscription.id


def _end(subscription: Subscription, access: Access, rules: Rules) -> tuple[int | None, str]:
    """When what the status gives is over, and why then."""
    ends: list[tuple[int, str]] = []
    for moment_s, why in ((subscription.cancel_at_s, "cancelled"), (subscription.expires_s, "expiry")):
        if moment_s is not None:
            ends.append((moment_s, why))
    match access:
        case Access.UNTIL_PERIOD_END:
            trial_end_s = subscription.trial_end_s if subscription.status is Status.TRIALING else None
            paid_s = trial_end_s or subscription.period_end_s
            if paid_s is not None or not ends:
                ends.append((paid_s or 0, "end of what is paid" if paid_s else "no end of its period is known"))
        case Access.GRACE:
            since_s = subscription.since_s or subscription.period_start_s or 0
            ends.append((since_s + rules.grace_s, "end of the grace period"))
        case Access.FULL | Access.NONE:
            pass
        case _:
            assert_never(access)
    return min(ends, default=(None, ""))


def _moment(moment_s: int) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
