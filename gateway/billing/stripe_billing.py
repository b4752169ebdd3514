"""Stripe's parts put together, for a gateway or a command, as the settings have them."""

import importlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from gateway.billing.effects import Effects
from gateway.billing.inbox import Inbox
from gateway.billing.reconcile import Reconcile
from gateway.billing.stripe_source import Paused, StripeSource
from gateway.billing.sync import Take, run_sync
from gateway.billing.tariff import tariff_of
from gateway.billing.webhook import Webhook
from gateway.ledger.ledger import Ledger
from gateway.settings.model import Settings
from gateway.settings.stripe import Stripe
from gateway.telemetry import catalogue
from gateway.telemetry.log import log

LEASE_MS = 5_000

Watch = Callable[[catalogue.Gauge | catalogue.Counter, Callable[[], float]], None]
"""`Metrics.watch`."""


def log_pause(pause_s: float, why: str) -> None:
    """Let the log tell what a pass over all subscriptions waits for."""
    log.info("stripe_waits", pause_s=round(pause_s, 1), detail=why)


@dataclass(frozen=True, slots=True)
class StripeBilling:
    """`source` and `reconcile` are None without an API key, `webhook` without a signing secret."""

    settings: Stripe
    effects: Effects
    inbox: Inbox
    webhook: Webhook | None
    source: StripeSource | None
    reconcile: Reconcile | None
    tell: Callable[[], Awaitable[None]]

    def running(self, lease: Callable[[str], Take], owner: str) -> Iterator[Coroutine[Any, Any, None]]:
        """What goes on beside requests, each of it in one gateway at a time, by the lease of that name."""
        if self.webhook is not None or self.reconcile is not None:
            inbox = lease("stripe:inbox")
            yield self.inbox.run(lambda: inbox(owner, LEASE_MS), self.tell)
        if self.reconcile is not None:
            yield run_sync(self.reconcile, lease("stripe:sync"), owner, self.settings.sync_interval_s, self.tell)

    def go_by(self, settings: Settings) -> None:
        """Other tiers and prices, from the next event on."""
        self.effects.tariff = tariff_of(settings)
        if self.reconcile is not None:
            self.reconcile.tariff = self.effects.tariff

    def watched(self, watch: Watch) -> None:
        """Have the metrics ask how it stands. Without an API key nothing is told of comparisons: none is to come."""
        watch(catalogue.STRIPE_OPEN, lambda: self.inbox.open)
        reconcile = self.reconcile
        if reconcile is None:
            return
        watch(catalogue.STRIPE_DRIFT, lambda: reconcile.drifted)
        watch(catalogue.STRIPE_SYNC_FAILURES, lambda: reconcile.failed)
        watch(catalogue.STRIPE_SYNCED, lambda: reconcile.synced_ms / 1000)
        watch(catalogue.STRIPE_SYNC_INTERVAL, lambda: self.settings.sync_interval_s)

    async def aclose(self) -> None:
        """Close the connections to Stripe."""
        if self.source is not None:
            await self.source.aclose()


def stripe_billing(
    settings: Settings,
    ledger: Ledger,
    now_ms: Callable[[], int],
    *,
    tell: Callable[[], Awaitable[None]],
    count: Callable[[str], None],
    paused: Paused = log_pause,
) -> StripeBilling:
    """All parts over a ledger. `tell` lets gateways know of what changed; `count` is told how each event ended."""
    asked, tariff = settings.stripe, tariff_of(settings)
    source = _source(asked, paused)
    effects = Effects(ledger, tariff, source, now_ms)
    inbox = Inbox(ledger, effects, now_ms, count)
    webhook = reconcile = None
    if asked.secrets:
        webhook = Webhook(
            ledger,
            inbox,
            secrets=asked.secrets,
            tolerance_s=asked.tolerance_s,
            now_ms=now_ms,
            tell=tell,
            count=count,
        )
    if source is not None:
        reconcile = Reconcile(ledger, tariff, source, now_ms)
    return StripeBilling(asked, effects, inbox, webhook, source, reconcile, tell)


def _source(settings: Stripe, paused: Paused) -> StripeSource | None:
    if not settings.api_key:
        return None
    # By name: its library is nothing that a gateway without Stripe should pay for.
    module = importlib.import_module("gateway.billing.stripe_api")
    source: StripeSource = module.StripeApi(settings, paused)
    return source
