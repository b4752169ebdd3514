"""The limiter's clock moves back over a window's start, as after a failover to a server whose clock is behind."""

from pathlib import Path

import pytest

from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.shifted_clock import shifted_clock
from tests.support.stand import CHAT, Stand, stand
from tests.support.truth_balance import PROMPT, at_rest, bearer, events_of
from tests.support.valkey import ValkeyServer

TIERS = """
  free: {limits: {requests: {minute: 5}, tokens: {minute: 100000, day: 10000000}}}
"""
REPLY = http(completion(prompt=9, output=4))
MINUTE_MS = 60_000


async def _statuses(here: Stand, key: str, count: int) -> list[int]:
    return [(await here.client.post(CHAT, json=PROMPT, headers=bearer(key))).status_code for _ in range(count)]


async def test_requests_stay_in_the_window_that_had_begun(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D1, A8: the window that was open stays open, so a limit can't be had twice; and the events of its requests say
    that window, so that counters and ledger agree. Callers of a tight limit are hurt where they differ.
    """  # noqa: D205
    clock = shifted_clock(monkeypatch)
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        clock.stop()
        clock.put(window_s=60, left_s=1)
        before = clock.now_ms // MINUTE_MS
        assert await _statuses(here, key, 1) == [200]
        clock.move(2)
        assert await _statuses(here, key, 2) == [200, 200]
        clock.move(-3)
        assert clock.now_ms // MINUTE_MS == before

        # The first by a gateway that does not know yet, the rest by one that does.
        assert await _statuses(here, key, 4) == [200, 200, 200, 429]

        await at_rest(here, valkey)
        minutes = [event.admitted_ms // MINUTE_MS - before for event in await events_of(here.ledger)]
        assert sorted(minutes) == [0, 1, 1, 1, 1, 1]
