"""Stripe's API by its own library, which has its one home here. Loaded where an API key is set.

A look-up is one attempt, as whoever asks tries again later; a page of a listing is tried again with growing pauses
where Stripe limits the rate or fails. Every failure is a Fault(STRIPE_UNAVAILABLE) without the key or any object in it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import stripe

from gateway.billing.stripe_source import Object
from gateway.domain.faults import STRIPE_UNAVAILABLE, Fault
from gateway.settings.stripe import Stripe

PAGE = 100
ATTEMPTS = 7
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


class StripeApi:
    """Made of the settings; `aclose` at the end."""

    def __init__(self, settings: Stripe, *, first_pause_s: float = _FIRST_PAUSE_S) -> None:
        self._http = stripe.HTTPXClient(timeout=settings.timeout_s)
        self._client = stripe.StripeClient(
            settings.api_key,
            base_addresses={"api": settings.api_base.rstrip("/")},
            max_network_retries=0,
            http_client=self._http,
        )
        self._first_pause_s = first_pause_s

    async def subscription(self, subscription_id: str) -> Object | None:
        """The subscription."""
        return await _one(self._client.v1.subscriptions.retrieve_async(subscription_id))

    async def product(self, product_id: str) -> Object | None:
        """The product."""
        return await _one(self._client.v1.products.retrieve_async(product_id))

    async def price(self, price_id: str) -> Object | None:
        """The price."""
        return await _one(self._client.v1.prices.retrieve_async(price_id))

    async def customer(self, customer_id: str) -> Object | None:
        """The customer."""
        return await _one(self._client.v1.customers.retrieve_async(customer_id))

    async def subscriptions(self, after_id: str) -> list[Object]:
        """A page of subscriptions in every status."""
        asked: Any = {"status": "all", **_after(after_id)}
        return await self._page(lambda: self._client.v1.subscriptions.list_async(asked))

    async def products(self, after_id: str) -> list[Object]:
        """A page of products."""
        asked: Any = _after(after_id)
        return await self._page(lambda: self._client.v1.products.list_async(asked))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the library left it without types

    async def _page(self, ask: Callable[[], Awaitable[Any]]) -> list[Object]:
        pause_s = self._first_pause_s
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return [one.to_dict() for one in (await ask()).data]
            except stripe.StripeError as error:
                if attempt == ATTEMPTS or not _passes(error):
                    raise _fault(error) from error
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  # spreads, hides nothing
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        raise AssertionError


def _after(after_id: str) -> dict[str, Any]:
    return {"limit": PAGE, "starting_after": after_id} if after_id else {"limit": PAGE}


def _passes(error: stripe.StripeError) -> bool:
    """Whether it may go well a moment later."""
    status = error.http_status
    return isinstance(error, stripe.APIConnectionError) or status == 429 or (status is not None and status >= 500)


async def _one(asked: Awaitable[Any]) -> Object | None:
    try:
        found: Object = (await asked).to_dict()
    except stripe.StripeError as error:
        if error.http_status == 404:
            return None
        raise _fault(error) from error
    return found


def _fault(error: stripe.StripeError) -> Fault:
    """By its kind and status alone: Stripe's own words may quote a part of the key."""
    return Fault(STRIPE_UNAVAILABLE, f"Stripe: {type(error).__name__}, status {error.http_status}")
