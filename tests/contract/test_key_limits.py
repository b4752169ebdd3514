"""Limits of one key beside its account's, checked in the same step (F4)."""

import asyncio
from pathlib import Path

import pytest

from gateway.domain.accounts import ApiKey
from gateway.domain.faults import Fault
from gateway.domain.key_terms import KeyTerms
from gateway.identity.keys import new_key
from gateway.ledger.keys import MOST_LIMITED
from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, Stand, now_ms, stand
from tests.support.until import until
from tests.support.valkey import ValkeyServer


async def script(visit: Visit) -> None:
    """An upstream that answers every request of a connection."""
    while True:
        await visit.request()
        await visit.say(http(completion()))


async def a_key(here: Stand, terms: KeyTerms, account_id: str = "acme") -> tuple[str, str]:
    """A key with limits of its own: its id and its text."""
    key_id, text, digest = new_key(here.deployment.digest_key)
    await here.ledger.create_key(ApiKey(key_id, account_id, digest, "", now_ms(), terms=terms))
    return key_id, text


async def ask(here: Stand, key: str) -> tuple[int, str, str]:
    """The status, what is said, and `retry-after`."""
    headers = {"authorization": f"Bearer {key}"}
    answer = await here.client.post(CHAT, json={"model": "m", "messages": [], "max_tokens": 4}, headers=headers)
    return answer.status_code, answer.json().get("error", {}).get("message", ""), answer.headers.get("retry-after", "")


async def hydrated_ms(here: Stand) -> bytes:
    """When the account's state was last built from the ledger."""
    link, keys = here.gateway._link, here.gateway._limiter._keyspace.of("acme")
    found: bytes = await link.call("HGET", keys.account, "h")
    return found


async def test_a_key_ends_where_its_own_limit_does(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4: a key lent to a script spends its part and not its account's whole; the account's other keys go on, and the
    account's counters hold the sum of all. The refusal says whose limit it was.
    """  # noqa: D205
    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port) as here:
        plain = await here.account()
        _, bound = await a_key(here, KeyTerms(limits={"requests/hour": 2, "tokens/day": 10_000}))
        assert [(await ask(here, bound))[0] for _ in range(3)] == [200, 200, 429]
        status, text, wait = await ask(here, bound)
        assert (status, text.partition(":")[0]) == (429, "Limit of 2 requests per hour of this API key")
        assert 0 < int(wait) <= 3600
        assert (await ask(here, plain))[0] == 200
        used = (await here.client.get("/_tollway/usage", headers={"authorization": f"Bearer {plain}"})).json()
        assert {one["name"]: one["used"] for one in used["limits"]} == {
            "requests/hour": 3,
            "tokens/day": 39,
            "tokens/month": 39,
        }


async def test_a_keys_count_outlives_the_limiter(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A7: after Redis lost the account, each key has what it had, whoever asks first; and keys with limits do not
    build the account anew in turn.
    """  # noqa: D205
    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port) as here:
        plain = await here.account()
        _, first = await a_key(here, KeyTerms(limits={"requests/day": 2}))
        _, second = await a_key(here, KeyTerms(limits={"requests/day": 3}, concurrency=5))
        assert [(await ask(here, key))[0] for key in (first, second, first, second)] == [200] * 4
        await here.gateway._link.call("DEL", here.gateway._limiter._keyspace.of("acme").account)

        assert (await ask(here, plain))[0] == 200
        built_ms = await hydrated_ms(here)
        assert [(await ask(here, key))[0] for key in (first, second, second, plain)] == [429, 200, 429, 200]
        assert await hydrated_ms(here) == built_ms


async def test_a_successor_counts_with_the_key_it_replaces(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Rotating a key gives nobody a second allowance, neither live nor after the limiter lost the account."""
    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port) as here:
        await here.account()
        old_id, old = await a_key(here, KeyTerms(limits={"requests/day": 2}))
        assert (await ask(here, old))[0] == 200
        new_id, new, digest = new_key(here.deployment.digest_key)
        await here.ledger.rotate_key(old_id, (new_id, digest), overlap_ms=3_600_000, now_ms=now_ms())
        assert [(await ask(here, key))[0] for key in (new, old, new)] == [200, 429, 429]
        await here.gateway._link.call("DEL", here.gateway._limiter._keyspace.of("acme").account)
        assert [(await ask(here, key))[0] for key in (new, old)] == [429, 429]


async def test_a_keys_running_requests_are_bounded(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4: one key's burst leaves the account's slots to the others; a slot is free as soon as its request ended, and
    a state that was rebuilt meanwhile knows of those that run.
    """  # noqa: D205
    asked, release = asyncio.Event(), asyncio.Event()

    async def slow(visit: Visit) -> None:
        while True:
            await visit.request()
            asked.set()
            await release.wait()
            await visit.say(http(completion()))

    async with odd_peer(slow) as peer, stand(tmp_path, valkey, peer.port) as here:
        await here.account()
        _, bound = await a_key(here, KeyTerms(concurrency=1))
        running = asyncio.create_task(ask(here, bound))
        await asked.wait()
        expected = (429, "Too many requests of this API key under way at once: the limit is 1. Try again in 1 second.")
        assert (await ask(here, bound)) == (*expected, "1")
        await here.gateway._link.call("DEL", here.gateway._limiter._keyspace.of("acme").account)
        assert (await ask(here, bound)) == (*expected, "1")
        release.set()
        assert (await running)[0] == 200

        async def free() -> bool:
            return (await ask(here, bound))[0] == 200

        await until(free)
        assert [(await ask(here, bound))[0] for _ in range(3)] == [200] * 3


async def test_an_account_has_so_many_limited_keys(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Rebuilding an account's counters reads each such key, so their number is bounded; plain keys are not."""
    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port) as here:
        await here.account()
        for _ in range(MOST_LIMITED):
            key_id, _ = await a_key(here, KeyTerms(limits={"requests/day": 1}))
        with pytest.raises(Fault, match="Revoke one"):
            await a_key(here, KeyTerms(limits={"requests/day": 1}))
        assert await here.key("acme")
        await here.ledger.revoke_key(key_id, now_ms())
        _, last = await a_key(here, KeyTerms(limits={"requests/day": 1}))
        assert [(await ask(here, last))[0] for _ in range(2)] == [200, 429]
