"""The port to Stripe itself: what is so right now. `stripe_api` speaks to Stripe; without an API key there is none."""

from collections.abc import Callable
from typing import Any, Protocol

Object = dict[str, Any]

Paused = Callable[[float, str], None]
"""Told before each wait for Stripe: for how many seconds, and why."""


class StripeSource(Protocol):
    """Stripe's objects as they stand, in Stripe's own shape. Each call raises Fault(STRIPE_UNAVAILABLE)."""

    async def subscription(self, subscription_id: str, *, patient: bool = False) -> Object | None:
        """The subscription, None where Stripe has none of that id. `patient`: as long as a listing's page may take."""
        ...

    async def product(self, product_id: str) -> Object | None:
        """The product."""
        ...

    async def price(self, price_id: str) -> Object | None:
        """The price."""
        ...

    async def customer(self, customer_id: str) -> Object | None:
        """The customer."""
        ...

    async def subscriptions(self, after_id: str) -> list[Object]:
        """The next page of all subscriptions, ended ones too, that come after `after_id`; empty at the end."""
        ...

    async def products(self, after_id: str) -> list[Object]:
        """The next page of all products."""
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...
