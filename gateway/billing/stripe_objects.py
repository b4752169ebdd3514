"""Stripe's objects, as far as Tollway reads them, by Stripe's own names (API reference). Times are Unix seconds.

Objects come from several API versions: a subscription's period stands on it, or since 2025-03-31 on its items; an
invoice names its subscription itself, or since then in its parent; a link is an id, or the object in full.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Link = str | dict[str, Any] | None
Moment = Annotated[int, Meta(ge=0, le=2**40)]
Id = Annotated[str, Meta(min_length=1, max_length=255)]
Metadata = dict[str, Any] | None


def id_of(link: Link) -> str:
    """The id behind a link, "" where there is none."""
    found = link.get("id") if isinstance(link, dict) else link
    return found if isinstance(found, str) else ""


def texts(metadata: Metadata) -> dict[str, str]:
    """Metadata as they are at Stripe: texts by name."""
    return {name: text for name, text in (metadata or {}).items() if isinstance(text, str)}


class Recurring(msgspec.Struct):
    """How often a price is paid."""

    interval: str = "month"
    interval_count: Annotated[int, Meta(ge=1, le=10_000)] = 1


class Price(msgspec.Struct):
    """A price, or a plan, which is what prices were before."""

    id: str = ""
    product: Link = None
    metadata: Metadata = None
    recurring: Recurring | None = None
    interval: str | None = None
    interval_count: int | None = None

    @property
    def paid(self) -> Recurring:
        """How often it is paid."""
        return self.recurring or Recurring(self.interval or "month", self.interval_count or 1)


class Item(msgspec.Struct):
    """One line of a subscription."""

    price: Price | None = None
    plan: Price | None = None
    current_period_start: Moment | None = None
    current_period_end: Moment | None = None

    @property
    def bought(self) -> Price:
        """What is bought, by either name."""
        return self.price or self.plan or Price()


class Items(msgspec.Struct):
    """The list of a subscription's items."""

    data: list[Item] = []


class StripeSubscription(msgspec.Struct):
    """A subscription."""

    id: Id
    status: str
    customer: Link = None
    items: Items = msgspec.field(default_factory=Items)
    created: Moment = 0
    metadata: Metadata = None
    current_period_start: Moment | None = None
    current_period_end: Moment | None = None
    billing_cycle_anchor: Moment | None = None
    trial_end: Moment | None = None
    cancel_at: Moment | None = None
    cancel_at_period_end: bool | None = False
    canceled_at: Moment | None = None
    ended_at: Moment | None = None


class LinePeriod(msgspec.Struct):
    """What an invoice's line is for."""

    start: Moment
    end: Moment


class Line(msgspec.Struct):
    """A line of an invoice."""

    period: LinePeriod | None = None


class Lines(msgspec.Struct):
    """The list of an invoice's lines."""

    data: list[Line] = []


class Details(msgspec.Struct):
    """Of a parent that is a subscription."""

    subscription: Link = None


class Parent(msgspec.Struct):
    """What an invoice was made for."""

    subscription_details: Details | None = None


class Invoice(msgspec.Struct):
    """An invoice."""

    id: str | None = None
    customer: Link = None
    subscription: Link = None
    parent: Parent | None = None
    billing_reason: str | None = None
    lines: Lines | None = None

    @property
    def subscription_id(self) -> str:
        """The subscription that it is for, "" for none."""
        details = self.parent.subscription_details if self.parent is not None else None
        return id_of(self.subscription) or (id_of(details.subscription) if details is not None else "")


class CheckoutSession(msgspec.Struct):
    """A checkout that somebody went through."""

    id: Id
    mode: str = ""
    payment_status: str = ""
    customer: Link = None
    subscription: Link = None
    payment_intent: Link = None
    client_reference_id: str | None = None
    metadata: Metadata = None


class Charge(msgspec.Struct):
    """A payment. `amount_refunded` is all that was given back so far, in the currency's smallest unit."""

    id: Id
    amount: Annotated[int, Meta(ge=0)]
    amount_refunded: Annotated[int, Meta(ge=0)]
    payment_intent: Link = None
    customer: Link = None


class Named(msgspec.Struct):
    """A product, a price or a customer: what it is called, and its metadata."""

    id: Id
    name: str | None = None
    nickname: str | None = None
    metadata: Metadata = None
    updated: Moment | None = None
    deleted: bool = False


class EventData(msgspec.Struct):
    """What an event is about, as it stood then."""

    object: dict[str, Any]


class StripeEvent(msgspec.Struct):
    """An event."""

    id: Id
    type: Annotated[str, Meta(min_length=1, max_length=255)]
    created: Moment
    data: EventData
