"""kill -9 in the middle of flushes: what was committed is there, once, and the sums agree."""

import asyncio
import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from tests.support.ledgers import url_of

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


async def test_a_killed_writer_leaves_every_commit_and_no_half_batch(ledger_path: Path) -> None:
    """A killed gateway costs nothing: no event that was acknowledged is missing, none is in the sums twice."""
    acknowledged = 0
    for _ in range(4):
        acknowledged = await _write_then_kill(ledger_path, acknowledged)
        with closing(sqlite3.connect(ledger_path)) as connection:
            (stored,) = connection.execute("SELECT count(*) FROM events").fetchone()
            sums = connection.execute("SELECT sum(events), sum(input_tokens) FROM usage_hourly").fetchone()
            days = connection.execute("SELECT sum(events), sum(input_tokens) FROM usage_daily").fetchone()
            (intact,) = connection.execute("PRAGMA integrity_check").fetchone()

        assert stored >= acknowledged
        assert sums == days == (stored, stored * 10)
        assert intact == "ok"


async def _write_then_kill(path: Path, start: int) -> int:
    """Let a process write for a moment, kill it at a random one; how many events it said were stored."""
    turn = max(0, start - 20)
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, url_of(path), str(turn), stdout=asyncio.subprocess.PIPE
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
