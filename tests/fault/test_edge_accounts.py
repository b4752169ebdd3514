"""Changes of accounts while requests run, and a limiter that forgot: the ledger counts from the next request."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from gateway.ledger.outbox import apply_outbox
from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, Stand, now_ms, stand
from tests.support.truth_balance import PROMPT, at_rest, bearer
from tests.support.valkey import ValkeyServer

TIERS = """
  free: {limits: {requests: {hour: 100000}, tokens: {day: 10000000}}}
  shut: {limits: {requests: {hour: 100000}, tokens: {day: 10}}}
"""
REPLY = http(completion(prompt=9, output=4))


async def _ask(here: Stand, key: str) -> httpx.Response:
    return await here.client.post(CHAT, json=PROMPT, headers=bearer(key))


@pytest.mark.parametrize(("change", "status", "code"), [("revoke", 401, "revoked_api_key"), ("tier", 429, None)])
async def test_a_change_counts_from_the_next_request_under_load(
    tmp_path: Path, valkey: ValkeyServer, change: str, status: int, code: str | None
) -> None:
    """F4: once a key is revoked or a tier changed, not one request that begins after is served by what was before,
    however busy the key is. A stolen key that lives on is what hurts.
    """  # noqa: D205
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        changed = asyncio.Event()
        after: list[httpx.Response] = []

        async def load() -> None:
            while len(after) < 40:
                late = changed.is_set()
                answer = await _ask(here, key)
                if late:
                    after.append(answer)

        loads = [asyncio.create_task(load()) for _ in range(8)]
        await asyncio.sleep(0.2)
        if change == "revoke":
            await here.ledger.revoke_key(key[3:15], now_ms())
        else:
            await here.ledger.set_tier("acme", "shut", now_ms())
        await apply_outbox(here.ledger, here.gateway._limiter.bump)
        changed.set()
        await asyncio.gather(*loads)
        assert {answer.status_code for answer in after} == {status}
        assert code is None or {answer.json()["error"]["code"] for answer in after} == {code}
        await at_rest(here, valkey)


async def test_a_limiter_that_forgot_does_not_bring_a_revoked_key_back(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4: the limiter loses its state after a key was revoked, and this gateway still remembers the key as fine: the
    account is rebuilt at the ledger's version, so that the memory is seen to be old.
    """  # noqa: D205
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        assert (await _ask(here, key)).status_code == 200
        await at_rest(here, valkey)
        await here.ledger.revoke_key(key[3:15], now_ms())
        await apply_outbox(here.ledger, here.gateway._limiter.bump)
        valkey.call(b"FLUSHALL")
        answer = await _ask(here, key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "revoked_api_key")


async def test_a_tier_that_the_file_lacks_is_the_operators_mistake(tmp_path: Path, valkey: ValkeyServer) -> None:
    """503 with its own code: never a 401 or a 429, which would send the caller looking at itself."""
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        answer = await _ask(here, await here.account(tier="gold"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unknown_tier")
        assert peer.connections == 0


@pytest.mark.parametrize("ahead_s", [-7200, 7200])
async def test_a_gateway_whose_clock_is_off_spends_from_the_right_window(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, ahead_s: int
) -> None:
    """The gateway's clock is hours off, and the limiter has no state: the window that runs now by the limiter's clock
    is the one that is rebuilt, and what was used in it stays used.
    """  # noqa: D205
    tiers = "  free: {limits: {requests: {hour: 2}}}"
    async with odd_peer(always(REPLY)) as peer:
        async with stand(tmp_path, valkey, peer.port, tiers=tiers) as here:
            key = await here.account()
            assert [(await _ask(here, key)).status_code for _ in range(2)] == [200, 200]
            await at_rest(here, valkey)
        valkey.call(b"FLUSHALL")
        true = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: true() + ahead_s * 1_000_000_000)
        async with stand(tmp_path, valkey, peer.port, tiers=tiers) as here:
            assert [(await _ask(here, key)).status_code for _ in range(2)] == [429, 429]
            await at_rest(here, valkey)


async def test_a_limit_that_is_new_to_an_account_knows_what_was_used(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D3: an account changes to a tier with a limit that its old tier did not have: what it used in that window before
    counts, as the window's limit is about the window, not about the tier.
    """  # noqa: D205
    tiers = """
  free: {limits: {requests: {hour: 100000}}}
  daily: {limits: {tokens: {day: 80}}}
"""
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=tiers) as here:
        key = await here.account()
        for _ in range(3):
            assert (await _ask(here, key)).status_code == 200
        await at_rest(here, valkey)
        await here.ledger.set_tier("acme", "daily", now_ms())
        await apply_outbox(here.ledger, here.gateway._limiter.bump)
        answer = await _ask(here, key)
        assert answer.status_code == 429
        await at_rest(here, valkey)
