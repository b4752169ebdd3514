"""What Stripe's products and prices give, by their metadata, as last told."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import insert, select, update

from gateway.ledger.database import Connection, Database, whole
from gateway.ledger.tables import stripe_products


class Product(msgspec.Struct, frozen=True):
    """A product (`prod_…`) or a price (`price_…`). `updated_ms` as of when this is."""

    id: str
    name: str
    metadata: dict[str, str]
    updated_ms: int


class ProductBook(Database):
    """Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def keep_products(self, products: Iterable[Product]) -> list[str]:
        """Keep each unless a newer one is known; the ids of those whose metadata are new."""
        async with self.writing() as connection:
            return [one.id for one in products if await _put(connection, one)]

    @whole
    async def products(self, ids: Iterable[str]) -> dict[str, Product]:
        """Those of them that are known, by id."""
        async with self.reading() as connection:
            return await known_products(connection, ids)

    @whole
    async def list_products(self, after_id: str = "", limit: int = 100) -> list[Product]:
        """Up to `limit` in order of their ids, those that come after `after_id`."""
        page = select(stripe_products).where(stripe_products.c.id > after_id)
        async with self.reading() as connection:
            ordered = page.order_by(stripe_products.c.id).limit(limit)
            return [_product(row) for row in await connection.execute(ordered)]


async def known_products(connection: Connection, ids: Iterable[str]) -> dict[str, Product]:
    """As `ProductBook.products`, within a transaction of the caller's."""
    found = select(stripe_products).where(stripe_products.c.id.in_(list(ids)))
    return {row[0]: _product(row) for row in await connection.execute(found)}


async def _put(connection: Connection, product: Product) -> bool:
    mine = stripe_products.c.id == product.id
    row = (await connection.execute(select(stripe_products).where(mine).with_for_update())).first()
    before = None if row is None else _product(row)
    if before is not None and before.updated_ms > product.updated_ms:
        return False
    fields = msgspec.structs.asdict(product) | {"metadata": msgspec.json.encode(product.metadata).decode()}
    if before is None:
        await connection.execute(insert(stripe_products), fields)
    else:
        await connection.execute(update(stripe_products).where(mine).values(fields))
    return before is None or before.metadata != product.metadata


def _product(row: Sequence[Any]) -> Product:
    return Product(row[0], row[1], msgspec.json.decode(row[2], type=dict[str, str]), row[3])
