"""Stripe's API by its own library, which has its one home here. Loaded where an API key is set.

A look-up is one attempt, as whoever asks tries again later. A page of a listing, and a look-up by who is patient, is
tried again where Stripe limits the rate or fails: after as long as it asks for, else with growing pauses. Every failure
is a Fault(STRIPE_UNAVAILABLE) without the key or any object in it.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import stripe

from gateway.billing.stripe_source import Object, Paused
from gateway.domain.faults import STRIPE_UNAVAILABLE, Fault
from gateway.settings.stripe import Stripe
from gateway.upstream.retry_after import retry_after_s

PAGE = 100
ATTEMPTS = 7
LONGEST_ASKED_S = 300.0
"""Who is asked to wait for longer gives up."""

FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_Kind = TypeVar("_Kind")


class StripeApi:
    """Made of the settings; `paused` is told of each wait. `aclose` at the end."""

    def __init__(self, settings: Stripe, paused: Paused) -> None:
        self._http = stripe.HTTPXClient(timeout=settings.timeout_s)
        self._client = stripe.StripeClient(
            settings.api_key,
            base_addresses={"api": settings.api_base.rstrip("/")},
            max_network_retries=0,
            http_client=self._http,
        )
        self._paused = paused

    async def subscription(self, subscription_id: str, *, patient: bool = False) -> Object | None:
        """The subscription."""

        async def ask() -> Object | None:
            return await _one(self._client.v1.subscriptions.retrieve_async(subscription_id))

        return await (self._patiently(ask) if patient else _told(ask))

    async def product(self, product_id: str) -> Object | None:
        """The product."""
        return await _told(lambda: _one(self._client.v1.products.retrieve_async(product_id)))

    async def price(self, price_id: str) -> Object | None:
        """The price."""
        return await _told(lambda: _one(self._client.v1.prices.retrieve_async(price_id)))

    async def customer(self, customer_id: str) -> Object | None:
        """The customer."""
        return await _told(lambda: _one(self._client.v1.customers.retrieve_async(customer_id)))

    async def subscriptions(self, after_id: str) -> list[Object]:
        """A page of subscriptions in every status."""
        return await self._page("/v1/subscriptions", after_id, status="all")

    async def products(self, after_id: str) -> list[Object]:
        """A page of products."""
        return await self._page("/v1/products", after_id)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the library left it without types

    async def _page(self, path: str, after_id: str, **filters: str) -> list[Object]:
        asked: dict[str, Any] = {"limit": PAGE, **filters, **({"starting_after": after_id} if after_id else {})}

        async def ask() -> list[Object]:
            # Not by the library's objects: they cost ten times the time of what is read of them.
            answer = await self._client.raw_request_async("get", path, **asked)
            return _page(answer.data)

        return await self._patiently(ask)

    async def _patiently(self, ask: Callable[[], Awaitable[_Kind]]) -> _Kind:
        pause_s = FIRST_PAUSE_S
        for _ in range(ATTEMPTS - 1):
            try:
                return await ask()
            except stripe.StripeError as error:
                wait_s = max(pause_s * random.uniform(0.5, 1), _asked_s(error))  # noqa: S311  # spreads, hides nothing
                if not _passes(error) or wait_s > LONGEST_ASKED_S:
                    raise _fault(error) from error
                self._paused(wait_s, _described(error))
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        return await _told(ask)


class _Page(msgspec.Struct):
    data: list[Object]


def _page(answered: object) -> list[Object]:
    try:
        return msgspec.convert(answered, _Page).data
    except msgspec.ValidationError as error:
        raise stripe.APIError("no page of a listing", http_status=200) from error


async def _one(asked: Awaitable[Any]) -> Object | None:
    try:
        found: Object = (await asked).to_dict()
    except stripe.StripeError as error:
        if error.http_status == 404:
            return None
        raise
    return found


async def _told(ask: Callable[[], Awaitable[_Kind]]) -> _Kind:
    try:
        return await ask()
    except stripe.StripeError as error:
        raise _fault(error) from error


def _passes(error: stripe.StripeError) -> bool:
    """Whether it may go well a moment later. An answer below 300 is an error where it can't be read."""
    status = error.http_status
    return isinstance(error, stripe.APIConnectionError) or (
        status is not None and (status < 300 or status == 429 or status >= 500)
    )


def _asked_s(error: stripe.StripeError) -> float:
    """How long Stripe asks to be left alone, 0 where it doesn't say."""
    headers = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
    return retry_after_s(headers, time.time()) or 0.0


def _described(error: stripe.StripeError) -> str:
    """By its kind and status alone: Stripe's own words may quote a part of the key."""
    kind, status, asked_s = type(error).__name__, error.http_status, _asked_s(error)
    waits = f", and asks to wait {asked_s:,.0f} s" if asked_s else ""
    return f"Stripe did not answer ({kind})" if status is None else f"Stripe answered {status} ({kind}){waits}"


def _fault(error: stripe.StripeError) -> Fault:
    return Fault(STRIPE_UNAVAILABLE, _described(error))
