"""Random lives of a subscription at Stripe, told in any order, twice or never: the ledger ends as Stripe has it."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.billing.effects import Effects
from gateway.billing.inbox import Inbox
from gateway.billing.reconcile import Reconcile, differing
from gateway.billing.stripe_objects import StripeSubscription
from gateway.billing.stripe_subscriptions import made_out
from gateway.billing.tariff import Tariff
from gateway.domain.audit import SYSTEM
from gateway.domain.subscriptions import Subscription
from gateway.ledger.ledger import Ledger
from gateway.ledger.stripe_inbox import InboxEvent, State
from tests.support.ledgers import url_of, without_fsync
from tests.support.own_stripe import OwnStripe
from tests.support.stripe_objects import event, subscription

BEGAN_S = 1_700_000_000
TARIFF = Tariff({"price_pro": "pro", "price_max": "max"}, {}, "free")
NUMBERS = itertools.count(1)


@dataclass
class Bench:
    """A ledger that all examples share, each with an account of its own, in one loop."""

    runner: asyncio.Runner
    ledger: Ledger


@pytest.fixture
def bench(ledger_path: Path) -> Iterator[Bench]:
    """Open for one test."""
    with asyncio.Runner() as runner:
        ledger = without_fsync(Ledger.open(url_of(ledger_path)))
        yield Bench(runner, ledger)
        runner.run(ledger.close())


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """Types and changes of a subscription's events, in the order in which they happened."""
    told: list[tuple[str, dict[str, Any]]] = [
        ("created", {"status": draw(st.sampled_from(["active", "trialing", "incomplete"]))})
    ]
    change = st.fixed_dictionaries(
        {},
        optional={
            "status": st.sampled_from(["active", "past_due", "unpaid", "paused", "trialing"]),
            "price": st.sampled_from(["price_pro", "price_max"]),
            "period": st.integers(0, 12).map(lambda n: (BEGAN_S + n * 2_592_000, BEGAN_S + (n + 1) * 2_592_000)),
            "cancel_at": st.none() | st.just(BEGAN_S + 9_999_999),
            "old": st.booleans(),
        },
    )
    told += [("updated", one) for one in draw(st.lists(change, max_size=3))]
    if draw(st.booleans()):
        told.append(("deleted", {"status": "canceled", "ended_at": BEGAN_S + 8_888_888}))
    return told


def told_of(life: list[tuple[str, dict[str, Any]]], number: int, gap_s: int) -> list[dict[str, Any]]:
    """The events of a life, `gap_s` apart; those of one second differ by their types."""
    made: list[dict[str, Any]] = []
    known: dict[str, Any] = {"period": (BEGAN_S, BEGAN_S + 2_592_000)}
    for step, (kind, change) in enumerate(life):
        known |= change
        about = subscription(f"sub_{number}", customer=f"cus_{number}", metadata={"account_id": f"a{number}"}, **known)
        created = BEGAN_S + (step * gap_s if kind == "updated" else 0 if kind == "created" else (step - 1) * gap_s)
        made.append(event(f"customer.subscription.{kind}", about, created=created))
    return made


def stored(told: dict[str, Any]) -> InboxEvent:
    """As the webhook stores it."""
    about = told["data"]["object"]
    return InboxEvent(
        told["id"],
        told["type"],
        about["id"],
        about["customer"],
        "",
        told["created"],
        0,
        payload=json.dumps(told).encode(),
    )


def parts(ledger: Ledger, source: OwnStripe | None) -> Inbox:
    """An inbox at a clock that moves a millisecond with each look, after all that happened."""
    clock = itertools.count((BEGAN_S + 10**8) * 1000)
    return Inbox(ledger, Effects(ledger, TARIFF, source, lambda: next(clock)), lambda: next(clock), lambda _: None)


async def deliver(inbox: Inbox, ledger: Ledger, told: dict[str, Any]) -> None:
    """Store and apply, as the webhook does."""
    row = stored(told)
    if await ledger.store_stripe_event(row) not in {State.APPLIED, State.IGNORED}:
        assert await inbox.apply(row) is State.APPLIED


