"""What the admin API tells, as types: the OpenAPI document is made of them, and the commands' `--json` prints them."""

from datetime import datetime
from typing import Any

import msgspec

from gateway.console.admin_bodies import Every, Overrides
from gateway.domain.limits import OnDisconnect, OnExhausted, Remedy, Unit, WhenUnavailable, Window
from gateway.domain.subscriptions import Kind, Status


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer is."""


class AccountTold(Told, frozen=True):
    """An account. `tier` is its own; what counts right now is told by `explain`."""

    id: str
    name: str
    tier: str
    suspended: bool
    version: int
    created_at: datetime


class AccountPage(Told, frozen=True):
    """A page of accounts; `next` is the `after` of the next one, null on the last."""

    items: list[AccountTold]
    next: str | None


class KeyTold(Told, frozen=True):
    """An API key, without its secret. `state` is active, expired or revoked."""

    id: str
    account: str
    name: str
    state: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyList(Told, frozen=True):
    """Every key of an account, oldest first."""

    items: list[KeyTold]


class NewKeyTold(KeyTold, frozen=True):
    """A key that was just made, with its text: it is shown this once."""

    key: str


class SubscriptionTold(Told, frozen=True):
    """A subscription as it stands. `since` is when it came to its status, `last_reset` when its period moved on."""

    id: str
    account: str
    tier: str
    status: Status
    source: str
    customer_id: str
    product_id: str
    price_id: str
    period_start: datetime | None
    period_end: datetime | None
    interval: Every
    anchor: datetime | None
    trial_end: datetime | None
    cancel_at: datetime | None
    canceled_at: datetime | None
    expires_at: datetime | None
    since: datetime | None
    updated_at: datetime
    last_reset: datetime | None
    terms: Overrides


class SubscriptionPage(Told, frozen=True):
    """A page of subscriptions; `next` is the `after` of the next one, null on the last."""

    items: list[SubscriptionTold]
    next: str | None


class AddonTold(Told, frozen=True):
    """An add-on."""

    id: str
    account: str
    unit: Unit
    amount: int
    window: Window | None
    begins_at: datetime | None
    ends_at: datetime | None
    source: str
    note: str
    created_at: datetime


class NewAddonTold(AddonTold, frozen=True):
    """An add-on that was asked for. `added` is false where its id was there already: it is as it was."""

    added: bool


class AddonList(Told, frozen=True):
    """Every add-on of an account, oldest first, those that are over too."""

    items: list[AddonTold]


class AuditTold(Told, frozen=True):
    """Who did what to which account: what stood before, and what stands after, null where nothing did or does."""

    id: int
    at: datetime
    who: str
    source: str
    action: str
    account: str
    before: Any
    after: Any


class AuditPage(Told, frozen=True):
    """A page of the audit, newest first; `next` is the `before` of the next one, null on the last."""

    items: list[AuditTold]
    next: int | None


class LimitTold(Told, frozen=True):
    """A limit of a tier."""

    name: str
    maximum: int
    remedy: Remedy


class PriceTold(Told, frozen=True):
    """What a tier costs, by the interval it is paid at."""

    interval: str
    cents: int
    currency: str
    stripe_price: str


class ScheduleTold(Told, frozen=True):
    """Times of day in UTC, each open for so long; `on_request` at any other time too."""

    at: list[str]
    open_minutes: int
    on_request: bool


class TierTold(Told, frozen=True):
    """A tier as it is in force: with the defaults of what the file leaves out. A bandwidth of null is unbounded."""

    name: str
    is_default: bool
    limits: list[LimitTold]
    concurrency: int | None
    time_zone: str
    on_exhausted: OnExhausted
    on_disconnect: OnDisconnect
    when_unavailable: WhenUnavailable
    numbers: dict[str, float]
    features: dict[str, bool]
    prices: list[PriceTold]
    bandwidth_mbit_s: float | None
    schedules: dict[str, ScheduleTold]


class TierList(Told, frozen=True):
    """Every tier, in the file's order."""

    items: list[TierTold]


class LimitExplained(Told, frozen=True):
    """Where a limit comes from and how it stands.

    `tier` is the tier's own maximum, `terms` the subscription's, `override` the one set by hand; null where none is
    said. `limit` is what counts: the last of them that is said, and `addons`.
    """

    name: str
    tier: int | None
    terms: int | None
    override: int | None
    addons: int
    limit: int
    used: int
    remaining: int
    resets_at: datetime | None
    remedy: Remedy


class Verdict(Told, frozen=True):
    """What the smallest request (one token each way) would be told now. `retry_after_s` null: waiting doesn't help."""

    admitted: bool
    status: int
    code: str | None
    message: str
    retry_after_s: int | None


class Explanation(Told, frozen=True):
    """What an account may do right now, and why. `next_change_at` is when that changes if nobody does anything.

    `running` is null while the limiter is silent.
    """

    account: str
    name: str
    suspended: bool
    at: datetime
    tier: str
    reason: str
    kind: Kind
    own_tier: str
    next_change_at: datetime | None
    next_tier: str | None
    counted_by: str
    limits: list[LimitExplained]
    unbounded: list[str]
    concurrency: int | None
    running: int | None
    numbers: dict[str, float]
    features: dict[str, bool]
    subscriptions: list[SubscriptionTold]
    addons: list[AddonTold]
    overrides: Overrides
    verdict: Verdict


class UsedTold(Told, frozen=True):
    """What one account, one endpoint or all accounts of a tier used."""

    name: str
    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int


class TopTold(Told, frozen=True):
    """The accounts of a span, by tokens, highest first; `next` is the `offset` of the next page, null on the last."""

    items: list[UsedTold]
    next: int | None


class RefusedTold(Told, frozen=True):
    """Refusals by one limit of one tier."""

    tier: str
    limit: str
    count: int


class Stats(Told, frozen=True):
    """Subscriptions, churn, refusals, endpoints and tiers.

    `churn_rate` is `ended` among those that gave a tier at any time in the span and are known. Refusals and requests
    are counted by this machine's gateway since its metrics began;
    `tiers` are the requests of the span by the tier that counted at the time.
    """

    days: int
    subscriptions: dict[str, int]
    ended: int
    not_renewed: int
    churn_rate: float
    requests: int
    refused: list[RefusedTold]
    refusal_rate: float
    endpoints: list[UsedTold]
    tiers: list[UsedTold]


class ErrorDetail(Told, frozen=True):
    """What is wrong: a stable code, a text for people, and the request's id, which is in the log too."""

    code: str
    message: str
    request_id: str


class ErrorTold(Told, frozen=True):
    """Every error is told like this."""

    error: ErrorDetail
