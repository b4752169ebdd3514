"""The columns that an import takes, under the names that they have in the systems it comes from. Pure.

Names are compared without case, blanks, dots and underscores: `current_period_end` and `subscription.currentPeriodEnd`
are found as well. What is wrong with a record is a ValueError that names its column.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.domain.subscriptions import Status

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "account": ("account_id", "user_id", "uid", "id", "$id"),
    "name": ("display_name", "full_name", "email"),
    "tier": ("plan", "plan_id", "plan_name", "subscription_tier", "subscription_plan"),
    "account_tier": ("own_tier",),
    "status": ("subscription_status",),
    "subscription_id": ("stripe_subscription_id", "subscription.id"),
    "customer_id": ("stripe_customer_id", "customer"),
    "product_id": ("stripe_product_id",),
    "price_id": ("stripe_price_id",),
    "period_start": ("current_period_start", "subscription_start", "subscription_start_date", "start_date"),
    "period_end": ("current_period_end", "subscription_end", "subscription_end_date", "end_date"),
    "interval": ("billing_interval", "billing_cycle"),
    "trial_end": ("trial_ends_at",),
    "cancel_at": ("cancels_at",),
    "canceled_at": ("cancelled_at",),
    "expires_at": ("expiry", "expiry_date", "subscription_expiry", "subscription_expires_at"),
    "updated_at": ("$updatedAt", "last_updated"),
    "max_tokens_per_month": ("maxChatsPerMonth", "max_tokens", "monthly_token_limit"),
    "max_tokens_per_day": ("daily_limit", "daily_token_limit", "daily_allowance"),
    "tokens_used": ("currentChatsUsed", "tokens_used_this_month", "current_tokens_used", "tokens_used_this_period"),
    "requests_used": ("current_requests_used",),
    "lifetime_tokens": ("lifetimeChatsUsed", "lifetime_tokens_used", "total_tokens_used"),
    "addon_tokens": ("addonChats", "addon", "battery_balance", "total_units", "balance"),
    "last_reset": ("last_reset_date", "last_reset_at"),
}

_MOST = 2**48
_WORDS = {"trial": Status.TRIALING, "inactive": Status.EXPIRED, "ended": Status.EXPIRED, "none": Status.FREE}
_MONTHS = {"month": 1, "monthly": 1, "year": 12, "yearly": 12, "annual": 12}
_COUNTS = frozenset(
    {
        "max_tokens_per_month",
        "max_tokens_per_day",
        "tokens_used",
        "requests_used",
        "lifetime_tokens",
        "addon_tokens",
    }
)
_MOMENTS = frozenset(
    {
        "period_start",
        "period_end",
        "trial_end",
        "cancel_at",
        "canceled_at",
        "expires_at",
        "updated_at",
        "last_reset",
    }
)
_EMPTY = frozenset({"", "null", "none", "nan", "-"})


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """One account as a file tells it; None is not told. Moments are Unix seconds."""

    account: str
    name: str = ""
    tier: str | None = None
    account_tier: str | None = None
    status: Status | None = None
    subscription_id: str | None = None
    customer_id: str = ""
    product_id: str = ""
    price_id: str = ""
    period_start: int | None = None
    period_end: int | None = None
    interval: int | None = None
    trial_end: int | None = None
    cancel_at: int | None = None
    canceled_at: int | None = None
    expires_at: int | None = None
    updated_at: int | None = None
    max_tokens_per_month: int | None = None
    max_tokens_per_day: int | None = None
    tokens_used: int | None = None
    requests_used: int | None = None
    lifetime_tokens: int | None = None
    addon_tokens: int | None = None
    last_reset: int | None = None

    @property
    def has_subscription(self) -> bool:
        """Whether anything is told that makes a subscription."""
        if self.status is Status.FREE and self.subscription_id is None:
            return False
        told = (self.status, self.subscription_id, self.period_start, self.period_end, self.expires_at)
        return any(one is not None for one in told)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_OWN = {"account", "name"}
_BY_NAME = {
    _plain(alias): (name, rank) for name, aliases in COLUMNS.items() for rank, alias in enumerate((name, *aliases))
}
_BY_NAME |= {f"subscription{alias}": found for alias, found in list(_BY_NAME.items()) if found[0] not in _OWN}
"""By a plain name, the column and how well the name says it: where a record has several, the first of `COLUMNS`."""


def imported(record: Mapping[str, Any], unknown: set[str]) -> Imported:
    """The record in our words; columns that nothing is known of are added to `unknown`. Raises ValueError."""
    fields: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    for name, value in _flat(record):
        known, rank = _BY_NAME.get(_plain(name), (None, 0))
        if known is None:
            unknown.add(name)
        elif not _is_empty(value) and rank < ranks.get(known, rank + 1):
            fields[known], ranks[known] = _read(known, name, value), rank
    if "account" not in fields:
        raise ValueError("no account: a record needs `account`, or `id`, `user_id`, `uid`")
    return msgspec.convert(fields, Imported)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY)


def _flat(record: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    """Columns, and those of objects within, by their path; a Firebase timestamp is its seconds."""
    for name, value in record.items():
        if isinstance(value, dict) and (seconds := value.get("_seconds", value.get("seconds"))) is not None:
            yield above + name, seconds
        elif isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def _read(known: str, name: str, value: Any) -> Any:
    try:
        if known in _COUNTS:
            return _count(value)
        if known in _MOMENTS:
            return _moment(value)
        text = str(value).strip()
        if known == "interval":
            return _MONTHS[text.lower()]
        if known == "status":
            return _WORDS.get(text.lower()) or Status(text.lower())
    except (ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"`{name}`: {str(value)[:80]!r} is no {_WANTED.get(known, 'value')}") from error
    return text


_WANTED = {
    **dict.fromkeys(_COUNTS, "whole number from 0"),
    **dict.fromkeys(_MOMENTS, "moment: 2026-12-01, RFC 3339, or Unix seconds"),
    "interval": "interval: month or year",
    "status": f"status: {', '.join(Status)}",
}


def _count(value: Any) -> int:
    if isinstance(value, str):
        value = float(value) if "." in value else int(value.replace(",", "").replace("_", ""))
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or not 0 <= value <= _MOST:
        raise ValueError
    return int(value)


def _moment(value: Any) -> int:
    """Unix seconds; numbers beyond the year 5138 are milliseconds."""
    if isinstance(value, str) and not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value.strip()):
        at = datetime.fromisoformat(value.strip())
        value = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    seconds = float(value)
    seconds = seconds / 1000 if seconds >= 100_000_000_000 else seconds
    if not 0 <= seconds < 100_000_000_000:
        raise ValueError
    return int(seconds)
