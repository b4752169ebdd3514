"""What the alerts of `config/alerts.yaml` read is there, on a real gateway, once the bad thing has happened.

`make alerts` shows that they fire on such series; the house tests, that no name is misspelt.
"""

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from gateway import app
from gateway.billing.inbox import Inbox
from gateway.domain.audit import SYSTEM
from tests.support.alert_rules import read, samples_of, scraped
from tests.support.odd_peer import Visit, always, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.paged_stripe import answer
from tests.support.serving import Serving
from tests.support.serving import until as until_true
from tests.support.stand import CHAT, SETTINGS, Stand, now_ms, stand
from tests.support.stripe_objects import SECRET, event, signed, subscription
from tests.support.truth_balance import PROMPT, at_rest, bearer
from tests.support.until import until
from tests.support.valkey import ValkeyServer

WEBHOOK = "/_tollway/stripe/webhook"
STRIPE = SETTINGS + f"stripe: {{{{ webhook_secrets: [{SECRET}] }}}}\n"
STRIPE_FAILURES, STRIPE_SYNCED = "tollway_stripe_sync_failures_total", "tollway_stripe_synced_timestamp_seconds"
NOTHING = b'{"object": "list", "data": [], "has_more": false}'
BACKLOG = SETTINGS.replace("flush_interval_ms: 20", "flush_interval_ms: 20, max_backlog_events: 4")
FAST = SETTINGS.replace("namespace: tw", "namespace: tw, timeout_ms: 200")
ALLOWED = "  free: {limits: {requests: {hour: 1000}}, when_unavailable: allow}"
TWO = "  free: {limits: {requests: {lifetime: 2}}}"
REPLY = http(completion(prompt=9, output=4))


async def ask(here: Stand, key: str) -> int:
    """The status of a request."""
    return (await here.client.post(CHAT, json=PROMPT, headers=bearer(key))).status_code


async def until_read(here: Stand, alert: str, metric: str, fits: Callable[[float], bool]) -> dict[str, float]:
    """What an alert reads, once this metric of it is as it should be."""
    seen: dict[str, float] = {}

    async def told() -> bool:
        seen.update(read(alert, await scraped(here.client)))
        return fits(seen[metric])

    await until(told, within_s=20)
    return seen


