"""Stripe's webhook: checked on the raw bytes, stored, applied, and acknowledged only then.

What is refused is counted and logged without its content. A copy of an event that is done is acknowledged at once.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from gateway.billing.effects import LINKING, account_named
from gateway.billing.inbox import FIRST_PAUSE_MS, Inbox
from gateway.billing.signature import Doubt, doubt
from gateway.billing.stripe_objects import StripeEvent, id_of
from gateway.domain.faults import INVALID_WEBHOOK, Fault
from gateway.ledger.ledger import Ledger
from gateway.ledger.stripe_inbox import DONE, InboxEvent, State
from gateway.telemetry.log import log

MAX_BYTES = 1_048_576
"""Far above what Stripe sends."""

DUPLICATE = "duplicate"
REFUSED = "refused_"


class Webhook:
    """`tell` lets gateways know of what changed; `count` is told how each delivery ended."""

    def __init__(
        self,
        ledger: Ledger,
        inbox: Inbox,
        *,
        secrets: Sequence[str],
        tolerance_s: int,
        now_ms: Callable[[], int],
        tell: Callable[[], Awaitable[None]],
        count: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._inbox = inbox
        self._secrets = secrets
        self._tolerance_s = tolerance_s
        self._now_ms = now_ms
        self._tell = tell
        self._count = count

    async def receive(self, body: bytes, signature: str) -> tuple[str, State]:
        """Take one delivery in; the event's id and where it stands, in the ledger. Raises Fault."""
        against = doubt(body, signature, self._secrets, self._tolerance_s, self._now_ms() / 1000)
        if against is not None:
            raise self.refused(against, len(body))
        try:
            event = msgspec.json.decode(body, type=StripeEvent)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self.refused(Doubt.UNREADABLE, len(body)) from None
        stored = _stored(event, body, self._now_ms())
        state = await self._ledger.store_stripe_event(stored)
        if state in DONE:
            self._count(DUPLICATE)
            return event.id, state
        state = await self._inbox.apply(stored)
        if state is State.APPLIED:
            if event.type in LINKING:
                await self._inbox.turn()
            await self._tell()
        return event.id, state

    def refused(self, against: Doubt, size_bytes: int) -> Fault:
        """Count and log a refusal; the Fault to answer with."""
        self._count(f"{REFUSED}{against.value}")
        log.warning("stripe_webhook_refused", reason=against.value, bytes=size_bytes)
        return Fault(INVALID_WEBHOOK, against.value)


def _stored(event: StripeEvent, body: bytes, now_ms: int) -> InboxEvent:
    """The row of a new event. It is tried again by others only once this process has had its time."""
    about: dict[str, Any] = event.data.object
    metadata = about.get("metadata")
    reference = about.get("client_reference_id")
    is_customer = about.get("object") == "customer"
    named = account_named(metadata) if isinstance(metadata, dict) else ""
    subject = id_of(about.get("payment_intent")) if event.type == "charge.refunded" else ""
    return InboxEvent(
        id=event.id,
        type=event.type,
        subject=subject or id_of(about),
        customer_id=id_of(about) if is_customer else id_of(about.get("customer")),
        account_id=reference if isinstance(reference, str) and reference else named,
        created_s=event.created,
        received_ms=now_ms,
        retry_ms=now_ms + 2 * FIRST_PAUSE_MS,
        payload=body,
    )
