"""Subscriptions, add-ons and overrides in front of a whole gateway: what changes counts from the very next request."""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.domain.audit import SYSTEM
from gateway.domain.entitlements import Grant
from gateway.domain.limits import Unit
from gateway.domain.subscriptions import Status, Subscription
from gateway.domain.terms import Terms
from gateway.ledger.outbox import apply_outbox
from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.own_usage import limit_of
from tests.support.shifted_clock import shifted_clock
from tests.support.stand import CHAT, Stand, now_ms, stand
from tests.support.truth_balance import PROMPT, bearer
from tests.support.valkey import ValkeyServer

TIERS = """
  free: {limits: {requests: {hour: 1000}, tokens: {day: 150, period: 1000, lifetime: 1000000}}}
  pro: {limits: {requests: {hour: 7000}, tokens: {day: 15000, period: 100000, lifetime: 1000000}}}
"""
REPLY = http(completion(prompt=9, output=4))
TOKENS = 13
DAY_S = 86_400


async def ask(here: Stand, key: str) -> httpx.Response:
    """One request of 13 tokens."""
    return await here.client.post(CHAT, json=PROMPT, headers=bearer(key))


async def tell(here: Stand) -> None:
    """Tell the limiter of changes at once, as the outbox does within a second."""
    await apply_outbox(here.ledger, here.gateway._limiter.bump)


async def subscribe(here: Stand, **fields: Any) -> Subscription:
    """Give `acme` a subscription to pro, or change the one that it has."""
    now_s = now_ms() // 1000
    given = {"period_start_s": now_s - DAY_S, "period_end_s": now_s + DAY_S, "updated_ms": now_ms(), **fields}
    subscription = Subscription("sub_1", "acme", "pro", given.pop("status", Status.ACTIVE), **given)
    assert await here.ledger.upsert_subscription(subscription, SYSTEM, now_ms())
    await tell(here)
    return subscription


async def spend(here: Stand, key: str) -> int:
    """Ask until refused; how many were admitted."""
    for count in range(50):
        answer = await ask(here, key)
        if answer.status_code == 429:
            return count
        assert answer.status_code == 200, answer.text
    pytest.fail("never refused")


async def test_an_upgrade_counts_inside_the_running_window(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D3: who upgrades because a limit is used up goes on at the next request, with what was used still counted."""
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        used = await spend(here, key) * TOKENS
        assert used > 0

        await subscribe(here)
        answer = await ask(here, key)

        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "7000"
        day = await limit_of(here, key, "tokens/day")
        assert (day["used"], day["limit"]) == (used + TOKENS, 15_000)


async def test_a_downgrade_makes_no_debt(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D3: who used more than the lower tier allows waits for the window, is charged for nothing, and with the higher
    tier again goes on where it stood.
    """  # noqa: D205
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        await subscribe(here)
        for _ in range(13):
            assert (await ask(here, key)).status_code == 200

        await subscribe(here, status=Status.EXPIRED)
        assert (await ask(here, key)).status_code == 429
        day = await limit_of(here, key, "tokens/day")
        assert (day["used"], day["limit"], day["remaining"]) == (13 * TOKENS, 150, 0)

        await subscribe(here)
        assert (await ask(here, key)).status_code == 200
        assert (await limit_of(here, key, "tokens/day"))["used"] == 14 * TOKENS


async def test_an_add_on_counts_from_the_next_request(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A1: bought tokens can be spent at once, to the last; and what an operator sets by hand as well."""
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        await here.ledger.set_overrides("acme", Terms({"tokens/day": None, "tokens/period": 150}), SYSTEM, now_ms())
        before = await spend(here, key)
        assert before > 0

        await here.ledger.add_grant(Grant("pack-1", "acme", Unit.TOKENS, 10 * TOKENS), SYSTEM, now_ms())
        await tell(here)

        assert await spend(here, key) == 10
        period = await limit_of(here, key, "tokens/period")
        assert (period["used"], period["limit"]) == ((before + 10) * TOKENS, 150 + 10 * TOKENS)


async def test_a_period_that_moves_is_counted_from_where_it_begins(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A5, B7: a new subscription starts at nothing used, a renewal too; and a period that turns out to have begun
    earlier holds what was used since: neither a token free nor one twice.
    """  # noqa: D205
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        assert (await ask(here, key)).status_code == 200
        assert (await limit_of(here, key, "tokens/period"))["used"] == TOKENS

        now_s = now_ms() // 1000
        await subscribe(here, period_start_s=now_s - DAY_S)
        assert (await ask(here, key)).status_code == 200
        assert (await limit_of(here, key, "tokens/period"))["used"] == 2 * TOKENS

        begins_s = now_ms() // 1000 + 1
        await subscribe(here, period_start_s=begins_s, period_end_s=begins_s + DAY_S)
        asked = 2
        while now_ms() // 1000 < begins_s or asked == 2:
            assert (await ask(here, key)).status_code == 200
            asked += 1
        assert (await ask(here, key)).status_code == 200
        renewed = await limit_of(here, key, "tokens/period")
        assert TOKENS <= renewed["used"] <= (asked - 1) * TOKENS

        await subscribe(here, period_start_s=now_s - 2 * DAY_S)
        answer = await ask(here, key)
        for name in ("tokens/period", "tokens/lifetime"):
            assert (await limit_of(here, key, name))["used"] == (asked + 2) * TOKENS
        assert (await here.event(answer.headers["x-request-id"])).tier == "pro"


async def test_expiry_at_a_second_downgrades_at_that_second(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D3: no job runs, nobody is told, the ledger is not asked: what is admitted before the second has the tier, what
    begins after it has not. Whoever sells by the second is hurt if this breaks.
    """  # noqa: D205
    clock = shifted_clock(monkeypatch)
    clock.put(window_s=3600, left_s=1803.2)
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        warm, key = await here.account("other"), await here.account()
        assert (await ask(here, warm)).status_code == 200
        clock.put(window_s=3600, left_s=1803.2)
        assert (await ask(here, warm)).status_code == 200
        over_s = clock.now_ms // 3_600_000 * 3600 + 1800
        await subscribe(here, status=Status.CANCELLED, period_end_s=over_s)

        seen: list[tuple[int, int, str]] = []
        while not seen or seen[-1][0] < over_s * 1000 + 200:
            began_ms = clock.now_ms
            answer = await ask(here, key)
            seen.append((began_ms, clock.now_ms, answer.headers["x-ratelimit-limit-requests"]))

        before = {limit for _, ended_ms, limit in seen if ended_ms < over_s * 1000}
        after = {limit for began_ms, _, limit in seen if began_ms > over_s * 1000 + 20}
        assert (before, after) == ({"7000"}, {"1000"})


async def test_a_subscription_to_an_unknown_tier_is_told(tmp_path: Path, valkey: ValkeyServer) -> None:
    """E2: a tier that the settings lack is a fault of ours, 503, and never somebody else's limits."""
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        subscription = await subscribe(here)
        gone = msgspec.structs.replace(subscription, tier="gone", updated_ms=now_ms() + 1)
        await here.ledger.upsert_subscription(gone, SYSTEM, now_ms())
        await tell(here)

        answer = await ask(here, key)

        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unknown_tier")
