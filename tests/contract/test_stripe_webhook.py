"""Stripe's webhook in front of a whole gateway: what it takes in, what it refuses, and what then counts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.billing.webhook import MAX_BYTES
from gateway.domain.audit import SYSTEM
from gateway.domain.limits import Unit
from gateway.ledger.stripe_inbox import State
from gateway.telemetry.log import flush
from tests.support.odd_peer import Visit, always, odd_peer
from tests.support.openai_wire import chunk, completion, http, usage_chunk
from tests.support.stand import CHAT, SETTINGS, Stand, stand
from tests.support.stripe_objects import SECRET, event, example, signed, subscription
from tests.support.truth_balance import PROMPT, bearer
from tests.support.until import until
from tests.support.valkey import ValkeyServer

TIERS = """
  free: {limits: {requests: {hour: 1000}, tokens: {month: 900000}}}
  pro:
    limits: {requests: {hour: 7000}, tokens: {month: 900000}}
    prices: {month: {cents: 1900, stripe_price: price_pro}}
"""
ON = SETTINGS + f"stripe: {{{{ webhook_secrets: [whsec_before, {SECRET}, ''] }}}}\n"
REPLY = http(completion(prompt=9, output=4))
PATH = "/_tollway/stripe/webhook"
TURNS = 5
"""Not each of them meets a machine that stands still for a second."""


@asynccontextmanager
async def gateway(tmp_path: Path, valkey: ValkeyServer, settings: str = ON) -> AsyncIterator[tuple[Stand, str]]:
    """A gateway, and a key of the account acme."""
    async with (
        odd_peer(always(REPLY)) as peer,
        stand(tmp_path, valkey, peer.port, tiers=TIERS, settings=settings) as here,
    ):
        yield here, await here.account()


async def deliver(here: Stand, told: dict[str, Any], **how: Any) -> httpx.Response:
    """Send an event as Stripe does."""
    body, headers = signed(told, **how)
    return await here.client.post(PATH, content=body, headers=headers)


async def hourly(here: Stand, key: str) -> str:
    """The requests an hour that the next answer tells of."""
    answer = await here.client.post(CHAT, json=PROMPT, headers=bearer(key))
    return str(answer.headers["x-ratelimit-limit-requests"])


async def results(here: Stand) -> dict[str, float]:
    """The webhooks so far, by how they ended."""
    scraped = (await here.client.get("/_tollway/metrics")).text
    lines = [line for line in scraped.splitlines() if line.startswith("tollway_stripe_events_total{")]
    return {line.partition('result="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_a_subscription_counts_from_the_next_request(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A5, E10: once Stripe has its 2xx, the very next request has the tier; told again it changes nothing."""
    async with gateway(tmp_path, valkey) as (here, key):
        assert await hourly(here, key) == "1000"
        told = event("customer.subscription.created", subscription())

        answer = await deliver(here, told)
        assert (answer.status_code, answer.json()) == (200, {"event": told["id"], "state": "applied"})
        assert await hourly(here, key) == "7000"

        version = (await here.ledger.account("acme")).version
        assert (await deliver(here, told)).status_code == 200
        assert (await here.ledger.account("acme")).version == version
        stored = await here.ledger.stripe_event(told["id"])
        assert stored is not None
        assert (stored.state, stored.payload) == (State.APPLIED, None)
        by = (await here.ledger.audit_log("acme"))[0]
        assert (by.who, by.source) == ("stripe", told["id"])
        assert await results(here) == {"applied": 1, "duplicate": 1}


