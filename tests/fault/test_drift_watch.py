"""The watch for drift: what is planted is told, what is only on its way is not."""

import asyncio
from pathlib import Path

import pytest

from gateway.console import drift_watch
from gateway.quota.keys import Keyspace
from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, Stand, stand
from tests.support.truth_balance import PROMPT, bearer, flushed
from tests.support.until import until
from tests.support.valkey import ValkeyServer

TIERS = "  free: {limits: {requests: {hour: 100000}, tokens: {day: 10000000}}}"
KEY = Keyspace("tw", 8).of("acme").account
REPLY = http(completion(prompt=9, output=4))


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check each 50 ms."""
    monkeypatch.setattr(drift_watch, "INTERVAL_S", 0.05)


async def _until_drifted(here: Stand, accounts: int) -> None:
    async def told() -> bool:
        return here.gateway._drift.drifted == accounts

    await until(told, 20)


async def _until_checked(here: Stand, times: int) -> None:
    wanted = here.gateway._drift.checked + times

    async def checked() -> bool:
        return here.gateway._drift.checked >= wanted

    await until(checked, 20)


async def test_a_counter_that_drifted_is_told_until_it_is_mended(tmp_path: Path, valkey: ValkeyServer) -> None:
    """A6: nobody runs `tollway db verify` every hour; an account that is refused too early for a drifted count is
    seen by the metric, and the alarm ends with the cause.
    """  # noqa: D205
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        assert (await here.client.post(CHAT, json=PROMPT, headers=bearer(key))).status_code == 200
        await flushed(valkey)
        valkey.call(b"HINCRBY %b u:tokens/day 7" % KEY)

        await _until_drifted(here, 1)
        valkey.call(b"HINCRBY %b u:tokens/day -7" % KEY)
        await _until_drifted(here, 0)


async def test_no_drift_is_seen_under_load(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Requests under way and settlements on their way are no drift: an alarm that cries wolf is switched off."""
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        ended = asyncio.Event()

        async def ask() -> None:
            while not ended.is_set():
                answer = await here.client.post(CHAT, json=PROMPT, headers=bearer(key))
                assert answer.status_code == 200

        loads = [asyncio.create_task(ask()) for _ in range(4)]
        await _until_checked(here, 4)
        found = dict(here.gateway._drift._found)
        ended.set()
        await asyncio.gather(*loads)

        assert found == {}
