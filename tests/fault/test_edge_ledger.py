"""The ledger locked, and cold accounts stormed: callers that are known are served on, and nothing is read twice."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.ledger.ledger import Ledger
from gateway.ledger.outbox import apply_outbox
from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, Stand, stand
from tests.support.truth_balance import PROMPT, at_rest, bearer, count, events_of
from tests.support.until import until
from tests.support.valkey import ValkeyServer

TIERS = "  free: {limits: {requests: {hour: 1000}, tokens: {day: 100000}}}"
REPLY = http(completion(prompt=9, output=4))


async def _ask(here: Stand, key: str) -> httpx.Response:
    return await here.client.post(CHAT, json=PROMPT, headers=bearer(key))


def _waiting(valkey: ValkeyServer, events: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many events wait for the ledger."""

    async def waiting() -> bool:
        return count(valkey, "XLEN events") == events

    return waiting


async def test_a_locked_ledger_delays_events_and_nobody(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D6: while someone holds the ledger's write lock, callers are served as fast as ever, and their usage waits on the
    stream; once the lock is gone it arrives, once.
    """  # noqa: D205
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        assert (await _ask(here, key)).status_code == 200
        await at_rest(here, valkey)
        with closing(sqlite3.connect(tmp_path / "data" / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with asyncio.timeout(20):
                answers = await asyncio.gather(*[_ask(here, key) for _ in range(30)])
            assert {answer.status_code for answer in answers} == {200}
            await until(_waiting(valkey, 30))
            other.execute("ROLLBACK")
        await at_rest(here, valkey)
        assert len(await events_of(here.ledger)) == 31


async def test_a_broken_ledger_keeps_known_callers_served(tmp_path: Path, valkey: ValkeyServer) -> None:
    """D6: the ledger's file is unreadable. Who is known goes on, who is new is told 503 and not 401, and the usage of
    both waits until the file is back.
    """  # noqa: D205
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key, other = await here.account(), await here.key("acme")
        assert (await _ask(here, key)).status_code == 200
        await at_rest(here, valkey)
        ledger = here.gateway._ledger
        await ledger._store.writer.dispose()
        await ledger._store.reader.dispose()
        file, away = tmp_path / "data" / "ledger.db", tmp_path / "data" / "away.db"
        await here.ledger.close()
        file.rename(away)
        file.mkdir()
        # Of what was connected anew meanwhile, nothing may know the file that was moved.
        await ledger._store.writer.dispose()
        await ledger._store.reader.dispose()
        assert (await _ask(here, key)).status_code == 200
        refused = await _ask(here, other)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
        await until(_waiting(valkey, 1))
        file.rmdir()
        away.rename(file)
        await at_rest(here, valkey)
        assert len(await events_of(here.ledger)) == 2
        assert (await _ask(here, other)).status_code == 200


async def test_a_cold_account_is_read_once_however_many_ask(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred requests of an account that the limiter doesn't know cost one reading of the ledger per limit: a
    flushed Redis must not turn into a storm on the database.
    """  # noqa: D205
    reads: list[str] = []
    totals = Ledger.totals

    async def counted(self: Ledger, account_id: str, *span: int) -> Any:
        reads.append(account_id)
        return await totals(self, account_id, *span)

    monkeypatch.setattr(Ledger, "totals", counted)
    async with odd_peer(always(REPLY)) as peer, stand(tmp_path, valkey, peer.port, tiers=TIERS) as here:
        key = await here.account()
        # A change that is told while the account is read makes it be read again.
        await apply_outbox(here.ledger, here.gateway._limiter.bump)
        answers = await asyncio.gather(*[_ask(here, key) for _ in range(200)])
        assert {answer.status_code for answer in answers} == {200}
        assert len(reads) == 2
        await at_rest(here, valkey)
