"""What can be seen of a running gateway from outside: what its Redis holds, its ledger says and its journals keep.

Promises: reads alone, over connections of its own, which end with each call.
"""

import os
from contextlib import suppress
from pathlib import Path

from redis.asyncio import Redis

from gateway.quota.keys import Keyspace
from tests.support.ledgers import rows_of

SUMMED = ("events", "requests", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")


async def left_over(redis_url: str, partitions: int) -> dict[str, int]:
    """Holds, leases and events on the stream, over all partitions."""
    left = {"holds": 0, "leases": 0, "events": 0}
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        for keys in Keyspace("tw", partitions).everywhere():
            left["holds"] += await redis.hlen(keys.holds.decode())
            left["leases"] += await redis.zcard(keys.leases.decode())
            left["events"] += await redis.xlen(keys.events.decode())
    return left


async def counters(redis_url: str, partitions: int, account: str) -> dict[str, int]:
    """The account's live state, as `lua/README.md` names its fields; empty where there is none."""
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        state = await redis.hgetall(Keyspace("tw", partitions).of(account).account)
        return {str(name): int(value) for name, value in state.items() if name != "x"}


def journal(data_dir: Path) -> dict[Path, int]:
    """Segments that wait on the disk to be replayed, and their bytes. One that is deleted meanwhile was replayed."""
    found: dict[Path, int] = {}
    for directory, _, names in os.walk(data_dir / "journal"):
        for name in names:
            if name.endswith(".segment"):
                with suppress(FileNotFoundError):
                    found[Path(directory, name)] = Path(directory, name).stat().st_size
    return found


def sums(database_url: str, table: str) -> dict[str, list[int]]:
    """[events, requests, input, output, cached, reasoning] by account, as `usage_hourly` or `_daily` rolled up.

    Blocks.
    """
    summed = ", ".join(f"sum({name})" for name in SUMMED)
    found = rows_of(database_url, f"SELECT account_id, {summed} FROM {table} GROUP BY account_id")
    return {row[0]: [int(value) for value in row[1:]] for row in found}


def set_aside(database_url: str) -> int:
    """How many payloads the flusher could not read. Blocks."""
    return int(rows_of(database_url, "SELECT count(*) FROM set_aside")[0][0])
