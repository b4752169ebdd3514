"""`tollway db verify` as an operator types it: drift of every kind is found, told and mended, and none is made up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.__main__ import main
from gateway.quota.keys import Keyspace
from tests.support.ledgers import rows_of
from tests.support.odd_peer import always, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, SETTINGS, Stand, stand
from tests.support.truth_balance import PROMPT, assert_counted, bearer, flushed
from tests.support.until import until
from tests.support.valkey import ValkeyServer

KEY = Keyspace("tw", 8).of("acme").account


@pytest.fixture
async def here(bare_url: str, valkey: ValkeyServer, tmp_path: Path) -> AsyncIterator[Stand]:
    """A gateway at work."""
    database = f'database: {{{{ url: "{bare_url.replace("+aiosqlite", "")}" }}}}\n'
    async with (
        odd_peer(always(http(completion(prompt=9, output=4)))) as peer,
        stand(tmp_path, valkey, peer.port, settings=SETTINGS + database) as standing,
    ):
        yield standing


async def _verify(here: Stand, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    file = here.deployment.data_dir.parent / "gateway.yaml"
    capsys.readouterr()
    status = await asyncio.to_thread(main, ("db", "verify", *words, "--file", str(file)))
    return status, capsys.readouterr().out


async def _ask(here: Stand, key: str, times: int = 1) -> None:
    for _ in range(times):
        assert (await here.client.post(CHAT, json=PROMPT, headers=bearer(key))).status_code == 200


LIVE = {
    "tokens/day": b"HINCRBY %b u:tokens/day 7",
    "requests/hour": b"HINCRBY %b u:requests/hour -2",
    "running": b"HINCRBY %b n 3",
    "version": b"HINCRBY %b v 5",
}
"""What to break an account's state by, and what has to be told of it."""

SUMS = {
    "hour": ("UPDATE usage_hourly SET input_tokens = input_tokens + 5", "usage_hourly"),
    "day": ("UPDATE usage_daily SET requests = requests - 1", "usage_daily"),
    "lost": ("DELETE FROM usage_daily", "usage_daily"),
    "made up": ("INSERT INTO usage_hourly VALUES ('ghost', 3600, '/', 'm', 1, 1, 2, 3, 0, 0)", "ghost"),
}


@pytest.mark.parametrize("kind", LIVE)
async def test_counters_that_drifted_are_found_and_rebuilt(
    here: Stand, valkey: ValkeyServer, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """A6: an account whose live count is not what the ledger has is told by name and limit, and mended while it goes
    on; else it is refused too early, or late, until its window ends. Who did it stands in the audit.
    """  # noqa: D205
    key = await here.account()
    await _ask(here, key, 3)
    await flushed(valkey)

    async def told_of_the_account() -> bool:
        return await here.ledger.pending_bumps() == []

    await until(told_of_the_account)
    assert (await _verify(here, capsys))[0] == 0
    valkey.call(LIVE[kind] % KEY)

    status, told = await _verify(here, capsys)
    assert status == 1
    assert [line.split()[:2] for line in told.splitlines() if "acme" in line] == [["acme", kind]]
    status, told = await _verify(here, capsys, "--repair")
    assert status == 0
    assert "mended: no drift" in told

    await _ask(here, key)
    await flushed(valkey)
    await assert_counted(here, "acme")
    assert (await _verify(here, capsys))[0] == 0
    assert "counters.rebuilt" in {row.action for row in await here.ledger.audit_log("acme")}


@pytest.mark.parametrize("kind", SUMS)
async def test_sums_that_drifted_are_found_and_mended(
    here: Stand, valkey: ValkeyServer, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """A6: hourly and daily sums that are not their events' are told and mended: a customer would be shown, and after a
    loss of Redis be limited by, what nobody used.
    """  # noqa: D205
    await _ask(here, await here.account(), 3)
    await flushed(valkey)
    statement, named = SUMS[kind]
    rows_of(here.deployment.database_url, statement, "SELECT 1")

    status, told = await _verify(here, capsys)
    assert status == 1
    assert named in told
    assert (await _verify(here, capsys, "--repair"))[0] == 0

    assert (await _verify(here, capsys))[0] == 0
    (hours,) = rows_of(here.deployment.database_url, "SELECT sum(events), sum(input_tokens) FROM usage_hourly")
    (days,) = rows_of(here.deployment.database_url, "SELECT sum(events), sum(input_tokens) FROM usage_daily")
    assert hours == days == (3, 27)
    (row,) = await here.ledger.audit_log("ghost" if kind == "made up" else "acme", limit=1)
    assert row.action == "usage.sums_mended"


async def test_no_drift_is_seen_while_requests_run(
    here: Stand, valkey: ValkeyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A false alarm under load would have operators rebuild what is right, or look away when it is wrong."""
    keys = [await here.account(f"a{number}") for number in range(3)]
    going_on = True

    async def ask(key: str) -> None:
        async with httpx.AsyncClient(base_url=here.url, timeout=20, trust_env=False) as client:
            while going_on:
                answer = await client.post(CHAT, json=PROMPT, headers=bearer(key))
                assert answer.status_code in {200, 429}

    callers = [asyncio.create_task(ask(key)) for key in keys * 2]
    try:
        for _ in range(4):
            status, told = await _verify(here, capsys)
            assert status == 0, told
    finally:
        going_on = False
        await asyncio.gather(*callers)
