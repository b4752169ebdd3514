"""Stripe's webhooks when something breaks between their arrival and their effect, and while streams go on."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.billing import effects
from gateway.billing.stripe_billing import StripeBilling, stripe_billing
from gateway.domain.faults import LEDGER_UNAVAILABLE, STRIPE_UNAVAILABLE, Fault
from gateway.ledger.ledger import Ledger
from gateway.ledger.stripe_inbox import State
from gateway.ledger.subscriptions import put_subscription
from gateway.settings.load import load
from tests.support.ledgers import NOON_MS
from tests.support.own_stripe import OwnStripe
from tests.support.stripe_objects import SECRET, event, signed, subscription

SETTINGS = f"""
upstreams: {{ one: {{ url: "http://127.0.0.1:9" }} }}
routes: [{{ path: /v1/*, upstream: one, dialect: plain }}]
tiers:
  free: {{ limits: {{ requests: {{ hour: 50 }} }} }}
  pro: {{ prices: {{ month: {{ cents: 1900, stripe_price: price_pro }} }} }}
default_tier: free
stripe: {{ webhook_secrets: [{SECRET}] }}
"""


class Clock:
    """Stands still until it is moved."""

    now_ms = NOON_MS

    def __call__(self) -> int:
        """Unix milliseconds."""
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    """At noon."""
    return Clock()


@pytest.fixture
async def billing(ledger: Ledger, tmp_path: Path, clock: Clock) -> AsyncIterator[StripeBilling]:
    """Stripe's parts over a ledger with the account acme."""
    file = tmp_path / "gateway.yaml"
    file.write_text(SETTINGS)
    await ledger.create_account("acme", "free", "", NOON_MS)

    async def tell() -> None:
        return None

    made = stripe_billing(load(file, {}), ledger, clock, tell=tell, count=lambda _: None)
    yield made
    await made.aclose()


async def receive(billing: StripeBilling, told: dict[str, Any]) -> State:
    """Deliver it, signed now by the parts' clock."""
    assert billing.webhook is not None
    body, headers = signed(told, at_s=NOON_MS // 1000)
    return (await billing.webhook.receive(body, headers["stripe-signature"]))[1]


def failing(times: int, error: Exception) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
    """Let a call do its work and then raise, so many times."""
    left = [times]

    def wrap(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def broken(*args: Any, **options: Any) -> Any:
            result = await call(*args, **options)
            if left[0]:
                left[0] -= 1
                raise error
            return result

        return broken

    return wrap


async def test_what_breaks_in_the_middle_leaves_nothing_and_is_tried_again(
    ledger: Ledger, billing: StripeBilling, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E10: the database goes after the effect and before the commit: no half of it stays, the event does, and it is
    applied later, with growing pauses. Else a paid plan is lost, or an add-on granted twice.
    """  # noqa: D205
    gone = Fault(LEDGER_UNAVAILABLE, "gone")
    monkeypatch.setattr(effects, "put_subscription", failing(2, gone)(put_subscription))
    told = event("customer.subscription.created", subscription())

    assert await receive(billing, told) is State.FAILED
    assert await ledger.subscriptions_of("acme") == []
    stored = await ledger.stripe_event(told["id"])
    assert stored is not None
    assert (stored.attempts, stored.error, stored.retry_ms - NOON_MS) == (1, "gone", 5_000)

    assert await billing.inbox.turn() == 0
    clock.now_ms += 5_000
    assert await billing.inbox.turn() == 0
    stored = await ledger.stripe_event(told["id"])
    assert stored is not None
    assert (stored.attempts, stored.retry_ms - clock.now_ms) == (2, 10_000)

    clock.now_ms += 10_000
    assert await billing.inbox.turn() == 1
    assert [one.tier for one in await ledger.subscriptions_of("acme")] == ["pro"]
    assert billing.inbox.open == 0


async def test_what_a_dead_process_received_is_taken_up(
    ledger: Ledger, billing: StripeBilling, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E10: a gateway that dies between storing and applying: another one applies it within seconds."""

    async def dies(_stored: Any) -> State:
        raise asyncio.CancelledError

    monkeypatch.setattr(billing.inbox, "apply", dies)
    with pytest.raises(asyncio.CancelledError):
        await receive(billing, event("customer.subscription.created", subscription()))
    monkeypatch.undo()

    assert await billing.inbox.turn() == 0
    clock.now_ms += 10_000
    assert await billing.inbox.turn() == 1
    assert [one.tier for one in await ledger.subscriptions_of("acme")] == ["pro"]


async def test_a_redelivery_tries_what_failed_at_once(
    ledger: Ledger, billing: StripeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E10: an operator who presses "resend" at Stripe doesn't wait for a pause to end."""
    gone = Fault(LEDGER_UNAVAILABLE, "gone")
    monkeypatch.setattr(effects, "put_subscription", failing(1, gone)(put_subscription))
    told = event("customer.subscription.created", subscription())

    assert await receive(billing, told) is State.FAILED
    assert await receive(billing, told) is State.APPLIED
    assert len(await ledger.subscriptions_of("acme")) == 1


async def test_stripe_away_keeps_the_event(
    ledger: Ledger, billing: StripeBilling, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E10: what can't be asked for now is asked for later; nothing is guessed from what may be old."""
    stripe = OwnStripe()
    stripe.subscriptions_now["sub_1"] = subscription()
    monkeypatch.setattr(billing.inbox._effects, "_source", stripe)
    away = Fault(STRIPE_UNAVAILABLE, "Stripe: APIConnectionError, status None")
    monkeypatch.setattr(stripe, "subscription", failing(1, away)(stripe.subscription))

    told = event("customer.subscription.updated", subscription(status="past_due"))
    assert await receive(billing, told) is State.FAILED
    assert await ledger.subscriptions_of("acme") == []
    clock.now_ms += 5_000
    assert await billing.inbox.turn() == 1
    assert [one.status for one in await ledger.subscriptions_of("acme")] == ["active"]


async def test_a_flood_of_copies_writes_once(ledger: Ledger, billing: StripeBilling) -> None:
    """E10: a hundred redeliveries cost one change; and take no longer than a moment."""
    told = event("customer.subscription.created", subscription())
    began_s = time.monotonic()
    states = [await receive(billing, told) for _ in range(100)]
    assert set(states) == {State.APPLIED}
    assert [row.action for row in await ledger.audit_log("acme")].count("subscription") == 1
    assert time.monotonic() - began_s < 30
