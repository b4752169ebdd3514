"""What gateway.yaml may say of tiers and subscriptions, as types; as `settings/model.py`, of which this is a part.

`settings/tiers.py` makes the domain's own of them.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, field

from gateway.domain.limits import MAXIMUM, OnDisconnect, OnExhausted, Remedy, Unit, WhenUnavailable, Window
from gateway.domain.subscriptions import Access, Status
from gateway.settings import checks
from gateway.settings.section import Name, Section
from gateway.settings.upstreams import ModelSettings

Count = Annotated[int, Meta(ge=0, le=MAXIMUM)]
TimeOfDay = Annotated[
    str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", extra={"rule": 'a time of day in quotes, like "06:00"'})
]


class ScheduleSettings(Section, frozen=True, kw_only=True):
    """Times of day, in UTC, at which something is there."""

    at: Annotated[
        tuple[TimeOfDay, ...], Meta(min_length=1, description='Times of day in UTC, as in ["00:00", "12:00"].')
    ]
    open_minutes: Annotated[int, Meta(ge=1, le=1440, description="How long each time stays open.")] = 60
    on_request: Annotated[bool, Meta(description="Open at any other time too.")] = False


class LimitSettings(Section, frozen=True, kw_only=True):
    """A limit written out."""

    maximum: Annotated[Count, Meta(description="Most in one window; 0 allows nothing.")]
    remedy: Annotated[
        Remedy | None,
        Meta(description="What helps when it is used up; pay for a month or longer, wait else."),
    ] = None


class BillingInterval(StrEnum):
    """How often a plan is paid for."""

    MONTH = "month"
    YEAR = "year"


class Price(Section, frozen=True, kw_only=True):
    """What a tier costs at one interval."""

    cents: Annotated[int, Meta(ge=0, le=10**9, description="In the currency's smallest unit.")]
    currency: Annotated[
        str, Meta(pattern=r"^[a-z]{3}$", description="ISO 4217, in small letters.", extra={"rule": "like usd or eur"})
    ] = "usd"
    stripe_price: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9_]{0,255}$", description="Its id at Stripe.", extra={"rule": "like price_1AbC"}),
    ] = ""


Windows = Annotated[dict[Window, Count | LimitSettings], Meta(extra_json_schema={"propertyNames": {"enum": [*Window]}})]
Prices = Annotated[
    dict[BillingInterval, Price], Meta(extra_json_schema={"propertyNames": {"enum": [*BillingInterval]}})
]
Statuses = Annotated[dict[Status, Access], Meta(extra_json_schema={"propertyNames": {"enum": [*Status]}})]
Limits = Annotated[dict[Unit, Windows], Meta(extra_json_schema={"propertyNames": {"enum": [*Unit]}})]


class TierSettings(Section, frozen=True, kw_only=True):
    """A plan: what an account on it may use."""

    limits: Annotated[
        Limits, Meta(description="unit: {window: maximum}; period is the subscription's, the rest the calendar's.")
    ] = field(default_factory=dict)
    concurrency: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)] | None, Meta(description="Requests at once; left out is unbounded.")
    ] = None
    time_zone: Annotated[
        str,
        Meta(description="Where days, weeks and months begin and end.", extra={"check": checks.time_zone}),
    ] = "UTC"
    on_exhausted: Annotated[
        OnExhausted, Meta(description="A stream that has used up its limits: finish and owe, or stop.")
    ] = OnExhausted.FINISH
    on_disconnect: Annotated[
        OnDisconnect, Meta(description="A client that leaves: cancel the upstream, or drain its answer.")
    ] = OnDisconnect.CANCEL
    when_unavailable: Annotated[
        WhenUnavailable | None,
        Meta(description="While Redis is silent; allow unless a limit's remedy is pay, which is denied."),
    ] = None
    numbers: Annotated[
        dict[Name, Annotated[float, Meta(ge=0, le=1e15)]],
        Meta(description="Further entitlements that are numbers, told to apps: max_banks, max_storage_gb."),
    ] = field(default_factory=dict)
    features: Annotated[
        dict[Name, bool], Meta(description="Further entitlements that are there or not, told to apps.")
    ] = field(default_factory=dict)
    bandwidth_mbit_s: Annotated[
        Annotated[float, Meta(ge=0.1, le=1e6)] | None,
        Meta(description="Of all answers to an account together, in 10^6 bit/s; left out: unbounded."),
    ] = None
    schedules: Annotated[
        dict[Name, ScheduleSettings], Meta(description="Times of day, told to apps; a route may keep to one.")
    ] = field(default_factory=dict)
    models: Annotated[ModelSettings | None, Meta(description="Models that this tier has, and their aliases.")] = None
    max_body_mb: Annotated[
        Annotated[int, Meta(ge=1, le=65_536)] | None,
        Meta(description="Largest request body, MiB; listen.max_body_mb holds too."),
    ] = None
    max_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=MAXIMUM)] | None,
        Meta(description="Most output tokens that one request may ask for; it has to say how many."),
    ] = None
    max_context_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=MAXIMUM)] | None, Meta(description="Longest input of one request, as estimated.")
    ] = None
    prices: Annotated[Prices, Meta(description="What it costs, by the interval it is paid at.")] = field(
        default_factory=dict
    )


class Subscriptions(Section, frozen=True, kw_only=True):
    """What a subscription gives, by where it stands."""

    statuses: Annotated[
        Statuses,
        Meta(
            description="status: full, until_period_end, grace (counted from its beginning) or none. "
            "Those left out keep their defaults."
        ),
    ] = field(default_factory=dict)
    grace_days: Annotated[int, Meta(ge=0, le=365, description="How long a status of grace gives the tier.")] = 3
    fallback_tier: Annotated[
        str, Meta(description="For accounts whose subscription gives nothing; empty: the account's own tier.")
    ] = ""
