"""All of Stripe's subscriptions against the ledger's: what a lost webhook left is found, told and healed.

Works page by page, so that memory is bounded, and writes only what differs. What a webhook wrote down since a page was
asked for is newer than the page, and stays. A subscription that Stripe no longer has is over.
"""

from collections.abc import Callable, Sequence

import msgspec

from gateway.billing.effects import account_named, product_of, reprice
from gateway.billing.stripe_objects import StripeSubscription, id_of, texts
from gateway.billing.stripe_source import Object, StripeSource
from gateway.billing.stripe_subscriptions import SOURCE, item_of, made_out
from gateway.billing.tariff import Tariff
from gateway.domain.audit import Actor
from gateway.domain.subscriptions import Status, Subscription
from gateway.ledger.ledger import Ledger
from gateway.ledger.stripe_products import Product
from gateway.telemetry.log import log

_OWN = ("since_s", "reset_ms", "updated_ms")
"""What the ledger knows by itself."""

_PAGE = 500


class Drift(msgspec.Struct, frozen=True):
    """A subscription that is not as Stripe has it: the fields that differ, and what became of it."""

    subscription_id: str
    account_id: str
    fields: tuple[str, ...]
    outcome: str


class Tally(msgspec.Struct):
    """How far a pass has come."""

    seen: int = 0
    drifted: int = 0
    healed: int = 0
    without_account: int = 0