async def test_what_stripe_did_not_send_is_refused(
    tmp_path: Path, valkey: ValkeyServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """E10: forged, stale, cut or huge, it is answered 4xx, counted, logged without what it says, and has no effect."""
    async with gateway(tmp_path, valkey) as (here, key):
        told = event(
            "customer.subscription.created", subscription(metadata={"account_id": "acme", "note": "hush-hush"})
        )
        body, headers = signed(told)
        stale = signed(told, at_s=told["created"] - 301)
        other = signed(told, "whsec_of_another")
        no_event = signed({"note": "hush-hush"})
        for sent, under in ((body[:-1], headers), (other[0], other[1]), stale, (body, {}), no_event):
            answer = await here.client.post(PATH, content=sent, headers=under)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_webhook")
        huge = await here.client.post(PATH, content=b" " * (MAX_BYTES + 1), headers=headers)
        assert (huge.status_code, huge.json()["error"]["code"]) == (413, "body_too_large")

        assert await hourly(here, key) == "1000"
        assert await here.ledger.stripe_event(told["id"]) is None
        assert await results(here) == {
            "refused_forged": 2,
            "refused_stale": 1,
            "refused_unsigned": 1,
            "refused_unreadable": 1,
            "refused_too_large": 1,
        }
    flush()
    logged = capfd.readouterr().out
    assert logged.count("stripe_webhook_refused") == 6
    assert "hush-hush" not in logged


async def test_it_is_off_without_a_secret(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Who has not set it up is told how, and no webhook is ever taken unsigned."""
    async with gateway(tmp_path, valkey, SETTINGS) as (here, _):
        answer = await deliver(here, event("customer.subscription.created", subscription()))
        assert answer.status_code == 404
        assert "stripe.webhook_secrets" in answer.json()["error"]["message"]


async def test_a_price_that_nobody_told_of_is_read_where_it_was_bought(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A6: without a key for Stripe, who buys a price older than the webhook gets its tier; the price's own news win."""
    async with gateway(tmp_path, valkey) as (here, key):
        bought = subscription(price="price_old")
        bought["items"]["data"][0]["price"]["metadata"] = {"tier": "pro"}
        sold = event("customer.subscription.created", bought)
        assert (await deliver(here, sold)).status_code == 200
        assert await hourly(here, key) == "7000"

        told = event(
            "price.updated", example("price", id="price_old", metadata={"tier": "free"}), created=sold["created"]
        )
        assert (await deliver(here, told)).status_code == 200
        assert await hourly(here, key) == "1000"

        again = event("customer.subscription.updated", bought, created=sold["created"] + 1)
        assert (await deliver(here, again)).status_code == 200
        assert await hourly(here, key) == "1000"


async def test_an_unknown_customer_is_parked_until_it_is_known(tmp_path: Path, valkey: ValkeyServer) -> None:
    """E10: a paid plan whose account comes late is not lost: by checkout, by hand, or by the account being made."""
    async with gateway(tmp_path, valkey) as (here, key):
        for number in (1, 2, 3):
            named = {"account_id": "late"} if number == 3 else {}
            about = subscription(f"sub_{number}", customer=f"cus_{number}", metadata=named)
            answer = await deliver(here, event("customer.subscription.created", about))
            assert (answer.status_code, answer.json()["state"]) == (202, "parked")
        assert await hourly(here, key) == "1000"

        bought = example(
            "checkout.session", mode="subscription", customer="cus_1", subscription="sub_1", client_reference_id="acme"
        )
        assert (await deliver(here, event("checkout.session.completed", bought))).status_code == 200
        assert await hourly(here, key) == "7000"

        await here.account("other")
        await here.account("late")
        await here.ledger.link_customer("cus_2", "other", SYSTEM, 1)

        async def all_there() -> bool:
            return bool(await here.ledger.subscriptions_of("other") and await here.ledger.subscriptions_of("late"))

        await until(all_there)


async def test_an_add_on_is_granted_once_and_taken_back_by_its_refunds(tmp_path: Path, valkey: ValkeyServer) -> None:
    """E10: bought tokens are there at once; refunds take their share back, in any order, told twice, or told first."""
    async with gateway(tmp_path, valkey) as (here, _):
        paid = {"mode": "payment", "payment_status": "paid", "payment_intent": "pi_1", "client_reference_id": "acme"}
        bought = example("checkout.session", **paid, metadata={"addon_tokens": "1000"})
        for _again in range(2):
            assert (await deliver(here, event("checkout.session.completed", bought))).status_code == 200
        assert await here.ledger.granted("acme", Unit.TOKENS) == 1000

        for refunded, left in ((30, 700), (30, 700), (10, 700), (100, 0), (30, 0)):
            charge = example("charge", amount=100, amount_refunded=refunded, payment_intent="pi_1")
            assert (await deliver(here, event("charge.refunded", charge))).status_code == 200
            assert await here.ledger.granted("acme", Unit.TOKENS) == left

        charge = example("charge", id="ch_2", amount=200, amount_refunded=50, payment_intent="pi_2")
        assert (await deliver(here, event("charge.refunded", charge))).json()["state"] == "ignored"
        again = bought | {"id": "cs_2", "payment_intent": "pi_2"}
        await deliver(here, event("checkout.session.completed", again))
        assert await here.ledger.granted("acme", Unit.TOKENS) == 750


async def test_what_means_nothing_here_is_stored_and_acknowledged(tmp_path: Path, valkey: ValkeyServer) -> None:
    """E10: a type that nobody heard of is no reason for Stripe to turn the endpoint off."""
    async with gateway(tmp_path, valkey) as (here, _):
        told = event("treasury.invented", example("customer"))
        answer = await deliver(here, told)
        assert (answer.status_code, answer.json()["state"]) == (200, "ignored")
        assert (await deliver(here, told)).status_code == 200


async def test_what_cannot_be_read_is_kept(tmp_path: Path, valkey: ValkeyServer) -> None:
    """E10: an object in a shape of tomorrow is answered 503 and kept with why, and others go on."""
    async with gateway(tmp_path, valkey) as (here, key):
        told = event("customer.subscription.created", subscription("sub_9", status="dreaming"))
        answer = await deliver(here, told)
        assert (answer.status_code, answer.json()["state"]) == (503, "failed")
        stored = await here.ledger.stripe_event(told["id"])
        assert stored is not None
        assert "dreaming" in stored.error
        assert (stored.attempts, stored.payload is None) == (1, False)
        assert (await deliver(here, event("customer.subscription.created", subscription()))).status_code == 200
        assert await hourly(here, key) == "7000"


async def changed(here: Stand, key: str, turn: int) -> float:
    """Give the subscription and take it back by turns; the seconds until a request is treated so."""
    status, limit = ("active", "7000") if turn % 2 == 0 else ("canceled", "1000")
    told = event(f"customer.subscription.{'updated' if turn else 'created'}", subscription(status=status))
    told["created"] += turn
    began_s = time.monotonic()
    assert (await deliver(here, told)).status_code == 200
    assert await hourly(here, key) == limit
    return time.monotonic() - began_s


async def test_a_change_counts_within_a_second_while_streams_go_on(tmp_path: Path, valkey: ValkeyServer) -> None:
    """E10: from webhook to a differently treated request in under a second; a stream that runs is not cut by it."""
    released = asyncio.Event()

    async def answers(visit: Visit) -> None:
        while True:
            asked = await visit.request()
            if b"stream" not in asked.body:
                await visit.say(REPLY)
                continue
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            await visit.say(head + chunk("hello"))
            await released.wait()
            await visit.say(chunk(None, finish="stop") + usage_chunk(9, 4) + b"data: [DONE]\n\n")
            return

    async with odd_peer(answers) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS, settings=ON) as here:
        key = await here.account()
        asked = here.client.stream("POST", CHAT, json=PROMPT | {"stream": True}, headers=bearer(key))
        async with asked as running:
            pieces = running.aiter_bytes()
            seen = await anext(pieces)
            took_s = [await changed(here, key, turn) for turn in range(TURNS)]
            assert min(took_s) < 1
            released.set()
            async for piece in pieces:
                seen += piece
        assert seen.endswith(b"data: [DONE]\n\n")
        assert running.headers["x-ratelimit-limit-requests"] == "1000"


async def test_many_copies_at_once_are_applied_once(tmp_path: Path, valkey: ValkeyServer) -> None:
    """E10: Stripe delivers at least once, and now and then twice at the same moment."""
    async with gateway(tmp_path, valkey) as (here, _):
        told = event("customer.subscription.created", subscription())
        answers = await asyncio.gather(*(deliver(here, told) for _ in range(8)))
        assert {answer.status_code for answer in answers} == {200}
        rows = await here.ledger.audit_log("acme")
        assert [row.action for row in rows].count("subscription") == 1
