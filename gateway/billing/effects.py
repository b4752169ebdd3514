"""What each of Stripe's events does here, prepared outside the transaction and done inside one.

An event is a hint. With a source, the object that it is about is fetched and written down as it stands, as of when the
fetch began; without one, as the event tells it, as of the event. Either way what is older changes nothing, so that
events may come in any order, twice or never. Raises Parked for a customer whose account nobody knows yet, ValueError
and msgspec.ValidationError for an object that can't be read, and Faults.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from gateway.billing.add_ons import grant_of, take_back
from gateway.billing.stripe_objects import (
    Charge,
    CheckoutSession,
    Invoice,
    Metadata,
    Named,
    StripeEvent,
    StripeSubscription,
    id_of,
    texts,
)
from gateway.billing.stripe_source import Object, StripeSource
from gateway.billing.stripe_subscriptions import SOURCE, item_of, made_out, priced
from gateway.billing.tariff import Tariff
from gateway.domain.audit import Actor
from gateway.domain.subscriptions import Status
from gateway.ledger.database import Connection
from gateway.ledger.grants import put_grant
from gateway.ledger.ledger import Ledger
from gateway.ledger.stripe_customers import account_of_customer, is_account, put_customer
from gateway.ledger.stripe_inbox import Effect, State, ignored_about
from gateway.ledger.stripe_products import Product, known_products
from gateway.ledger.subscriptions import bought_by, known_subscription, put_subscription

ACCOUNT_KEY = "account_id"
"""In the metadata of a subscription, a checkout or a customer: whose it is."""

_DELETED = "customer.subscription.deleted"
_RANKS_MS = {"customer.subscription.created": 0, _DELETED: 900}
_BETWEEN_MS = 500
_PAGE = 100
_Kind = TypeVar("_Kind")


class Parked(Exception):  # noqa: N818  # like Fault, named for what it is
    """Nobody knows yet whose it is. `account_id` is the account that was named, "" for none."""

    def __init__(self, reason: str, account_id: str = "") -> None:
        super().__init__(reason)
        self.account_id = account_id


def told_ms(event: StripeEvent) -> int:
    """When an event's object was so. Of one second: created, then what is between, then deleted."""
    return event.created * 1000 + _RANKS_MS.get(event.type, _BETWEEN_MS)


def account_named(metadata: Metadata) -> str:
    """The account that metadata name, "" for none."""
    return texts(metadata).get(ACCOUNT_KEY, "")


