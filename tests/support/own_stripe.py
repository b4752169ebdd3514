"""Stripe as a test has it: the truth about some subscriptions, asked through the port that the product asks through."""

from typing import Any

from gateway.billing.stripe_source import Object


class OwnStripe:
    """`subscriptions_now` by id; a test changes it as time goes on. `asked` counts look-ups."""

    def __init__(self) -> None:
        self.subscriptions_now: dict[str, Object] = {}
        self.products_now: dict[str, Object] = {}
        self.asked = 0

    async def subscription(self, subscription_id: str, *, patient: bool = False) -> Object | None:
        """As it stands."""
        self.asked += 1
        return self.subscriptions_now.get(subscription_id)

    async def product(self, product_id: str) -> Object | None:
        """As it stands."""
        return self.products_now.get(product_id)

    async def price(self, price_id: str) -> Object | None:
        """No price says anything."""
        return None

    async def customer(self, customer_id: str) -> Object | None:
        """No customer says anything."""
        return None

    async def subscriptions(self, after_id: str) -> list[Object]:
        """Pages of two."""
        return _page(self.subscriptions_now, after_id)

    async def products(self, after_id: str) -> list[Object]:
        """Pages of two."""
        return _page(self.products_now, after_id)

    async def aclose(self) -> None:
        """Nothing is open."""


def _page(objects: dict[str, Any], after_id: str) -> list[Object]:
    ids = list(objects)
    begin = ids.index(after_id) + 1 if after_id else 0
    return [objects[one] for one in ids[begin : begin + 2]]
