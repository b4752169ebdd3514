"""A ledger that is away for long: the usage that waits for it is bounded, and nothing of it is lost."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from gateway import app
from gateway.metering.backlog import Backlog
from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, SETTINGS, Stand, stand
from tests.support.truth_balance import PROMPT, at_rest, bearer, events_of
from tests.support.until import until
from tests.support.valkey import ValkeyServer

MAXIMUM = 4
BOUNDED = SETTINGS.replace("flush_interval_ms: 20", f"flush_interval_ms: 20, max_backlog_events: {MAXIMUM}")
TIERS = "  free: {limits: {requests: {hour: 1000}, tokens: {day: 100000}}}"
REPLY = http(completion(prompt=9, output=4))
SLOW = {**PROMPT, "user": "slow"}


async def _ask(here: Stand, key: str) -> httpx.Response:
    return await here.client.post(CHAT, json=PROMPT, headers=bearer(key))


async def _until_full(here: Stand, *, full: bool) -> None:
    async def seen() -> bool:
        return here.gateway._backlog.full is full

    await until(seen)


async def test_a_full_backlog_keeps_new_requests_out_and_loses_nothing(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D6: while the ledger is away and the most that may wait does, who asks is told 503 `ledger_behind` and holds
    nothing; what ran is answered and settled; once the ledger is back all usage arrives, once, and all are served. Else
    a night without the database ends with a Redis out of memory, and nobody's limits hold.
    """  # noqa: D205
    monkeypatch.setattr(app, "REPORT_INTERVAL_S", 0.05)
    going = asyncio.Event()

    async def script(visit: Visit) -> None:
        while True:
            if b"slow" in (await visit.request()).body:
                await going.wait()
            await visit.say(REPLY)

    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS, settings=BOUNDED) as here:
        key = await here.account()
        assert (await _ask(here, key)).status_code == 200
        await at_rest(here, valkey)
        with closing(sqlite3.connect(tmp_path / "data" / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            running = asyncio.create_task(here.client.post(CHAT, json=SLOW, headers=bearer(key)))
            answers = await asyncio.gather(*[_ask(here, key) for _ in range(MAXIMUM)])
            assert {answer.status_code for answer in answers} == {200}
            await _until_full(here, full=True)
            refused = await _ask(here, key)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_behind")
            assert refused.headers["retry-after"]
            going.set()
            assert (await running).status_code == 200
            other.execute("ROLLBACK")
        await _until_full(here, full=False)
        assert (await _ask(here, key)).status_code == 200
        await at_rest(here, valkey)
        assert len(await events_of(here.ledger)) == MAXIMUM + 3


def test_each_level_is_told_once_and_does_not_flap() -> None:
    """An operator is warned at half and alarmed at the whole, once each; a backlog that hovers at its maximum neither
    floods the log nor lets every second request in.
    """  # noqa: D205
    backlog = Backlog(100)
    full = []
    with capture_logs() as logged:
        for events in (49, 50, 45, 51, 99, 100, 90, 101, 89, 95, 30, 50):
            backlog.saw(events)
            full.append(backlog.full)

    assert full == [False] * 5 + [True] * 3 + [False] * 4
    told = [line["event"] for line in logged]
    assert told == ["usage_backlog_high", "usage_backlog_full", "usage_backlog_falls", "usage_backlog_high"]


def test_a_backlog_of_one_can_be_emptied() -> None:
    """The smallest maximum is no trap: once nothing waits, requests are admitted again."""
    backlog = Backlog(1)

    backlog.saw(1)
    assert backlog.full
    backlog.saw(0)

    assert not backlog.full