class Reconcile:
    """`run` is one pass. `drifted` counts what passes of this process found.

    `synced_ms` is when the last one ended well, or this was made; `failed` counts those that did not.
    """

    def __init__(self, ledger: Ledger, tariff: Tariff, source: StripeSource, now_ms: Callable[[], int]) -> None:
        self.drifted = self.failed = 0
        self.synced_ms = now_ms()
        self._ledger = ledger
        self.tariff = tariff
        self._source = source
        self._now_ms = now_ms

    async def run(
        self, by: Actor, tell: Callable[[Drift], None], progress: Callable[[Tally], None], *, heals: bool
    ) -> Tally:
        """Compare everything, and mend what differs where it `heals`. Raises Fault; what was mended stays so."""
        try:
            tally = await self._pass(by, tell, progress, heals=heals)
        except Exception:
            self.failed += 1
            raise
        self.synced_ms = self._now_ms()
        return tally

    async def _pass(
        self, by: Actor, tell: Callable[[Drift], None], progress: Callable[[Tally], None], *, heals: bool
    ) -> Tally:
        tally, listed, began_ms = Tally(), set[int](), self._now_ms()
        await self._products(by, heals=heals)
        after_id = ""
        while True:
            asked_ms = self._now_ms()
            page = await self._source.subscriptions(after_id)
            if not page:
                break
            after_id = id_of(page[-1])
            listed.update(hash(id_of(one)) for one in page)
            for drift in await self._compare(page, asked_ms, by, tally, heals=heals):
                self._note(drift, tally, tell)
            progress(tally)
        await self._gone(listed, began_ms, by, lambda drift: self._note(drift, tally, tell), heals=heals)
        return tally

    def _note(self, drift: Drift, tally: Tally, tell: Callable[[Drift], None]) -> None:
        tally.drifted += drift.outcome != "no account"
        tally.without_account += drift.outcome == "no account"
        tally.healed += drift.outcome == "healed"
        self.drifted += drift.outcome != "no account"
        tell(drift)

    async def _products(self, by: Actor, *, heals: bool) -> None:
        after_id = ""
        while True:
            asked_ms = self._now_ms()
            page = await self._source.products(after_id)
            if not page:
                return
            after_id = id_of(page[-1])
            if heals:
                for changed in await self._ledger.keep_products(product_of(one, asked_ms) for one in page):
                    await reprice(self._ledger, self.tariff, changed, by, self._now_ms())

    async def _compare(
        self, page: Sequence[Object], asked_ms: int, by: Actor, tally: Tally, *, heals: bool
    ) -> list[Drift]:
        """Those of a page that differ."""
        read: list[StripeSubscription] = []
        for one in page:
            tally.seen += 1
            try:
                read.append(msgspec.convert(one, StripeSubscription))
            except msgspec.ValidationError as error:
                log.warning("stripe_object_unreadable", object_id=id_of(one), detail=str(error))
        whose = await self._whose(read)
        known = await self._ledger.subscriptions_among([one.id for one in read])
        products = await self._prices(read, asked_ms, heals=heals)
        found = [
            differs
            for stripe in read
            if (differs := self._differs(stripe, whose.get(stripe.id, ""), known.get(stripe.id), products, asked_ms))
        ]
        if not heals:
            return [drift for drift, _ in found]
        wanted = [subscription for _, subscription in found if subscription is not None]
        news = await self._ledger.take_subscriptions(wanted, by, self._now_ms()) if wanted else set()
        return [
            drift if subscription is None else msgspec.structs.replace(drift, outcome="healed")
            for drift, subscription in found
            if subscription is None or subscription.id in news
        ]

    def _differs(
        self,
        stripe: StripeSubscription,
        account_id: str,
        known: Subscription | None,
        products: dict[str, Product],
        asked_ms: int,
    ) -> tuple[Drift, Subscription | None] | None:
        """How it differs, and what it should be where that can be told; None where it is as at Stripe."""
        if not account_id:
            return Drift(stripe.id, "", (f"customer {id_of(stripe.customer)}",), "no account"), None
        try:
            wanted = made_out(stripe, account_id, products, self.tariff, asked_ms)
        except ValueError as error:
            return Drift(stripe.id, account_id, (str(error),), "unreadable"), None
        fields = differing(known, wanted)
        if not fields or (known is not None and known.updated_ms > asked_ms):
            return None
        return Drift(stripe.id, account_id, fields, "found"), wanted

    async def _whose(self, read: Sequence[StripeSubscription]) -> dict[str, str]:
        """The account of each that has one, by the subscription's id."""
        linked = await self._ledger.accounts_of_customers({id_of(one.customer) for one in read})
        named = {one.id: account_named(one.metadata) or linked.get(id_of(one.customer), "") for one in read}
        accounts = await self._ledger.accounts_among(set(named.values()))
        return {one: account_id for one, account_id in named.items() if account_id in accounts}

    async def _prices(self, read: Sequence[StripeSubscription], asked_ms: int, *, heals: bool) -> dict[str, Product]:
        """What is known of the prices and products that are bought; a price stands in its subscription in full."""
        bought = {price.id: price for price in (item_of(one, self.tariff).bought for one in read) if price.id}
        known = await self._ledger.products([*bought, *{id_of(price.product) for price in bought.values()}])
        new = [
            Product(price_id, "", texts(price.metadata), asked_ms)
            for price_id, price in bought.items()
            if price_id not in known or known[price_id].metadata != texts(price.metadata)
        ]
        if new and heals:
            await self._ledger.keep_products(new)
        return known | {one.id: one for one in new}

    async def _gone(
        self, listed: set[int], began_ms: int, by: Actor, note: Callable[[Drift], None], *, heals: bool
    ) -> None:
        """End what Stripe no longer lists, and does not know when asked for it."""
        after_id = ""
        while page := await self._ledger.list_subscriptions(after_id, _PAGE):
            after_id = page[-1].id
            for one in page:
                if one.source != SOURCE or one.status is Status.CANCELED or hash(one.id) in listed:
                    continue
                if one.updated_ms >= began_ms or await self._source.subscription(one.id, patient=True) is not None:
                    continue
                over = msgspec.structs.replace(one, status=Status.CANCELED, since_s=None, updated_ms=self._now_ms())
                healed = heals and await self._ledger.upsert_subscription(over, by, self._now_ms())
                note(Drift(one.id, one.account_id, ("gone at Stripe",), "healed" if healed else "found"))


def differing(known: Subscription | None, wanted: Subscription) -> tuple[str, ...]:
    """The names of the fields in which the ledger is not as Stripe; all of it where it has none."""
    if known is None:
        return ("missing",)
    return tuple(
        name
        for name in Subscription.__struct_fields__
        if name not in _OWN and getattr(known, name) != getattr(wanted, name)
    )
