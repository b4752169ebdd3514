"""What the admin API is asked, as types: bodies, and the parameters of queries. Whatever isn't named here is refused.

Moments are RFC 3339 with a time zone. The same types are what `tollway accounts`, `keys`, `subscriptions`, `overrides`
and `addons` fill in, and what the OpenAPI document is made of.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.domain.limits import MAXIMUM, Unit, Window
from gateway.domain.subscriptions import Status

_ACCOUNT_ID, _ID = r"^[A-Za-z0-9][A-Za-z0-9._@:\-]{0,127}$(?!\n)", r"^[!-~]{1,255}$(?!\n)"
_SPAN = r"^([0-9]{4}-[0-9]{2}(-[0-9]{2})?)?$(?!\n)"
_IN_WORDS = {
    _SPAN: "a day like 2026-11-21 or a month like 2026-11",
    _ACCOUNT_ID: "1 to 128 letters, digits and . _ @ : -",
    _ID: "1 to 255 visible ASCII characters",
}
_WORDS: dict[str, Iterable[str]] = {"status": Status, "unit": Unit, "window": Window}

AccountId = Annotated[str, Meta(pattern=_ACCOUNT_ID, description=_IN_WORDS[_ACCOUNT_ID])]
Id = Annotated[str, Meta(pattern=_ID, description=_IN_WORDS[_ID])]
Line = Annotated[str, Meta(max_length=500)]
TierName = Annotated[str, Meta(min_length=1, max_length=128, description="A tier of gateway.yaml.")]
Moment = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0, le=MAXIMUM)]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every body and query is."""


class Nothing(Body, frozen=True):
    """No fields."""


class Paging(Body, frozen=True):
    """One page of a list: up to `limit`, those that come after the one that `after` names (`next` of the last page)."""

    after: Annotated[str, Meta(max_length=255)] = ""
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class AuditQuery(Body, frozen=True):
    """A page of the audit, newest first: of one account or of all, those older than the row `before`."""

    account: Annotated[str, Meta(max_length=128)] = ""
    before: Annotated[int, Meta(ge=1)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class StatsQuery(Body, frozen=True):
    """Over how many days back churn and endpoints are told."""

    days: Annotated[int, Meta(ge=1, le=400)] = 30


class TopQuery(Body, frozen=True):
    """Of which UTC day (2026-11-21) or month (2026-11); today, unless given. `offset` is how many are passed over."""

    of: Annotated[str, Meta(pattern=_SPAN, description=_IN_WORDS[_SPAN])] = ""
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class NewAccount(Body, frozen=True):
    """An account to be made. Without `tier` it is on the settings' default tier."""

    id: AccountId
    tier: TierName | None = None
    name: Line = ""


class TierChange(Body, frozen=True):
    """The tier that the account is on by itself, without a subscription."""

    tier: TierName


class NewKey(Body, frozen=True):
    """A key to be made. Without `expires_at` it works for good."""

    name: Line = ""
    expires_at: Moment | None = None


class KeyExpiry(Body, frozen=True):
    """When a key stops working; null: never."""

    expires_at: Moment | None


class Every(Body, frozen=True):
    """How far apart renewals are: `days` if not 0, else `months`. A week is 7 days, a year 12 months."""

    months: Annotated[int, Meta(ge=0, le=120)] = 1
    days: Annotated[int, Meta(ge=0, le=3_660)] = 0


class Overrides(Body, frozen=True, omit_defaults=True):
    """What takes the place of the tier's own, by name. A limit or `concurrency` of null is unbounded."""

    limits: dict[str, Count | None] = {}
    concurrency: Count | UnsetType | None = UNSET
    numbers: dict[str, float] = {}
    features: dict[str, bool] = {}


class SubscriptionBody(Body, frozen=True):
    """A subscription as it stands. `terms` are what it says beyond its tier."""

    account: AccountId
    tier: TierName
    status: Status
    customer_id: Line = ""
    product_id: Line = ""
    price_id: Line = ""
    period_start: Moment | None = None
    period_end: Moment | None = None
    interval: Every = Every()
    anchor: Moment | None = None
    trial_end: Moment | None = None
    cancel_at: Moment | None = None
    canceled_at: Moment | None = None
    expires_at: Moment | None = None
    terms: Overrides = Overrides()


class Ending(Body, frozen=True):
    """When a subscription is over; now, unless given."""

    at: Moment | None = None


class NewAddon(Body, frozen=True):
    """An add-on: `amount` more of `unit`; below 0 it takes back. The same `id` again adds nothing.

    Without `window` it raises what is mended by paying. It counts from `begins_at` until before `ends_at`.
    """

    unit: Unit
    amount: Annotated[int, Meta(ge=-MAXIMUM, le=MAXIMUM)]
    id: Id | None = None
    window: Window | None = None
    begins_at: Moment | None = None
    ends_at: Moment | None = None
    note: Line = ""


def in_words(error: Exception) -> str:
    """What msgspec says of bad input, with patterns put into words, and with the words that a field takes."""
    text = str(error)
    for pattern, words in _IN_WORDS.items():
        text = text.replace(f"`str` matching regex {pattern!r}", words)
    if text.startswith("Invalid enum value"):
        taken = next((kind for field, kind in _WORDS.items() if text.endswith(f".{field}`")), ())
        return f"{text}; it is one of {', '.join(taken)}" if taken else text
    return text
