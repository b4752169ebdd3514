"""Stripe's parts put together, for a gateway or a command, as the settings have them."""

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.billing.effects import Effects
from gateway.billing.inbox import Inbox
from gateway.billing.reconcile import Reconcile
from gateway.billing.stripe_source import StripeSource
from gateway.billing.tariff import Tariff, tariff_of
from gateway.billing.webhook import Webhook
from gateway.ledger.ledger import Ledger
from gateway.settings.model import Settings
from gateway.settings.stripe import Stripe

Count = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class StripeBilling:
    """`source` and `reconcile` are None without an API key."""

    tariff: Tariff
    inbox: Inbox
    source: StripeSource | None
    reconcile: Reconcile | None

    async def aclose(self) -> None:
        """Close the connections to Stripe."""
        if self.source is not None:
            await self.source.aclose()


def stripe_billing(settings: Settings, ledger: Ledger, now_ms: Callable[[], int], count: Count) -> StripeBilling:
    """Inbox and reconcile over a ledger."""
    source, tariff = _source(settings.stripe), tariff_of(settings)
    inbox = Inbox(ledger, Effects(ledger, tariff, source, now_ms), now_ms, count)
    reconcile = None if source is None else Reconcile(ledger, tariff, source, now_ms)
    return StripeBilling(tariff, inbox, source, reconcile)


def webhook_of(
    billing: StripeBilling,
    settings: Stripe,
    ledger: Ledger,
    *,
    now_ms: Callable[[], int],
    tell: Callable[[], Awaitable[None]],
    count: Count,
) -> Webhook | None:
    """The webhook, None where no secret for it is set."""
    if not settings.secrets:
        return None
    return Webhook(
        ledger,
        billing.inbox,
        secrets=settings.secrets,
        tolerance_s=settings.tolerance_s,
        now_ms=now_ms,
        tell=tell,
        count=count,
    )


def _source(settings: Stripe) -> StripeSource | None:
    if not settings.api_key:
        return None
    # By name: its library is nothing that a gateway without Stripe should pay for.
    module = importlib.import_module("gateway.billing.stripe_api")
    source: StripeSource = module.StripeApi(settings)
    return source
