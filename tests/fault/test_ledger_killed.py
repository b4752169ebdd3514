"""Processes that share a ledger, or are killed in mid-flush: what was committed is there, once, and sums agree."""

import asyncio
import random
import stat
import sys
from pathlib import Path

import pytest

from gateway.ledger.ledger import Ledger
from tests.support.ledgers import rows_of, url_of

WRITER = """
import asyncio, sys
from gateway.ledger.ledger import Ledger
from tests.support.ledgers import an_event

async def main():
    ledger = Ledger.open(sys.argv[1])
    turn = int(sys.argv[2])
    while True:
        await ledger.take_events([an_event(f"r{number}") for number in range(turn, turn + 40)])
        turn += 20
        print(turn + 20, flush=True)

asyncio.run(main())
"""

COUNTED = """SELECT (SELECT count(*) FROM events),
    (SELECT sum(events) FROM usage_hourly), (SELECT sum(input_tokens) FROM usage_hourly),
    (SELECT sum(events) FROM usage_daily), (SELECT sum(input_tokens) FROM usage_daily)"""
"""In one look: PostgreSQL may yet commit what a process said that is dead by now."""

READER = """
import sqlite3, sys

connection = sqlite3.connect(sys.argv[1])
for row in connection.execute("SELECT id FROM accounts ORDER BY id"):
    print(row[0])
connection.close()
"""


@pytest.mark.timeout(240)
async def test_a_killed_writer_leaves_every_commit_and_no_half_batch(ledger_url: str) -> None:
    """A killed gateway costs nothing: no event that was acknowledged is missing, none is in the sums twice."""
    acknowledged = 0
    for _ in range(4):
        acknowledged = await _write_then_kill(ledger_url, acknowledged)
        ((stored, *sums),) = rows_of(ledger_url, COUNTED)

        assert stored >= acknowledged
        assert sums == [stored, stored * 10] * 2
        if ledger_url.startswith("sqlite"):
            assert rows_of(ledger_url, "PRAGMA integrity_check") == [("ok",)]


async def test_new_connections_keep_the_locks_of_those_that_are_open(ledger_path: Path) -> None:
    """A gateway that connects anew stays known to SQLite: else the next command to end deletes its WAL, and with it
    every commit that follows, from under it.
    """  # noqa: D205
    ledger = Ledger.open(url_of(ledger_path))
    await ledger.create_account("first", "free", "", 1)
    await asyncio.gather(*[ledger.account("first") for _ in range(8)])

    assert await _accounts_seen_by_another(ledger_path) == [b"first"]
    await ledger.create_account("second", "free", "", 2)

    assert await _accounts_seen_by_another(ledger_path) == [b"first", b"second"]
    assert stat.S_IMODE(ledger_path.with_name("ledger.db-wal").stat().st_mode) & 0o077 == 0
    await ledger.close()


async def _accounts_seen_by_another(path: Path) -> list[bytes]:
    """What a process of its own finds, which closes the database as it ends."""
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, str(path), stdout=asyncio.subprocess.PIPE
    )
    return (await reader.communicate())[0].split()


async def _write_then_kill(url: str, start: int) -> int:
    """Let a process write for a moment, kill it at a random one; how many events it said were stored."""
    turn = max(0, start - 20)
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, url, str(turn), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    said = start
    for _ in range(random.randint(1, 12)):
        said = int(await writer.stdout.readline())
    await asyncio.sleep(random.random() / 50)
    writer.kill()
    rest = await writer.stdout.read()
    await writer.wait()
    lines = rest.split(b"\n")[:-1]
    return int(lines[-1]) if lines else said
