"""What gateway.yaml may say of Stripe, as types; as `settings/model.py`, of which this is a part."""

from typing import Annotated

from msgspec import Meta

from gateway.settings import checks
from gateway.settings.section import Seconds, Section

WebhookSecret = Annotated[str, Meta(extra={"check": checks.stripe_secret})]


class Stripe(Section, frozen=True, kw_only=True):
    """Where subscriptions and add-ons are bought."""

    api_key: Annotated[
        str,
        Meta(
            description="Secret or restricted key, to read what customers bought; empty: only webhooks tell.",
            extra={"check": checks.stripe_key},
        ),
    ] = ""
    webhook_secrets: Annotated[
        tuple[WebhookSecret, ...],
        Meta(description="Signing secrets of the webhook, the old and the new while one takes the other's place."),
    ] = ()
    tolerance_s: Annotated[
        int, Meta(ge=1, le=86_400, description="How long ago, by this machine's clock, a webhook may have been signed.")
    ] = 300
    sync_interval_s: Annotated[
        int, Meta(ge=60, le=604_800, description="How often all subscriptions are compared with Stripe's.")
    ] = 3600
    timeout_s: Annotated[Seconds, Meta(description="Longest wait for an answer of Stripe.")] = 10
    api_base: Annotated[str, Meta(description="Where Stripe's API is.", extra={"check": checks.api_base})] = (
        "https://api.stripe.com"
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The signing secrets in force: those that are not empty."""
        return tuple(one for one in self.webhook_secrets if one)