class Effects:
    """`now_ms` tells Unix milliseconds."""

    def __init__(self, ledger: Ledger, tariff: Tariff, source: StripeSource | None, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self.tariff = tariff
        self._source = source
        self._now_ms = now_ms

    async def of(self, event: StripeEvent) -> Effect:
        """What to do about an event."""
        handler = self._handlers.get(event.type)
        return _nothing if handler is None else await handler(self, event)

    async def _subscription(self, event: StripeEvent) -> Effect:
        told = _read(event.data.object, StripeSubscription)
        return await self._as_it_stands(told.id, event, told)

    async def _invoice(self, event: StripeEvent) -> Effect:
        invoice = _read(event.data.object, Invoice)
        if not invoice.subscription_id:
            return _nothing
        if self._source is not None:
            return await self._as_it_stands(invoice.subscription_id, event, None)
        if event.type == "invoice.payment_failed" or invoice.billing_reason != "subscription_cycle":
            return _nothing

        async def renew(connection: Connection) -> State:
            return await self._renew(connection, invoice, _by(event))

        return renew

    async def _as_it_stands(self, subscription_id: str, event: StripeEvent, told: StripeSubscription | None) -> Effect:
        """Write a subscription down as Stripe has it, else as it was told."""
        updated_ms, found = told_ms(event), told
        if self._source is not None:
            asked_ms = self._now_ms()
            fetched = await self._source.subscription(subscription_id)
            if fetched is not None:
                updated_ms, found = asked_ms, _read(fetched, StripeSubscription)
        if found is None:
            return _nothing
        stripe, named = found, await self._whose(found)
        await self._learn_products(stripe, event)

        async def put(connection: Connection) -> State:
            await self._put(connection, stripe, named, updated_ms, _by(event))
            return State.APPLIED

        return put

    async def _whose(self, stripe: StripeSubscription) -> str:
        """The account that a subscription names, or its customer where Stripe can be asked; "" for none."""
        named, customer_id = account_named(stripe.metadata), id_of(stripe.customer)
        if named or self._source is None or not customer_id:
            return named
        if await self._ledger.accounts_of_customers([customer_id]):
            return ""
        customer = await self._source.customer(customer_id)
        return "" if customer is None else account_named(_read(customer, Named).metadata)

    async def _put(
        self, connection: Connection, stripe: StripeSubscription, named: str, updated_ms: int, by: Actor
    ) -> None:
        customer_id = id_of(stripe.customer)
        linked = await account_of_customer(connection, customer_id)
        account_id = named or linked
        if not account_id:
            raise Parked(f"no account is linked to the customer {customer_id}, and {stripe.id} names none")
        if not await is_account(connection, account_id):
            raise Parked(f"there is no account `{account_id}`, which {stripe.id} or its customer names", account_id)
        if customer_id and not linked:
            await put_customer(connection, customer_id, account_id, by, self._now_ms())
        price = item_of(stripe, self.tariff).bought
        products = await known_products(connection, [price.id, id_of(price.product)])
        wanted = made_out(stripe, account_id, products, self.tariff, updated_ms)
        await put_subscription(connection, wanted, by, self._now_ms())

    async def _renew(self, connection: Connection, invoice: Invoice, by: Actor) -> State:
        """Move the period to what a paid renewal is for. The subscription's own event tells the rest."""
        known = await known_subscription(connection, invoice.subscription_id)
        periods = [line.period for line in (invoice.lines.data if invoice.lines else []) if line.period is not None]
        newest = max(periods, key=lambda period: period.start, default=None)
        if known is None or newest is None or newest.start <= (known.period_start_s or 0):
            return State.APPLIED
        moved = msgspec.structs.replace(
            known, period_start_s=newest.start, period_end_s=newest.end, since_s=None, reset_ms=None
        )
        await put_subscription(connection, moved, by, self._now_ms())
        return State.APPLIED

    async def _learn_products(self, stripe: StripeSubscription, event: StripeEvent) -> None:
        """Fetch what nobody told of yet; without a source the subscription's own price is what is told."""
        price = item_of(stripe, self.tariff).bought
        product_id = id_of(price.product)
        if self._source is None:
            if price.id and texts(price.metadata) and not await self._ledger.products([price.id]):
                # The first moment of the second: a price's own event of that second says more.
                await self._ledger.keep_products([Product(price.id, "", texts(price.metadata), event.created * 1000)])
            return
        known = await self._ledger.products([price.id, product_id])
        asked_ms = self._now_ms()
        new: list[Product] = []
        if price.id and price.id not in known:
            new.append(Product(price.id, "", texts(price.metadata), asked_ms))
        if product_id and product_id not in known:
            product = await self._source.product(product_id)
            if product is not None:
                new.append(product_of(product, asked_ms))
        if new:
            await self._ledger.keep_products(new)

    async def _checkout(self, event: StripeEvent) -> Effect:
        session = _read(event.data.object, CheckoutSession)
        account_id = session.client_reference_id or account_named(session.metadata)
        customer_id, by = id_of(session.customer), _by(event)
        paid = session.mode == "payment" and session.payment_status in {"paid", "no_payment_required"}
        buys_here = session.mode == "payment" and any(name.startswith("addon_") for name in texts(session.metadata))

        async def complete(connection: Connection) -> State:
            whose = account_id or await account_of_customer(connection, customer_id)
            if not whose and not buys_here:
                return State.IGNORED
            if not whose or not await is_account(connection, whose):
                raise Parked(f"there is no account `{whose}`, which the checkout {session.id} names", whose)
            if customer_id and account_id:
                await put_customer(connection, customer_id, whose, by, self._now_ms())
            if paid:
                await self._grant(connection, session, whose, event)
            return State.APPLIED

        return complete

    async def _grant(
        self, connection: Connection, session: CheckoutSession, account_id: str, event: StripeEvent
    ) -> None:
        grant = grant_of(session, account_id, event.created)
        if grant is None or not await put_grant(connection, grant, _by(event), self._now_ms()):
            return
        for refund in await ignored_about(connection, grant.id, "charge.refunded"):
            told = msgspec.json.decode(refund.payload or b"", type=StripeEvent)
            await take_back(connection, _read(told.data.object, Charge), _by(told), self._now_ms())

    async def _refund(self, event: StripeEvent) -> Effect:
        charge = _read(event.data.object, Charge)

        async def give_back(connection: Connection) -> State:
            known = await take_back(connection, charge, _by(event), self._now_ms())
            return State.APPLIED if known else State.IGNORED

        return give_back

    async def _product(self, event: StripeEvent) -> Effect:
        """A product's or a price's metadata changed: every subscription to it is made out anew, then it is done."""
        told = product_of(event.data.object, told_ms(event))
        if self._source is not None:
            is_price, asked_ms = event.type.startswith("price."), self._now_ms()
            fetched = await (self._source.price(told.id) if is_price else self._source.product(told.id))
            told = told if fetched is None else product_of(fetched, asked_ms)
        await self._ledger.keep_products([told])
        await reprice(self._ledger, self.tariff, told.id, _by(event), self._now_ms())
        return _done

    async def _customer(self, event: StripeEvent) -> Effect:
        customer = _read(event.data.object, Named)
        account_id = account_named(customer.metadata)

        async def link(connection: Connection) -> State:
            if not account_id or not await is_account(connection, account_id):
                return State.IGNORED
            await put_customer(connection, customer.id, account_id, _by(event), self._now_ms())
            return State.APPLIED

        return link

    async def _customer_deleted(self, event: StripeEvent) -> Effect:
        """Stripe ends the subscriptions of a customer that is deleted."""
        customer = _read(event.data.object, Named)

        async def end(connection: Connection) -> State:
            for one in await bought_by(connection, customer.id):
                if one.source == SOURCE and one.status is not Status.CANCELED:
                    over = msgspec.structs.replace(
                        one,
                        status=Status.CANCELED,
                        expires_s=event.created,
                        since_s=None,
                        updated_ms=max(one.updated_ms, told_ms(event)),
                    )
                    await put_subscription(connection, over, _by(event), self._now_ms())
            return State.APPLIED

        return end

    _handlers: Mapping[str, Callable[["Effects", StripeEvent], Awaitable[Effect]]] = {
        "customer.subscription.created": _subscription,
        "customer.subscription.updated": _subscription,
        _DELETED: _subscription,
        "customer.subscription.paused": _subscription,
        "customer.subscription.resumed": _subscription,
        "customer.subscription.trial_will_end": _subscription,
        "invoice.paid": _invoice,
        "invoice.payment_succeeded": _invoice,
        "invoice.payment_failed": _invoice,
        "checkout.session.completed": _checkout,
        "checkout.session.async_payment_succeeded": _checkout,
        "charge.refunded": _refund,
        "product.created": _product,
        "product.updated": _product,
        "price.created": _product,
        "price.updated": _product,
        "customer.created": _customer,
        "customer.updated": _customer,
        "customer.deleted": _customer_deleted,
    }


EVENT_TYPES = tuple(Effects._handlers)  # noqa: SLF001  # the table is beside what it names
"""The types that mean something here. All others are stored and acknowledged."""

LINKING = frozenset({"checkout.session.completed", "customer.created", "customer.updated"})
"""Types after which parked events may have an account."""


async def reprice(ledger: Ledger, tariff: Tariff, product_id: str, by: Actor, now_ms: int) -> int:
    """Make out anew, page by page, the subscriptions to a product or a price; how many changed."""
    after_id, changed = "", 0
    while page := await ledger.subscriptions_to(product_id, after_id, _PAGE):
        products = await ledger.products({one.price_id for one in page} | {one.product_id for one in page})
        for one in page:
            wanted = priced(one, products, tariff)
            if one.source == SOURCE and wanted != one:
                changed += await ledger.upsert_subscription(wanted, by, now_ms)
        after_id = page[-1].id
    return changed


def product_of(found: Object, as_of_ms: int) -> Product:
    """A product or a price of Stripe's, as it was at `as_of_ms`."""
    named = _read(found, Named)
    return Product(named.id, named.name or named.nickname or "", texts(named.metadata), as_of_ms)


def _by(event: StripeEvent) -> Actor:
    return Actor(SOURCE, event.id)


def _read(found: dict[str, Any], kind: type[_Kind]) -> _Kind:
    return msgspec.convert(found, kind)


async def _nothing(_connection: Connection) -> State:
    return State.IGNORED


async def _done(_connection: Connection) -> State:
    return State.APPLIED