async def test_a_tier_that_is_refused_is_read_by_its_alerts(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D10: refusals count by the same tier as its requests do, so that their share can be told; else the alert divides
    by nothing, and a plan that turns everybody away is found by its customers.
    """  # noqa: D205
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TWO) as here:
        key = await here.account()
        assert [await ask(here, key) for _ in range(5)] == [200, 200, 429, 429, 429]

        for alert in ("TollwayMostAreRefused", "TollwayRefusalsUnusual"):
            assert read(alert, await scraped(here.client)) == {
                "tollway_refusals_total": 3,
                "tollway_tier_requests_total": 5,
            }


async def test_webhooks_that_are_forged_or_wait_are_read(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D10, C7: what was paid for and does not count, and what only pretends to be Stripe's, reaches the operator."""
    async with (
        odd_peer(always(REPLY)) as peer,
        stand(tmp_path, valkey, peer.port, settings=STRIPE) as here,
    ):
        body, headers = signed(event("customer.subscription.created", subscription(metadata={"account_id": "nobody"})))
        assert (await here.client.post(WEBHOOK, content=body, headers=headers)).status_code == 202
        assert (await here.client.post(WEBHOOK, content=body + b" ", headers=headers)).status_code == 400

        assert read("TollwayWebhooksForged", await scraped(here.client)) == {"tollway_stripe_events_total": 1}
        await until_read(here, "TollwayStripeEventsWait", "tollway_stripe_events_open", lambda waiting: waiting == 1)


async def test_what_waits_is_told_by_the_one_that_leads(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D10: a gateway that lost the lead of the inbox tells of no webhooks: what it saw last would be told for ever, and
    the alert outlive its cause.
    """  # noqa: D205
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, settings=STRIPE) as here:
        inbox = Inbox(here.ledger, here.gateway._billing.effects, now_ms, lambda _: None)
        inbox.open = 3

        async def follows() -> bool:
            return False

        async def told() -> None:
            pass

        async def is_silent() -> bool:
            return inbox.open == 0

        running = asyncio.create_task(inbox.run(follows, told))
        await until(is_silent)
        running.cancel()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Stripe's library posts so by httpx
async def test_comparisons_with_stripe_are_read(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D10: a comparison that Stripe refuses counts as failed, and only one that ended well as done: else subscriptions
    could differ for months, and the alert on an overdue one stay quiet.
    """  # noqa: D205
    takes_the_key = False

    async def stripe(visit: Visit) -> None:
        while True:
            await visit.head()
            await visit.say(answer(200, NOTHING) if takes_the_key else answer(401, b'{"error": {"message": "no"}}'))

    async with odd_peer(stripe) as shop:
        on = f'stripe: {{{{ api_key: sk_test_x, api_base: "http://127.0.0.1:{shop.port}", sync_interval_s: 900 }}}}\n'
        async with stand(tmp_path, valkey, shop.port, settings=SETTINGS + on) as here:
            await until_read(here, "TollwayStripeSyncFails", STRIPE_FAILURES, lambda failed: failed > 0)
            overdue = read("TollwayStripeSyncOverdue", await scraped(here.client))
            assert overdue["tollway_stripe_sync_interval_seconds"] == 900
            assert time.time() - 60 < overdue[STRIPE_SYNCED] <= time.time() + 1
            takes_the_key, failed = True, read("TollwayStripeSyncFails", await scraped(here.client))
            reconcile = here.gateway._billing.reconcile
            assert reconcile is not None
            await reconcile.run(SYSTEM, lambda _: None, lambda _: None, heals=True)
            assert read("TollwayStripeSyncFails", await scraped(here.client)) == failed
            assert read("TollwayStripeSyncOverdue", await scraped(here.client))[STRIPE_SYNCED] > overdue[STRIPE_SYNCED]


async def test_a_ledger_that_takes_nothing_is_read(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C7: the time of each batch is told, and while the ledger is locked its failures, the age and the amount of what
    waits, and that callers are turned away.
    """  # noqa: D205
    monkeypatch.setattr(app, "REPORT_INTERVAL_S", 0.05)
    async with (
        odd_peer(always(REPLY)) as peer,
        stand(tmp_path, valkey, peer.port, tiers=ALLOWED, settings=BACKLOG) as here,
    ):
        key = await here.account()
        assert await ask(here, key) == 200
        await at_rest(here, valkey)
        assert read("TollwayLedgerSlow", await scraped(here.client))["tollway_flush_seconds_bucket"] > 0
        with closing(sqlite3.connect(tmp_path / "data" / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(4):
                assert await ask(here, key) == 200
            await until_read(here, "TollwayUsageBacklogFull", "tollway_usage_backlog_full", lambda full: full == 1)
            assert await ask(here, key) == 503
            high = read("TollwayUsageBacklogHigh", await scraped(here.client))
            assert high == {"tollway_usage_backlog_events": 4, "tollway_usage_backlog_max_events": 4}
            await until_read(here, "TollwayFlushLag", "tollway_flush_lag_seconds", lambda lag: lag > 0)
            await until_read(here, "TollwayLedgerFails", "tollway_flush_failures_total", lambda failed: failed > 0)
            assert read("TollwayTurnsAway", await scraped(here.client)) == {"tollway_requests_total": 1}
            other.execute("ROLLBACK")


async def test_a_redis_that_hangs_is_read(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D6, D10: while Redis hangs the alert has a number to fire on, though every request is answered; and so has
    the one on the journal that is to be replayed.
    """  # noqa: D205
    async with (
        odd_peer(always(REPLY)) as peer,
        stand(tmp_path, valkey, peer.port, tiers=ALLOWED, settings=FAST) as here,
    ):
        key = await here.account()
        assert await ask(here, key) == 200
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            assert [await ask(here, key) for _ in range(4)] == [200] * 4
            await until_read(here, "TollwayLimiterSilent", "tollway_limiter_breaker_open", lambda open_: open_ == 1)
            assert read("TollwayLimiterSlow", await scraped(here.client))["tollway_limiter_timeouts_total"] > 0
            assert read("TollwayJournalWaits", await scraped(here.client))["tollway_journal_bytes"] > 0
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        await until_read(here, "TollwayLimiterSilent", "tollway_limiter_breaker_open", lambda open_: open_ == 0)
        await until_read(here, "TollwayJournalWaits", "tollway_journal_bytes", lambda left: left == 0)


def test_a_worker_that_dies_is_read(tmp_path: Path) -> None:
    """C7: what is started again within a tenth of a second is seen by nobody but the count of the dead."""
    with Serving(tmp_path) as serving:

        def died() -> float:
            text = httpx.get(f"{serving.url}/_tollway/metrics", timeout=20, trust_env=False).text
            return read("TollwayProcessDied", samples_of(text))["tollway_processes_died_total"]

        assert died() == 0
        os.kill(serving.processes()["worker 0"], signal.SIGKILL)
        until_true(lambda: "worker 0" in serving.processes() and serving.get("/v1/models", serving.key) == 200, 20)
        until_true(lambda: died() == 1, 20)