async def ends_as(ledger: Ledger, about: dict[str, Any]) -> tuple[str, ...]:
    """The fields in which the ledger is not as an object of Stripe's."""
    wanted = made_out(msgspec.convert(about, StripeSubscription), about["metadata"]["account_id"], {}, TARIFF, 0)
    return differing(await ledger.subscription(about["id"]), wanted)


bounded = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.slow
@pytest.mark.timeout(240)
@bounded
@given(lives(), st.data())
def test_told_by_events_alone_it_ends_as_stripe_has_it(
    bench: Bench, life: list[tuple[str, dict[str, Any]]], data: st.DataObject
) -> None:
    """E10: without an API key, in any order, with copies: who paid has the plan, who was cancelled has not."""
    number = next(NUMBERS)
    events = told_of(life, number, data.draw(st.integers(1, 3)))
    order = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=3))))

    async def live() -> tuple[str, ...]:
        await bench.ledger.create_account(f"a{number}", "free", "", 0)
        inbox = parts(bench.ledger, None)
        for one in order:
            await deliver(inbox, bench.ledger, one)
        return await ends_as(bench.ledger, events[-1]["data"]["object"])

    assert bench.runner.run(live()) == ()


@pytest.mark.slow
@pytest.mark.timeout(240)
@bounded
@given(lives(), st.data())
def test_asked_for_it_ends_as_stripe_has_it(
    bench: Bench, life: list[tuple[str, dict[str, Any]]], data: st.DataObject
) -> None:
    """E10: with an API key: events late, in any order, copied and lost, while it goes on changing at Stripe. Once the
    last change is told of, or all is compared, the ledger is as Stripe.
    """  # noqa: D205
    number = next(NUMBERS)
    events = told_of(life, number, 0)
    lost = data.draw(st.sets(st.sampled_from(range(len(events)))))

    async def live() -> None:
        await bench.ledger.create_account(f"a{number}", "free", "", 0)
        stripe = OwnStripe()
        inbox = parts(bench.ledger, stripe)
        waiting: list[dict[str, Any]] = []
        for step, one in enumerate(events):
            stripe.subscriptions_now[f"sub_{number}"] = one["data"]["object"]
            waiting += [] if step in lost else [one] * data.draw(st.integers(1, 2))
            waiting = data.draw(st.permutations(waiting))
            for _ in range(data.draw(st.integers(0, len(waiting)))):
                await deliver(inbox, bench.ledger, waiting.pop())
        for one in waiting:
            await deliver(inbox, bench.ledger, one)
        truth = events[-1]["data"]["object"]
        if len(events) - 1 not in lost:
            assert await ends_as(bench.ledger, truth) == ()
        clock = itertools.count((BEGAN_S + 2 * 10**8) * 1000)
        healing = Reconcile(bench.ledger, TARIFF, stripe, lambda: next(clock))
        found = [one async for one in _passes(healing, f"sub_{number}")]
        assert await ends_as(bench.ledger, truth) == ()
        assert found == []

    bench.runner.run(live())


async def _passes(healing: Reconcile, subscription_id: str) -> Any:
    """Two passes: what the second one still finds of a subscription. Others' are gone at this Stripe, and end."""
    for turn in (1, 2):
        drifts: list[Any] = []
        await healing.run(SYSTEM, drifts.append, lambda _: None, heals=True)
        if turn == 2:
            for one in drifts:
                if one.subscription_id == subscription_id:
                    yield one


def test_the_check_can_fail(bench: Bench) -> None:
    """What the two above compare tells a plan from another, and a period from another."""
    about = subscription("sub_0", metadata={"account_id": "a0"}, period=(BEGAN_S, BEGAN_S + 9))
    wanted = made_out(msgspec.convert(about, StripeSubscription), "a0", {}, TARIFF, 0)

    async def put(one: Subscription) -> tuple[str, ...]:
        await bench.ledger.upsert_subscription(one, SYSTEM, 1)
        return await ends_as(bench.ledger, about)

    bench.runner.run(bench.ledger.create_account("a0", "free", "", 0))
    assert bench.runner.run(ends_as(bench.ledger, about)) == ("missing",)
    other = msgspec.structs.replace(wanted, tier="max", period_end_s=BEGAN_S + 8, updated_ms=1)
    assert bench.runner.run(put(other)) == ("tier", "period_end_s")
    assert bench.runner.run(put(msgspec.structs.replace(wanted, updated_ms=2))) == ()
